use super::*;
use crate::lane::tests::message;

const LIMIT: Duration = Duration::from_secs(6);
const FIRST: DeliveryNumber = DeliveryNumber::Known(1);

fn with(prefetch: u32, given: std::ops::RangeInclusive<u64>) -> (Places, Instant) {
    let (mut places, now) = (Places::new(prefetch, false), Instant::now());
    given.for_each(|id| places.give(&message(id, 10), now));
    (places, now)
}

fn place(places: &Places, id: u64) -> Option<Place> {
    places.get(MessageId(id)).map(|held| held.place)
}

#[test]
fn a_place_accepts_one_answer() {
    let (mut places, _) = with(2, 1..=2);
    assert_eq!((places.room(), places.bytes()), (0, 20));
    places.record(MessageId(1));
    assert_eq!(place(&places, 1), Some(Place::Recording));
    assert!(places.answer(MessageId(1)).is_some() && places.answer(MessageId(1)).is_none());
    assert!(places.answer(MessageId(7)).is_none(), "it was never given");
    assert_eq!((places.room(), places.bytes()), (1, 10));
}

#[test]
fn overdue_messages_keep_their_places_while_others_can_work() {
    let (mut places, now) = with(2, 1..=2);
    places.report(&[MessageId(2)], now + LIMIT);
    assert_eq!(places.expire(LIMIT, now + LIMIT), [(MessageId(1), FIRST)]);
    assert_eq!((places.room(), places.left(), places.is_idle()), (0, 1, false));
    assert_eq!(places.expire(LIMIT, now + 2 * LIMIT), [(MessageId(2), FIRST)]);
    assert_eq!((places.room(), places.is_idle()), (0, true));
    assert_eq!(places.take_attached_of_a_copy(), []);
    places.free_overdue();
    assert_eq!((places.room(), places.left()), (2, 2), "it is remembered until the consumer answers");
    places.give(&message(3, 10), now);
    places.answer(MessageId(3));
    assert_eq!(places.left(), 0);
}

#[test]
fn a_message_held_twice_is_inherited_when_the_other_holder_is_gone() {
    let (mut places, now) = with(2, 9..=9);
    places.claim(MessageId(1), Place::Elsewhere, now);
    assert_eq!(places.take_attached_of_a_copy(), [(MessageId(9), FIRST)]);
    assert!(places.inherit(MessageId(1)) && !places.inherit(MessageId(1)) && !places.inherit(MessageId(2)));
    assert_eq!(places.take_attached(), [(MessageId(1), DeliveryNumber::Adopted), (MessageId(9), FIRST)]);
    assert_eq!((places.room(), places.bytes()), (2, 0));
}

#[test]
fn a_message_that_is_not_pending_takes_no_room_and_expires() {
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
fn an_unreported_message_held_elsewhere_loses_its_place() {
    let (mut places, now) = (Places::new(1, false), Instant::now());
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

/// Its answer is on its way, or it reports that it still works on the message.
#[test]
fn what_a_consumer_lists_takes_room_until_it_answers_if_it_keeps_results() {
    let (mut places, now) = (Places::new(3, true), Instant::now());
    [(1, Place::NotPending), (2, Place::Here), (3, Place::NotPending)]
        .into_iter()
        .for_each(|(id, place)| places.claim(MessageId(id), place, now));
    assert!(places.vacate(MessageId(2), now));
    assert_eq!(places.room(), 0);
    places.answer(MessageId(1));
    assert_eq!(places.room(), 1);
    places.report(&[MessageId(2)], now + LIMIT);
    assert_eq!((places.expire(LIMIT, now + LIMIT), places.room()), (vec![], 2));
    assert_eq!(place(&places, 2), Some(Place::NotPending));
}
