//! The consumers' reports at the start of a term. A new leader reads the backlog once every consumer has reported what
//! it holds or can't be reached, at the latest after [`REPORT_LIMIT`]. With an order by key it waits as long as a link
//! may be silent, because a consumer that reports too late may run a message while the next of its key is delivered.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::lane::roster::Follower;
use crate::lane::settings::Settings;

/// How long a new leader waits for the consumers' reports.
const REPORT_LIMIT: Duration = Duration::from_millis(500);

pub(super) struct ConsumerReports {
    /// The slots of consumers that have neither answered nor failed to.
    awaited: BTreeSet<usize>,
    began: Instant,
    limit: Duration,
    complete: bool,
}

impl ConsumerReports {
    pub(super) fn new(settings: &Settings) -> ConsumerReports {
        let limit = if settings.order_key.is_some() { settings.link_timeout } else { REPORT_LIMIT };
        let limit = limit.max(REPORT_LIMIT);
        ConsumerReports { awaited: BTreeSet::new(), began: Instant::now(), limit, complete: false }
    }

    /// There is a consumer that may report.
    pub(super) fn expect(&mut self, slot: usize) {
        self.awaited.insert(slot);
    }

    /// The consumer in this slot has reported what it holds, or can't be reached.
    pub(super) fn note_answer(&mut self, slot: usize) {
        self.awaited.remove(&slot);
    }

    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    /// Ends the wait when all consumers have reported or the limit has passed, and logs that. Before the roster is
    /// settled, not all consumers are known.
    pub(super) fn check(&mut self, linked: usize, roster: &Follower) {
        if self.complete {
            return;
        }
        if (self.awaited.is_empty() && roster.is_settled()) || self.began.elapsed() >= self.limit {
            self.complete = true;
            log::info!("event=consumers-reported consumers={linked} ms={}", self.began.elapsed().as_millis());
        }
    }
}
