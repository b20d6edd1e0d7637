//! Each operation against a private Redis.

use std::io::Write;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use redis::Value;

use super::scripts::*;
use super::subscription::{Channels, Length, Published, Seen, Subscriber, Subscription};
use super::value::text;
use super::*;
use crate::base::error::{Error, Result};
use crate::base::hint::ChosenBy;
use crate::base::id::{DispatcherId, Epoch, MessageId};
use crate::lab::{RedisOptions, RedisServer, wait_until};

mod bundle_pages;
mod bundles;
mod delays;
mod followers;
mod intakes;
mod interests;
mod keyspace;
mod looks;
mod primaries;
mod refusals;
mod replays;
mod replicas;
mod samples;
mod sentinels;
mod settings;
mod sizes;
mod streams;
mod transactions;

const TTL: Duration = Duration::from_secs(60);

/// Says that the running test is left out, past the harness's capture, so that it is seen although the test passes.
fn skipped(why: &str) {
    let thread = std::thread::current();
    // Nothing depends on it being read.
    let _ = writeln!(std::io::stderr(), "SKIPPED {}: {why}", thread.name().unwrap_or("a test"));
}

struct Fixture {
    redis: RedisServer,
    ledger: Ledger,
}

fn fixture() -> Fixture {
    let redis = RedisServer::start(RedisOptions::default()).expect("a private Redis starts");
    let ledger = Ledger::new(redis.server(), Arc::new(Keys::new("messages")), Duration::from_secs(10));
    Fixture { redis, ledger }
}

impl Fixture {
    fn run(&mut self, words: &[&str]) -> Value {
        self.ledger.connection.query("testing", Command::of(words)).expect("the command is carried out")
    }

    fn number(&mut self, words: &[&str]) -> i64 {
        match self.run(words) {
            Value::Int(number) => number,
            other => panic!("{words:?}: {other:?}"),
        }
    }

    /// Writes an epoch, without a lease.
    fn epoch(&mut self, epoch: u64) -> Epoch {
        self.run(&["SET", "messages:epoch", &epoch.to_string()]);
        Epoch(epoch)
    }

    /// A dispatcher's established subscription.
    fn listen(&self, id: &DispatcherId) -> Subscription {
        self.listen_to(Interests::in_channel("messages:published"), id)
    }

    fn listen_to(&self, interests: Interests, id: &DispatcherId) -> Subscription {
        let channels = Channels {
            server: self.redis.server(),
            keys: Arc::new(Keys::new("messages")),
            interests: Arc::new(interests),
            subscriber: Subscriber::Dispatcher(id.clone()),
        };
        let join = Marker::of_join(id, 1);
        let mut subscription = Subscription::open(&channels, Some(&join), Duration::from_secs(10)).unwrap();
        let mut seen = Vec::new();
        while seen.is_empty() {
            seen = subscription.read().unwrap().expect("the join marker comes back").seen;
        }
        assert_eq!(seen, [Seen::Marker(join)]);
        subscription
    }

    /// Subscribes this dispatcher and acquires the lease. The dispatcher stays subscribed while the subscription is
    /// kept.
    fn acquire_and_listen(&mut self, id: &DispatcherId, floor: Epoch) -> (Lease, Subscription) {
        let subscription = self.listen(id);
        (self.lease(id, floor), subscription)
    }

    /// Acquires the lease for a dispatcher that is subscribed.
    fn lease(&mut self, id: &DispatcherId, floor: Epoch) -> Lease {
        // Redis may not have noticed yet that the subscription of an earlier holder is gone.
        let lease = wait_until(Duration::from_secs(10), "the lease is free", || {
            match self.ledger.acquire(id, TTL, floor, true)?.answer {
                Acquire::Acquired { lease, .. } => Ok(Some(lease)),
                _ => Ok(None),
            }
        });
        lease.expect("it gets the lease")
    }

    /// The same for a dispatcher that is gone at once.
    fn acquire(&mut self, id: &DispatcherId, floor: Epoch) -> Lease {
        self.acquire_and_listen(id, floor).0
    }

    /// Stores one message for each id, after the present cursor.
    fn pend(&mut self, epoch: Epoch, ids: &[u64]) {
        let batch: Vec<Arrival> = ids.iter().map(|id| arrival(*id, b"x")).collect();
        let before = self.ledger.cursor().expect("the cursor is read");
        let next = cursor("m", ids.len() as u64, ids.last().copied().unwrap_or_default());
        assert_eq!(self.ledger.intake(epoch, before.as_ref(), &next, &batch).unwrap(), IntakeAnswer::Taken(next));
    }
}

