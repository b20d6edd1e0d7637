//! The places at one consumer: which messages it holds, as far as the leader knows. Pure; owned by the courier.
//!
//! Only a place answers for a message: a consumer acknowledges, fails or brings results of what it was given over this
//! link, or named in HELD when the link was made, and of nothing else. Each place answers once.
//!
//! A place takes room until the consumer answers or says no more that it works on the message. The places of messages
//! that it has stopped reporting stay taken while others can work, so that a consumer that swallows messages swallows
//! no more than its prefetch; see [`Places::free_overdue`].
//!
//! Guarantee: memory for as many messages as the prefetch, and once as many as HELD named.

use std::time::{Duration, Instant};

use crate::base::id::{IdMap, MessageId};
use crate::ledger::DeliveryNumber;

/// The most payload bytes at one consumer, if it has more than one message.
pub(super) const LINK_BYTES: usize = 16 << 20;

/// Where a message in a consumer's hands counts as being.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// There.
    Here,
    /// There, and its result is being recorded for the consumer: there is nothing more to answer.
    Recording,
    /// At the consumer of another link, which had it before this one reported it.
    Elsewhere,
    /// Given up: the consumer no longer reported it.
    Overdue,
    /// Nowhere: the consumer named it in HELD, and Redis has it no more. Its ACK may be on its way.
    NotPending,
}

/// A message in a consumer's hands.
#[derive(Clone, Copy, Debug)]
pub(super) struct TakenPlace {
    pub(super) delivery: DeliveryNumber,
    pub(super) place: Place,
    bytes: usize,
    /// When the consumer was given it or last reported it; when it was found not to be pending.
    reported: Instant,
}

impl TakenPlace {
    /// Whether only the consumer's report in HELD says that it has the message.
    pub(super) fn is_adopted(&self) -> bool {
        self.delivery == DeliveryNumber::Adopted
    }

    /// Whether the message is at this consumer as far as the leader is concerned: if the link breaks, it comes back.
    fn is_attached(&self) -> bool {
        matches!(self.place, Place::Here | Place::Recording)
    }

    /// How many places of the prefetch it takes.
    fn room(&self) -> usize {
        usize::from(self.place != Place::NotPending)
    }
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Places {
    prefetch: u32,
    held: IdMap<TakenPlace>,
    bytes: usize,
    /// Places of the prefetch that are taken.
    taken: usize,
    /// How many of `held` are overdue.
    overdue: usize,
    /// Messages that went overdue since the consumer last answered for one.
    unanswered: usize,
}

impl Places {
    pub(super) fn new(prefetch: u32) -> Places {
        Places { prefetch, held: IdMap::default(), bytes: 0, taken: 0, overdue: 0, unanswered: 0 }
    }

    pub(super) fn prefetch(&self) -> u32 {
        self.prefetch
    }

    /// How many are taken.
    pub(super) fn taken(&self) -> usize {
        self.taken
    }

    /// How many are free.
    pub(super) fn room(&self) -> usize {
        (self.prefetch as usize).saturating_sub(self.taken)
    }

    /// The bytes of the payloads that the consumer was given.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The place of a message, if it has one here.
    pub(super) fn get(&self, id: MessageId) -> Option<&TakenPlace> {
        self.held.get(&id)
    }

    /// Messages that the consumer has left without a word: those of now, and those since it last answered for one.
    pub(super) fn left(&self) -> usize {
        self.overdue.max(self.unanswered)
    }

    /// Whether everything that is here is overdue.
    pub(super) fn is_idle(&self) -> bool {
        self.taken == self.overdue
    }

    /// The consumer is given a message.
    pub(super) fn give(&mut self, id: MessageId, delivery: u16, bytes: usize, now: Instant) {
        let delivery = DeliveryNumber::Known(delivery);
        self.put(id, TakenPlace { delivery, place: Place::Here, bytes, reported: now });
    }

    /// The consumer has named a message in HELD.
    pub(super) fn claim(&mut self, id: MessageId, place: Place, now: Instant) {
        self.put(id, TakenPlace { delivery: DeliveryNumber::Adopted, place, bytes: 0, reported: now });
    }

