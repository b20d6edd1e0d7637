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
//!
//! With an [order by key](key_order) a message that waits for others of its key is in no line until it is its turn.

use std::collections::VecDeque;
use std::collections::hash_map::Entry;

use self::key_order::{Arrived, KeyOrder, Turn};
use self::waiting::cost;
pub(super) use self::waiting::{Again, Line, Loss, Next};
use crate::base::id::{IdMap, MessageId};
use crate::ledger::Pending;

pub(super) mod key_order;
mod waiting;

/// The most messages that a leader tracks. Beyond that, messages wait in Redis only. In the worst case most of them
/// wait for redelivery, at 80 bytes each. Below 7/8 of 2^20, where the map would double its memory.
pub(super) const MAX_TRACKED: usize = 900_000;
/// Where a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whereabouts {
    /// Waiting here for its first delivery by any leader, so no consumer can hold it.
    New,
    /// Waiting here for a consumer.
    Ready,
    /// It came back and waits for others of its key. What is left of it in a line does not count.
    Parked,
    /// At the consumer of this link.
    Sent(usize),
    /// With the redistributor: being settled, delayed or read again.
    Away,
}

impl Whereabouts {
    fn waits(self) -> bool {
        matches!(self, Whereabouts::New | Whereabouts::Ready)
    }
}

/// See the module's text.
pub(super) struct Table {
    /// The last id that an earlier leader assigned. Only this leader can have delivered messages above it.
    inherited: MessageId,
    known: IdMap<Whereabouts>,
    suspects: VecDeque<Again>,
    again: VecDeque<Again>,
    /// Their key's turn has come. They are older than those that are ready, and go first.
    released: VecDeque<Pending>,
    ready: VecDeque<Pending>,
    /// Those of both.
    ready_bytes: usize,
    order: Option<Box<KeyOrder>>,
    /// How messages were lost that came back and are parked, or were.
    losses: IdMap<Loss>,
}

impl Table {
    /// An empty table. Earlier leaders assigned ids up to `inherited`.
    pub(super) fn new(inherited: MessageId) -> Table {
        Table {
            inherited,
            known: IdMap::default(),
            suspects: VecDeque::new(),
            again: VecDeque::new(),
            released: VecDeque::new(),
            ready: VecDeque::new(),
            ready_bytes: 0,
            order: None,
            losses: IdMap::default(),
        }
    }

    /// The same with an order by key.
    pub(super) fn in_order(self, order: Option<KeyOrder>) -> Table {
        Table { order: order.map(Box::new), ..self }
    }

    /// Whether messages are kept in order by key.
    pub(super) fn is_ordered(&self) -> bool {
        self.order.is_some()
    }

    /// Whether a message waits for an earlier one of its key.
    pub(super) fn is_parked(&self, id: MessageId) -> bool {
        self.order.as_ref().is_some_and(|order| order.is_parked(id))
    }

    /// Whether messages were left to Redis because of their key.
    pub(super) fn has_cut_keys(&self) -> bool {
        self.order.as_ref().is_some_and(|order| order.has_cut_keys())
    }

