//! Stray answers: those for messages that have no place at the consumer they came from. They change nothing.
//!
//! A correct consumer sends some, when it answers late for messages that were given up or are at another consumer by
//! now. But they cost the leader time that other consumers need. So there is a rate limit with a burst, and the link of
//! a consumer that exceeds it is closed. They are logged as a count.

use std::time::Instant;

use crate::base::id::MessageId;
use crate::base::log_sum::{LogPace, LogSum, Sum};
use crate::base::rate_limit::RateLimit;

/// Stray answers tolerated per second.
pub(super) const PER_SECOND: u32 = 100;
/// The burst in addition to the prefetch, because answers for everything that a consumer holds may be late together.
const BURST: u32 = 1_000;

/// The stray answers of one link.
#[derive(Debug)]
pub(super) struct Strays {
    limit: RateLimit,
    log: LogSum<MessageId>,
}

impl Strays {
    /// For a consumer with this prefetch. `paid_until` continues the limit of its last link.
    pub(super) fn new(prefetch: u32, paid_until: Option<Instant>, now: Instant) -> Strays {
        let mut limit = RateLimit::new(prefetch.saturating_add(BURST), PER_SECOND, now);
        limit.carry_over(paid_until.unwrap_or(now));
        Strays { limit, log: LogSum::new(LogPace::Lines { at_once: 1, per_s: 1 }, now) }
    }

    /// The consumer has a larger prefetch from now on. Answers for what it held before may still come, so a smaller one
    /// changes nothing.
    pub(super) fn raise(&mut self, prefetch: u32) {
        self.limit.raise_burst(prefetch.saturating_add(BURST));
    }

    /// Notes a stray answer for this message. Returns whether it is tolerated.
    pub(super) fn note(&mut self, id: MessageId, now: Instant) -> bool {
        self.log.add(id, now);
        self.limit.charge(now)
    }

    /// The state of the limit, from which the consumer's next link continues.
    pub(super) fn paid_until(&self) -> Instant {
        self.limit.paid_until()
    }

    /// What to log now.
    pub(super) fn due(&mut self, now: Instant) -> Option<Sum<MessageId>> {
        self.log.due(now)
    }

    /// What has not been logged yet.
    pub(super) fn rest(&mut self) -> Option<Sum<MessageId>> {
        self.log.rest()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_burst_passes_and_then_so_many_a_second() {
        let now = Instant::now();
        let mut strays = Strays::new(10, None, now);
        assert!((0..1_010).all(|id| strays.note(MessageId(id), now)));
        assert!(!strays.note(MessageId(1), now));
        assert!(!Strays::new(10, Some(strays.paid_until()), now).note(MessageId(1), now), "the next link owes it");
        let mut strays = Strays::new(10, None, now);
        for n in 0..60 {
            assert!((0..100).all(|id| strays.note(MessageId(id), now + n * SECOND)), "for as long as it likes");
        }
        assert!(Strays::new(u32::MAX, None, now).note(MessageId(1), now));
    }

    #[test]
    fn they_are_logged_as_a_count() {
        let now = Instant::now();
        let mut strays = Strays::new(10, None, now);
        let line = |count, id| Some(Sum { count, example: MessageId(id) });
        assert_eq!(strays.due(now), None);
        strays.note(MessageId(1), now);
        assert_eq!(strays.due(now), line(1, 1));
        strays.note(MessageId(2), now);
        strays.note(MessageId(3), now);
        assert_eq!((strays.due(now), strays.due(now + SECOND)), (None, line(2, 3)));
        strays.note(MessageId(4), now);
        assert_eq!((strays.rest(), strays.rest()), (line(1, 4), None));
    }
}
