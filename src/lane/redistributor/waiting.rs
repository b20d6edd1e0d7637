//! The messages of one line that wait for their next delivery, and the memory for what is read again. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

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

/// How many messages wait in these lines, and how long the first of them still does.
pub(super) fn delays(lines: [&Waiting; 2], now: Instant) -> (usize, Duration) {
    let first = lines.iter().filter_map(|line| line.delayed.first_key_value()).map(|((due, _), _)| *due).min();
    let left = first.map_or(Duration::ZERO, |due| due.saturating_duration_since(now));
    (lines.iter().map(|line| line.delayed.len()).sum(), left)
}
