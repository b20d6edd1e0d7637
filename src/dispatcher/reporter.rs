//! The reporter: once a second it says in Redis how this dispatcher is, and looks how the group stands.
//!
//! One thread with a connection of its own, in every dispatcher, so that nothing it does can hold up the lease or a
//! message. What it learns is on the [`Board`], for the metrics and the status page; nothing is decided by it. A report
//! expires by itself, so one that hangs or has lost Redis vanishes from the group's status.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, select, tick};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::health;
use super::{REPLY_LIMIT, Shared};
use crate::backoff::Backoff;
use crate::error::{Error, Result};
use crate::id::wall_clock_us;
use crate::ledger::{Connection, Ledger};
use crate::log::{Quoted, Timestamp};
use crate::status::report::{ConsumerReport, Rates, Report};
use crate::status::{MAX_AGE, Onlooker, Status};

/// How often it reports and looks.
const EVERY: Duration = Duration::from_secs(1);
/// How long a report stands.
const REPORT_TTL: Duration = Duration::from_secs(5);

/// What the reporter last saw.
#[derive(Debug, Default)]
pub struct Board {
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// The last look that succeeded.
    status: Option<Status>,
    /// Why the last look failed, if it did.
    failure: Option<String>,
}

impl Board {
    /// A figure of the last look that succeeded.
    pub(super) fn read<T: Default>(&self, pick: impl FnOnce(&Status) -> T) -> T {
        self.seen.lock().status.as_ref().map(pick).unwrap_or_default()
    }

    /// What the status page shows.
    pub(super) fn json(&self, shared: &Shared) -> String {
        let mut shown = match &*self.seen.lock() {
            Seen { status: Some(status), failure: None } => status.to_json(),
            Seen { failure, .. } => json!({
                "group": shared.config.common.keys.group,
                "time": Timestamp(wall_clock_us()).to_string(),
                "health": "attention",
                "problems": [failure.as_deref().unwrap_or("this dispatcher has just started and not looked yet")],
            }),
        };
        shown["served_by"] = Value::from(shared.id.as_str());
        shown.to_string()
    }
}

/// The handle: stops and joins the thread when dropped.
pub(super) struct Reporter {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Reporter {
    pub(super) fn start(shared: &Arc<Shared>) -> Result<Reporter> {
        let (stop, stopped) = bounded(0);
        let common = &shared.config.common;
        let connection = || Connection::new(common.redis.clone(), REPLY_LIMIT);
        let worker = Worker {
            ledger: Ledger::new(common.redis.clone(), Arc::new(common.keys.clone()), REPLY_LIMIT),
            onlooker: Onlooker::new(connection(), common.keys.clone(), MAX_AGE),
            shared: shared.clone(),
            stopped,
            began: Instant::now(),
            last: Totals::default(),
            backoff: Backoff::for_redis(),
        };
        let thread = thread::Builder::new()
            .name("reporter".to_owned())
            .spawn(move || worker.run())
            .map_err(Error::io("starting the thread reporter"))?;
        Ok(Reporter { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("event=panic thread=reporter");
        }
    }
}

struct Worker {
    ledger: Ledger,
    onlooker: Onlooker,
    shared: Arc<Shared>,
    /// Disconnected: stop.
    stopped: Receiver<()>,
    began: Instant,
    last: Totals,
    backoff: Backoff,
}

/// What rates are computed from.
#[derive(Default)]
struct Totals {
    at: Option<Instant>,
    published: u64,
    taken_in: u64,
    dispatched: u64,
    acked: u64,
    redelivered: u64,
    acked_by: HashMap<Arc<str>, u64>,
}

impl Worker {
    /// The main loop of the thread.
    fn run(mut self) {
        let ticks = tick(EVERY);
        loop {
            self.turn();
            select! {
                // Nothing is ever sent.
                recv(self.stopped) -> _ => break,
                recv(ticks) -> _ => {}
            }
        }
        // It expires by itself otherwise.
        if let Err(error) = self.ledger.end_reports(&self.shared.id) {
            log::debug!("event=report-left error={}", Quoted(error));
        }
    }

    fn turn(&mut self) {
        let report = self.report().to_json().to_string();
        let reported = self.ledger.report(&self.shared.id, &report, REPORT_TTL);
        let looked = reported.and_then(|()| self.onlooker.look());
        let mut seen = self.shared.board.seen.lock();
        match looked {
            Ok(status) => {
                *seen = Seen { status: Some(status), failure: None };
                self.backoff.reset();
            }
            Err(error) => {
                if self.backoff.should_say() {
                    log::warn!("event=not-reported error={}", Quoted(&error));
                }
                seen.failure = Some(error.to_string());
            }
        }
    }

    /// How this dispatcher is.
    fn report(&mut self) -> Report {
        let stats = &self.shared.stats;
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let linked = stats.linked.lock().clone();
        let ring = self.shared.ring.stats();
        let mut now = Totals {
            at: Some(Instant::now()),
            published: ring.seen,
            taken_in: get(&stats.taken_in),
            dispatched: get(&stats.dispatched),
            acked: get(&stats.acked),
            redelivered: get(&stats.redelivered),
            acked_by: HashMap::with_capacity(linked.len()),
        };
        for link in &linked {
            *now.acked_by.entry(link.consumer.clone()).or_default() += get(&link.acked);
        }
        let last = std::mem::replace(&mut self.last, now);
        let seconds = last.at.map(|at| at.elapsed().as_secs_f64()).filter(|seconds| *seconds > 0.0);
        // A link that was made anew begins at 0.
        let rate = |now: u64, last: u64| seconds.map_or(0.0, |seconds| now.saturating_sub(last) as f64 / seconds);
        let now = &self.last;
        let consumer = |link: &Arc<super::stats::LinkFigures>| {
            let before = last.acked_by.get(&link.consumer).copied().unwrap_or_default();
            ConsumerReport {
                id: link.consumer.to_string(),
                in_flight: get(&link.in_flight),
                prefetch: link.prefetch.into(),
                acked_per_s: rate(get(&link.acked), before),
            }
        };
        Report {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            leads: get(&stats.leading) == 1,
            epoch: get(&stats.epoch),
            // A leader is where the others have to come to.
            in_sync: get(&stats.in_sync) == 1 || get(&stats.leading) == 1,
            trouble: health::ready(&self.shared).err(),
            uptime_s: self.began.elapsed().as_secs_f64(),
            ring_bytes: ring.bytes as u64,
            ready: get(&stats.ready),
            behind: get(&stats.behind) == 1,
            rates: Rates {
                published: rate(now.published, last.published),
                taken_in: rate(now.taken_in, last.taken_in),
                dispatched: rate(now.dispatched, last.dispatched),
                acked: rate(now.acked, last.acked),
                redelivered: rate(now.redelivered, last.redelivered),
            },
            consumers: linked.iter().map(consumer).collect(),
        }
    }
}
