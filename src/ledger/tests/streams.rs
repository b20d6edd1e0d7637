//! Intakes into a stream: fenced, whole, and exactly one entry for each message, whatever arrives late and whatever
//! workers do with the entries meanwhile.

use super::*;
use crate::base::id::wall_clock_us;
use crate::base::refusal::Refusal;

const STREAM: &str = "messages:messages";

fn into_stream(f: &Fixture, maxlen: u64) -> Ledger {
    let keys = Arc::new(Keys::new("messages").with_stream(STREAM));
    let destination = Destination::Stream { key: STREAM.to_owned(), maxlen };
    Ledger::new(f.redis.server(), keys, Duration::from_secs(10)).storing_in(destination)
}

/// A leader that has stored the message 1.
fn led(f: &mut Fixture) -> (Epoch, Ledger, Option<Cursor>) {
    let epoch = f.epoch(5);
    let mut leader = into_stream(f, 0);
    let first = cursor("m", 1, 1);
    let taken = leader.intake(epoch, None, &first, &[arrival(1, b"first")]).expect("it leads");
    assert_eq!(taken, IntakeAnswer::Taken(first.clone()));
    (epoch, leader, Some(first))
}

/// The entries, each as its id and its fields.
fn entries(f: &mut Fixture) -> Vec<(String, Vec<String>)> {
    let Value::Array(entries) = f.run(&["XRANGE", STREAM, "-", "+"]) else { panic!("a list") };
    let of = |entry: Value| {
        let Value::Array(parts) = entry else { panic!("an entry") };
        let Value::Array(fields) = &parts[1] else { panic!("fields") };
        let fields = fields.iter().map(|field| text(field).expect("a text").to_owned()).collect();
        (text(&parts[0]).expect("an id").to_owned(), fields)
    };
    entries.into_iter().map(of).collect()
}

fn ids(f: &mut Fixture) -> Vec<String> {
    entries(f).into_iter().map(|(id, _)| id).collect()
}

#[test]
fn an_entry_has_the_messages_id_its_channel_and_its_payload() {
    let mut f = fixture();
    let (epoch, mut leader, before) = led(&mut f);
    let batch = [
        Arrival { body: Body::copied(Some(b"orders.eu"), b"second"), ..arrival(1_999, b"") },
        arrival(1_790_000_000_000_123, b""),
    ];
    let next = cursor("m", 3, 1_790_000_000_000_123);
    assert_eq!(leader.intake(epoch, before.as_ref(), &next, &batch).unwrap(), IntakeAnswer::Taken(next.clone()));
    let all = [
        ("0-1", vec!["payload", "first"]),
        ("1-999", vec!["channel", "orders.eu", "payload", "second"]),
        ("1790000000000-123", vec!["channel", "", "payload", ""]),
    ];
    let all = all.map(|(id, fields)| (id.to_owned(), fields.into_iter().map(str::to_owned).collect()));
    assert_eq!(entries(&mut f), all);
    assert_eq!((f.number(&["EXISTS", "messages:pending"]), f.ledger.cursor().unwrap()), (0, Some(next.clone())));
    // What can't be carried becomes a dead letter, as in front of consumers.
    let refused = Arrival { refused: Some("too large".to_owned()), ..arrival(1_790_000_000_000_124, b"beginning") };
    let last = cursor("m", 4, 1_790_000_000_000_124);
    assert_eq!(leader.intake(epoch, Some(&next), &last, &[refused]).unwrap(), IntakeAnswer::Taken(last));
    assert_eq!((ids(&mut f).len(), f.number(&["XLEN", "messages:dead"])), (3, 1));
}

#[test]
fn a_stale_leader_adds_nothing() {
    let mut f = fixture();
    let (epoch, mut leader, before) = led(&mut f);
    f.epoch(6);
    let error = leader.intake(epoch, before.as_ref(), &cursor("m", 2, 2), &[arrival(2, b"x")]).expect_err("another");
    assert!(matches!(error, Error::Fenced { .. }), "{error}");
    assert_eq!((ids(&mut f).len(), f.ledger.cursor().unwrap()), (1, before));
}

