//! When the next messages are due: evenly by a rate, in bursts, or as fast as possible. Pure; time is an argument.

use std::time::{Duration, Instant};

/// The range of the random pause between bursts without a rate.
const PAUSE_MS: std::ops::RangeInclusive<u64> = 100..=500;
/// Messages that are due within this time are sent together, because each message sent alone would cost a round trip.
const TICK: Duration = Duration::from_millis(1);

/// See the module's text.
#[derive(Debug)]
pub(super) struct Pace {
    begin: Instant,
    rate: Option<u64>,
    batch: Option<u64>,
    /// Messages published so far.
    done: u64,
    /// Until when a burst without a rate waits.
    pause_until: Instant,
}

impl Pace {
    pub(super) fn new(rate: Option<u64>, batch: Option<u64>, now: Instant) -> Pace {
        Pace { begin: now, rate, batch, done: 0, pause_until: now }
    }

    /// How many messages are due now. After a stall this includes all that were missed.
    pub(super) fn due(&self, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.begin);
        match (self.rate, self.batch) {
            (None, None) => u64::MAX,
            (Some(rate), None) => {
                let due = elapsed.as_nanos() * u128::from(rate) / 1_000_000_000;
                u64::try_from(due).unwrap_or(u64::MAX).saturating_sub(self.done)
            }
            // A burst begins when its first message is due by the rate.
            (Some(rate), Some(batch)) => {
                let bursts = elapsed.as_nanos() * u128::from(rate) / (1_000_000_000 * u128::from(batch)) + 1;
                u64::try_from(bursts * u128::from(batch)).unwrap_or(u64::MAX).saturating_sub(self.done)
            }
            (None, Some(_)) if now < self.pause_until => 0,
            (None, Some(batch)) => batch - self.done % batch,
        }
    }

    /// Notes that `count` messages were published. `random` picks the length of a pause from the range.
    pub(super) fn published(
        &mut self,
        count: u64,
        now: Instant,
        random: impl FnOnce(std::ops::RangeInclusive<u64>) -> u64,
    ) {
        self.done += count;
        if let (None, Some(batch)) = (self.rate, self.batch)
            && count > 0
            && self.done.is_multiple_of(batch)
        {
            self.pause_until = now + Duration::from_millis(random(PAUSE_MS));
        }
    }

    /// When the next messages are due, if none is due now.
    pub(super) fn next(&self, now: Instant) -> Instant {
        let at = match (self.rate, self.batch) {
            (None, None) => now,
            (None, Some(_)) => self.pause_until,
            (Some(rate), batch) => {
                let number = match batch {
                    None => self.done + 1,
                    Some(batch) => self.done.next_multiple_of(batch),
                };
                let nanos = (u128::from(number) * 1_000_000_000).div_ceil(rate.into());
                self.begin + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
            }
        };
        at.max(now + TICK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_rate_is_spread_evenly_and_caught_up_with() {
        let begin = Instant::now();
        let mut pace = Pace::new(Some(2_000), None, begin);
        assert_eq!(pace.due(begin), 0);
        assert_eq!(pace.next(begin), begin + MS);
        for tick in 1..=100 {
            let now = begin + tick * MS;
            assert_eq!(pace.due(now), 2);
            pace.published(2, now, |_| unreachable!("a rate has no pauses"));
        }
        // After a stall of one second, the missed messages are published in two parts.
        let now = begin + 1_100 * MS;
        assert_eq!(pace.due(now), 2_000);
        pace.published(1_500, now, |_| unreachable!("a rate has no pauses"));
        assert_eq!(pace.due(now), 500);
    }

    #[test]
    fn a_slow_rate_waits_for_its_next_message() {
        let begin = Instant::now();
        let mut pace = Pace::new(Some(3), None, begin);
        assert_eq!(pace.due(begin + 333 * MS), 0);
        assert_eq!(pace.due(pace.next(begin)), 1);
        pace.published(1, begin + 334 * MS, |_| unreachable!("a rate has no pauses"));
        assert_eq!(pace.due(pace.next(begin)), 1);
    }

    #[test]
    fn bursts_are_whole_and_pauses_lie_between_them() {
        let begin = Instant::now();
        let mut pace = Pace::new(None, Some(10_000), begin);
        assert_eq!(pace.due(begin), 10_000);
        pace.published(9_000, begin, |_| unreachable!("the burst isn't over"));
        assert_eq!(pace.due(begin), 1_000);
        pace.published(1_000, begin, |range| {
            assert_eq!(range, 100..=500);
            *range.start()
        });
        assert_eq!((pace.due(begin + 99 * MS), pace.next(begin)), (0, begin + 100 * MS));
        assert_eq!(pace.due(begin + 100 * MS), 10_000);
    }

    #[test]
    fn bursts_with_a_rate_keep_to_it() {
        let begin = Instant::now();
        let mut pace = Pace::new(Some(1_000), Some(500), begin);
        assert_eq!(pace.due(begin), 500);
        pace.published(500, begin, |_| unreachable!("the rate makes the pauses"));
        assert_eq!((pace.due(begin + 499 * MS), pace.next(begin)), (0, begin + 500 * MS));
        assert_eq!(pace.due(begin + 500 * MS), 500);
    }

    #[test]
    fn without_a_rate_nothing_waits() {
        let begin = Instant::now();
        assert_eq!(Pace::new(None, None, begin).due(begin), u64::MAX);
    }

    #[test]
    fn extreme_rates_do_not_overflow() {
        let begin = Instant::now();
        let pace = Pace::new(Some(u64::MAX), Some(u64::MAX), begin);
        assert_eq!(pace.due(begin + Duration::from_secs(1_000)), u64::MAX);
        let _ = pace.next(begin);
    }
}
