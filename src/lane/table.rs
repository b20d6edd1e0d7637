//! Which messages a leader holds, and where each of them is.
//!
//! The truth for one term: a message that is not in the table is either done or waits in Redis alone. Pure; owned by
//! the courier. The messages that wait for a consumer are kept here with their payloads; of all others only the id,
//! since what goes out again is read from Redis again. It waits in a queue of its own, which is served first: however
//! many new messages there are, none of those that were accepted before starves behind them. Small payloads that came
//! together share an allocation; it goes with the last of them, and they leave in the order in which they came.
//!
//! A message whose consumer is lost at its second delivery or a later one is a *suspect*: it may be what kills
//! consumers. Suspects wait in a line of their own, so that the courier can give each consumer one of them at a time: a
//! message that kills its consumer again and again then takes no neighbour with it to the dead letters.

use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use crate::base::budget::{Budget, Share};
use crate::base::id::{IdMap, MessageId};
use crate::ledger::Pending;

/// The most messages that a leader tracks; beyond it they wait in Redis alone. Most of so many have failed and wait for
/// their next delivery, for which they take about 80 bytes each: 70 MiB. Below 7/8 of 2^20, where the map would double
/// its memory.
pub(super) const MAX_TRACKED: usize = 900_000;
/// What a waiting message costs beside its payload, about.
const ENTRY_BYTES: usize = 96;

/// Where a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whereabouts {
    /// Waiting here for its first delivery, by any leader: no consumer can hold it.
    New,
    /// Waiting for a consumer, here.
    Ready,
    /// At the consumer of this link.
    Sent(usize),
    /// With the redistributor: being settled, delayed or read again.
    Away,
}

/// How a delivery was lost that no consumer has called failed: its consumer may still work on it.
#[derive(Clone)]
pub(super) struct Loss {
    pub(super) consumer: Arc<str>,
    pub(super) reason: Arc<str>,
}

/// A message that goes out again, with its share of the memory that there is for such.
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

    /// Where a message waits that goes out again with this number.
    pub(super) fn of(loss: Option<&Loss>, delivery: u16) -> Line {
        /// The one that was lost was the second.
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
    /// `message` as it was read from Redis. A delivery that was lost is not counted there yet.
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
    /// Whether it went out before.
    pub(super) again: bool,
    /// What became of the delivery before, if that was lost.
    pub(super) loss: Option<Loss>,
}

/// See the module's text.
pub(super) struct Table {
    /// The last id that earlier leaders delivered: what is above it only this leader can have delivered.
    inherited: MessageId,
    known: IdMap<Whereabouts>,
    suspects: VecDeque<Again>,
    again: VecDeque<Again>,
    ready: VecDeque<Pending>,
    ready_bytes: usize,
}

impl Table {
    /// Nothing is known; earlier leaders gave out ids up to `inherited`.
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

    /// How many messages are known.
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// How many wait in a line, with those that have been settled while they waited.
    pub(super) fn line_len(&self, line: Line) -> usize {
        match line {
            Line::Suspects => self.suspects.len(),
            Line::Common => self.again.len() + self.ready.len(),
        }
    }

    /// How many wait for a consumer.
    pub(super) fn ready_len(&self) -> usize {
        Line::BOTH.into_iter().map(|line| self.line_len(line)).sum()
    }

    /// The bytes they take, without those that go out again: these have a budget of their own.
    pub(super) fn ready_bytes(&self) -> usize {
        self.ready_bytes
    }

    /// Where a message is, if it is known.
    pub(super) fn whereabouts(&self, id: MessageId) -> Option<Whereabouts> {
        self.known.get(&id).copied()
    }

    /// A message that is not known yet waits from now on, behind the others. Says whether it was new.
    pub(super) fn admit(&mut self, message: Pending) -> bool {
        let Entry::Vacant(unknown) = self.known.entry(message.id) else { return false };
        unknown.insert(if message.id > self.inherited { Whereabouts::New } else { Whereabouts::Ready });
        self.ready_bytes += cost(&message);
        self.ready.push_back(message);
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

    /// A message comes back from the redistributor and waits again, before all new ones. One that is no longer away
    /// has been acknowledged or turned up at a consumer meanwhile. Says whether it waits.
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
        // Those that were acknowledged or adopted while they waited are passed over.
        while let Some(first) = self.front(line) {
            if self.known.get(&first.id).is_some_and(|whereabouts| whereabouts.waits()) {
                break;
            }
            self.pop(line);
        }
        self.front(line)
    }

    /// Takes the message that waits first in a line, to send it over `link`, if that is one that `fits`.
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

    /// This message is at the consumer of a link, which has said so.
    pub(super) fn adopt(&mut self, id: MessageId, link: usize) {
        self.known.insert(id, Whereabouts::Sent(link));
    }

    /// A message goes to the redistributor.
    pub(super) fn set_away(&mut self, id: MessageId) {
        self.known.insert(id, Whereabouts::Away);
    }

    /// A message is done. Says whether it was known.
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
    message.payload.len() + ENTRY_BYTES
}

#[cfg(test)]
mod tests;