fn arrival(id: u64, payload: &[u8]) -> Arrival {
    Arrival { id: MessageId(id), body: Body::copied(None, payload), refused: None }
}

fn cursor(marker: &str, offset: u64, last_id: u64) -> Cursor {
    Cursor { position: Position { marker: marker.parse().unwrap(), offset }, last_id: MessageId(last_id) }
}

/// A part of the backlog.
fn part(after: MessageId, up_to: MessageId, messages: usize, bytes: usize) -> PageRequest {
    PageRequest { after, up_to, messages, bytes }
}

fn commit(id: u64) -> Commit {
    Commit { id: MessageId(id), fields: ["message_id", &id.to_string()].into_iter().collect() }
}

fn returned(id: u64, verdict: Verdict) -> Returned {
    let (delivery, consumer, reason) = (DeliveryNumber::Adopted, "c0".into(), "because".into());
    Returned { id: MessageId(id), verdict, delivery, hold: Hold::Held, consumer, reason }
}

/// Without a wait.
fn settling(returned: &Returned, delivery: u16) -> Settling<'_> {
    Settling { returned, delivery, wait: Duration::ZERO }
}

#[test]
fn one_holder_and_rising_epochs() {
    let mut f = fixture();
    let (a, b) = (DispatcherId::generate("a"), DispatcherId::generate("b"));
    assert_eq!(f.ledger.acquire(&a, TTL, Epoch(0), false).unwrap().answer, Acquire::Vacant { cursor: None });
    let first = f.acquire(&a, Epoch(0));
    // a's alive channel has no subscriber, so its lease counts as abandoned.
    let second = f.acquire(&b, Epoch(0));
    assert!(second.epoch > first.epoch && !second.by_time);
    assert!(!f.ledger.renew(&first, TTL).unwrap());
    assert!(f.ledger.renew(&second, TTL).unwrap());
    assert!(!f.ledger.release(&first).unwrap());
    assert!(f.ledger.release(&second).unwrap());
    assert_eq!(f.number(&["EXISTS", "messages:leader"]), 0);
}

#[test]
fn a_lease_lasts_while_its_holder_is_subscribed() {
    let mut f = fixture();
    let (a, b) = (DispatcherId::generate("a"), DispatcherId::generate("b"));
    let (lease, subscription) = f.acquire_and_listen(&a, Epoch(0));
    let _heard = f.listen(&b);
    let held = Acquire::Held { lease, cursor: None };
    assert_eq!(f.ledger.acquire(&b, TTL, Epoch(0), true).unwrap().answer, held);
    drop(subscription);
    let taken = crate::lab::wait_until(Duration::from_secs(10), "the lease is free", || {
        let answer = f.ledger.acquire(&b, TTL, Epoch(0), true)?.answer;
        Ok(matches!(answer, Acquire::Acquired { .. }).then_some(()))
    });
    taken.unwrap();
}

#[test]
fn epochs_never_go_back() {
    let mut f = fixture();
    let a = DispatcherId::generate("a");
    let ahead = crate::base::id::wall_clock_us() / 1_000 + 3_600_000;
    f.epoch(ahead);
    let lease = f.acquire(&a, Epoch(0));
    assert_eq!(lease.epoch, Epoch(ahead + 2), "the clock is behind the epoch, and the server is the same");
    f.run(&["FLUSHALL"]);
    let lease = f.acquire(&a, Epoch(ahead + 7));
    assert_eq!(lease.epoch, Epoch(ahead + 8), "the caller remembers what Redis forgot");
}

#[test]
fn intake_moves_members_and_cursor_together() {
    let mut f = fixture();
    let epoch = f.epoch(5);
    let next = cursor("m", 3, 12);
    let refused = Arrival { refused: Some("too large".to_owned()), ..arrival(12, b"beginning") };
    let batches = [vec![arrival(10, b""), arrival(11, b"\0\xff:")], vec![refused]];
    let cursors = [None, Some(cursor("m", 2, 11)), Some(next.clone())];
    for (batch, between) in batches.iter().zip(cursors.windows(2)) {
        let [before, Some(next)] = between else { panic!("a batch ends at a cursor") };
        assert_eq!(f.ledger.intake(epoch, before.as_ref(), next, batch).unwrap(), IntakeAnswer::Taken(next.clone()));
        assert_eq!(f.ledger.cursor().unwrap(), Some(next.clone()));
        // Offered again, after a lost reply: nothing happens, and the cursor shows that it was stored.
        let again = f.ledger.intake(epoch, before.as_ref(), next, batch);
        assert_eq!(again.unwrap(), IntakeAnswer::Moved(Some(next.clone())));
    }
    assert_eq!((f.number(&["ZCARD", "messages:pending"]), f.number(&["XLEN", "messages:dead"])), (2, 1));
    let page = f.ledger.page(epoch, part(MessageId::ZERO, MessageId(99), 10, 1000)).unwrap();
    let payloads: Vec<_> =
        page.messages.iter().map(|message| (message.id.0, message.body.payload().to_vec())).collect();
    assert_eq!(payloads, [(10, b"".to_vec()), (11, b"\0\xff:".to_vec())]);
}

