//! Replaying dead letters.

use super::*;

/// The ids of the letters' entries, oldest first.
pub(super) fn letters(f: &mut Fixture) -> Vec<reading::Entry> {
    let mut letters = Vec::new();
    let mut position = reading::ReadPosition::default();
    while let Some(page) = f.ledger.read_stream(reading::EntryStream::Dead, &mut position).expect("they can be read") {
        letters.extend(page);
    }
    letters
}

pub(super) fn replay(f: &mut Fixture, entries: &[&str]) -> Vec<Replayed> {
    f.ledger.replay(entries).expect("it is allowed")
}

#[test]
fn a_replayed_message_is_pending_under_its_own_id_and_the_leader_is_told() {
    let mut f = fixture();
    let epoch = f.epoch(5);
    let mut subscription = f.listen(&DispatcherId::generate("a"));
    let body = Body::copied(Some(b"eu@1:"), b"a:b");
    let first = Arrival { body: body.clone(), ..arrival(1, b"") };
    let batch = [first, arrival(2, b""), arrival(3, b"x")];
    f.ledger.intake(epoch, None, &cursor("m", 3, 3), &batch).expect("they are stored");
    let before = f.ledger.read_pending(&mut reading::ReadPosition::default()).expect("they are read");
    for id in [2, 1] {
        f.ledger.settle(epoch, 8, &[settling(&returned(id, Verdict::Rejected), 3)]).expect("it dies");
    }
    let dead = letters(&mut f);
    assert_eq!(
        dead.iter().map(|letter| letter.text("id")).collect::<Vec<_>>(),
        ["0000000000000002", "0000000000000001"]
    );
    f.run(&["SET", "messages:recall", "5 R 0"]);
    let entries: Vec<&str> = dead.iter().map(|letter| letter.id.as_str()).collect();
    assert_eq!(replay(&mut f, &entries), [Replayed::Replayed; 2]);
    assert_eq!(replay(&mut f, &entries), [Replayed::Gone; 2], "a repeated call does nothing");
    let now = f.ledger.read_pending(&mut reading::ReadPosition::default()).expect("they are read");
    assert_eq!(now, before, "id, channel and payload are the same");
    assert_eq!(f.ledger.deliveries(&[MessageId(1), MessageId(2)]).unwrap(), [1, 1], "deliveries begin anew");
    assert_eq!(f.run(&["GET", "messages:recall"]), Value::BulkString(b"5 R 2".to_vec()));
    assert_eq!(f.number(&["XLEN", "messages:dead"]), 0);
    let heard = wait_until(Duration::from_secs(10), "the notice", || {
        let returned = subscription.read().expect("it is connected").map(|batch| batch.returned);
        Ok(returned.filter(|returned| !returned.is_empty()))
    });
    assert_eq!(heard.expect("it comes"), [MessageId(2), MessageId(1)]);
}

#[test]
fn a_letter_keeps_its_history_through_replays() {
    let mut f = fixture();
    let epoch = f.epoch(5);
    f.pend(epoch, &[1]);
    let because = |reason: &str| Returned { reason: reason.into(), ..returned(1, Verdict::Failed) };
    f.ledger.settle(epoch, 3, &[settling(&because("the first, with spaces"), 3)]).expect("it dies");
    let first = letters(&mut f).remove(0);
    assert_eq!((first.text("replays"), first.text("first_reason")), (String::new(), String::new()));
    replay(&mut f, &[&first.id]);
    for delivery in 1..=2 {
        // Counted in both ways.
        f.ledger.settle(epoch, 3, &[settling(&because("another"), delivery)]).expect("it fails");
        f.ledger.count_deliveries(epoch, &[(MessageId(1), delivery + 1)]).expect("it is counted");
        assert_eq!(f.ledger.deliveries(&[MessageId(1)]).unwrap(), [delivery + 1]);
    }
    f.ledger.settle(epoch, 3, &[settling(&because("the second"), 3)]).expect("it dies");
    assert_eq!(f.number(&["HLEN", "messages:attempts"]), 0);
    let second = letters(&mut f).remove(0);
    replay(&mut f, &[&second.id]);
    f.ledger.settle(epoch, 3, &[settling(&because("the last"), 3)]).expect("it dies");
    let last = letters(&mut f).remove(0);
    let told = |letter: &reading::Entry| {
        ["reason", "deliveries", "replays", "earlier_deliveries", "first_reason"].map(|field| letter.text(field))
    };
    assert_eq!(told(&second), ["the second", "3", "1", "3", "the first, with spaces"]);
    assert_eq!(told(&last), ["the last", "3", "2", "6", "the first, with spaces"]);
    assert_eq!(last.text("first_failed_ms"), first.at_ms().to_string());
    replay(&mut f, &[&last.id]);
    assert_eq!(f.ledger.commit(None, None, Raise::Nothing, &[commit(1)]).unwrap().recorded, 1);
    assert_eq!(f.number(&["HLEN", "messages:attempts"]), 0, "the history goes with the message");
}

