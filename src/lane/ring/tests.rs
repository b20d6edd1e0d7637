mod servers;

use std::time::Duration;

use super::*;
use crate::base::id::{Epoch, MessageId};
use crate::ledger::Body;
use crate::ledger::subscription::Published;

/// The interests of other dispatchers.
const OTHERS: u64 = 7;
const LIMITS: Limits = Limits { messages: 100, bytes: 1 << 20 };

fn published(text: &str) -> Seen {
    Seen::Published(Published::Message(Body::of(text.to_owned().into())))
}

fn marker(number: u64) -> Marker {
    Marker::of_leader(Epoch(1), number)
}

fn at(number: u64, offset: u64) -> Cursor {
    Cursor { position: Position { marker: marker(number), offset }, last_id: MessageId(1) }
}

/// `m0 a b m1 c`, live.
fn ring() -> Ring {
    let ring = Ring::new(1 << 20);
    ring.begin_segment();
    ring.append([Seen::Marker(marker(0)), published("a"), published("b"), Seen::Marker(marker(1)), published("c")]);
    ring
}

/// What the ring finds; `None`: no cursor.
fn found(ring: &Ring, cursor: Option<Cursor>) -> Resolution {
    ring.resolve(cursor.as_ref()).expect("the ring has a place")
}

fn place(ring: &Ring, cursor: Cursor) -> RingPlace {
    found(ring, Some(cursor)).place
}

fn standing(ring: &Ring, cursor: Cursor) -> Standing {
    found(ring, Some(cursor)).standing
}

fn now(ring: &Ring, place: RingPlace) -> Taken {
    ring.take(place, None, LIMITS, Instant::now())
}

fn texts(taken: &Taken) -> String {
    let Taken::Batch { messages, .. } = taken else { panic!("{taken:?}") };
    let text = |message: &Published| match message {
        Published::Message(body) => String::from_utf8_lossy(body.payload()).into_owned(),
        Published::Oversize { .. } => "oversize".to_owned(),
    };
    messages.iter().map(text).collect::<Vec<_>>().join(" ")
}

/// Everything that a reader meets from `place` on, in order.
fn read_all(ring: &Ring, mut place: RingPlace) -> Vec<String> {
    let mut met = Vec::new();
    let mut known = None;
    loop {
        match ring.take(place, known.as_ref(), LIMITS, Instant::now()) {
            Taken::Nothing => return met,
            Taken::Ended => {
                met.push("ended".to_owned());
                return met;
            }
            taken @ Taken::Batch { .. } => {
                let text = texts(&taken);
                let Taken::Batch { place: next, position, .. } = taken else { unreachable!() };
                (place, known) = (next, Some(position));
                met.extend(Some(text).filter(|text| !text.is_empty()));
            }
            Taken::Overrun { lost, place: next, .. } => {
                met.push(format!("lost {lost}"));
                place = next;
            }
            Taken::Break { place: next, marker } => {
                met.push(format!("break at {marker}"));
                place = next;
            }
        }
    }
}

#[test]
fn a_cursor_is_found_whichever_marker_names_it() {
    let ring = ring();
    for (cursor, rest) in [(at(0, 0), "a b c"), (at(0, 1), "b c"), (at(0, 2), "c"), (at(1, 0), "c")] {
        let found = found(&ring, Some(cursor));
        assert_eq!((found.standing, found.gap), (Standing::InSync, None));
        assert_eq!(texts(&now(&ring, found.place)), rest);
    }
    assert_eq!(read_all(&ring, place(&ring, at(1, 1))), [""; 0]);
}

#[test]
fn a_position_is_named_by_the_last_marker_before_it() {
    let ring = ring();
    let start = place(&ring, at(0, 0));
    let limits = Limits { messages: 1, ..LIMITS };
    let Taken::Batch { place: second, position, .. } = ring.take(start, None, limits, Instant::now()) else { panic!() };
    assert_eq!(position, at(0, 1).position);
    let Taken::Batch { position, .. } = ring.take(second, None, limits, Instant::now()) else { panic!() };
    assert_eq!(position, at(1, 0).position, "the marker that lies at the very place");
}