#[test]
fn a_full_batch_fits_into_one_script() {
    let mut f = fixture();
    let epoch = f.epoch(5);
    let ids: Vec<u64> = (1..=MAX_BATCH_MESSAGES as u64).collect();
    f.pend(epoch, &ids);
    let commits: Vec<Commit> = ids.iter().map(|id| commit(*id)).collect();
    assert_eq!(f.ledger.commit(None, None, Raise::Nothing, &commits).unwrap().recorded, MAX_BATCH_MESSAGES);
}

#[test]
fn the_widest_result_fits_into_one_script() {
    let mut f = fixture();
    let epoch = f.epoch(5);
    f.pend(epoch, &[1]);
    let fields = (0..MAX_RESULT_FIELDS).flat_map(|n| [n.to_string(), String::new()]).collect();
    assert_eq!(
        f.ledger
            .commit(None, NonZeroU64::new(10), Raise::Nothing, &[Commit { id: MessageId(1), fields }])
            .unwrap()
            .recorded,
        1
    );
}

#[test]
fn every_write_of_a_stale_leader_is_refused() {
    let mut f = fixture();
    let stale = f.epoch(5);
    f.pend(stale, &[1]);
    let cursor = f.ledger.cursor().unwrap();
    f.epoch(6);
    let gap = Gap {
        reason: "test",
        dispatcher: DispatcherId::generate("a"),
        begin: String::new(),
        end: String::new(),
        count: None,
        servers: None,
    };
    let next = super::Cursor { last_id: MessageId(2), ..cursor.clone().unwrap() };
    let ledger = &mut f.ledger;
    let refusals = [
        ledger.intake(stale, cursor.as_ref(), &next, &[arrival(2, b"x")]).err(),
        ledger.commit(Some(stale), None, Raise::Nothing, &[commit(1)]).err(),
        ledger.settle(stale, 1, &[settling(&returned(1, Verdict::Failed), 1)]).err(),
        ledger.count_deliveries(stale, &[(MessageId(1), 2)]).err(),
        ledger.set_consumers(stale, &["c".to_owned()]).err(),
        ledger.record_gap(stale, &gap).err(),
        ledger.publish_marker(stale, &Marker::of_leader(stale, 1), &Interests::in_channel("c")).err(),
        ledger.page(stale, part(MessageId::ZERO, MessageId(9), 10, 100)).err(),
        ledger.fetch(stale, &[MessageId(1)], 100).err(),
    ];
    for refusal in refusals {
        assert!(matches!(refusal, Some(Error::Fenced { mine: Epoch(5), ref found }) if found == "6"), "{refusal:?}");
    }
    assert_eq!(f.number(&["ZCARD", "messages:pending"]), 1);
    for key in ["messages:processed", "messages:dead", "messages:consumers", "messages:gaps", "messages:attempts"] {
        assert_eq!(f.number(&["EXISTS", key]), 0, "{key}");
    }
}

