//! How long to wait before the next try: doubling, with jitter, bounded. A pure value.

use std::time::Duration;

/// Waits between tries, from `least` to `most`.
#[derive(Clone, Debug)]
pub struct Backoff {
    least: Duration,
    most: Duration,
    next: Duration,
}

impl Backoff {
    /// Starts at `least` and never waits longer than `most`.
    pub fn new(least: Duration, most: Duration) -> Backoff {
        Backoff { least, most, next: least }
    }

    /// The wait before the next try: half of it for certain, the other half by chance, so that many programs that
    /// lost the same server do not come back in step.
    pub fn wait(&mut self) -> Duration {
        let wait = self.next.mul_f64(0.5 + 0.5 * fastrand::f64());
        self.next = (2 * self.next).min(self.most);
        wait
    }

    /// It worked: the next wait is the least again.
    pub fn reset(&mut self) {
        self.next = self.least;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_most_and_start_again() {
        let (least, most) = (Duration::from_millis(10), Duration::from_millis(65));
        let mut backoff = Backoff::new(least, most);
        for full in [10, 20, 40, 65, 65] {
            let wait = backoff.wait();
            assert!(wait >= Duration::from_millis(full) / 2 && wait <= Duration::from_millis(full), "{wait:?}");
        }
        backoff.reset();
        assert!(backoff.wait() <= least);
    }
}