#[test]
fn a_newer_name_for_the_same_place_is_something_new() {
    let ring = ring();
    let end = place(&ring, at(1, 1));
    let known = at(1, 1).position;
    assert_eq!(ring.take(end, Some(&known), LIMITS, Instant::now()), Taken::Nothing);
    ring.append([Seen::Marker(marker(2))]);
    let taken = ring.take(end, Some(&known), LIMITS, Instant::now());
    assert_eq!(taken, Taken::Batch { messages: Vec::new(), place: end, position: at(2, 0).position });
}

#[test]
fn a_batch_keeps_its_limits_but_always_holds_one_message() {
    let ring = ring();
    let start = found(&ring, None).place;
    assert_eq!(texts(&ring.take(start, None, Limits { messages: 2, ..LIMITS }, Instant::now())), "a b");
    assert_eq!(texts(&ring.take(start, None, Limits { bytes: 0, ..LIMITS }, Instant::now())), "a");
}

#[test]
fn messages_before_the_first_marker_have_no_name_and_are_left_out() {
    let ring = Ring::new(1 << 20);
    ring.append([published("nobody listens")]);
    assert_eq!(ring.resolve(None), None);
    ring.begin_segment();
    ring.append([published("x")]);
    assert_eq!(ring.resolve(None), None);
    ring.append([Seen::Marker(marker(7)), published("y")]);
    assert_eq!(texts(&now(&ring, found(&ring, None).place)), "y");
}

#[test]
fn a_marker_never_seen_means_that_something_may_be_missing() {
    let ring = ring();
    let found = found(&ring, Some(at(9, 0)));
    assert_eq!((found.standing, found.gap), (Standing::Beyond, Some("not-subscribed")));
    assert_eq!(texts(&now(&ring, found.place)), "a b c");
}

#[test]
fn after_a_break_the_rest_of_the_old_segment_comes_first() {
    let ring = ring();
    ring.end_segment();
    assert_eq!(ring.resolve(Some(&at(0, 1))), None);
    ring.begin_segment();
    ring.append([published("unnamed"), Seen::Marker(marker(5)), published("d")]);
    let behind = found(&ring, Some(at(0, 1)));
    assert_eq!((behind.standing, behind.gap), (Standing::Continues, None));
    assert_eq!(read_all(&ring, behind.place), ["b c", "break at 1.5", "d"]);
    assert_eq!(standing(&ring, at(1, 1)), Standing::Beyond, "nothing of the old segment is left to store");
    // A cursor in the break: all of the old segment has been stored.
    let missed = found(&ring, Some(at(1, 2)));
    assert_eq!((missed.standing, missed.gap), (Standing::Beyond, Some("not-subscribed")));
    assert_eq!(read_all(&ring, missed.place), ["d"]);
    // A marker that only others received is in the break or before the ring: the old segment may have been stored.
    assert_eq!(read_all(&ring, place(&ring, at(4, 0))), ["d"]);
    assert_eq!(standing(&ring, at(5, 1)), Standing::InSync);
}

#[test]
fn a_cursor_older_than_all_that_is_kept_lies_before_its_beginning() {
    let ring = Ring::new(3 * (ENTRY_BYTES + 1));
    ring.begin_segment();
    ring.append([Seen::Marker(marker(3)), published("a"), published("b"), Seen::Marker(marker(4)), published("c")]);
    ring.end_segment();
    ring.begin_segment();
    ring.append([Seen::Marker(marker(7)), published("d")]);
    // Redis came back with a cursor of long ago, and the old segment has lost its first message.
    let found = found(&ring, Some(at(1, 5)));
    assert_eq!((found.standing, found.gap), (Standing::Beyond, Some("not-subscribed")));
    assert_eq!(read_all(&ring, found.place), ["b c", "break at 1.7", "d"]);
    let joined = Marker::of_join(&crate::base::id::DispatcherId::generate("d0"), 1);
    let unordered = Cursor { position: Position { marker: joined, offset: 0 }, last_id: MessageId(1) };
    assert_eq!(read_all(&ring, place(&ring, unordered)), ["d"], "in doubt nothing is stored twice");
}