#[test]
fn a_gap_whose_reply_got_lost_is_not_recorded_again() {
    let mut f = fixture();
    let epoch = f.epoch(5);
    let gap = |count| Gap {
        reason: "test",
        dispatcher: DispatcherId::generate("a"),
        begin: "m 0 1".to_owned(),
        end: "m 7".to_owned(),
        count: Some(count),
        servers: None,
    };
    let first = gap(7);
    for (gap, recorded) in [(&first, 1), (&first, 1), (&gap(8), 2), (&first, 3)] {
        f.ledger.record_gap(epoch, gap).unwrap();
        assert_eq!(f.number(&["XLEN", "messages:gaps"]), recorded);
    }
    // The next leader finds the same gap, because the cursor has not passed it.
    let by_another = |end: &str| Gap { dispatcher: DispatcherId::generate("b"), end: end.to_owned(), ..gap(7) };
    for (end, recorded) in [("m 7", 3), ("m 8", 4), ("unknown", 5), ("unknown", 6)] {
        f.ledger.record_gap(epoch, &by_another(end)).unwrap();
        assert_eq!(f.number(&["XLEN", "messages:gaps"]), recorded, "{end}");
    }
    f.run(&["XTRIM", "messages:gaps", "MAXLEN", "0"]);
    f.ledger.record_gap(epoch, &gap(8)).unwrap();
    f.ledger.record_gap(epoch, &first).unwrap();
    let newest = f.ledger.newest_gaps(2).unwrap();
    assert_eq!(newest.iter().map(|gap| gap.count.as_str()).collect::<Vec<_>>(), ["7", "8"]);
    assert_eq!((newest[0].reason.as_str(), newest[0].begin.as_str(), newest[0].end.as_str()), ("test", "m 0 1", "m 7"));
}

#[test]
fn a_new_leader_learns_the_highest_pending_id() {
    let mut f = fixture();
    let epoch = f.epoch(5);
    f.pend(epoch, &[1, 7, 3]);
    let a = DispatcherId::generate("a");
    let answer = f.ledger.acquire(&a, TTL, Epoch(0), true).unwrap().answer;
    assert!(matches!(answer, Acquire::Acquired { newest: Some(MessageId(7)), .. }), "{answer:?}");
}

#[test]
fn a_result_is_recorded_once() {
    let mut f = fixture();
    let epoch = f.epoch(5);
    f.pend(epoch, &[1, 2]);
    assert_eq!(f.ledger.commit(None, None, Raise::Nothing, &[commit(1), commit(1), commit(3)]).unwrap().recorded, 1);
    assert_eq!(f.ledger.commit(None, None, Raise::Nothing, &[commit(1)]).unwrap().recorded, 0);
    assert_eq!(
        f.ledger
            .commit(Some(epoch), None, Raise::Nothing, &[Commit { id: MessageId(2), fields: Words::default() }])
            .unwrap()
            .recorded,
        1
    );
    assert_eq!((f.number(&["XLEN", "messages:processed"]), f.number(&["ZCARD", "messages:pending"])), (1, 0));
}

#[test]
fn a_score_that_two_members_share_loses_no_result() {
    // No leader writes such members, but an operator may.
    let mut f = fixture();
    f.run(&["ZADD", "messages:pending", "1", "0000000000000001:x", "1", "0000000000000001:y"]);
    assert_eq!(f.ledger.commit(None, None, Raise::Nothing, &[commit(1)]).unwrap().recorded, 1);
    assert_eq!((f.number(&["XLEN", "messages:processed"]), f.number(&["ZCARD", "messages:pending"])), (1, 0));
}

#[test]
fn a_result_key_of_the_wrong_type_loses_nothing_and_is_named() {
    let mut f = fixture();
    let epoch = f.epoch(5);
    f.pend(epoch, &[1]);
    f.run(&["SET", "messages:processed", "mine"]);
    let error = f.ledger.commit(None, None, Raise::Nothing, &[commit(1)]).expect_err("a string takes no entries");
    assert!(error.is_retryable() && error.to_string().contains("messages:processed is a string"), "{error}");
    assert_eq!(f.number(&["ZCARD", "messages:pending"]), 1);
    f.run(&["DEL", "messages:processed"]);
    f.run(&["DEL", "messages:pending"]);
    f.run(&["LPUSH", "messages:pending", "x"]);
    let before = f.ledger.cursor().unwrap();
    let next = super::Cursor { last_id: MessageId(2), ..before.clone().unwrap() };
    let error =
        f.ledger.intake(epoch, before.as_ref(), &next, &[arrival(2, b"x")]).expect_err("a list takes no members");
    assert!(error.to_string().contains("messages:pending is a list, it must be a zset"), "{error}");
    assert_eq!(f.ledger.cursor().unwrap(), before, "the cursor has not moved");
}

