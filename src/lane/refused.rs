//! What Redis refuses, and what nothing else waits for: it is kept, and tried again from time to time.
//!
//! Owned by the redistributor. Bounded: there is one entry for each message in the courier's hands, and of the messages
//! that Redis refuses as dead letters the reasons take at most [`MOST_REASON_BYTES`]; beyond it a message keeps none.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::base::backoff::Backoff;
use crate::base::error::Error;
use crate::base::text::Quoted;
use crate::ledger::Returned;

/// How often what Redis refused is tried again.
const TRY_EVERY: Duration = Duration::from_secs(1);
/// What the reasons of messages that Redis refuses as dead letters take in all.
const MOST_REASON_BYTES: usize = 16 << 20;

/// See the module's text.
pub(super) struct Refused<T> {
    waiting: Vec<T>,
    /// What the reasons of those that wait take.
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
    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// What is to be tried now.
    pub(super) fn due(&mut self) -> Vec<T> {
        if self.tried.elapsed() < TRY_EVERY { Vec::new() } else { self.take() }
    }

    /// All that waits.
    pub(super) fn take(&mut self) -> Vec<T> {
        self.reason_bytes = 0;
        std::mem::take(&mut self.waiting)
    }

    /// Something was tried. Says why it was refused, at first and then from time to time, and that it is over.
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
    /// Keeps a message whose letter was refused.
    pub(super) fn keep(&mut self, mut letter: Returned) {
        let bytes = self.reason_bytes + letter.reason.len();
        if bytes > MOST_REASON_BYTES {
            letter.reason = Arc::default();
        } else {
            self.reason_bytes = bytes;
        }
        self.waiting.push(letter);
    }

    /// The first of those that were due are refused again, so the others were not tried. They come first next time:
    /// what one letter is refused for may be no matter of theirs.
    pub(super) fn put_back(&mut self, untried: impl IntoIterator<Item = Returned>) {
        let refused = self.take();
        untried.into_iter().chain(refused).for_each(|letter| self.keep(letter));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::MessageId;
    use crate::ledger::{Hold, Verdict};

    fn letter(id: u64, reason_bytes: usize) -> Returned {
        let reason = "r".repeat(reason_bytes).into();
        let verdict = Verdict::Rejected;
        Returned { id: MessageId(id), verdict, delivery: 1, hold: Hold::Released, consumer: "c0".into(), reason }
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
    fn what_was_not_tried_comes_first_next_time() {
        let mut refused = Refused::<Returned>::default();
        (1..=2).for_each(|id| refused.keep(letter(id, 1)));
        refused.put_back((3..=4).map(|id| letter(id, 1)));
        assert_eq!(refused.take().iter().map(|letter| letter.id.0).collect::<Vec<_>>(), [3, 4, 1, 2]);
    }
}
