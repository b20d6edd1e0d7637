//! How fast a lane works, for its reports: events per second since the previous report.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::lane::{LinkFigures, Shared};
use crate::programs::status::report::Rates;

/// Rates are computed over at least this time.
const LEAST_SPAN: Duration = Duration::from_millis(500);

/// See the module's text. Owned by the reporter.
#[derive(Default)]
pub(super) struct RateMeter {
    /// The totals from which the last rates were computed, and when; `None` before the first time.
    last: Option<(Instant, Totals)>,
    rates: Rates,
    acked_by: HashMap<Arc<str>, f64>,
}

#[derive(Default)]
struct Totals {
    published: u64,
    taken_in: u64,
    dispatched: u64,
    acked: u64,
    redelivered: u64,
    acked_by: HashMap<Arc<str>, u64>,
}

impl RateMeter {
    /// Computes the rates anew, if enough time has passed.
    pub(super) fn measure(&mut self, lane: &Shared, linked: &[Arc<LinkFigures>]) {
        let (began, last) = match self.last.take() {
            Some((began, last)) if began.elapsed() < LEAST_SPAN => {
                self.last = Some((began, last));
                return;
            }
            Some((began, last)) => (Some(began), last),
            None => (None, Totals::default()),
        };
        let now = Totals::of(lane, linked);
        // The first time there is nothing to compare with.
        let seconds = began.map(|began| began.elapsed().as_secs_f64());
        // A new link begins at 0.
        let rate = |now: u64, last: u64| seconds.map_or(0.0, |seconds| now.saturating_sub(last) as f64 / seconds);
        self.rates = Rates {
            published: rate(now.published, last.published),
            taken_in: rate(now.taken_in, last.taken_in),
            dispatched: rate(now.dispatched, last.dispatched),
            acked: rate(now.acked, last.acked),
            redelivered: rate(now.redelivered, last.redelivered),
        };
        let by_consumer = now.acked_by.iter().map(|(consumer, acked)| {
            let before = last.acked_by.get(consumer).copied().unwrap_or_default();
            (consumer.clone(), rate(*acked, before))
        });
        self.acked_by = by_consumer.collect();
        self.last = Some((Instant::now(), now));
    }

    /// The lane's rates.
    pub(super) fn rates(&self) -> Rates {
        self.rates
    }

    /// How many messages a consumer acknowledges per second.
    pub(super) fn acked_by(&self, consumer: &str) -> f64 {
        self.acked_by.get(consumer).copied().unwrap_or_default()
    }
}

impl Totals {
    fn of(lane: &Shared, linked: &[Arc<LinkFigures>]) -> Totals {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let stats = &lane.stats;
        let mut acked_by = HashMap::with_capacity(linked.len());
        for link in linked {
            *acked_by.entry(link.consumer.clone()).or_default() += get(&link.acked);
        }
        Totals {
            published: lane.ring.stats().seen,
            taken_in: get(&stats.taken_in),
            dispatched: get(&stats.dispatched),
            acked: get(&stats.acked),
            redelivered: get(&stats.redelivered),
            acked_by,
        }
    }
}
