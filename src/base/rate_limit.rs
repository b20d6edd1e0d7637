//! A rate limit with a burst: some events at once, then a number per second. Pure; time is passed in.
//!
//! Each event costs a share of time. The limit remembers up to which time all events so far are paid for. If that time
//! is further ahead than the burst allows, the difference is a debt. Unused time is not saved up beyond the burst.

use std::time::{Duration, Instant};

/// See the module's text.
#[derive(Clone, Debug)]
pub struct RateLimit {
    cost: Duration,
    burst: Duration,
    paid_until: Instant,
}

impl RateLimit {
    /// `at_once` events, then `per_s` a second; `per_s` must not be 0.
    pub fn new(at_once: u32, per_s: u32, now: Instant) -> RateLimit {
        let cost = Duration::from_secs(1) / per_s;
        RateLimit { cost, burst: cost * at_once, paid_until: now }
    }

    /// Counts an event if it is within the limit. Returns whether it is.
    pub fn take(&mut self, now: Instant) -> bool {
        let paid_until = self.paid_until.max(now) + self.cost;
        let within = paid_until.saturating_duration_since(now) <= self.burst;
        if within {
            self.paid_until = paid_until;
        }
        within
    }

    /// Counts an event that has happened. Returns whether it is within the limit.
    pub fn charge(&mut self, now: Instant) -> bool {
        self.paid_until = self.paid_until.max(now) + self.cost;
        self.debt(now).is_zero()
    }

    /// How long it takes until events beyond the limit are paid for.
    pub fn debt(&self, now: Instant) -> Duration {
        self.paid_until.saturating_duration_since(now).saturating_sub(self.burst)
    }

    /// Up to which time all events so far are paid for, for a limit that continues this one.
    pub fn paid_until(&self) -> Instant {
        self.paid_until
    }

    /// Allows at least this many events at once.
    pub fn raise_burst(&mut self, at_once: u32) {
        self.burst = self.burst.max(self.cost * at_once);
    }

    /// Continues an earlier limit, whose events are paid for up to `paid_until`.
    pub fn carry_over(&mut self, paid_until: Instant) {
        self.paid_until = self.paid_until.max(paid_until);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_burst_passes_and_then_so_many_a_second() {
        let now = Instant::now();
        let mut limit = RateLimit::new(3, 2, now);
        assert_eq!([0; 4].map(|_| limit.take(now)), [true, true, true, false]);
        assert_eq!([0; 3].map(|_| limit.take(now + SECOND)), [true, true, false]);
        assert_eq!([0; 4].map(|_| limit.take(now + 60 * SECOND)), [true, true, true, false], "no more is saved up");
    }

    #[test]
    fn events_beyond_the_limit_are_a_debt() {
        let now = Instant::now();
        let mut limit = RateLimit::new(64, 200, now);
        assert!((0..64).all(|_| limit.charge(now)));
        assert_eq!(limit.debt(now), Duration::ZERO);
        assert!(!(0..20).any(|_| limit.charge(now)));
        assert_eq!(limit.debt(now), SECOND / 10);
        assert!(!limit.take(now) && limit.debt(now) == SECOND / 10, "what is refused costs nothing");
        assert_eq!(limit.debt(now + SECOND / 20), SECOND / 20);
        let mut following = RateLimit::new(64, 200, now);
        following.carry_over(limit.paid_until());
        assert_eq!(following.debt(now), SECOND / 10);
        following.raise_burst(20);
        assert_eq!(following.debt(now), SECOND / 10, "a burst is never lowered");
        following.raise_burst(74);
        assert_eq!(following.debt(now), SECOND / 20);
    }

    #[test]
    fn any_burst_is_possible() {
        let now = Instant::now();
        assert!(RateLimit::new(u32::MAX, 1, now).charge(now));
    }
}