/// Another dispatcher may have received what came while the subscription was broken for the first time.
#[test]
fn messages_after_a_missed_stretch_are_no_continuation() {
    let ring = ring();
    for (first, text) in [(3, "d"), (5, "e")] {
        ring.end_segment();
        ring.begin_segment();
        ring.append([Seen::Marker(marker(first)), published(text)]);
    }
    for cursor in [at(1, 3), at(2, 0)] {
        let found = found(&ring, Some(cursor));
        assert_eq!((found.standing, found.gap), (Standing::Beyond, Some("not-subscribed")));
        assert_eq!(read_all(&ring, found.place), ["d", "break at 1.5", "e"]);
    }
}

#[test]
fn segments_are_bounded_and_messages_dropped_with_the_oldest_are_counted() {
    let ring = ring();
    let start = place(&ring, at(0, 1));
    for number in 0..2 * MAX_SEGMENTS as u64 {
        ring.end_segment();
        ring.begin_segment();
        ring.append([Seen::Marker(marker(10 + number)), published("x")]);
    }
    assert_eq!(ring.contents.lock().timeline.segments.len(), MAX_SEGMENTS);
    assert_eq!(ring.stats().messages, MAX_SEGMENTS);
    assert_eq!(ring.stats().overrun, 3 + MAX_SEGMENTS as u64);
    assert_eq!(ring.take(start, None, LIMITS, Instant::now()), Taken::Ended);
}

#[test]
fn a_ring_that_lost_what_follows_the_cursor_is_not_in_sync() {
    let ring = Ring::new(2 * (ENTRY_BYTES + 1));
    ring.begin_segment();
    ring.append([Seen::Marker(marker(0)), published("a"), published("b"), published("c")]);
    assert_eq!(standing(&ring, at(0, 0)), Standing::Beyond);
    assert_eq!(standing(&ring, at(0, 1)), Standing::InSync);
}

#[test]
fn a_marker_that_is_known_or_does_not_rise_names_no_place() {
    let leaders = |epoch, number| Marker::of_leader(crate::base::id::Epoch(epoch), number);
    let join = Marker::of_join(&crate::base::id::DispatcherId::generate("d0"), 1);
    let ring = Ring::new(1 << 20);
    ring.begin_segment();
    assert_eq!(ring.append([Seen::Marker(join.clone()), Seen::Marker(leaders(7, 3))]), 0);
    let before = ring.tail();
    for stray in [join, leaders(7, 3), leaders(7, 2), leaders(6, 9)] {
        assert_eq!(ring.append([published("x"), Seen::Marker(stray.clone())]), 1, "{stray}");
        let position = Position { marker: stray, offset: 0 };
        let cursor = Cursor { position, last_id: crate::base::id::MessageId(1) };
        let place = ring.resolve(Some(&cursor)).expect("it is live").place;
        assert!(place.sequence() <= before, "the place it named has not moved");
    }
    assert_eq!(ring.append([Seen::Marker(leaders(8, 0))]), 0);
}

#[test]
fn the_eldest_has_seen_all_others_join() {
    let own = crate::base::id::DispatcherId::generate("d0");
    let ours = |number| Marker::of_join(&own, number);
    let other = Marker::of_join(&crate::base::id::DispatcherId::generate("d1"), 1);
    let others = [other.joined().expect("a join marker").to_owned()];
    let ring = Ring::new(1 << 20);
    assert!(!ring.is_eldest(&[]), "not subscribed");
    ring.begin_segment();
    ring.append([Seen::Marker(ours(1))]);
    assert!(ring.is_eldest(&[]) && !ring.is_eldest(&others));
    ring.append([Seen::Marker(other.clone())]);
    assert!(ring.is_eldest(&others));
    ring.begin_segment();
    let other = Marker::of_join(&crate::base::id::DispatcherId::generate("d1"), 2);
    let others = [other.joined().expect("a join marker").to_owned()];
    ring.append([Seen::Marker(ours(2)), Seen::OtherInterests(other, OTHERS)]);
    assert!(ring.is_eldest(&others), "it has other interests, and is younger all the same");
    ring.end_segment();
    ring.begin_segment();
    ring.append([Seen::Marker(ours(3))]);
    assert!(!ring.is_eldest(&others), "the other's subscription has stood for longer now");
}

