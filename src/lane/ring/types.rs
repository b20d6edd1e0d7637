//! What the reader of a ring receives.

use crate::ledger::subscription::Published;
use crate::ledger::{Marker, Position};

/// A place in this ring: between two messages of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RingPlace {
    /// The number of the segment.
    pub(super) segment: u64,
    /// The sequence number of the next message.
    pub(super) next: u64,
}

/// What the reader finds at its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Nothing new within the time given.
    Nothing,
    /// Messages, perhaps none, and the position after them, which is new.
    Batch {
        /// The messages, in order.
        messages: Vec<Published>,
        /// The place after them.
        place: RingPlace,
        /// The same as others call it.
        position: Position,
    },
    /// So many messages were dropped, at the limit of bytes or of segments, before they were read.
    Overrun {
        /// How many.
        lost: u64,
        /// Where it continues.
        place: RingPlace,
        /// The same as others call it; `None` if it has no name any more.
        position: Option<Position>,
    },
    /// The segment ended here and another follows.
    Break {
        /// Where it continues.
        place: RingPlace,
        /// The marker there.
        marker: Marker,
    },
    /// The segment ended here and none follows yet.
    Ended,
}

/// The most one read takes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// In messages.
    pub messages: usize,
    /// In bytes: payloads, and 64 for each message. One message is taken whatever its size.
    pub bytes: usize,
}

/// Figures for logs and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingStats {
    /// Bytes in use.
    pub bytes: usize,
    /// Messages held.
    pub messages: usize,
    /// Messages seen since the start.
    pub seen: u64,
    /// Messages dropped, at the limit of bytes or of segments, that the cursor had not passed.
    pub overrun: u64,
    /// Whether the subscription exists and has a marker.
    pub live: bool,
}

impl RingPlace {
    /// The number of the segment it lies in.
    pub fn segment(self) -> u64 {
        self.segment
    }

    /// The sequence number of the next message.
    pub fn sequence(self) -> u64 {
        self.next
    }

    /// The place so many messages further on in its segment.
    pub fn after(self, messages: usize) -> RingPlace {
        RingPlace { next: self.next + messages as u64, ..self }
    }
}
