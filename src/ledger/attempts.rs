//! What a leader's connection knows of its earlier intakes: which succeeded, which are in doubt, and what must be
//! undone.

use super::cursor::Cursor;
use super::replicas::Confirmed;
use crate::base::id::MessageId;

/// The most attempts at a batch that are remembered. If an older one took effect, the cursor has moved.
const MAX_DOUBTS: usize = 16;

/// See the module's text.
#[derive(Default)]
pub(super) struct Attempts {
    /// The number of the connection on which the last intake succeeded, if it did, and the cursor that it left.
    pub(super) vouched: Option<(u64, Cursor)>,
    /// The number of the connection on which an intake last succeeded.
    pub(super) taken_on: Option<u64>,
    /// How many replicas have confirmed the last attempt, if some must.
    pub(super) confirmed: Option<Confirmed>,
    /// The number of the connection on which `WAIT` was answered, if it was.
    pub(super) waits_on: Option<u64>,
    /// Cursors that attempts at the present batch with an unknown outcome may have written.
    pub(super) doubts: Vec<Cursor>,
    /// The highest last id in a cursor that an earlier attempt with an unknown outcome may have written or may still
    /// write.
    spent: Option<MessageId>,
    /// A transaction that took effect only in part, until that part is undone.
    pub(super) partly_done: Option<PartlyDone>,
}

impl Attempts {
    /// The cursor that the next attempt writes: `next`, but with a last id above that of every cursor in doubt.
    pub(super) fn cursor_after(&self, next: &Cursor) -> Cursor {
        let spent = self.doubts.last().map(|doubt| doubt.last_id).max(self.spent);
        let last_id = spent.filter(|spent| *spent >= next.last_id).map_or(next.last_id, |spent| MessageId(spent.0 + 1));
        Cursor { last_id, ..next.clone() }
    }

    /// Remembers an attempt whose outcome is unknown.
    pub(super) fn doubt(&mut self, next: Cursor) {
        if self.doubts.len() == MAX_DOUBTS {
            // The first may be a transaction that was refused in part, so it is kept. Any other may be forgotten.
            self.doubts.remove(1);
        }
        self.doubts.push(next);
    }

    /// Takes the cursors that attempts at the present batch may have written. None of them is written again.
    pub(super) fn take_doubts(&mut self) -> Vec<Cursor> {
        let doubts = std::mem::take(&mut self.doubts);
        self.spent = doubts.last().map(|doubt| doubt.last_id).max(self.spent);
        doubts
    }
}

/// A transaction that took effect only in part.
#[derive(Clone)]
pub(super) struct PartlyDone {
    pub(super) part: DonePart,
    pub(super) reason: String,
}

/// The part that took effect.
#[derive(Clone)]
pub(super) enum DonePart {
    /// The cursor moved over messages that could not be added.
    Cursor { from: Cursor, to: Option<Cursor> },
    /// Messages were added, and the cursor could not be moved over them: the ids of the first and the last.
    Members { first: MessageId, last: MessageId },
}