/// The reply was lost, and a worker has read and deleted one of the entries before the batch is offered again.
#[test]
fn what_workers_have_deleted_is_not_added_again() {
    let mut f = fixture();
    let (epoch, mut leader, before) = led(&mut f);
    let (next, batch) = (cursor("m", 3, 3), [arrival(2, b"x"), arrival(3, b"x")]);
    leader.intake(epoch, before.as_ref(), &next, &batch).expect("it leads");
    for deleted in [&["0-2"][..], &["0-1", "0-3"]] {
        f.run(&[&["XDEL", STREAM], deleted].concat());
        let mut again = into_stream(&f, 0);
        again.attempts.doubts.push(f.ledger.cursor().unwrap().expect("there is one"));
        let taken = again.intake(epoch, before.as_ref(), &next, &batch).expect("it leads");
        assert!(matches!(taken, IntakeAnswer::Taken(_)), "{taken:?}");
    }
    assert_eq!(ids(&mut f), [""; 0]);
}

/// The first attempt arrives after the second, which was done.
#[test]
fn an_attempt_that_comes_late_adds_nothing() {
    let mut f = fixture();
    let (epoch, mut leader, before) = led(&mut f);
    let (next, batch) = (cursor("m", 2, 2), [arrival(2, b"x")]);
    leader.attempts.doubts.push(next.clone());
    let taken = leader.intake(epoch, before.as_ref(), &next, &batch).expect("it leads");
    assert_eq!(taken, IntakeAnswer::Taken(Cursor { last_id: MessageId(3), ..next.clone() }));
    for doubts in [vec![], vec![next.clone()]] {
        let mut late = into_stream(&f, 0);
        late.attempts.doubts = doubts;
        let late = late.intake(epoch, before.as_ref(), &next, &batch).expect("it leads");
        assert!(matches!(late, IntakeAnswer::Moved(Some(_))), "{late:?}");
    }
    assert_eq!(ids(&mut f), ["0-1", "0-2"]);
    // Even if the cursor were what it expects: Redis refuses ids that it has passed.
    f.run(&["SET", "messages:cursor", &before.as_ref().expect("it is").to_string()]);
    f.run(&["XDEL", STREAM, "0-2"]);
    let late = into_stream(&f, 0).intake(epoch, before.as_ref(), &next, &batch).expect("it leads");
    assert_eq!(late, IntakeAnswer::Behind(MessageId(2)));
    assert_eq!((ids(&mut f), f.ledger.cursor().unwrap()), (vec!["0-1".to_owned()], before));
}

/// Another client has moved the cursor, or deleted it.
#[test]
fn a_cursor_that_was_moved_stops_the_intake() {
    let mut f = fixture();
    let (epoch, mut leader, before) = led(&mut f);
    for found in [Some(cursor("other", 1, 7)), None] {
        match &found {
            Some(found) => f.run(&["SET", "messages:cursor", &found.to_string()]),
            None => f.run(&["DEL", "messages:cursor"]),
        };
        let moved = leader.intake(epoch, before.as_ref(), &cursor("m", 2, 2), &[arrival(2, b"x")]);
        assert_eq!(moved.expect("it leads"), IntakeAnswer::Moved(found));
    }
    assert_eq!(ids(&mut f), ["0-1"]);
}

#[test]
fn ids_continue_above_an_entry_of_another_program() {
    for gone in [false, true] {
        let mut f = fixture();
        let (epoch, mut leader, before) = led(&mut f);
        // In the middle of the batch: nothing of it may be added.
        f.run(&["XADD", STREAM, "0-3", "payload", "foreign"]);
        if gone {
            f.run(&["XDEL", STREAM, "0-3"]);
        }
        let (untouched, batch) = (ids(&mut f), |ids: [u64; 3]| ids.map(|id| arrival(id, b"x")));
        let behind = leader.intake(epoch, before.as_ref(), &cursor("m", 4, 4), &batch([2, 3, 4])).expect("it leads");
        assert_eq!(behind, IntakeAnswer::Behind(MessageId(3)));
        assert_eq!((ids(&mut f), f.ledger.cursor().unwrap()), (untouched.clone(), before.clone()));
        let next = cursor("m", 4, 6);
        let taken = leader.intake(epoch, before.as_ref(), &next, &batch([4, 5, 6])).expect("it leads");
        assert_eq!(taken, IntakeAnswer::Taken(next));
        assert_eq!(ids(&mut f)[untouched.len()..], ["0-4", "0-5", "0-6"]);
    }
}

