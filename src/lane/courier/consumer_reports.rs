//! The consumers' reports at the start of a term. A new leader reads the backlog once every consumer has reported what
//! it holds or can't be reached, at the latest after [`REPORT_LIMIT`].

use std::time::{Duration, Instant};

/// How long a new leader waits for the consumers' reports.
const REPORT_LIMIT: Duration = Duration::from_millis(500);

pub(super) struct ConsumerReports {
    /// Which addresses have answered, or failed to, at least once.
    answered: Vec<bool>,
    began: Instant,
    complete: bool,
}

impl ConsumerReports {
    pub(super) fn new(addresses: usize) -> ConsumerReports {
        ConsumerReports { answered: vec![false; addresses], began: Instant::now(), complete: false }
    }

    /// The consumer at this address has reported what it holds, or can't be reached.
    pub(super) fn note_answer(&mut self, index: usize) {
        self.answered[index] = true;
    }

    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    /// Ends the wait when all consumers have reported or the limit has passed, and logs that.
    pub(super) fn check(&mut self, linked: usize) {
        if !self.complete && (self.answered.iter().all(|answered| *answered) || self.began.elapsed() >= REPORT_LIMIT) {
            self.complete = true;
            log::info!("event=consumers-reported consumers={linked} ms={}", self.began.elapsed().as_millis());
        }
    }
}
