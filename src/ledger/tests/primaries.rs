//! A failover whose old primary lives on: leaders at both.

use super::*;
use crate::base::id::wall_clock_us;

/// A replica that has what this server has.
fn replica_of(primary: &RedisServer) -> RedisServer {
    let config = [("replicaof", format!("127.0.0.1 {}", primary.port())), ("repl-diskless-sync-delay", "0".to_owned())];
    let config = config.map(|(name, value)| (name.to_owned(), value)).into();
    let primary_config = Command::of(&["CONFIG", "SET", "repl-diskless-sync-delay", "0"]);
    primary.connection().query("testing", primary_config).expect("it is set");
    let replica = RedisServer::start(RedisOptions { config, ..RedisOptions::default() }).expect("a replica starts");
    let (mut own, mut copied) = (primary.connection(), replica.connection());
    wait_until(Duration::from_secs(20), "the replica to have everything", || {
        let get = || Command::of(&["GET", "messages:recall"]);
        Ok((own.query("testing", get())? == copied.query("testing", get())?).then_some(()))
    })
    .expect("it is copied");
    replica
}

fn promoted(redis: RedisServer) -> Fixture {
    redis.connection().query("testing", Command::of(&["REPLICAOF", "NO", "ONE"])).expect("it is promoted");
    let ledger = Ledger::new(redis.server(), Arc::new(Keys::new("messages")), Duration::from_secs(10));
    Fixture { redis, ledger }
}

#[test]
fn leaders_at_the_old_and_the_new_primary_share_no_epoch_and_no_id() {
    let mut old = fixture();
    let first = old.acquire(&DispatcherId::generate("a"), Epoch(0)).epoch;
    let mut new = promoted(replica_of(&old.redis));
    let now_us = wall_clock_us();
    for _ in 0..3 {
        let [a, b] = ["a", "b"].map(DispatcherId::generate);
        let (at_old, at_new) = (old.acquire(&a, first).epoch, new.acquire(&b, first).epoch);
        assert_eq!((at_old.0 - first.0) % 2, 0, "the same server");
        assert_eq!((at_new.0 - first.0) % 2, 1, "another one");
        let mut ids = [MessageId::ZERO; 2];
        for _ in 0..3_000 {
            ids = [ids[0].next(at_old, now_us), ids[1].next(at_new, now_us)];
            assert!(ids[0].0 / 1_024 != ids[1].0 / 1_024, "{ids:?} are of one millisecond");
        }
    }
}

/// A consumer holds a message that the old primary's leader stored and the replica did not get. Its late result removes
/// nothing at the new primary, although both leaders stored in the same microsecond.
#[test]
fn a_result_for_a_message_of_the_old_primary_removes_no_other() {
    let mut old = fixture();
    let [a, b] = ["a", "b"].map(DispatcherId::generate);
    let at_old = old.acquire(&a, Epoch(0)).epoch;
    let mut new = promoted(replica_of(&old.redis));
    let at_new = new.acquire(&b, Epoch(0)).epoch;
    let now_us = wall_clock_us();
    let [lost, stored] = [at_old, at_new].map(|epoch| MessageId::ZERO.next(epoch, now_us));
    old.pend(at_old, &[lost.0]);
    new.pend(at_new, &[stored.0]);
    let late = new.ledger.commit(None, None, Raise::Nothing, &[commit(lost.0)]).expect("it is answered");
    assert_eq!((late.recorded, late.gone), (0, vec![lost]));
    assert_eq!(new.number(&["ZCARD", "messages:pending"]), 1);
}
