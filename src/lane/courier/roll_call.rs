//! The roll call: a new leader reads the backlog only when the consumers have reported what they hold, or had the time.

use std::time::{Duration, Instant};

/// How long a new leader waits for the consumers' reports.
const ROLL_CALL: Duration = Duration::from_millis(500);

pub(super) struct RollCall {
    /// Which addresses have answered, or failed to, at least once.
    answered: Vec<bool>,
    began: Instant,
    complete: bool,
}

impl RollCall {
    pub(super) fn new(addresses: usize) -> RollCall {
        RollCall { answered: vec![false; addresses], began: Instant::now(), complete: false }
    }

    /// The consumer at this address has reported what it holds, or can't be reached.
    pub(super) fn note_answer(&mut self, index: usize) {
        self.answered[index] = true;
    }

    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    /// Completes the roll call when it is time, and logs that.
    pub(super) fn check(&mut self, linked: usize) {
        if !self.complete && (self.answered.iter().all(|answered| *answered) || self.began.elapsed() >= ROLL_CALL) {
            self.complete = true;
            log::info!("event=roll-called consumers={linked} ms={}", self.began.elapsed().as_millis());
        }
    }
}
