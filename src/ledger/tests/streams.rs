//! Intakes into a stream: fenced, whole, and exactly one entry for each message, whatever arrives late and whatever
//! workers do with the entries meanwhile.

use super::*;
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

fn count(f: &mut Fixture) -> usize {
    entries(f).len()
}

#[test]
fn an_entry_has_its_channel_and_its_payload() {
    let mut f = fixture();
    let (epoch, mut leader, before) = led(&mut f);
    let batch = [
        Arrival { body: Body::copied(Some(b"orders.eu"), b"second"), ..arrival(1_999, b"") },
        arrival(1_790_000_000_000_123, b""),
    ];
    let next = cursor("m", 3, 1_790_000_000_000_123);
    assert_eq!(leader.intake(epoch, before.as_ref(), &next, &batch).unwrap(), IntakeAnswer::Taken(next.clone()));
    let found: Vec<_> = entries(&mut f).into_iter().map(|(_, fields)| fields).collect();
    let expected =
        [&["payload", "first"][..], &["channel", "orders.eu", "payload", "second"], &["channel", "", "payload", ""]];
    assert_eq!(found, expected);
    assert_eq!((f.number(&["EXISTS", "messages:pending"]), f.ledger.cursor().unwrap()), (0, Some(next.clone())));
    // What can't be carried becomes a dead letter, as in front of consumers.
    let refused = Arrival { refused: Some("too large".to_owned()), ..arrival(1_790_000_000_000_124, b"beginning") };
    let last = cursor("m", 4, 1_790_000_000_000_124);
    assert_eq!(leader.intake(epoch, Some(&next), &last, &[refused]).unwrap(), IntakeAnswer::Taken(last));
    assert_eq!((count(&mut f), f.number(&["XLEN", "messages:dead"])), (3, 1));
}

#[test]
fn a_stale_leader_adds_nothing() {
    let mut f = fixture();
    let (epoch, mut leader, before) = led(&mut f);
    f.epoch(6);
    let error = leader.intake(epoch, before.as_ref(), &cursor("m", 2, 2), &[arrival(2, b"x")]).expect_err("another");
    assert!(matches!(error, Error::Fenced { .. }), "{error}");
    assert_eq!((count(&mut f), f.ledger.cursor().unwrap()), (1, before));
}

/// The reply was lost, and a worker has read and deleted one of the entries before the batch is offered again.
#[test]
fn what_workers_have_deleted_is_not_added_again() {
    let mut f = fixture();
    let (epoch, mut leader, before) = led(&mut f);
    let (next, batch) = (cursor("m", 3, 3), [arrival(2, b"x"), arrival(3, b"x")]);
    leader.intake(epoch, before.as_ref(), &next, &batch).expect("it leads");
    for left in ["1", "0"] {
        f.run(&["XTRIM", STREAM, "MAXLEN", left]);
        let mut again = into_stream(&f, 0);
        again.attempts.doubts.push(f.ledger.cursor().unwrap().expect("there is one"));
        let taken = again.intake(epoch, before.as_ref(), &next, &batch).expect("it leads");
        assert!(matches!(taken, IntakeAnswer::Taken(_)), "{taken:?}");
        assert_eq!(count(&mut f).to_string(), left);
    }
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
    assert_eq!(count(&mut f), 2);
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
    assert_eq!(count(&mut f), 1);
}

/// Whatever ids another program's entries have, and whether they are still there.
#[test]
fn other_programs_may_add_to_the_stream() {
    let mut f = fixture();
    let (epoch, mut leader, mut before) = led(&mut f);
    let nearly_the_last = format!("{}-{}", u64::MAX - 1, u64::MAX - 1);
    let foreign = ["*", "4102444800000-0", "4102444800000-18446744073709551615", &nearly_the_last];
    for (foreign, first) in foreign.into_iter().zip((2..).step_by(2)) {
        f.run(&["XADD", STREAM, foreign, "payload", "foreign"]);
        // Every second time no entry is left.
        let kept = (first / 2 % 2) as usize;
        f.run(&["XTRIM", STREAM, "MAXLEN", &kept.to_string()]);
        let next = cursor("m", first, first + 1);
        let batch = [arrival(first, b"x"), arrival(first + 1, b"y")];
        let taken = leader.intake(epoch, before.as_ref(), &next, &batch).expect("it leads");
        assert_eq!((taken, count(&mut f)), (IntakeAnswer::Taken(next.clone()), kept + 2), "{foreign}");
        before = Some(next);
    }
}

/// The ids would last for a part of the batch.
#[test]
fn a_stream_that_runs_out_of_ids_gets_nothing_of_a_batch() {
    let mut f = fixture();
    let (epoch, mut leader, before) = led(&mut f);
    let batch: [Arrival; 3] = [2, 3, 4].map(|id| arrival(id, b"x"));
    f.run(&["XADD", STREAM, &format!("{}-{}", u64::MAX, u64::MAX - 2), "payload", "foreign"]);
    // Each attempt uses an id up, and the last finds none.
    for _ in 0..4 {
        let error = leader.intake(epoch, before.as_ref(), &cursor("m", 4, 4), &batch).expect_err("there are two ids");
        assert_eq!(error.refusal(), Some(Refusal::StreamExhausted), "{error}");
        assert!(error.to_string().contains("the stream messages:messages has run out of ids"), "{error}");
        assert_eq!((count(&mut f), f.ledger.cursor().unwrap()), (2, before.clone()));
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