#[test]
fn full_memory_stops_the_intake_but_not_the_commit() {
    let mut f = fixture();
    let epoch = f.epoch(5);
    f.pend(epoch, &[1]);
    // Loaded while there is room, as in a running group.
    f.ledger.commit(None, None, Raise::Nothing, &[]).unwrap();
    f.run(&["CONFIG", "SET", "maxmemory", "1"]);
    let before = f.ledger.cursor().unwrap();
    let next = super::Cursor { last_id: MessageId(2), ..before.clone().unwrap() };
    let error = f.ledger.intake(epoch, before.as_ref(), &next, &[arrival(2, b"x")]).expect_err("there is no memory");
    assert!(error.is_retryable() && error.to_string().contains("maxmemory"), "{error}");
    assert_eq!(f.ledger.cursor().unwrap(), before);
    assert_eq!(f.ledger.commit(None, None, Raise::Nothing, &[commit(1)]).unwrap().recorded, 1);
    assert_eq!(f.number(&["XLEN", "messages:processed"]), 1);
}

#[test]
fn full_memory_stops_neither_elections_nor_settling() {
    let mut f = fixture();
    let a = DispatcherId::generate("a");
    // Redis 8.6.3 accepts no subscription while its memory is full, so it is kept.
    let (lease, _subscription) = f.acquire_and_listen(&a, Epoch(0));
    let epoch = lease.epoch;
    f.pend(epoch, &[1, 2]);
    f.run(&["CONFIG", "SET", "maxmemory", "1"]);
    assert!(f.ledger.renew(&lease, TTL).unwrap());
    let (failed, rejected) = (returned(1, Verdict::Failed), returned(2, Verdict::Rejected));
    let batch = [settling(&failed, 1), settling(&rejected, 1)];
    assert_eq!(f.ledger.settle(epoch, 3, &batch).unwrap().settled, [Settled::Again(2), Settled::DeadLettered]);
    let dispatcher = a.clone();
    let gap =
        Gap { reason: "test", dispatcher, begin: String::new(), end: String::new(), count: Some(1), servers: None };
    f.ledger.record_gap(epoch, &gap).unwrap();
    f.ledger.set_consumers(epoch, &["c0".to_owned()]).unwrap();
    f.ledger.release(&lease).unwrap();
    f.lease(&a, Epoch(0));
}

#[test]
fn a_dead_letter_key_of_the_wrong_type_stops_the_whole_intake() {
    let mut f = fixture();
    let epoch = f.epoch(5);
    f.run(&["SET", "messages:dead", "mine"]);
    let refused = Arrival { refused: Some("too large".to_owned()), ..arrival(2, b"beginning") };
    let error = f.ledger.intake(epoch, None, &cursor("m", 2, 2), &[refused]).expect_err("a string");
    assert!(error.to_string().contains("messages:dead is a string"), "{error}");
    assert_eq!((f.number(&["ZCARD", "messages:pending"]), f.ledger.cursor().unwrap()), (0, None));
}

#[test]
fn failed_deliveries_are_counted_and_the_last_one_makes_a_dead_letter() {
    let mut f = fixture();
    let epoch = f.epoch(5);
    f.pend(epoch, &[1, 2, 3]);
    let mut settle = |verdict, id, delivery| {
        f.ledger.settle(epoch, 3, &[settling(&returned(id, verdict), delivery)]).unwrap().settled[0]
    };
    assert_eq!(settle(Verdict::Failed, 1, 1), Settled::Again(2));
    assert_eq!(settle(Verdict::Failed, 1, 1), Settled::Again(2), "a repeated call counts once");
    assert_eq!(settle(Verdict::Unused, 1, 2), Settled::Again(2));
    assert_eq!(settle(Verdict::Lost, 1, 2), Settled::Again(3), "counted when it is delivered again");
    assert_eq!(settle(Verdict::Failed, 1, 2), Settled::Again(3));
    assert_eq!(settle(Verdict::Failed, 1, 3), Settled::DeadLettered);
    assert_eq!(settle(Verdict::Failed, 1, 3), Settled::Gone);
    assert_eq!(settle(Verdict::Rejected, 2, 1), Settled::DeadLettered);
    assert_eq!(f.number(&["HLEN", "messages:attempts"]), 0);
    assert_eq!(f.number(&["XLEN", "messages:dead"]), 2);
    let entry = format!("{:?}", f.run(&["XRANGE", "messages:dead", "-", "+", "COUNT", "1"]));
    for part in ["0000000000000001", "because", "deliveries", "'3'", "c0"] {
        assert!(entry.contains(&part.replace('\'', "")), "{part}: {entry}");
    }
    f.ledger.settle(epoch, 3, &[settling(&returned(3, Verdict::Failed), 1)]).unwrap();
    let Fetched { looked_at, messages: found, .. } =
        f.ledger.fetch(epoch, &[MessageId(1), MessageId(3)], 1000).unwrap();
    assert_eq!((looked_at, found.len(), found[0].delivery), (2, 1, 2));
    assert_eq!(f.ledger.commit(None, None, Raise::Nothing, &[commit(3)]).unwrap().recorded, 1);
    assert_eq!(f.number(&["HLEN", "messages:attempts"]), 0, "the count goes with the message");
}