#[test]
fn a_reader_at_the_end_of_a_segment_learns_that_it_ended() {
    let ring = ring();
    let start = found(&ring, None).place;
    ring.end_segment();
    assert_eq!(read_all(&ring, start), ["a b c", "ended"]);
}

#[test]
fn a_subscription_without_a_marker_leaves_no_trace() {
    let ring = ring();
    let start = found(&ring, None).place;
    for _ in 0..3 {
        ring.begin_segment();
        ring.append([published("unnamed")]);
        ring.end_segment();
    }
    ring.begin_segment();
    ring.append([Seen::Marker(marker(8))]);
    assert_eq!(read_all(&ring, start), ["a b c", "break at 1.8"]);
}

#[test]
fn at_the_limit_the_oldest_are_dropped_and_counted_exactly() {
    let ring = Ring::new(3 * (ENTRY_BYTES + 1));
    ring.begin_segment();
    ring.append([Seen::Marker(marker(0)), published("a")]);
    let start = found(&ring, None).place;
    ring.append(["b", "c", "d", "e"].map(published));
    assert_eq!(ring.stats().overrun, 2);
    assert!(ring.stats().bytes <= 3 * (ENTRY_BYTES + 1));
    assert_eq!(read_all(&ring, start), ["lost 2", "c d e"]);
    assert_eq!(read_all(&ring, place(&ring, at(0, 1))), ["lost 1", "c d e"]);
    assert_eq!(read_all(&ring, place(&ring, at(0, 2))), ["c d e"]);
}

#[test]
fn messages_that_the_cursor_has_passed_are_no_loss_at_the_limit() {
    let ring = Ring::new(3 * (ENTRY_BYTES + 1));
    ring.begin_segment();
    ring.append([Seen::Marker(marker(0)), published("a"), published("b"), published("c")]);
    ring.note_cursor(place(&ring, at(0, 2)), Instant::now());
    ring.append([published("d"), published("e")]);
    assert_eq!(ring.stats().overrun, 0);
    ring.append([published("f")]);
    assert_eq!(ring.stats().overrun, 1);
}

#[test]
fn entries_stay_until_the_cursor_has_been_past_them_for_long() {
    let ring = ring();
    let began = Instant::now();
    ring.note_cursor(place(&ring, at(0, 1)), began);
    ring.note_cursor(place(&ring, at(1, 1)), began + Duration::from_secs(1));
    assert_eq!(ring.stats().messages, 3);
    ring.note_cursor(place(&ring, at(1, 1)), began + RETAIN);
    assert_eq!(ring.stats().messages, 2, "a message that the cursor passed three seconds ago may be dropped");
    assert_eq!(standing(&ring, at(0, 1)), Standing::InSync);
    ring.note_cursor(place(&ring, at(1, 1)), began + RETAIN + Duration::from_secs(1));
    assert_eq!(ring.stats().messages, 0);
    assert_eq!(standing(&ring, at(1, 1)), Standing::InSync, "the cursor itself is still known");
}

/// Redis came back with an older cursor, and nothing was stored for long. What is then stored again may be lost again.
#[test]
fn the_age_of_a_cursor_before_a_break_drops_nothing() {
    let ring = ring();
    let began = Instant::now();
    ring.note_cursor(place(&ring, at(1, 1)), began);
    ring.end_segment();
    ring.begin_segment();
    ring.append([Seen::Marker(marker(2)), published("d")]);
    let later = began + 2 * RETAIN;
    ring.note_cursor(place(&ring, at(1, 1)), later);
    ring.note_cursor(place(&ring, at(2, 1)), later);
    assert_eq!(ring.stats().messages, 4, "the cursor has only just come there");
    ring.note_cursor(place(&ring, at(2, 1)), later + RETAIN);
    assert_eq!(ring.stats().messages, 0);
}

