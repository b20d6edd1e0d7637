//! Commits in transactions: what they do, and that they do nothing once the recall was written.

use super::*;
use crate::base::refusal::Refusal;

const NOTHING_UNSTORED: Option<(Vec<MessageId>, String)> = None;

/// A leader that has stored these messages.
pub(super) fn led(f: &mut Fixture, ids: &[u64]) -> Epoch {
    let Lease { epoch, .. } = f.acquire(&DispatcherId::generate("a"), Epoch(0));
    f.pend(epoch, ids);
    epoch
}

/// Another connection to the same server.
pub(super) fn other(f: &Fixture) -> Ledger {
    Ledger::new(f.redis.server(), Arc::new(Keys::new("messages")), Duration::from_secs(10))
}

/// Results and pending messages.
pub(super) fn counts(f: &mut Fixture) -> (i64, i64) {
    (f.number(&["XLEN", "messages:processed"]), f.number(&["ZCARD", "messages:pending"]))
}

/// The epoch and the id of the recall.
fn recall_of(ledger: &Ledger) -> Option<(Epoch, u64)> {
    ledger.recall().map(|recall| (recall.epoch, recall.up_to.0))
}

fn record(ledger: &mut Ledger, ids: &[u64]) -> Option<Recorded> {
    let batch: Vec<Commit> = ids.iter().map(|id| commit(*id)).collect();
    ledger.commit_sole(None, &batch.iter().map(Sole::from).collect::<Vec<_>>()).expect("redis answers")
}

#[test]
fn batches_are_recorded_one_after_the_other() {
    let mut f = fixture();
    let epoch = led(&mut f, &[1, 2, 3, 5, 8, 9]);
    let mut consumer = other(&f);
    consumer.watch_recall().expect("it is watched");
    assert_eq!(recall_of(&consumer), Some((epoch, 0)));
    assert_eq!(record(&mut consumer, &[1, 2, 3, 5]), Some(Recorded { removed: 4, unstored: NOTHING_UNSTORED }));
    // The watch was renewed after the first transaction.
    let nothing_to_store = Commit { id: MessageId(8), fields: Words::default() };
    let recorded = consumer
        .commit_sole(NonZeroU64::new(1_000), &[&nothing_to_store, &commit(9)].map(Sole::from))
        .expect("redis answers");
    assert_eq!(recorded, Some(Recorded { removed: 2, unstored: NOTHING_UNSTORED }));
    assert_eq!(counts(&mut f), (5, 0));
}

#[test]
fn messages_settled_meanwhile_are_not_recorded() {
    let mut f = fixture();
    let epoch = led(&mut f, &[1, 2, 3]);
    let mut consumer = other(&f);
    consumer.watch_recall().expect("it is watched");
    // A message that its consumer has released is held by no other.
    let nacked = Returned { hold: Hold::Released, ..returned(3, Verdict::Failed) };
    f.ledger.settle(epoch, 5, &[settling(&nacked, 1)]).expect("it leads");
    assert!(record(&mut consumer, &[1]).is_some());
    f.ledger.settle(epoch, 5, &[settling(&returned(2, Verdict::Lost), 1)]).expect("it leads");
    assert_eq!(record(&mut consumer, &[2]), None);
    assert_eq!(counts(&mut f), (1, 2));
    assert_eq!(recall_of(&consumer), Some((epoch, 2)), "it was read anew");
    // It never falls.
    f.ledger.settle(epoch, 5, &[settling(&returned(1, Verdict::Unused), 1)]).expect("it leads");
    consumer.watch_recall().expect("it is watched");
    assert_eq!(recall_of(&consumer), Some((epoch, 2)));
}

#[test]
fn a_new_leader_recalls_all_that_is_pending() {
    let mut f = fixture();
    led(&mut f, &[1, 2]);
    let mut consumer = other(&f);
    consumer.watch_recall().expect("it is watched");
    let epoch = led(&mut f, &[3]);
    assert_eq!(record(&mut consumer, &[1]), None);
    assert_eq!(recall_of(&consumer), Some((epoch, 2)));
    assert_eq!(counts(&mut f), (0, 3));
    let mut full = other(&f);
    let (before, b) = (epoch, DispatcherId::generate("b"));
    let _subscription = f.listen(&b);
    f.run(&["CONFIG", "SET", "maxmemory", "1"]);
    let Lease { epoch, .. } = f.lease(&b, Epoch(0));
    assert!(epoch > before && full.recall_now().epoch == epoch, "a full Redis gets its leader");
    f.ledger.settle(epoch, 5, &[settling(&returned(3, Verdict::Lost), 1)]).expect("and has its messages settled");
    assert_eq!(full.recall_now().up_to, MessageId(3));
}

