//! The interface for a program that monitors the consumer it runs.

use std::time::Duration;

use log::{error, info};

use super::stats::ConsumerStats;

/// Called by the thread that runs the consumer.
pub trait Observer {
    /// How often [`observe`](Observer::observe) is called while the consumer works. At most [`OBSERVE_WITHIN`].
    fn interval(&self) -> Duration {
        OBSERVE_EVERY
    }

    /// Called regularly while the consumer works. Must not block.
    fn observe(&mut self, stats: &ConsumerStats);

    /// The consumer has begun to stop.
    fn stopping(&mut self) {}
}

/// The default of [`Observer::interval`].
pub const OBSERVE_EVERY: Duration = Duration::from_secs(1);
/// The main loop calls the observer again within this time. If it does not, the whole process was paused and every loop
/// is late, so none is reported as hung until the next call.
pub const OBSERVE_WITHIN: Duration = Duration::from_secs(3);

/// The observer of a consumer that is embedded in another program: it only logs a hung committer.
#[derive(Debug, Default)]
pub(super) struct LogOnly {
    hung: bool,
}

impl Observer for LogOnly {
    fn observe(&mut self, stats: &ConsumerStats) {
        let hung = stats.committer_hangs();
        match (std::mem::replace(&mut self.hung, hung), hung) {
            (false, true) => error!("event=hung loop=committer"),
            (true, false) => info!("event=hung-loop-resumed loop=committer"),
            _ => {}
        }
    }
}
