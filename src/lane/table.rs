//! Which messages a leader holds, and where each of them is.
//!
//! Valid for one term: a message that is not in the table is either done or waits in Redis only. Pure; owned by the
//! courier. Messages that wait for a consumer are kept with their payloads, all others only by id, because redeliveries
//! are read from Redis again. Redeliveries wait in a queue of their own, which is served first, so they never starve
//! behind new messages. Small payloads that arrived together share an allocation, which is freed with the last of them;
//! they leave in order of arrival.
//!
//! A message whose consumer is lost at its second delivery or a later one is a *suspect*: it may be what kills
//! consumers. Suspects wait in a line of their own, so that the courier can give each consumer one of them at a time.
//! Then a message that kills its consumer repeatedly takes no others with it to the dead letters.

use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use crate::base::budget::{Budget, Share};
use crate::base::id::{IdMap, MessageId};
use crate::ledger::Pending;

/// The most messages that a leader tracks. Beyond that, messages wait in Redis only. In the worst case most of them
/// wait for redelivery, at 80 bytes each. Below 7/8 of 2^20, where the map would double its memory.
pub(super) const MAX_TRACKED: usize = 900_000;
/// About how many bytes a waiting message takes beside its payload.
const ENTRY_BYTES: usize = 96;

/// Where a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whereabouts {
    /// Waiting here for its first delivery by any leader, so no consumer can hold it.
    New,
    /// Waiting here for a consumer.
    Ready,
    /// At the consumer of this link.
    Sent(usize),
    /// With the redistributor: being settled, delayed or read again.
    Away,
}

/// How a delivery was lost: its consumer has not answered and may still work on it.
#[derive(Clone)]
pub(super) struct Loss {
    pub(super) consumer: Arc<str>,
    pub(super) reason: Arc<str>,
}

/// A message to redeliver, with its share of the memory budget for redeliveries.
pub(super) struct Again {
    message: Pending,
    loss: Option<Loss>,
    _share: Share,
}

/// The two lines that messages wait in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// The suspects.
    Suspects,
    /// All others.
    Common,
}

impl Line {
    /// Both, in the order in which they are served.
    pub(super) const BOTH: [Line; 2] = [Line::Suspects, Line::Common];

    /// The line in which a message waits for delivery number `delivery`.
    pub(super) fn of(loss: Option<&Loss>, delivery: u16) -> Line {
        /// The lost delivery was the second.
        const SUSPECT_FROM: u16 = 3;
        if loss.is_some() && delivery >= SUSPECT_FROM { Line::Suspects } else { Line::Common }
    }
}

impl Whereabouts {
    fn waits(self) -> bool {
        matches!(self, Whereabouts::New | Whereabouts::Ready)
    }
}

impl Again {
    /// `message` is as it was read from Redis. A lost delivery is not counted there yet.
    pub(super) fn new(mut message: Pending, loss: Option<Loss>, budget: &Budget) -> Again {
        if loss.is_some() {
            message.delivery = message.delivery.saturating_add(1);
        }
        let share = budget.take(cost(&message));
        Again { message, loss, _share: share }
    }

    fn line(&self) -> Line {
        Line::of(self.loss.as_ref(), self.message.delivery)
    }
}

/// The next message of a line.
pub(super) struct Next {
    pub(super) message: Pending,
    /// Whether it was delivered before.
    pub(super) again: bool,
    /// How the previous delivery was lost, if it was.
    pub(super) loss: Option<Loss>,
}

/// See the module's text.
pub(super) struct Table {
    /// The last id that an earlier leader assigned. Only this leader can have delivered messages above it.
    inherited: MessageId,
    known: IdMap<Whereabouts>,
    suspects: VecDeque<Again>,
    again: VecDeque<Again>,
    ready: VecDeque<Pending>,
    ready_bytes: usize,
}

impl Table {
    /// An empty table. Earlier leaders assigned ids up to `inherited`.
    pub(super) fn new(inherited: MessageId) -> Table {
        Table {
            inherited,
            known: IdMap::default(),
            suspects: VecDeque::new(),
            again: VecDeque::new(),
            ready: VecDeque::new(),
            ready_bytes: 0,
        }
    }

    /// From now on, messages up to this one count as delivered by others.
    pub(super) fn inherit(&mut self, id: MessageId) {
        self.inherited = self.inherited.max(id);
    }

    /// How many messages are tracked.
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// How many entries wait in a line, including messages that were settled while they waited.
    pub(super) fn line_len(&self, line: Line) -> usize {
        match line {
            Line::Suspects => self.suspects.len(),
            Line::Common => self.again.len() + self.ready.len(),
        }
    }

