//! A rate for the log: events per second over the last few seconds, logged only while there is traffic.

use std::time::{Duration, Instant};

/// How often a rate is logged.
pub const LOG_EVERY: Duration = Duration::from_secs(3);

/// Counts events of `N` kinds; any of them is traffic.
#[derive(Clone, Debug)]
pub struct Rate<const N: usize> {
    since: Instant,
    counts: [u64; N],
}

impl<const N: usize> Default for Rate<N> {
    fn default() -> Self {
        Rate::new()
    }
}

impl<const N: usize> Rate<N> {
    /// Nothing counted yet.
    pub fn new() -> Rate<N> {
        Rate { since: Instant::now(), counts: [0; N] }
    }

    /// Counts events. Returns the events per second of each kind when they are due to be logged.
    pub fn count(&mut self, events: [u64; N]) -> Option<[u64; N]> {
        let is_silent = |counts: &[u64; N]| counts.iter().all(|count| *count == 0);
        if is_silent(&self.counts) && !is_silent(&events) && self.since.elapsed() >= LOG_EVERY {
            // Traffic begins. The idle time before it does not count.
            self.since = Instant::now();
        }
        self.counts.iter_mut().zip(events).for_each(|(count, events)| *count += events);
        let elapsed = self.since.elapsed();
        if elapsed < LOG_EVERY || is_silent(&self.counts) {
            return None;
        }
        let per_second = self.counts.map(|count| (count as f64 / elapsed.as_secs_f64()).round() as u64);
        *self = Rate::new();
        Some(per_second)
    }
}