#[test]
fn redeliveries_are_counted_for_pending_messages_only() {
    let mut f = fixture();
    let epoch = f.epoch(5);
    f.pend(epoch, &[1, 2]);
    assert_eq!(
        f.ledger.settle(epoch, 1, &[settling(&returned(1, Verdict::Lost), 1)]).unwrap().settled,
        [Settled::Again(2)]
    );
    assert_eq!(f.number(&["HLEN", "messages:attempts"]), 0, "its consumer may come back with it");
    for _ in 0..2 {
        f.ledger.count_deliveries(epoch, &[(MessageId(1), 2), (MessageId(7), 2)]).unwrap();
    }
    let ids = [1, 2, 7].map(MessageId);
    assert_eq!(f.ledger.deliveries(&ids).unwrap(), [2, 1, 1]);
    assert_eq!(f.number(&["HLEN", "messages:attempts"]), 1, "a count of what is done would stay for ever");
}

#[test]
fn the_backlog_is_read_in_pages_bounded_in_messages_and_bytes() {
    let mut f = fixture();
    let epoch = f.epoch(5);
    f.pend(epoch, &(1..=100).collect::<Vec<_>>());
    f.run(&["ZADD", "messages:pending", "50.5", "a stranger"]);
    let mut after = MessageId::ZERO;
    let mut read = Vec::new();
    while let Page { read_up_to: Some(up_to), messages, .. } =
        f.ledger.page(epoch, part(after, MessageId(90), 7, 1 << 20)).unwrap()
    {
        assert!(messages.len() <= 7 && up_to > after);
        read.extend(messages.iter().map(|message| message.id.0));
        after = up_to;
    }
    assert_eq!(read, (1..=90).collect::<Vec<_>>());
    let one = f.ledger.page(epoch, part(MessageId::ZERO, MessageId(90), 7, 1)).unwrap();
    assert_eq!(one.messages.len(), 1, "one message is returned whatever its size");
}

#[test]
fn lost_scripts_are_loaded_again() {
    let mut f = fixture();
    let epoch = f.epoch(5);
    f.pend(epoch, &[1]);
    f.run(&["SCRIPT", "FLUSH"]);
    f.pend(epoch, &[2]);
    assert_eq!(f.number(&["ZCARD", "messages:pending"]), 2);
}

#[test]
fn errors_name_the_server_and_the_setting() {
    let ledger = |url: &str| {
        let server = Server::parse(url).unwrap().chosen(ChosenBy::Setting("--redis-url"));
        Ledger::new(server, Arc::new(Keys::new("messages")), TTL)
    };
    let options = RedisOptions { password: Some("sesame".to_owned()), ..RedisOptions::default() };
    let redis = RedisServer::start(options).unwrap();
    let wrong = format!("redis://:wrong@127.0.0.1:{}", redis.port());
    let error = ledger(&wrong).cursor().expect_err("the password is wrong").to_string();
    assert!(error.contains("--redis-url") && error.contains("password") && !error.contains("wrong@"), "{error}");
    let free = crate::lab::ports::free_port().unwrap();
    let error = ledger(&format!("redis://127.0.0.1:{free}")).cursor().expect_err("nothing listens").to_string();
    assert!(error.contains(&format!("127.0.0.1:{free}")) && error.contains("--redis-url"), "{error}");
}

#[test]
fn a_missing_epoch_differs_from_a_foreign_one() {
    let mut f = fixture();
    let a = DispatcherId::generate("a");
    let before = |f: &mut Fixture| match f.ledger.acquire(&a, TTL, Epoch(0), true).expect("redis answers").answer {
        Acquire::Acquired { before, .. } => before,
        other => panic!("{other:?}"),
    };
    assert_eq!(before(&mut f), None);
    for (text, expected) in [("1700000000000", 1_700_000_000_000), ("inf", 0), ("", 0), ("9007199254740992", 0)] {
        f.run(&["SET", "messages:epoch", text]);
        f.run(&["DEL", "messages:leader"]);
        assert_eq!(before(&mut f), Some(Epoch(expected)), "{text:?}");
    }
}