    /// The order by key, if there is one.
    pub(super) fn order(&mut self) -> Option<&mut KeyOrder> {
        self.order.as_deref_mut()
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
            Line::Common => self.again.len() + self.released.len() + self.ready.len(),
        }
    }

    /// How many messages wait for a consumer.
    pub(super) fn ready_len(&self) -> usize {
        Line::BOTH.into_iter().map(|line| self.line_len(line)).sum()
    }

    /// The bytes that they and those parked take, without redeliveries, which have a budget of their own.
    pub(super) fn ready_bytes(&self) -> usize {
        self.ready_bytes + self.order.as_ref().map_or(0, |order| order.parked_bytes())
    }

    /// Where a message is, if it is tracked.
    pub(super) fn whereabouts(&self, id: MessageId) -> Option<Whereabouts> {
        self.known.get(&id).copied()
    }

    /// Adds a message behind the others, unless it is tracked already or is left to Redis for the sake of its key's
    /// order. Returns whether it was added.
    pub(super) fn admit(&mut self, message: Pending) -> bool {
        self.take_in(message, false)
    }

    /// The same for a message of a page that was asked for to read keys again.
    pub(super) fn admit_reread(&mut self, message: Pending) -> bool {
        self.take_in(message, true)
    }

    fn take_in(&mut self, mut message: Pending, reread: bool) -> bool {
        let id = message.id;
        let whereabouts = if id > self.inherited { Whereabouts::New } else { Whereabouts::Ready };
        let Entry::Vacant(unknown) = self.known.entry(id) else {
            self.order.iter_mut().for_each(|order| order.note(&message));
            return false;
        };
        if let Some(order) = &mut self.order {
            match order.arrive(message, reread) {
                Arrived::Ready(ready) => message = ready,
                Arrived::Parked { evicted } => {
                    unknown.insert(whereabouts);
                    if let Some(evicted) = evicted {
                        self.known.remove(&evicted);
                    }
                    return true;
                }
                Arrived::Left => return false,
            }
        }
        unknown.insert(whereabouts);
        self.ready_bytes += cost(&message);
        if reread {
            self.released.push_back(message)
        } else {
            self.ready.push_back(message)
        }
        true
    }

    /// Adds a message that is with the redistributor, unless it is tracked already. Returns whether it was added.
    pub(super) fn admit_away(&mut self, message: &Pending) -> bool {
        // It was delivered before, so it is the first of its key.
        self.order.iter_mut().for_each(|order| order.note(message));
        let Entry::Vacant(unknown) = self.known.entry(message.id) else { return false };
        unknown.insert(Whereabouts::Away);
        true
    }

    /// The first message that waits for its first delivery, if there is one.
    pub(super) fn first_new(&self) -> Option<MessageId> {
        let in_line = self.released.iter().chain(&self.ready).map(|message| message.id);
        let parked = self.order.iter().flat_map(|order| order.parked());
        in_line.chain(parked).find(|id| self.is_new(*id))
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
        if let Some(Turn::Later { instead }) = self.order.as_mut().map(|order| order.come_back(&again.message)) {
            self.known.insert(again.message.id, Whereabouts::Parked);
            if let Some(loss) = again.loss {
                self.losses.insert(again.message.id, loss);
            }
            instead.into_iter().for_each(|next| self.release(next));
            return true;
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
        self.order.iter_mut().for_each(|order| order.take_in_hand(id));
        self.known.insert(id, Whereabouts::Sent(link));
    }

    /// A message goes to the redistributor.
    pub(super) fn set_away(&mut self, id: MessageId) {
        self.known.insert(id, Whereabouts::Away);
    }

    /// A message is done. Returns whether it was tracked.
    pub(super) fn forget(&mut self, id: MessageId) -> bool {
        if let Some(next) = self.order.as_mut().and_then(|order| order.forget(id)) {
            self.release(next);
        }
        self.losses.remove(&id);
        self.known.remove(&id).is_some()
    }

    /// The turn of a message that was parked has come.
    fn release(&mut self, next: Pending) {
        self.ready_bytes += cost(&next);
        if let Some(parked @ Whereabouts::Parked) = self.known.get_mut(&next.id) {
            *parked = Whereabouts::Ready;
        }
        self.released.push_back(next);
    }

    fn front(&self, line: Line) -> Option<&Pending> {
        match line {
            Line::Suspects => self.suspects.front().map(|again| &again.message),
            Line::Common => {
                let again = self.again.front().map(|again| &again.message);
                again.or_else(|| self.released.front()).or_else(|| self.ready.front())
            }
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
        let message = self.released.pop_front().or_else(|| self.ready.pop_front())?;
        self.ready_bytes -= cost(&message);
        let loss = self.losses.remove(&message.id);
        Some(Next { again: loss.is_some(), message, loss })
    }
}

#[cfg(test)]
mod tests;
