//! The places at one consumer: which messages it holds, as far as the leader knows. Pure; owned by the courier.
//!
//! An answer counts only if the message has a place at that consumer. A message has one if it was delivered over this
//! link, or if the consumer listed it in HELD when the link was made. Each place accepts one answer.
//!
//! A place takes room until the consumer answers. It stays taken after the consumer stops reporting the message, as
//! long as other consumers can work, so that a consumer that loses messages loses at most its prefetch; see
//! [`Places::free_overdue`].
//!
//! Guarantee: memory for at most the prefetch, plus the messages listed in HELD.

use std::time::{Duration, Instant};

use crate::base::bundle::BundlePosition;
use crate::base::id::{IdMap, MessageId};
use crate::ledger::{DeliveryNumber, Pending};

/// The most payload bytes at one consumer, if it has more than one message.
pub(super) const LINK_BYTES: usize = 16 << 20;

/// Where a message that a consumer holds counts as being.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// At this consumer.
    Here,
    /// Here, and its result is being recorded for the consumer. No other answer is expected.
    Recording,
    /// At the consumer of another link, which held it before this one reported it.
    Elsewhere,
    /// Given up, because the consumer stopped reporting it.
    Overdue,
    /// Nowhere: the consumer listed it in HELD, but it is no longer pending. Its ACK may be on its way.
    NotPending,
}

/// A message that a consumer holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct TakenPlace {
    pub(super) delivery: DeliveryNumber,
    pub(super) place: Place,
    /// Its position in the bundle that it was stored in, if it was.
    pub(super) position: Option<BundlePosition>,
    bytes: usize,
    /// When it got this place.
    since: Instant,
    /// When the consumer received it or last reported it, or when it was found not to be pending.
    reported: Instant,
}

impl TakenPlace {
    /// Whether only the consumer's report in HELD says that it has the message.
    pub(super) fn is_adopted(&self) -> bool {
        self.delivery == DeliveryNumber::Adopted
    }

    /// How long it has had this place.
    pub(super) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }

    /// Whether the message counts as being at this consumer. If so, it is redelivered when the link breaks.
    fn is_attached(&self) -> bool {
        matches!(self.place, Place::Here | Place::Recording)
    }
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Places {
    prefetch: u32,
    /// Whether the consumer keeps each result until it is confirmed. Then every message that it listed takes room until
    /// it answers, so that held messages and kept results are never more than the prefetch.
    keeps_results: bool,
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
    pub(super) fn new(prefetch: u32, keeps_results: bool) -> Places {
        Places { prefetch, keeps_results, held: IdMap::default(), bytes: 0, taken: 0, overdue: 0, unanswered: 0 }
    }

    pub(super) fn prefetch(&self) -> u32 {
        self.prefetch
    }

    /// The consumer wants to hold this many messages from now on. What it holds stays.
    pub(super) fn set_prefetch(&mut self, prefetch: u32) {
        self.prefetch = prefetch;
    }

    /// How many places are taken.
    pub(super) fn taken(&self) -> usize {
        self.taken
    }

    /// How many messages the consumer holds, as far as is known: those that it no longer reports don't count.
    pub(super) fn in_hand(&self) -> usize {
        self.taken.saturating_sub(self.overdue)
    }

    /// How many places are free.
    pub(super) fn room(&self) -> usize {
        (self.prefetch as usize).saturating_sub(self.taken)
    }

    /// The bytes of the payloads at the consumer.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The place of a message, if it has one here.
    pub(super) fn get(&self, id: MessageId) -> Option<&TakenPlace> {
        self.held.get(&id)
    }

    /// Messages that the consumer stopped reporting: those overdue now, and those since it last answered for one.
    pub(super) fn left(&self) -> usize {
        self.overdue.max(self.unanswered)
    }

    /// Whether all messages here are overdue.
    pub(super) fn is_idle(&self) -> bool {
        self.taken == self.overdue
    }

    /// A message is delivered to the consumer.
    pub(super) fn give(&mut self, message: &Pending, now: Instant) {
        let delivery = DeliveryNumber::Known(message.delivery);
        let (position, bytes) = (message.body.position(), message.body.bytes());
        self.put(message.id, TakenPlace { delivery, place: Place::Here, position, bytes, since: now, reported: now });
    }

    /// The consumer has listed a message in HELD.
    pub(super) fn claim(&mut self, id: MessageId, place: Place, now: Instant) {
        let (delivery, position) = (DeliveryNumber::Adopted, None);
        self.put(id, TakenPlace { delivery, place, position, bytes: 0, since: now, reported: now });
    }

    /// The message is no longer at its previous consumer. If this consumer holds it, it counts as being here from now
    /// on.
    pub(super) fn inherit(&mut self, id: MessageId) -> bool {
        self.move_to(id, Place::Elsewhere, Place::Here, None)
    }

    /// A message that the consumer listed is not pending, so it takes no room, unless the consumer keeps results.
    pub(super) fn vacate(&mut self, id: MessageId, now: Instant) -> bool {
        let adopted = self.held.get(&id).is_some_and(TakenPlace::is_adopted);
        adopted && self.move_to(id, Place::Here, Place::NotPending, Some(now))
    }

    /// The result of a message is being recorded. The place becomes free when that is [done](Places::answer).
    pub(super) fn record(&mut self, id: MessageId) {
        self.move_to(id, Place::Here, Place::Recording, None);
        self.move_to(id, Place::Overdue, Place::Recording, None);
    }

    /// The consumer has answered for a message, which frees its place.
    pub(super) fn answer(&mut self, id: MessageId) -> Option<TakenPlace> {
        let held = self.take(id)?;
        self.unanswered = 0;
        Some(held)
    }

    /// The consumer reports that it works on these.
    pub(super) fn report(&mut self, ids: &[MessageId], now: Instant) {
        for id in ids {
            let counts = |held: &&mut TakenPlace| self.keeps_results || held.place != Place::NotPending;
            if let Some(held) = self.held.get_mut(id).filter(counts) {
                held.reported = now;
            }
        }
    }

    /// The consumer has been sent everything only now, so the time until its next report counts from now.
    pub(super) fn received(&mut self, now: Instant) {
        self.held.values_mut().for_each(|held| held.reported = now);
    }

    /// Finds the messages that the consumer has not reported for `limit`. Those that were here become overdue and are
    /// returned. Those that count as being elsewhere or nowhere lose their place.
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

    /// Frees the places of all overdue messages. Used when no consumer has a free place, so that a stuck group can
    /// continue.
    pub(super) fn free_overdue(&mut self) {
        let overdue: Vec<_> = self.held.extract_if(|_, held| held.place == Place::Overdue).collect();
        overdue.iter().for_each(|(_, held)| self.count(held, false));
    }

    /// Takes out all messages that count as being at this consumer.
    pub(super) fn take_attached(&mut self) -> Vec<(MessageId, DeliveryNumber)> {
        let all = std::mem::replace(self, Places::new(self.prefetch, self.keeps_results)).held.into_iter();
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
        add(&mut self.taken, (self.keeps_results || held.place != Place::NotPending).into());
        add(&mut self.overdue, (held.place == Place::Overdue).into());
    }
}

#[cfg(test)]
mod tests;