#[test]
fn messages_after_a_cursor_that_went_back_are_kept() {
    let ring = Ring::new(1 << 20);
    ring.begin_segment();
    ring.append([Seen::Marker(marker(0))]);
    ring.append((0..3_000).map(|n| published(&n.to_string())));
    let began = Instant::now();
    ring.note_cursor(place(&ring, at(0, 3_000)), began);
    // Redis has lost its newest data, and a new leader continues from the older cursor, a batch at a time.
    let later = began + RETAIN + Duration::from_secs(5);
    for offset in [1_000, 2_000, 3_000] {
        let start = place(&ring, at(0, offset - 1_000));
        let taken = ring.take(start, None, Limits { messages: 1_000, ..LIMITS }, Instant::now());
        assert!(texts(&taken).starts_with(&(offset - 1_000).to_string()), "nothing is missing");
        ring.note_cursor(place(&ring, at(0, offset)), later);
    }
    assert_eq!(ring.stats().messages, 3_000);
}

#[test]
fn a_wake_ends_a_wait() {
    let ring = std::sync::Arc::new(ring());
    let end = place(&ring, at(1, 1));
    let (waits, waiting) = crossbeam_channel::bounded(1);
    let reader = std::thread::spawn({
        let ring = ring.clone();
        move || {
            waits.send(()).expect("the test listens");
            ring.take(end, Some(&at(1, 1).position), LIMITS, Instant::now() + Duration::from_secs(3600))
        }
    });
    waiting.recv().expect("the reader is about to wait");
    while !reader.is_finished() {
        ring.wake();
        std::thread::yield_now();
    }
    assert_eq!(reader.join().expect("the reader does not panic"), Taken::Nothing);
}

#[test]
fn without_a_cursor_it_begins_where_the_cursor_was_last_known() {
    let ring = ring();
    let fresh = found(&ring, None);
    assert_eq!(
        (fresh.standing, fresh.gap, texts(&now(&ring, fresh.place))),
        (Standing::Fresh, None, "a b c".to_owned())
    );
    let noted = Instant::now();
    ring.note_cursor(place(&ring, at(0, 1)), noted);
    // A moment later: known all the same.
    ring.note_cursor(place(&ring, at(0, 2)), noted);
    let lost = found(&ring, None);
    assert_eq!((lost.standing, lost.gap), (Standing::InSync, Some("cursor-lost")));
    assert_eq!(texts(&now(&ring, lost.place)), "c");
    // Messages from before a break that were not stored come first, then the break, then the messages after it.
    ring.end_segment();
    ring.begin_segment();
    ring.append([Seen::Marker(marker(5)), published("d")]);
    assert_eq!(found(&ring, None).standing, Standing::Continues);
    assert_eq!(read_all(&ring, found(&ring, None).place), ["c", "break at 1.5", "d"]);
    ring.note_cursor(place(&ring, at(1, 1)), noted);
    assert_eq!(found(&ring, None).standing, Standing::Beyond);
    assert_eq!(read_all(&ring, found(&ring, None).place), ["break at 1.5", "d"]);
}

#[test]
fn a_wait_for_a_marker_ends_when_the_subscription_does() {
    let ring = ring();
    assert_eq!(ring.wait_for_marker(&marker(1), Instant::now()).map(RingPlace::segment), Some(0));
    assert_eq!(ring.wait_for_marker(&marker(2), Instant::now()), None);
    ring.end_segment();
    assert_eq!(ring.wait_for_marker(&marker(1), Instant::now() + Duration::from_secs(3600)), None);
}