    /// How many messages wait for a consumer.
    pub(super) fn ready_len(&self) -> usize {
        Line::BOTH.into_iter().map(|line| self.line_len(line)).sum()
    }

    /// The bytes that they take, without redeliveries, which have a budget of their own.
    pub(super) fn ready_bytes(&self) -> usize {
        self.ready_bytes
    }

    /// Where a message is, if it is tracked.
    pub(super) fn whereabouts(&self, id: MessageId) -> Option<Whereabouts> {
        self.known.get(&id).copied()
    }

    /// Adds a message behind the others, unless it is tracked already. Returns whether it was added.
    pub(super) fn admit(&mut self, message: Pending) -> bool {
        let Entry::Vacant(unknown) = self.known.entry(message.id) else { return false };
        unknown.insert(if message.id > self.inherited { Whereabouts::New } else { Whereabouts::Ready });
        self.ready_bytes += cost(&message);
        self.ready.push_back(message);
        true
    }

    /// Adds a message that is with the redistributor, unless it is tracked already. Returns whether it was added.
    pub(super) fn admit_away(&mut self, id: MessageId) -> bool {
        let Entry::Vacant(unknown) = self.known.entry(id) else { return false };
        unknown.insert(Whereabouts::Away);
        true
    }

    /// The first message that waits for its first delivery, if there is one.
    pub(super) fn first_new(&self) -> Option<MessageId> {
        self.ready.iter().map(|message| message.id).find(|id| self.is_new(*id))
    }

    /// Whether a message waits for its first delivery.
    pub(super) fn is_new(&self, id: MessageId) -> bool {
        self.whereabouts(id) == Some(Whereabouts::New)
    }

    /// A message comes back from the redistributor and waits again, before all new ones. If it is no longer away, it
    /// was acknowledged or adopted meanwhile. Returns whether it waits.
    pub(super) fn readmit(&mut self, again: Again) -> bool {
        if self.whereabouts(again.message.id) != Some(Whereabouts::Away) {
            return false;
        }
        self.known.insert(again.message.id, Whereabouts::Ready);
        match again.line() {
            Line::Suspects => self.suspects.push_back(again),
            Line::Common => self.again.push_back(again),
        }
        true
    }

    /// The message that waits first in a line.
    pub(super) fn first_ready(&mut self, line: Line) -> Option<&Pending> {
        // Messages that were acknowledged or adopted while they waited are skipped.
        while let Some(first) = self.front(line) {
            if self.known.get(&first.id).is_some_and(|whereabouts| whereabouts.waits()) {
                break;
            }
            self.pop(line);
        }
        self.front(line)
    }

    /// Takes the first message of a line to send it over `link`, if it `fits`.
    pub(super) fn send_first(&mut self, line: Line, link: usize, fits: impl Fn(&Pending) -> bool) -> Option<Next> {
        while let Some(first) = self.front(line) {
            let fits = fits(first);
            let id = first.id;
            match self.known.get_mut(&id) {
                Some(whereabouts) if whereabouts.waits() && fits => {
                    *whereabouts = Whereabouts::Sent(link);
                    return self.pop(line);
                }
                Some(whereabouts) if whereabouts.waits() => return None,
                _ => drop(self.pop(line)),
            }
        }
        None
    }

    /// This message is at the consumer of a link, which has reported it.
    pub(super) fn adopt(&mut self, id: MessageId, link: usize) {
        self.known.insert(id, Whereabouts::Sent(link));
    }

    /// A message goes to the redistributor.
    pub(super) fn set_away(&mut self, id: MessageId) {
        self.known.insert(id, Whereabouts::Away);
    }

    /// A message is done. Returns whether it was tracked.
    pub(super) fn forget(&mut self, id: MessageId) -> bool {
        self.known.remove(&id).is_some()
    }

    fn front(&self, line: Line) -> Option<&Pending> {
        match line {
            Line::Suspects => self.suspects.front().map(|again| &again.message),
            Line::Common => self.again.front().map(|again| &again.message).or_else(|| self.ready.front()),
        }
    }

    fn pop(&mut self, line: Line) -> Option<Next> {
        let queue = match line {
            Line::Suspects => &mut self.suspects,
            Line::Common => &mut self.again,
        };
        if let Some(Again { message, loss, _share }) = queue.pop_front() {
            return Some(Next { message, again: true, loss });
        }
        if line == Line::Suspects {
            return None;
        }
        let message = self.ready.pop_front()?;
        self.ready_bytes -= cost(&message);
        Some(Next { message, again: false, loss: None })
    }
}

fn cost(message: &Pending) -> usize {
    message.body.bytes() + ENTRY_BYTES
}

#[cfg(test)]
mod tests;