#[test]
fn letters_that_can_not_be_replayed_stay() {
    let mut f = fixture();
    let epoch = f.epoch(5);
    f.pend(epoch, &[1, 2]);
    let truncated = Arrival { refused: Some("too large".to_owned()), ..arrival(3, b"beginning") };
    f.ledger.intake(epoch, Some(&cursor("m", 2, 2)), &cursor("m", 3, 3), &[truncated]).expect("it is recorded");
    let letter = ["XADD", "messages:dead", "*", "deliveries", "8", "payload", "x", "id"];
    for id in ["0000000000000001", "1", "000000000000000X", "ffffffffffffffff"] {
        f.run(&[&letter[..], &[id]].concat());
    }
    f.run(&["XADD", "messages:dead", "*", "id", "0000000000000009"]);
    let dead = letters(&mut f);
    let entries: Vec<&str> = dead.iter().map(|letter| letter.id.as_str()).collect();
    let outcomes = replay(&mut f, &entries);
    let foreign = Replayed::Foreign;
    assert_eq!(outcomes, [Replayed::Truncated, Replayed::Pending, foreign, foreign, foreign, foreign]);
    assert_eq!(letters(&mut f), dead);
    assert_eq!(f.number(&["ZCARD", "messages:pending"]), 2);
}

#[test]
fn the_sum_of_a_sample_stays_the_same() {
    let mut f = fixture();
    let epoch = f.epoch(5);
    f.pend(epoch, &[1, 2]);
    let stored = |f: &mut Fixture| f.ledger.sample().expect("it is read").counts.stored();
    for _ in 0..2 {
        f.ledger.settle(epoch, 8, &[settling(&returned(2, Verdict::Rejected), 1)]).expect("it dies");
        assert_eq!(stored(&mut f), 2);
        let entry = letters(&mut f).remove(0).id;
        let before = f.ledger.sample().expect("it is read").counts;
        replay(&mut f, &[&entry]);
        assert_eq!(stored(&mut f), 2);
        let after = f.ledger.sample().expect("it is read").counts;
        assert!(!after.exact || after.dead == before.dead, "what was ever added does not fall: {after:?}");
    }
    // Deleted letters take the count of what was ever added with them, not that of what was replayed.
    f.run(&["DEL", "messages:dead"]);
    assert!(stored(&mut f) <= 2);
}

#[test]
fn the_newest_letters_are_read_without_their_payloads() {
    let mut f = fixture();
    assert_eq!(f.ledger.newest_letters(20).unwrap(), []);
    let large = "x".repeat(700_000);
    for (entry, id, payload) in [("0-1", "1", "x"), ("2-1", "2", &*large), ("3-1", "3", &*large), ("4-1", "4", "x")] {
        let letter = ["XADD", "messages:dead", entry, "id", id, "payload", payload, "reason", payload];
        f.run(&[&letter[..], &["deliveries", "8", "consumer", "c0"]].concat());
    }
    f.run(&["XADD", "messages:dead", "5-1", "a stranger's", "x"]);
    let ids = |f: &mut Fixture, most: usize| -> Vec<String> {
        let letters = f.ledger.newest_letters(most).expect("they are read");
        assert!(letters.iter().all(|letter| letter.reason.len() <= 300));
        letters.into_iter().map(|letter| letter.id).collect()
    };
    assert_eq!(ids(&mut f, 2), ["", "4"]);
    assert_eq!(ids(&mut f, 20), ["", "4", "3"], "bounded by the bytes that are read");
    f.run(&["XDEL", "messages:dead", "2-1", "3-1", "5-1"]);
    let letters = f.ledger.newest_letters(20).expect("they are read");
    let head = |at_ms: u64, id: &str| letters::LetterHead {
        at_ms,
        id: id.to_owned(),
        channel: None,
        reason: "x".to_owned(),
        deliveries: "8".to_owned(),
        consumer: "c0".to_owned(),
    };
    assert_eq!(letters, [head(4, "4"), head(0, "1")], "to the first of all ids");
}
