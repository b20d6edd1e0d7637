//! What a leader's connection knows of its earlier intakes: what succeeded, what is in doubt, what has to be put right.

use super::cursor::Cursor;
use crate::base::id::MessageId;

/// The most attempts at a batch that are remembered; an older one that took effect shows as a cursor that has moved.
const MAX_DOUBTS: usize = 16;

/// See the module's text.
#[derive(Default)]
pub(super) struct Attempts {
    /// The number of the connection on which the last intake succeeded, if it did, and the cursor that it left.
    pub(super) vouched: Option<(u64, Cursor)>,
    /// The number of the connection on which an intake last succeeded.
    pub(super) taken_on: Option<u64>,
    /// Cursors that attempts at the present batch may have written: their outcome is unknown.
    pub(super) doubts: Vec<Cursor>,
    /// The highest last id of cursors that earlier attempts of unknown outcome may have written or may yet write.
    spent: Option<MessageId>,
    /// A transaction of which only a part took place, until that is undone.
    pub(super) astray: Option<Astray>,
}

impl Attempts {
    /// The cursor that the next attempt writes: `next`, with a higher last id if a cursor in doubt has one as high.
    pub(super) fn cursor_after(&self, next: &Cursor) -> Cursor {
        let spent = self.doubts.last().map(|doubt| doubt.last_id).max(self.spent);
        let last_id = spent.filter(|spent| *spent >= next.last_id).map_or(next.last_id, |spent| MessageId(spent.0 + 1));
        Cursor { last_id, ..next.clone() }
    }

    /// Remembers an attempt whose outcome is unknown.
    pub(super) fn doubt(&mut self, next: Cursor) {
        if self.doubts.len() == MAX_DOUBTS {
            // The first may be a transaction of which a part was refused; of the others any is like any other.
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

/// A transaction of which only a part took place.
#[derive(Clone)]
pub(super) struct Astray {
    pub(super) part: DonePart,
    pub(super) reason: String,
}

/// The part that took place.
#[derive(Clone)]
pub(super) enum DonePart {
    /// The cursor moved over messages which could not be added.
    Cursor { from: Cursor, to: Option<Cursor> },
    /// Messages were added, and the cursor could not be moved over them: the ids of the first and the last.
    Members { first: MessageId, last: MessageId },
}
