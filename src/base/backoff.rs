//! Waits between attempts that grow up to a limit, with jitter so that many clients don't retry at the same moment.

use std::time::{Duration, Instant};

/// The waits of one series of attempts.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    failures: u32,
    /// When the problem was last logged, and how often so far.
    logged: Option<(Instant, u32)>,
}

/// A lasting problem is logged again after this time, then after twice as long each time…
const LOG_AGAIN: Duration = Duration::from_secs(5);
/// … up to this.
const LOG_AT_LEAST_EVERY: Duration = Duration::from_secs(3_600);

impl Backoff {
    /// The first wait is `first`; each later one is twice as long, up to `most`.
    pub const fn new(first: Duration, most: Duration) -> Backoff {
        Backoff { first, most, failures: 0, logged: None }
    }

    /// For connections to Redis: short at first, because most failures are restarts.
    pub const fn for_redis() -> Backoff {
        Backoff::new(Duration::from_millis(20), Duration::from_millis(500))
    }

    /// For the listener and the election: a dispatcher that was cut off must be back before others stop waiting for it.
    pub const fn for_leadership() -> Backoff {
        Backoff::new(Duration::from_millis(20), Duration::from_millis(100))
    }

    /// Another attempt failed. Returns how long to wait before the next.
    pub fn next_wait(&mut self) -> Duration {
        let wait = exponential(self.first, self.most, self.failures);
        self.failures = self.failures.saturating_add(1);
        wait
    }

    /// Whether to log this failure: the first, then one at growing intervals, finally one per hour.
    pub fn should_log(&mut self) -> bool {
        let times = self.logged.map_or(0, |(_, times)| times);
        let due = self.logged.is_none_or(|(logged, times)| logged.elapsed() >= log_again_after(times));
        if due {
            self.logged = Some((Instant::now(), times.saturating_add(1)));
        }
        due
    }

    /// An attempt succeeded. Returns whether the problem was logged, so that its end should be logged, too.
    pub fn reset(&mut self) -> bool {
        self.failures = 0;
        self.logged.take().is_some()
    }
}

/// How long a problem that was logged `times` times is not logged again.
fn log_again_after(times: u32) -> Duration {
    LOG_AGAIN.saturating_mul(1 << times.saturating_sub(1).min(20)).min(LOG_AT_LEAST_EVERY)
}

/// `first` doubled `doublings` times, at most `most`, give or take a quarter.
pub fn exponential(first: Duration, most: Duration, doublings: u32) -> Duration {
    let wait = first.saturating_mul(1 << doublings.min(20)).min(most);
    wait.mul_f64(0.75 + 0.5 * fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_bound() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(350));
        for expected in [100.0, 200.0, 350.0, 350.0] {
            let wait = backoff.next_wait().as_secs_f64() * 1000.0;
            assert!((0.74 * expected..1.26 * expected).contains(&wait), "{wait} for {expected}");
        }
        assert!(!backoff.reset());
        assert!(backoff.next_wait() < Duration::from_millis(126));
    }

    #[test]
    fn a_lasting_problem_is_logged_at_growing_intervals_and_then_hourly() {
        let intervals: Vec<u64> = (1..13).map(|times| log_again_after(times).as_secs()).collect();
        assert_eq!(intervals, [5, 10, 20, 40, 80, 160, 320, 640, 1_280, 2_560, 3_600, 3_600]);
        assert_eq!(log_again_after(u32::MAX), LOG_AT_LEAST_EVERY);
    }

    #[test]
    fn a_problem_is_logged_once_and_its_end_too() {
        let mut backoff = Backoff::for_redis();
        assert!(backoff.should_log());
        assert!(!backoff.should_log());
        assert!(backoff.reset());
        assert!(!backoff.reset());
    }
}
