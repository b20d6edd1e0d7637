//! The messages of one line that wait for their next delivery, and the memory for what is read again. Pure.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::base::budget::Budget;
use crate::base::id::MessageId;
use crate::lane::table::Loss;

/// Messages that wait until they are due, or for room.
pub(super) struct Waiting {
    /// Bounded by the messages that the courier tracks. There may be very many, and few of them have a loss, so it is
    /// boxed.
    pub(super) delayed: BTreeMap<(Instant, MessageId), Option<Box<Loss>>>,
    /// For the payloads of redeliveries.
    pub(super) budget: Budget,
}

impl Waiting {
    pub(super) fn new(bytes: usize) -> Waiting {
        Waiting { delayed: BTreeMap::new(), budget: Budget::new(bytes) }
    }

    /// Whether more may be read. Waits until half of the budget is free, because a full queue would otherwise cost one
    /// call for each message that leaves it.
    pub(super) fn has_room(&self) -> bool {
        2 * self.budget.free_bytes() >= self.budget.limit_bytes()
    }

    /// When the next message is due to be read; `None` without room.
    pub(super) fn next(&self) -> Option<Instant> {
        self.delayed.first_key_value().filter(|_| self.has_room()).map(|((due, _), _)| *due)
    }
}
