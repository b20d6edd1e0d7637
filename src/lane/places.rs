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
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(6);
    const FIRST: DeliveryNumber = DeliveryNumber::Known(1);

    fn with(prefetch: u32, given: std::ops::RangeInclusive<u64>) -> (Places, Instant) {
        let (mut places, now) = (Places::new(prefetch), Instant::now());
        given.for_each(|id| places.give(MessageId(id), 1, 10, now));
        (places, now)
    }

    fn place(places: &Places, id: u64) -> Option<Place> {
        places.get(MessageId(id)).map(|held| held.place)
    }

    #[test]
    fn a_place_answers_once() {
        let (mut places, _) = with(2, 1..=2);
        assert_eq!((places.room(), places.bytes()), (0, 20));
        places.record(MessageId(1));
        assert_eq!(place(&places, 1), Some(Place::Recording));
        assert!(places.answer(MessageId(1)).is_some() && places.answer(MessageId(1)).is_none());
        assert!(places.answer(MessageId(7)).is_none(), "it was never given");
        assert_eq!((places.room(), places.bytes()), (1, 10));
    }

    #[test]
    fn what_is_overdue_keeps_its_place_until_nobody_can_work() {
        let (mut places, now) = with(2, 1..=2);
        places.report(&[MessageId(2)], now + LIMIT);
        assert_eq!(places.expire(LIMIT, now + LIMIT), [(MessageId(1), FIRST)]);
        assert_eq!((places.room(), places.left(), places.is_idle()), (0, 1, false));
        assert_eq!(places.expire(LIMIT, now + 2 * LIMIT), [(MessageId(2), FIRST)]);
        assert_eq!((places.room(), places.is_idle()), (0, true));
        assert_eq!(places.take_attached_of_a_copy(), []);
        places.free_overdue();
        assert_eq!((places.room(), places.left()), (2, 2), "it is remembered until the consumer answers");
        places.give(MessageId(3), 1, 10, now);
        places.answer(MessageId(3));
        assert_eq!(places.left(), 0);
    }

    #[test]
    fn what_it_has_beside_another_is_its_own_when_the_other_is_gone() {
        let (mut places, now) = with(2, 9..=9);
        places.claim(MessageId(1), Place::Elsewhere, now);
        assert_eq!(places.take_attached_of_a_copy(), [(MessageId(9), FIRST)]);
        assert!(places.inherit(MessageId(1)) && !places.inherit(MessageId(1)) && !places.inherit(MessageId(2)));
        assert_eq!(places.take_attached(), [(MessageId(1), DeliveryNumber::Adopted), (MessageId(9), FIRST)]);
        assert_eq!((places.room(), places.bytes()), (2, 0));
    }

    #[test]
    fn what_is_not_pending_takes_no_room_and_leaves_in_time() {
        let (mut places, now) = with(2, 1..=1);
        places.claim(MessageId(5), Place::Here, now);
        assert_eq!(places.room(), 0);
        assert!(!places.vacate(MessageId(1), now), "what the consumer was given, it may have recorded meanwhile");
        assert!(places.vacate(MessageId(5), now));
        assert_eq!(places.room(), 1);
        places.report(&[MessageId(1), MessageId(5)], now + LIMIT);
        assert_eq!(places.expire(LIMIT, now + LIMIT), []);
        assert_eq!((place(&places, 1), place(&places, 5)), (Some(Place::Here), None), "its word does not keep it");
    }

    #[test]
    fn what_counts_as_elsewhere_and_is_not_reported_leaves() {
        let (mut places, now) = (Places::new(1), Instant::now());
        places.claim(MessageId(5), Place::Elsewhere, now);
        assert_eq!((places.expire(LIMIT, now + LIMIT), places.room()), (vec![], 1));
    }

    #[test]
    fn a_result_that_waits_to_be_recorded_is_not_overdue() {
        let (mut places, now) = with(1, 1..=1);
        places.record(MessageId(1));
        assert_eq!(places.expire(LIMIT, now + LIMIT), []);
        assert_eq!(places.take_attached(), [(MessageId(1), FIRST)], "it comes back with the others if the link breaks");
    }

    impl Places {
        fn take_attached_of_a_copy(&self) -> Vec<(MessageId, DeliveryNumber)> {
            Places { held: self.held.clone(), ..*self }.take_attached()
        }
    }
}