#[test]
fn an_append_wakes_the_reader() {
    let ring = std::sync::Arc::new(ring());
    let end = place(&ring, at(1, 1));
    let reader = std::thread::spawn({
        let ring = ring.clone();
        move || ring.take(end, Some(&at(1, 1).position), LIMITS, Instant::now() + Duration::from_secs(60))
    });
    ring.append([published("d")]);
    assert_eq!(texts(&reader.join().expect("the reader does not panic")), "d");
}

/// A ring with one segment.
fn ring_with(seen: &[Seen]) -> Ring {
    let ring = Ring::new(1 << 20);
    ring.begin_segment();
    ring.append(seen.to_vec());
    ring
}

fn join() -> Marker {
    "d0-1.1".parse().expect("a join marker")
}

fn others_marker(number: u64) -> Seen {
    Seen::OtherInterests(marker(number), OTHERS)
}

/// A leader with other interests counts other messages, so only its markers themselves name places here.
#[test]
fn a_cursor_of_other_interests_is_found_at_its_marker_only() {
    let ring = ring_with(&[Seen::Marker(join()), published("a"), others_marker(1), published("b"), published("c")]);
    let found = ring.resolve(Some(&at(1, 0))).expect("it is subscribed");
    assert_eq!((found.place.sequence(), found.standing, found.gap), (1, Standing::InSync, None));
    // Whatever it has stored beyond the marker may be all that is here.
    let found = ring.resolve(Some(&at(1, 1))).expect("it is subscribed");
    assert_eq!((found.place.sequence(), found.standing, found.gap), (3, Standing::Beyond, Some("other-interests")));
    assert_eq!(found.follows.map(RingPlace::sequence), Some(1), "nothing after its marker is missing here");
    // It names places by its own markers: neither an own one nor that of a third dispatcher is a bound.
    let third = Seen::OtherInterests("d9-1.1".parse().expect("a join marker"), OTHERS + 1);
    ring.append([Seen::Marker("d0-2.1".parse().expect("a join marker")), third, published("d")]);
    let found = ring.resolve(Some(&at(1, 7))).expect("it is subscribed");
    assert_eq!((found.place.sequence(), found.gap), (4, Some("other-interests")));
    // What follows its next marker it has not stored.
    ring.append([others_marker(2), published("e")]);
    let found = ring.resolve(Some(&at(1, 7))).expect("it is subscribed");
    assert_eq!((found.place.sequence(), found.gap), (4, Some("other-interests")));
    // Its marker is in an older segment: it may have stored what is in the new one.
    ring.end_segment();
    ring.begin_segment();
    ring.append([Seen::Marker("d0-1.2".parse().expect("a join marker")), published("f")]);
    let found = ring.resolve(Some(&at(2, 1))).expect("it is subscribed");
    assert_eq!((found.place.sequence(), found.gap, found.follows), (6, Some("other-interests"), None));
}

/// Of so many markers the oldest are forgotten.
#[test]
fn a_forgotten_marker_of_other_interests_is_before_those_that_are_kept() {
    let ring = ring_with(&[Seen::Marker(join()), published("a")]);
    for number in 1..=5_000 {
        ring.append([others_marker(number), published("b")]);
        if number == 904 {
            // The last that is forgotten is one whose order is unknown.
            ring.append([Seen::OtherInterests("d1-9.1".parse().expect("a join marker"), OTHERS)]);
        }
    }
    let found = ring.resolve(Some(&at(1, 1))).expect("it is subscribed");
    assert_eq!((found.place.sequence(), found.gap), (5_000 - 4_096 + 1, Some("other-interests")));
    // One from before this subscription can't be distinguished from one that was forgotten.
    let before =
        Cursor { position: Position { marker: Marker::of_leader(Epoch(0), 9), offset: 3 }, last_id: MessageId(1) };
    let found = ring.resolve(Some(&before)).expect("it is subscribed");
    assert_eq!(found.place.sequence(), 5_000 - 4_096 + 1);
}

