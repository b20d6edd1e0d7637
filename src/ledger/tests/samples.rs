//! Samples of a group: each message that was stored counts once, whatever became of it.

use super::*;

fn stored(f: &mut Fixture) -> i64 {
    f.ledger.sample().expect("it is read").counts.stored()
}

#[test]
fn a_message_counts_once_whatever_becomes_of_it() {
    let mut f = fixture();
    let nothing = f.ledger.sample().expect("it is read");
    assert_eq!((nothing.cursor, nothing.counts), (None, GroupCounts { exact: true, ..GroupCounts::default() }));
    assert!(nothing.redis_ms > 1_700_000_000_000);
    let epoch = f.epoch(5);
    f.pend(epoch, &[1, 2, 3, 4]);
    let sample = f.ledger.sample().expect("it is read");
    assert_eq!((sample.cursor, sample.counts.pending, sample.counts.stored()), (Some(cursor("m", 4, 4)), 4, 4));

    f.ledger.commit(None, None, Raise::Nothing, &[commit(1), commit(2)]).expect("they are recorded");
    let rejected = Returned {
        id: MessageId(3),
        verdict: Verdict::Rejected,
        delivery: DeliveryNumber::Known(1),
        hold: Hold::Released,
        consumer: "c0".into(),
        reason: "no".into(),
    };
    f.ledger.settle(epoch, 8, &[settling(&rejected, 1)]).expect("it is a dead letter");
    let counts = f.ledger.sample().expect("it is read").counts;
    assert_eq!((counts.pending, counts.results, counts.dead, counts.stored()), (1, 2, 1, 4));
    if counts.exact {
        f.run(&["XTRIM", "messages:processed", "MAXLEN", "0"]);
        f.run(&["XTRIM", "messages:dead", "MAXLEN", "0"]);
        assert_eq!(stored(&mut f), 4, "what was deleted counts as well");
    }
}

#[test]
fn entries_of_the_stream_count_if_the_group_delivers_to_it() {
    let mut f = fixture();
    f.run(&["XADD", "messages:messages", "*", "payload", "x"]);
    assert_eq!(stored(&mut f), 0);
    let keys = Arc::new(Keys::new("messages").with_stream("messages:messages"));
    let mut beside = Ledger::new(f.redis.server(), keys, Duration::from_secs(10));
    assert_eq!(beside.sample().expect("it is read").counts.stored(), 1);
}

#[test]
fn a_sample_writes_nothing_and_needs_no_right_to_write() {
    let mut f = fixture();
    if f.redis.version().expect("it answers").starts_with("redis 6.") {
        return skipped("Redis 6.2 has neither rights to only read a key nor scripts that only read");
    }
    f.run(&["SET", "messages:cursor", "m 1 1"]);
    f.run(&["ACL", "SETUSER", "u", "on", "nopass", "%R~*", "+@all", "-eval", "-evalsha"]);
    let server = Server::parse(&f.redis.url().replace("redis://", "redis://u:p@")).expect("it is a URL");
    let mut reader = Ledger::new(server, Arc::new(Keys::new("messages")), Duration::from_secs(10));
    for _ in 0..2 {
        assert_eq!(reader.sample().expect("it may").cursor, Some(cursor("m", 1, 1)));
        f.run(&["SCRIPT", "FLUSH"]);
    }
    f.run(&["SET", "messages:dead", "x"]);
    let error = reader.sample().expect_err("a key of another type");
    assert!(error.to_string().contains("messages:dead"), "{error}");
}
