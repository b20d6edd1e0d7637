//! A rate for the log: events per second over the last few seconds, said only while there is traffic.

use std::time::{Duration, Instant};

/// How often a rate is said.
pub const SAY_EVERY: Duration = Duration::from_secs(3);

/// Counts events of one kind.
#[derive(Clone, Debug)]
pub struct Rate {
    since: Instant,
    count: u64,
}

impl Default for Rate {
    fn default() -> Self {
        Rate::new()
    }
}

impl Rate {
    /// Nothing counted yet.
    pub fn new() -> Rate {
        Rate { since: Instant::now(), count: 0 }
    }

    /// Counts; gives the events per second when it is time to say so.
    pub fn count(&mut self, events: u64) -> Option<u64> {
        if self.count == 0 && events > 0 && self.since.elapsed() >= SAY_EVERY {
            // Traffic begins: the silence before does not count.
            self.since = Instant::now();
        }
        self.count += events;
        let elapsed = self.since.elapsed();
        if elapsed < SAY_EVERY || self.count == 0 {
            return None;
        }
        let per_second = (self.count as f64 / elapsed.as_secs_f64()).round() as u64;
        *self = Rate::new();
        Some(per_second)
    }
}