/// Otherwise the one that joined could not tell how far the cursor has passed its join marker.
#[test]
fn nothing_is_read_beyond_the_join_of_other_interests_before_a_marker() {
    let theirs = Seen::OtherInterests("d1-2.1".parse().expect("a join marker"), OTHERS);
    let ring = ring_with(&[Seen::Marker(join()), published("a"), theirs, published("b"), published("c")]);
    assert!(ring.awaits_marker());
    let first = place(&ring, Cursor { position: Position { marker: join(), offset: 0 }, last_id: MessageId(1) });
    assert_eq!(texts(&now(&ring, first)), "a");
    ring.append([Seen::Marker(marker(1)), published("d")]);
    assert!(!ring.awaits_marker());
    assert_eq!(texts(&now(&ring, first)), "a b c d");
    // A cursor between the join and the marker would be named by a marker from before the join.
    let most = |messages, place| ring.take(place, None, Limits { messages, ..LIMITS }, Instant::now());
    assert_eq!(texts(&most(2, first)), "a");
    let join = first.after(1);
    assert_eq!(texts(&most(1, join)), "b c");
    assert_eq!(texts(&most(3, first)), "a b c");
}

#[test]
fn a_long_stretch_after_the_join_of_other_interests_is_divided() {
    let theirs = Seen::OtherInterests("d1-2.1".parse().expect("a join marker"), OTHERS);
    let stretch = (0..40).map(|_| published("b")).chain([Seen::Marker(marker(1)), published("c")]);
    let ring = ring_with(&[Seen::Marker(join()), theirs].into_iter().chain(stretch).collect::<Vec<_>>());
    let start = place(&ring, Cursor { position: Position { marker: join(), offset: 0 }, last_id: MessageId(1) });
    let taken = |at: u64, limits| match ring.take(start.after(at as usize), None, limits, Instant::now()) {
        Taken::Batch { messages, .. } => messages.len(),
        other => panic!("{other:?}"),
    };
    let two = Limits { messages: 2, ..LIMITS };
    assert_eq!([0, 32].map(|at| taken(at, two)), [32, 8]);
    let bytes = Limits { bytes: ENTRY_BYTES + 1, ..LIMITS };
    assert_eq!([0, 16, 32, 40].map(|at| taken(at, bytes)), [16, 16, 8, 1]);
}

/// It has not heard what follows the cursor, and need not: it stores what is left here, and nothing else.
#[test]
fn without_interests_a_dispatcher_lacks_nothing_but_what_it_holds() {
    let ring = ring();
    let found = |ring: &Ring, cursor: Option<&Cursor>| {
        let found = ring.resolve_without_interests(cursor).expect("it is subscribed");
        (found.place.segment(), found.place.sequence(), found.standing, found.gap, found.follows.is_some())
    };
    ring.end_segment();
    ring.begin_segment();
    ring.append([Seen::Marker(join())]);
    let unheard = Cursor::unheard_since(5);
    let all = (1, 3, Standing::Idle, None, true);
    for cursor in [None, Some(&unheard), Some(&at(1, 1)), Some(&at(9, 1))] {
        assert_eq!(found(&ring, cursor), if cursor.is_none() { (0, 0, Standing::Fresh, None, false) } else { all });
    }
    assert_eq!(
        found(&ring, Some(&at(0, 1))),
        (0, 1, Standing::Continues, None, false),
        "the rest is still to be stored"
    );
    // One that listens has missed something.
    let missed = ring.resolve(Some(&unheard)).expect("it is subscribed");
    assert_eq!((missed.standing, missed.gap, missed.place.segment()), (Standing::Beyond, Some("not-subscribed"), 1));
    ring.note_cursor(place(&ring, at(1, 1)), Instant::now());
    assert_eq!(found(&ring, None), (1, 3, Standing::Idle, Some(CURSOR_LOST), true));
}

#[test]
fn before_the_first_own_marker_no_marker_names_a_place() {
    let ring = ring_with(&[others_marker(1), published("lost"), Seen::Marker(join()), published("a")]);
    let found = ring.resolve(Some(&at(1, 0))).expect("it is subscribed");
    assert_eq!((found.place.sequence(), found.gap), (0, Some("not-subscribed")));
}