/// Another program is faster each time, and its clock is ahead.
#[test]
fn an_intake_succeeds_also_if_another_program_adds_entries_all_the_time() {
    let mut f = fixture();
    let (epoch, mut leader, mut before) = led(&mut f);
    for id in [2, 20] {
        for (attempt, foreign) in [(id, id + 3), (id + 4, id + 6)] {
            f.run(&["XADD", STREAM, &format!("0-{foreign}"), "payload", "foreign"]);
            let batch = [arrival(attempt, b"x"), arrival(attempt + 1, b"y")];
            let next = cursor("m", attempt, attempt + 1);
            let behind = leader.intake(epoch, before.as_ref(), &next, &batch).expect("it leads");
            assert_eq!(behind, IntakeAnswer::Behind(MessageId(foreign)));
        }
        f.run(&["XADD", STREAM, &format!("0-{}", id + 9), "payload", "foreign"]);
        let next = cursor("m", id + 7, id + 8);
        let batch = [arrival(id + 7, b"x"), arrival(id + 8, b"y")];
        let taken = leader.intake(epoch, before.as_ref(), &next, &batch).expect("it leads");
        assert_eq!(taken, IntakeAnswer::Taken(next.clone()));
        before = Some(next);
        f.run(&["XTRIM", STREAM, "MAXLEN", "2"]);
        let payloads: Vec<_> = entries(&mut f).into_iter().map(|(_, fields)| fields[1].clone()).collect();
        assert_eq!(payloads, ["x", "y"]);
        // The stream's ids are now those of Redis's clock.
        f.run(&["DEL", STREAM]);
    }
}

#[test]
fn a_stream_far_ahead_of_the_clock_is_named() {
    let mut f = fixture();
    let (epoch, mut leader, before) = led(&mut f);
    let now_ms = wall_clock_us() / 1_000;
    let hour = 3_600_000;
    let ahead = |ms| format!("{}-0", now_ms + ms);
    let highest = format!("{0}-{0}", u64::MAX);
    for (id, problem) in [
        (ahead(23 * hour), None),
        (ahead(25 * hour), Some((Refusal::Other, "stream messages:messages is more than a day ahead"))),
        (highest, Some((Refusal::StreamExhausted, "stream messages:messages has exhausted"))),
    ] {
        f.run(&["XADD", STREAM, &id, "payload", "foreign"]);
        let answer = leader.intake(epoch, before.as_ref(), &cursor("m", 2, 2), &[arrival(2, b"x")]);
        match (answer, problem) {
            (Ok(IntakeAnswer::Behind(id)), None) => assert_eq!(id.0, (now_ms + 23 * hour) * 1_000),
            (Err(error), Some((refusal, words))) => {
                assert_eq!(error.refusal(), Some(refusal), "{error}");
                assert!(error.to_string().contains(words), "{error}");
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(leader.attempts.doubts.is_empty(), "nothing is in doubt");
}

#[test]
fn a_key_of_another_type_is_named() {
    let mut f = fixture();
    let (epoch, mut leader, before) = led(&mut f);
    f.run(&["DEL", STREAM]);
    f.run(&["SET", STREAM, "mine"]);
    let (next, batch) = (cursor("m", 2, 2), [arrival(2, b"x")]);
    let error = leader.intake(epoch, before.as_ref(), &next, &batch).expect_err("a string takes no entries");
    assert!(error.to_string().contains("messages:messages is a string, it must be a stream"), "{error}");
    assert_eq!(f.ledger.cursor().unwrap(), before);
    f.run(&["DEL", STREAM]);
    assert_eq!(leader.intake(epoch, before.as_ref(), &next, &batch).expect("it leads"), IntakeAnswer::Taken(next));
}

#[test]
fn a_limit_trims_the_stream_about_there() {
    let mut f = fixture();
    let epoch = f.epoch(5);
    let mut leader = into_stream(&f, 100);
    let batch: Vec<Arrival> = (1..=MAX_BATCH_MESSAGES as u64).map(|id| arrival(id, b"x")).collect();
    let next = cursor("m", 1, MAX_BATCH_MESSAGES as u64);
    assert_eq!(leader.intake(epoch, None, &next, &batch).expect("it leads"), IntakeAnswer::Taken(next));
    let left = f.number(&["XLEN", STREAM]);
    assert!((100..300).contains(&left), "{left}");
}
