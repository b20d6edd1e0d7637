//! Messages that an operator replayed from the dead letters, on their way from the listener to the courier.
//!
//! Every dispatcher hears of them, and only a leader acts. It must not miss one, because it does not look for messages
//! that it has seen end. What was replayed before it acquired the lease is in its backlog. So an election
//! [starts over](Replays::start_over) just before it takes the lease, and whatever is heard from then on is kept, even
//! before the term's workers run. A leader whose subscription breaks ends its term. Ids above those ever assigned are
//! not believed, because any client may publish on the control channel.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::base::id::MessageId;

/// The most ids that are kept. Beyond that the leader reads all pending messages again.
const MOST_KEPT: usize = 65_536;

/// What was heard since it was last taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Replayed {
    /// These.
    Some(Vec<MessageId>),
    /// More than are kept.
    Many,
}

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Replays {
    heard: Mutex<Vec<MessageId>>,
    /// Read by the courier in each iteration, without the lock.
    any: AtomicBool,
}

impl Replays {
    /// These were replayed.
    pub(super) fn note(&self, ids: Vec<MessageId>) {
        let mut heard = self.heard.lock();
        let room = (MOST_KEPT + 1).saturating_sub(heard.len());
        heard.extend(ids.into_iter().take(room));
        self.any.store(!heard.is_empty(), Ordering::Release);
    }

    /// Forgets everything.
    pub(super) fn start_over(&self) {
        let mut heard = self.heard.lock();
        heard.clear();
        self.any.store(false, Ordering::Release);
    }

    /// Takes what was heard, if anything. `highest`: the highest id that was ever assigned.
    pub(super) fn take(&self, highest: MessageId) -> Option<Replayed> {
        if !self.any.swap(false, Ordering::AcqRel) {
            return None;
        }
        let mut ids = std::mem::take(&mut *self.heard.lock());
        if ids.len() > MOST_KEPT {
            return Some(Replayed::Many);
        }
        ids.retain(|id| *id <= highest);
        (!ids.is_empty()).then_some(Replayed::Some(ids))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(numbers: std::ops::Range<u64>) -> Vec<MessageId> {
        numbers.map(MessageId).collect()
    }

    #[test]
    fn what_was_heard_is_taken_once() {
        let (replays, highest) = (Replays::default(), MessageId(9));
        assert_eq!(replays.take(highest), None);
        replays.note(ids(1..3));
        replays.note(ids(3..4));
        assert_eq!(replays.take(highest), Some(Replayed::Some(ids(1..4))));
        assert_eq!(replays.take(highest), None);
        replays.note(ids(1..3));
        replays.start_over();
        assert_eq!(replays.take(highest), None);
    }

    #[test]
    fn ids_that_were_never_assigned_are_not_believed() {
        let replays = Replays::default();
        replays.note(ids(9..20));
        assert_eq!(replays.take(MessageId(9)), Some(Replayed::Some(ids(9..10))));
        replays.note(ids(10..20));
        assert_eq!(replays.take(MessageId(9)), None);
    }

    #[test]
    fn more_than_are_kept_are_many() {
        let replays = Replays::default();
        for _ in 0..2 {
            replays.note(ids(0..MOST_KEPT as u64));
        }
        assert!(replays.heard.lock().len() <= MOST_KEPT + 1, "bounded");
        assert_eq!(replays.take(MessageId(9)), Some(Replayed::Many));
        assert_eq!(replays.take(MessageId(9)), None);
    }
}