    /// Where it counted as being it is no longer: from now on it is here, if this consumer holds it.
    pub(super) fn inherit(&mut self, id: MessageId) -> bool {
        self.move_to(id, Place::Elsewhere, Place::Here, None)
    }

    /// A message that the consumer named is not pending: it keeps no room for it.
    pub(super) fn vacate(&mut self, id: MessageId, now: Instant) -> bool {
        let adopted = self.held.get(&id).is_some_and(TakenPlace::is_adopted);
        adopted && self.move_to(id, Place::Here, Place::NotPending, Some(now))
    }

    /// The result of a message is being recorded. The place is free when that is [done](Places::answer).
    pub(super) fn record(&mut self, id: MessageId) {
        self.move_to(id, Place::Here, Place::Recording, None);
        self.move_to(id, Place::Overdue, Place::Recording, None);
    }

    /// The consumer is done with a message, or has failed it: its place is free.
    pub(super) fn answer(&mut self, id: MessageId) -> Option<TakenPlace> {
        let held = self.take(id)?;
        self.unanswered = 0;
        Some(held)
    }

    /// The consumer works on these.
    pub(super) fn report(&mut self, ids: &[MessageId], now: Instant) {
        for id in ids {
            if let Some(held) = self.held.get_mut(id).filter(|held| held.place != Place::NotPending) {
                held.reported = now;
            }
        }
    }

    /// Only now has the consumer got everything that it was given.
    pub(super) fn received(&mut self, now: Instant) {
        self.held.values_mut().for_each(|held| held.reported = now);
    }

    /// Judges what the consumer has not reported for `limit`: gives the messages that were here and are overdue from
    /// now on. What counts as being elsewhere, or nowhere, leaves its place.
    pub(super) fn expire(&mut self, limit: Duration, now: Instant) -> Vec<(MessageId, DeliveryNumber)> {
        let late = self.held.iter().filter(|(_, held)| now.saturating_duration_since(held.reported) >= limit);
        let late: Vec<_> = late.map(|(id, held)| (*id, held.delivery, held.place)).collect();
        let mut overdue = Vec::new();
        for (id, delivery, place) in late {
            match place {
                Place::Here => {
                    self.move_to(id, Place::Here, Place::Overdue, None);
                    self.unanswered += 1;
                    overdue.push((id, delivery));
                }
                Place::Elsewhere | Place::NotPending => {
                    self.take(id);
                }
                Place::Recording | Place::Overdue => {}
            }
        }
        overdue
    }

    /// Frees the places of all overdue messages. For when no other consumer has free ones: a group that is stuck
    /// retries.
    pub(super) fn free_overdue(&mut self) {
        let overdue: Vec<_> = self.held.extract_if(|_, held| held.place == Place::Overdue).collect();
        overdue.iter().for_each(|(_, held)| self.count(held, false));
    }

    /// Everything that the consumer had and that counts as being there.
    pub(super) fn take_attached(&mut self) -> Vec<(MessageId, DeliveryNumber)> {
        let all = std::mem::replace(self, Places::new(self.prefetch)).held.into_iter();
        let mut all: Vec<_> =
            all.filter(|(_, held)| held.is_attached()).map(|(id, held)| (id, held.delivery)).collect();
        all.sort_unstable();
        all
    }

    fn put(&mut self, id: MessageId, held: TakenPlace) {
        self.take(id);
        self.count(&held, true);
        self.held.insert(id, held);
    }

    fn take(&mut self, id: MessageId) -> Option<TakenPlace> {
        let held = self.held.remove(&id)?;
        self.count(&held, false);
        Some(held)
    }

    fn move_to(&mut self, id: MessageId, from: Place, to: Place, reported: Option<Instant>) -> bool {
        let Some(held) = self.take(id) else { return false };
        let moves = held.place == from;
        let moved = TakenPlace { place: to, reported: reported.unwrap_or(held.reported), ..held };
        self.put(id, if moves { moved } else { held });
        moves
    }

    fn count(&mut self, held: &TakenPlace, comes: bool) {
        let add = |sum: &mut usize, part: usize| *sum = if comes { *sum + part } else { *sum - part };
        add(&mut self.bytes, held.bytes);
        add(&mut self.taken, held.room());
        add(&mut self.overdue, (held.place == Place::Overdue).into());
    }
}

#[cfg(test)]
mod tests;
