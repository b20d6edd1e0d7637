//! Stray answers: those for messages that have no place at the consumer they came from. They change nothing.
//!
//! An honest consumer sends some, when it answers late for what was given up or is at work elsewhere by now. But they cost
//! the leader time that the others need. So there is a burst, and beyond it so many a second; the link of a consumer that sends
//! more is closed. They are logged in sum.

use std::time::{Duration, Instant};

use crate::base::id::MessageId;

/// How many a second are put up with.
pub(super) const PER_SECOND: u32 = 100;
/// The burst beside the prefetch: all that a consumer has in hand may be late together.
const BURST: u32 = 1_000;
/// How often they are logged.
const SAY_EVERY: Duration = Duration::from_secs(1);

/// The stray answers of one link.
#[derive(Debug)]
pub(super) struct Strays {
    /// Each answer costs a hundredth of a second; this is how far what came is paid for.
    paid_at: Instant,
    burst: Duration,
    unsaid: usize,
    example: MessageId,
    said: Option<Instant>,
}

impl Strays {
    /// Those of a consumer with this prefetch.
    pub(super) fn new(prefetch: u32, now: Instant) -> Strays {
        let burst = cost(prefetch.saturating_add(BURST));
        Strays { paid_at: now, burst, unsaid: 0, example: MessageId::ZERO, said: None }
    }

    /// There was one, for this message. Says whether it is put up with.
    pub(super) fn note(&mut self, id: MessageId, now: Instant) -> bool {
        self.unsaid += 1;
        self.example = id;
        self.paid_at = self.paid_at.max(now) + cost(1);
        self.paid_at - now <= self.burst
    }

    /// How far they are paid for: the consumer's next link goes on from there.
    pub(super) fn paid_at(&self) -> Instant {
        self.paid_at
    }

    /// The last link of this consumer left a debt.
    pub(super) fn owe(&mut self, paid_at: Option<Instant>) {
        self.paid_at = self.paid_at.max(paid_at.unwrap_or(self.paid_at));
    }

    /// How many there were since that was last asked, and one of their messages, if it is time to say so.
    pub(super) fn due(&mut self, now: Instant) -> Option<(usize, MessageId)> {
        if self.said.is_some_and(|said| now.saturating_duration_since(said) < SAY_EVERY) {
            return None;
        }
        let rest = self.rest()?;
        self.said = Some(now);
        Some(rest)
    }

    /// The same, whatever the time.
    pub(super) fn rest(&mut self) -> Option<(usize, MessageId)> {
        match std::mem::take(&mut self.unsaid) {
            0 => None,
            count => Some((count, self.example)),
        }
    }
}

fn cost(answers: u32) -> Duration {
    Duration::from_secs(1) / PER_SECOND * answers
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_burst_passes_and_then_so_many_a_second() {
        let now = Instant::now();
        let mut strays = Strays::new(10, now);
        assert!((0..1_010).all(|id| strays.note(MessageId(id), now)));
        assert!(!strays.note(MessageId(1), now));
        let mut strays = Strays::new(10, now);
        for n in 0..60 {
            assert!((0..100).all(|id| strays.note(MessageId(id), now + n * SECOND)), "for as long as it likes");
        }
        assert!(Strays::new(u32::MAX, now).note(MessageId(1), now));
    }

    #[test]
    fn they_are_said_in_sum() {
        let now = Instant::now();
        let mut strays = Strays::new(10, now);
        assert_eq!(strays.due(now), None);
        strays.note(MessageId(1), now);
        assert_eq!(strays.due(now), Some((1, MessageId(1))));
        strays.note(MessageId(2), now);
        strays.note(MessageId(3), now);
        assert_eq!((strays.due(now), strays.due(now + SECOND)), (None, Some((2, MessageId(3)))));
        strays.note(MessageId(4), now);
        assert_eq!((strays.rest(), strays.rest()), (Some((1, MessageId(4))), None));
    }
}
