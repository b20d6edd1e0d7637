//! A failover whose old primary lives on: its leaders' markers may be later than those of the new one.

use super::*;
use crate::base::id::DispatcherId;

fn of(epoch: u64, number: u64) -> Marker {
    Marker::of_leader(Epoch(epoch), number)
}

fn cursor(epoch: u64, number: u64) -> Cursor {
    Cursor { position: Position { marker: of(epoch, number), offset: 0 }, last_id: MessageId(1) }
}

/// At the old primary `1.0 a 1.1 4.0 b`, then at the new one a join marker, and `c`.
fn moved() -> Ring {
    let ring = Ring::new(1 << 20);
    ring.begin_segment();
    let at_old = [Seen::Marker(of(1, 0)), published("a"), Seen::Marker(of(1, 1)), Seen::Marker(of(4, 0))];
    ring.append(at_old.into_iter().chain([published("b")]));
    ring.end_segment();
    ring.begin_segment();
    ring.append([Seen::Marker(Marker::of_join(&DispatcherId::generate("d0"), 2)), published("c")]);
    ring
}

/// A leader at the new primary has stored `a` from its ring, has published its marker, and has died.
#[test]
fn a_cursor_of_the_new_primary_does_not_lie_before_what_came_from_the_old_one() {
    let ring = moved();
    let found = found(&ring, Some(cursor(3, 0)));
    assert_eq!((found.standing, found.gap), (Standing::Beyond, Some("not-subscribed")));
    assert_eq!(read_all(&ring, found.place), ["c"]);
}

#[test]
fn a_cursor_from_before_the_failover_is_found() {
    let ring = moved();
    for (known, rest) in [(cursor(1, 0), "a b"), (cursor(1, 1), "b"), (cursor(4, 0), "b")] {
        let found = found(&ring, Some(known));
        assert_eq!((found.standing, found.gap), (Standing::Continues, None));
        assert_eq!(read_all(&ring, found.place).first().map(String::as_str), Some(rest));
    }
    let older = found(&ring, Some(cursor(0, 9)));
    assert_eq!((older.standing, older.gap), (Standing::Beyond, Some("not-subscribed")));
    assert_eq!(read_all(&ring, older.place).first().map(String::as_str), Some("a b"), "older than the whole ring");
}

#[test]
fn markers_of_the_new_primary_may_be_lower() {
    let ring = moved();
    assert_eq!(ring.append([Seen::Marker(of(3, 5)), published("d")]), 0);
    assert_eq!(standing(&ring, cursor(3, 5)), Standing::InSync);
    assert_eq!(read_all(&ring, place(&ring, cursor(3, 5))), ["d"]);
    assert_eq!(ring.append([Seen::Marker(of(3, 5)), Seen::Marker(of(3, 4)), Seen::Marker(of(1, 1))]), 3, "strays");
}

/// A marker that is known names one place only.
#[test]
fn a_marker_of_the_old_primary_names_no_place_at_the_new_one() {
    let ring = moved();
    assert_eq!(ring.append([Seen::Marker(of(1, 1)), Seen::Marker(of(4, 0))]), 2);
    assert_eq!(read_all(&ring, place(&ring, cursor(4, 0))).first().map(String::as_str), Some("b"));
}