impl Ledger {
    fn recall_now(&mut self) -> Recall {
        self.watch_recall().expect("it is watched");
        self.recall().expect("there is one")
    }
}

/// The transaction reaches Redis after the script that repeats it, over a connection that was given up.
#[test]
fn a_transaction_that_comes_late_does_nothing() {
    let mut f = fixture();
    let epoch = led(&mut f, &[1, 2]);
    let (mut given_up, mut consumer) = (other(&f), other(&f));
    given_up.watch_recall().expect("it is watched");
    assert_eq!(
        consumer.commit(None, None, Raise::To(MessageId(2)), &[commit(1), commit(2)]).expect("redis answers").recorded,
        2
    );
    assert_eq!(record(&mut given_up, &[1, 2]), None);
    assert_eq!((counts(&mut f), recall_of(&given_up)), ((2, 0), Some((epoch, 2))));
}

#[test]
fn the_recall_names_the_start_of_redis() {
    let mut f = fixture();
    led(&mut f, &[]);
    let run_id = f.ledger.run_id().expect("redis answers").expect("this user may read it");
    assert_eq!(f.ledger.recall_now().server, run_id);
}

#[test]
fn a_breach_shows() {
    let mut f = fixture();
    led(&mut f, &[1, 2, 3]);
    let mut consumer = other(&f);
    consumer.watch_recall().expect("it is watched");
    f.number(&["ZREMRANGEBYSCORE", "messages:pending", "2", "2"]);
    assert_eq!(record(&mut consumer, &[1, 2, 3]), Some(Recorded { removed: 2, unstored: NOTHING_UNSTORED }));
}

#[test]
fn results_that_could_not_be_stored_are_named_and_their_messages_put_back() {
    let mut f = fixture();
    led(&mut f, &[1, 2]);
    let mut consumer = other(&f);
    consumer.watch_recall().expect("it is watched");
    f.run(&["SET", "messages:processed", "mine"]);
    let Recorded { removed, unstored } = record(&mut consumer, &[1, 2]).expect("the recall was not written");
    let (ids, reason) = unstored.expect("a string takes no entries");
    assert_eq!((removed, ids), (2, vec![MessageId(1), MessageId(2)]));
    assert!(reason.contains("WRONGTYPE"), "{reason}");
    consumer
        .put_back(1, &[(MessageId(1), Body::copied(None, b"x")), (MessageId(2), Body::copied(None, b"x"))])
        .expect("there is room");
    f.run(&["DEL", "messages:processed"]);
    assert_eq!(
        consumer.commit(None, None, Raise::Nothing, &[commit(1), commit(2)]).expect("redis answers").recorded,
        2
    );
}

