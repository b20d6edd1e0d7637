//! What waits in a leader's table: messages to redeliver, and the two lines. Pure.

use std::sync::Arc;

use crate::base::budget::{Budget, Share};
use crate::ledger::Pending;

/// About how many bytes a waiting message takes beside its payload.
const ENTRY_BYTES: usize = 96;

/// How a delivery was lost: its consumer has not answered and may still work on it.
#[derive(Clone)]
pub(in crate::lane) struct Loss {
    pub(in crate::lane) consumer: Arc<str>,
    pub(in crate::lane) reason: Arc<str>,
}

/// A message to redeliver, with its share of the memory budget for redeliveries.
pub(in crate::lane) struct Again {
    pub(super) message: Pending,
    pub(super) loss: Option<Loss>,
    pub(super) _share: Share,
}

/// The two lines that messages wait in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::lane) enum Line {
    /// The suspects.
    Suspects,
    /// All others.
    Common,
}

impl Line {
    /// Both, in the order in which they are served.
    pub(in crate::lane) const BOTH: [Line; 2] = [Line::Suspects, Line::Common];

    /// The line in which a message waits for delivery number `delivery`.
    pub(in crate::lane) fn of(loss: Option<&Loss>, delivery: u16) -> Line {
        /// The lost delivery was the second.
        const SUSPECT_FROM: u16 = 3;
        if loss.is_some() && delivery >= SUSPECT_FROM { Line::Suspects } else { Line::Common }
    }
}

impl Again {
    /// `message` is as it was read from Redis. A lost delivery is not counted there yet.
    pub(in crate::lane) fn new(mut message: Pending, loss: Option<Loss>, budget: &Budget) -> Again {
        if loss.is_some() {
            message.delivery = message.delivery.saturating_add(1);
        }
        let share = budget.take(cost(&message));
        Again { message, loss, _share: share }
    }

    pub(super) fn line(&self) -> Line {
        Line::of(self.loss.as_ref(), self.message.delivery)
    }
}

/// The next message of a line.
pub(in crate::lane) struct Next {
    pub(in crate::lane) message: Pending,
    /// Whether it was delivered before.
    pub(in crate::lane) again: bool,
    /// How the previous delivery was lost, if it was.
    pub(in crate::lane) loss: Option<Loss>,
}

/// About how much memory a waiting message takes.
pub(in crate::lane) fn cost(message: &Pending) -> usize {
    message.body.bytes() + ENTRY_BYTES
}
