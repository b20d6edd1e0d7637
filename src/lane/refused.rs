//! Writes that Redis refused and that nothing else waits for. They are kept and retried at intervals.
//!
//! Owned by the redistributor. Bounded: there is at most one entry for each message that the courier tracks, and the
//! reasons of refused dead letters take at most [`MOST_REASON_BYTES`]. Beyond that, a message keeps no reason.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::base::backoff::Backoff;
use crate::base::error::Error;
use crate::base::text::Quoted;
use crate::ledger::Returned;

/// How often refused writes are retried.
const TRY_EVERY: Duration = Duration::from_secs(1);
/// The most bytes of all reasons of refused dead letters.
const MOST_REASON_BYTES: usize = 16 << 20;

/// See the module's text.
pub(super) struct Refused<T> {
    waiting: Vec<T>,
    /// The bytes of the reasons of waiting entries.
    reason_bytes: usize,
    tried: Instant,
    backoff: Backoff,
}

impl<T> Default for Refused<T> {
    fn default() -> Refused<T> {
        Refused { waiting: Vec::new(), reason_bytes: 0, tried: Instant::now(), backoff: Backoff::for_redis() }
    }
}

impl<T> Refused<T> {
    /// How many entries wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// The entries to retry now.
    pub(super) fn due(&mut self) -> Vec<T> {
        if self.tried.elapsed() < TRY_EVERY { Vec::new() } else { self.take() }
    }

    /// Takes out all entries.
    pub(super) fn take(&mut self) -> Vec<T> {
        self.reason_bytes = 0;
        std::mem::take(&mut self.waiting)
    }

    /// Notes the outcome of an attempt. Logs a refusal at once and then at growing intervals, and logs its end.
    pub(super) fn note(&mut self, refused: Option<&Error>, event: impl FnOnce() -> String) {
        self.tried = Instant::now();
        match refused {
            Some(error) if self.backoff.should_log() => log::warn!("{} error={}", event(), Quoted(error)),
            None if self.waiting.is_empty() && self.backoff.reset() => {
                log::info!("event=redis-recovered worker=redistributor");
            }
            _ => {}
        }
    }
}

impl Refused<Vec<String>> {
    /// Keeps a list; only the newest counts.
    pub(super) fn keep(&mut self, list: Option<Vec<String>>) {
        self.waiting = list.into_iter().collect();
    }
}

impl Refused<Returned> {
    /// Keeps a message whose dead letter was refused.
    pub(super) fn keep(&mut self, mut letter: Returned) {
        let bytes = self.reason_bytes + letter.reason.len();
        if bytes > MOST_REASON_BYTES {
            letter.reason = Arc::default();
        } else {
            self.reason_bytes = bytes;
        }
        self.waiting.push(letter);
    }

    /// Puts back the entries that were not tried because the first ones were refused again. They come first next time,
    /// because the reason for one refusal need not concern them.
    pub(super) fn put_back(&mut self, untried: impl IntoIterator<Item = Returned>) {
        let refused = self.take();
        untried.into_iter().chain(refused).for_each(|letter| self.keep(letter));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::MessageId;
    use crate::ledger::{DeliveryNumber, Hold, Verdict};

    fn letter(id: u64, reason_bytes: usize) -> Returned {
        let reason = "r".repeat(reason_bytes).into();
        let (verdict, delivery) = (Verdict::Rejected, DeliveryNumber::Known(1));
        Returned { id: MessageId(id), verdict, delivery, hold: Hold::Released, consumer: "c0".into(), reason }
    }

    #[test]
    fn reasons_are_kept_up_to_a_number_of_bytes() {
        const REASON_BYTES: usize = MOST_REASON_BYTES / 10;
        let mut refused = Refused::<Returned>::default();
        for _ in 0..2 {
            (0..30).for_each(|id| refused.keep(letter(id, REASON_BYTES)));
            let kept = refused.take();
            assert_eq!(kept.len(), 30);
            assert_eq!(kept.iter().filter(|letter| letter.reason.len() == REASON_BYTES).count(), 10);
            assert_eq!(kept.iter().filter(|letter| letter.reason.is_empty()).count(), 20);
        }
    }

    #[test]
    fn untried_letters_come_first_next_time() {
        let mut refused = Refused::<Returned>::default();
        (1..=2).for_each(|id| refused.keep(letter(id, 1)));
        refused.put_back((3..=4).map(|id| letter(id, 1)));
        assert_eq!(refused.take().iter().map(|letter| letter.id.0).collect::<Vec<_>>(), [3, 4, 1, 2]);
    }
}