#[test]
fn full_memory_refuses_a_transaction_whole() {
    let mut f = fixture();
    led(&mut f, &[1]);
    let mut consumer = other(&f);
    consumer.watch_recall().expect("it is watched");
    f.run(&["CONFIG", "SET", "maxmemory", "1"]);
    let one = commit(1);
    let error = consumer.commit_sole(None, &[Sole::from(&one)]).expect_err("there is no memory");
    assert_eq!(error.refusal(), Some(Refusal::Memory));
    f.run(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(counts(&mut f), (0, 1));
    assert!(record(&mut consumer, &[1]).is_some(), "the watch stands");
}

#[test]
fn a_watch_ends_with_its_connection() {
    let mut f = fixture();
    led(&mut f, &[1]);
    let mut consumer = other(&f);
    consumer.watch_recall().expect("it is watched");
    f.run(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    let one = commit(1);
    assert!(consumer.commit_sole(None, &[Sole::from(&one)]).is_err());
    assert_eq!(consumer.recall(), None);
    assert_eq!(consumer.commit(None, None, Raise::Nothing, &[one]).expect("it connects again").recorded, 1);
    assert_eq!(consumer.recall(), None, "another connection watches nothing");
}

#[test]
fn a_message_put_back_under_the_next_leader_is_not_recorded_twice() {
    let mut f = fixture();
    led(&mut f, &[1, 2]);
    let mut unlucky = other(&f);
    unlucky.watch_recall().expect("it is watched");
    f.run(&["SET", "messages:processed", "mine"]);
    assert!(record(&mut unlucky, &[2]).is_some_and(|recorded| recorded.unstored.is_some()));
    f.run(&["DEL", "messages:processed"]);
    // The next leader begins while the message is in no key and the cursor does not count it.
    f.run(&["DEL", "messages:cursor"]);
    led(&mut f, &[]);
    let mut next = other(&f);
    next.watch_recall().expect("it is watched");
    unlucky.put_back(1, &[(MessageId(2), Body::copied(None, b"x"))]).expect("there is room");
    assert_eq!(record(&mut next, &[2]), None);
    assert_eq!(recall_of(&next).map(|(_, up_to)| up_to), Some(2));
}

#[test]
fn an_election_needs_nothing_of_the_recall_before() {
    let mut f = fixture();
    f.run(&["LPUSH", "messages:recall", "x"]);
    f.run(&["ZADD", "messages:pending", "9007199254740992", "foreign"]);
    let epoch = led(&mut f, &[]);
    assert_eq!(f.ledger.recall_now().up_to, MessageId(0), "what is none of ours counts for nothing");
    let later = led(&mut f, &[7]);
    assert!(later > epoch);
    assert_eq!(f.ledger.recall_now().up_to, MessageId(0), "what is gone is no longer recalled");
}

#[test]
fn however_many_foreign_members_there_are_the_recall_covers_all_stored_messages() {
    let mut f = fixture();
    led(&mut f, &[1, 7]);
    for stranger in 0..300 {
        f.run(&["ZADD", "messages:pending", "6000000000000000", &format!("stranger {stranger}")]);
    }
    led(&mut f, &[]);
    assert_eq!(f.ledger.recall_now().up_to, MessageId(7));
}

/// A separate user whose rights the test changes. It has all rights at first.
fn with_rights(f: &mut Fixture) -> Ledger {
    f.run(&["ACL", "SETUSER", "u", "on", ">p", "~*", "&*", "+@all"]);
    let url = f.redis.url().replace("redis://", "redis://u:p@");
    Ledger::new(Server::parse(&url).expect("a URL"), Arc::new(Keys::new("messages")), Duration::from_secs(10))
}

#[test]
fn without_the_right_to_transactions_none_is_sent() {
    for right in ["multi", "exec", "watch", "get"] {
        let mut f = fixture();
        led(&mut f, &[1]);
        let mut consumer = with_rights(&mut f);
        f.run(&["ACL", "SETUSER", "u", &format!("-{right}")]);
        consumer.watch_recall().expect("redis answers");
        let one = commit(1);
        match consumer.commit_sole(None, &[Sole::from(&one)]) {
            Ok(recorded) => assert_eq!(recorded, None, "there is no watch without {right}"),
            Err(error) => assert_eq!(error.refusal(), Some(Refusal::Right), "{right}"),
        }
        assert_eq!(counts(&mut f), (0, 1), "without {right} nothing took place");
        assert_eq!(
            consumer.commit(None, None, Raise::Nothing, &[one]).expect("the script does as well").recorded,
            1,
            "{right}"
        );
    }
}

/// Commands after a refused MULTI would be executed one by one.
#[test]
fn after_a_right_is_revoked_between_two_transactions_there_is_no_second_one() {
    for right in ["multi", "exec", "watch"] {
        let mut f = fixture();
        led(&mut f, &[1, 2, 3]);
        let mut consumer = with_rights(&mut f);
        consumer.watch_recall().expect("redis answers");
        f.run(&["ACL", "SETUSER", "u", &format!("-{right}")]);
        // Another leader begins, so commands sent now must have no effect.
        let epoch = led(&mut f, &[]);
        for id in [1, 2] {
            let one = commit(id);
            let outcome = consumer.commit_sole(None, &[Sole::from(&one)]);
            assert!(!matches!(outcome, Ok(Some(_))), "without {right}: {outcome:?}");
        }
        assert_eq!(counts(&mut f), (0, 3), "without {right} nothing took place");
        assert!(epoch > Epoch(0));
        assert_eq!(
            consumer.commit(None, None, Raise::Nothing, &[commit(1)]).expect("the script does as well").recorded,
            1,
            "{right}"
        );
    }
}

#[test]
fn messages_are_put_back_once_however_late_a_copy_of_the_call_arrives() {
    let mut f = fixture();
    led(&mut f, &[1]);
    let messages = [(MessageId(1), Body::copied(None, b"x"))];
    f.number(&["ZREMRANGEBYSCORE", "messages:pending", "1", "1"]);
    f.ledger.put_back(7, &messages).expect("there is room");
    assert_eq!(f.ledger.commit(None, None, Raise::Nothing, &[commit(1)]).expect("redis answers").recorded, 1);
    // A late copy of the first attempt, over a connection that was given up.
    other(&f).put_back(7, &messages).expect("redis answers");
    assert_eq!(counts(&mut f), (1, 0), "a message that is recorded stays so");
}

impl Fixture {
    pub(super) fn acquire_by_another(&mut self, floor: Epoch) {
        let id = DispatcherId::generate("b");
        let _subscription = self.listen(&id);
        let mut ledger = other(self);
        let acquired = wait_until(Duration::from_secs(10), "the lease is free", || {
            let answer = ledger.acquire(&id, TTL, floor, true)?.answer;
            Ok(matches!(answer, Acquire::Acquired { .. }).then_some(()))
        });
        acquired.expect("it gets the lease");
    }
}
