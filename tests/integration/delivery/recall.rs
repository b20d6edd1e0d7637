//! The recall: a consumer records a message in a transaction, without checking that it is pending, only if the leader
//! vouches for the message and its connection is proven. Everything else is recorded by the script, which checks.
//!
//! The leader is scripted, so the test decides when something changes in Redis.

use crossbeam_channel::{Sender, bounded};
use oncecast::base::id::{Epoch, MessageId};
use oncecast::lab::RedisServer;
use oncecast::wire::Frame;
use oncecast::{Consumer, Delivery, Outcome};

use crate::support::running_consumer::RunningConsumer;
use crate::support::scripted_dispatcher::ScriptedDispatcher;
use crate::support::{client, elect, lasting_redis_server, pend, redis_server, run, run_on, wait_until};

/// A consumer whose handler waits for a permit for each message. Message 1 is recorded: the committer watches the
/// recall of the leader of epoch 5, and the leader's connection is proven.
struct Fixture {
    redis: RedisServer,
    consumer: RunningConsumer,
    leader: ScriptedDispatcher,
    permits: Sender<()>,
}

fn fixture(redis: RedisServer) -> Fixture {
    let (permits, gate) = bounded::<()>(100);
    let handler = move |delivery: &Delivery<'_>| {
        gate.recv()?;
        Ok(Outcome::new().field("body", delivery.payload()))
    };
    let builder = Consumer::builder().redis_url(redis.url()).listen("127.0.0.1:0").concurrency(1).prefetch(8);
    let consumer = RunningConsumer::start(builder.handler(handler));
    write_recall(&redis, 5, 0);
    let leader = ScriptedDispatcher::elected(&redis, consumer.address, 5, &[]);
    let mut fixture = Fixture { redis, consumer, leader, permits };
    fixture.deliver(1, 1);
    fixture.finish(1);
    assert_eq!(fixture.figures(), (1, 1, 0), "the first is recorded by script");
    fixture
}

/// Writes the recall, as the leader of this epoch does when it is elected or recalls messages.
fn write_recall(redis: &RedisServer, epoch: u64, up_to: u64) {
    let info: String = run_on(redis, &["INFO", "server"]);
    let run_id = info.lines().find_map(|line| line.strip_prefix("run_id:")).expect("it has one");
    run_on::<()>(redis, &["SET", "messages:recall", &format!("{epoch} {run_id} {up_to}")]);
}

impl Fixture {
    /// Makes a message pending, delivers it, and waits until the consumer holds it.
    fn deliver(&mut self, id: u64, delivery: u16) {
        pend(&self.redis, id, "x");
        // The previous message may still be counted as held just after its ACK.
        wait_until("the previous message to be released", || (self.consumer.stats.held() == 0).then_some(()));
        self.leader.send(&[Frame::Process { id: MessageId(id), delivery, body: b"x" }]);
        wait_until("it to be held", || (self.consumer.stats.held() == 1).then_some(()));
    }

    /// Lets the handler return and waits for the ACK.
    fn finish(&mut self, id: u64) {
        self.permits.send(()).expect("the handler waits");
        self.leader.expect_acks(&[id]);
    }

    /// Removes a message, as if another consumer had recorded it.
    fn remove(&self, id: u64) {
        let id = id.to_string();
        assert_eq!(run_on::<u64>(&self.redis, &["ZREMRANGEBYSCORE", "messages:pending", &id, &id]), 1);
    }

    /// The numbers of messages recorded, recorded by script, and dropped.
    fn figures(&self) -> (u64, u64, u64) {
        let stats = &self.consumer.stats;
        (stats.recorded(), stats.scripted(), stats.dropped())
    }

    fn results(&self) -> u64 {
        run_on(&self.redis, &["XLEN", "messages:processed"])
    }
}

#[test]
fn a_message_recalled_while_held_is_recorded_by_script() {
    let mut f = fixture(redis_server());
    f.deliver(2, 1);
    // The leader gives it to another consumer, which records it.
    write_recall(&f.redis, 5, 2);
    f.remove(2);
    f.finish(2);
    assert_eq!((f.figures(), f.results()), ((1, 1, 1), 1));
    // It vouches for messages that it delivers after that.
    f.deliver(3, 1);
    f.finish(3);
    assert_eq!((f.figures(), f.results()), ((2, 1, 1), 2));
}

#[test]
fn a_message_recalled_before_it_arrived_is_recorded_by_script() {
    let mut f = fixture(redis_server());
    write_recall(&f.redis, 5, 3);
    f.deliver(2, 1);
    f.finish(2);
    f.deliver(3, 1);
    f.remove(3);
    f.finish(3);
    assert_eq!((f.figures(), f.results()), ((2, 2, 1), 2));
}

#[test]
fn a_redelivery_is_recorded_by_script_and_its_count_cleared() {
    let mut f = fixture(redis_server());
    run_on::<()>(&f.redis, &["HSET", "messages:attempts", "2", "2"]);
    f.deliver(2, 2);
    f.finish(2);
    assert_eq!((f.figures(), f.results()), ((2, 2, 0), 2));
    assert!(!run_on::<bool>(&f.redis, &["EXISTS", "messages:attempts"]), "its count is left");
}

/// As when the messages were removed by hand, or are in another Redis.
#[test]
fn first_deliveries_that_are_not_pending_are_counted_unless_the_recall_explains_it() {
    let mut f = fixture(redis_server());
    let counted = |f: &Fixture| f.consumer.stats.not_pending();
    // Another consumer had it as well.
    write_recall(&f.redis, 5, 2);
    f.deliver(2, 1);
    f.remove(2);
    f.finish(2);
    // A later delivery: an earlier one may have ended well.
    f.deliver(3, 2);
    f.remove(3);
    f.finish(3);
    assert_eq!((f.figures(), counted(&f)), ((1, 1, 2), 0));
    // Without the recall there is no explanation.
    run_on::<()>(&f.redis, &["DEL", "messages:recall"]);
    f.deliver(4, 1);
    f.remove(4);
    f.finish(4);
    assert_eq!((f.figures(), counted(&f)), ((1, 1, 3), 1));
    // Nor if the leader vouches for it and the script checks anyway.
    write_recall(&f.redis, 6, 4);
    f.deliver(5, 1);
    f.remove(5);
    f.finish(5);
    assert_eq!((f.figures(), counted(&f), f.consumer.stats.breaches()), ((1, 1, 4), 2, 0));
}

/// The reply to the step that recorded it was lost. The consumer itself is the reason why the message is not pending at
/// the next attempt.
#[test]
fn a_message_the_consumer_may_have_recorded_itself_is_not_counted() {
    let mut f = fixture(redis_server());
    let admin = &mut client(&f.redis.url());
    // First by a transaction, then by the script.
    for id in [2, 3] {
        f.deliver(id, 1);
        let () = run(admin, &["CLIENT", "PAUSE", "600000", "WRITE"]);
        f.permits.send(()).expect("the handler waits");
        let waiting = wait_until("the result to be on its way", || {
            let clients: String = run(admin, &["CLIENT", "LIST"]);
            let line = clients.lines().find(|line| line.contains(" flags=b "))?;
            line.split(' ').find_map(|word| word.strip_prefix("id=")).map(str::to_owned)
        });
        // In one pipeline, so that no other command runs in between.
        let mut lost = redis::pipe();
        lost.cmd("CLIENT").arg("KILL").arg("ID").arg(waiting).ignore();
        lost.cmd("CLIENT").arg("UNPAUSE").ignore();
        lost.cmd("ZREMRANGEBYSCORE").arg("messages:pending").arg(id).arg(id);
        let removed: Vec<u64> = lost.query(admin).expect("Redis answers");
        assert_eq!(removed, [1]);
        f.leader.expect_acks(&[id]);
        run_on::<()>(&f.redis, &["DEL", "messages:recall"]);
    }
    assert_eq!((f.figures(), f.consumer.stats.not_pending()), ((1, 1, 2), 0));
}

#[test]
fn deliveries_of_a_new_leader_are_recorded_by_script_until_it_writes_the_recall() {
    let mut f = fixture(redis_server());
    f.leader = ScriptedDispatcher::elected(&f.redis, f.consumer.address, 6, &[]);
    f.deliver(2, 1);
    f.finish(2);
    f.deliver(3, 1);
    f.remove(3);
    f.finish(3);
    assert_eq!((f.figures(), f.results()), ((2, 2, 1), 2));
    write_recall(&f.redis, 7, 3);
    f.leader = ScriptedDispatcher::elected(&f.redis, f.consumer.address, 7, &[]);
    for id in [4, 5] {
        f.deliver(id, 1);
        f.finish(id);
    }
    assert_eq!((f.figures(), f.results()), ((4, 3, 1), 4), "the first is recorded by script");
}

#[test]
fn messages_held_when_the_redis_connection_broke_are_recorded_by_script() {
    let mut f = fixture(redis_server());
    f.deliver(2, 1);
    let skip = &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"];
    assert!(run_on::<u64>(&f.redis, skip) > 0);
    // As if its transaction had been executed and the reply lost.
    f.remove(2);
    f.finish(2);
    assert_eq!((f.figures(), f.results()), ((1, 1, 1), 1));
    for id in [3, 4] {
        f.deliver(id, 1);
        f.finish(id);
    }
    let (recorded, scripted, dropped) = f.figures();
    assert_eq!((recorded, dropped, f.results(), f.consumer.stats.breaches()), (3, 1, 3, 0));
    // Message 3 is recorded by script as well if the loss was noticed before the transaction: then nothing explains why
    // message 2 was not pending.
    assert!(scripted <= 2, "{scripted} were recorded by script");
}

#[test]
fn after_a_restart_of_redis_only_later_leaders_are_trusted() {
    let mut f = fixture(lasting_redis_server());
    f.redis.kill().expect("it runs");
    f.redis.start_again().expect("it starts again");
    // Redis may have lost a recall, or the intake of messages that this leader is delivering, and the leader doesn't
    // know.
    run_on::<()>(&f.redis, &["SET", "messages:recall", "5 before 0"]);
    for id in [2, 3] {
        f.deliver(id, 1);
        f.finish(id);
    }
    assert_eq!((f.figures(), f.results()), ((3, 3, 0), 3));
    write_recall(&f.redis, 6, 3);
    f.leader = ScriptedDispatcher::elected(&f.redis, f.consumer.address, 6, &[]);
    for id in [4, 5] {
        f.deliver(id, 1);
        f.finish(id);
    }
    assert_eq!((f.figures(), f.results()), ((5, 4, 0), 5));
}

#[test]
fn after_a_breach_scripts_record_until_a_message_is_found_pending() {
    let mut f = fixture(redis_server());
    f.deliver(2, 1);
    // No program may do this without a recall.
    f.remove(2);
    f.finish(2);
    let counted = |f: &Fixture| (f.consumer.stats.breaches(), f.consumer.stats.not_pending());
    assert_eq!(counted(&f), (1, 1));
    f.deliver(3, 1);
    f.remove(3);
    f.finish(3);
    f.deliver(4, 1);
    f.finish(4);
    assert_eq!((f.figures(), f.results()), ((3, 2, 1), 3));
    f.deliver(5, 1);
    f.finish(5);
    assert_eq!((f.figures(), f.results(), counted(&f)), ((4, 2, 1), 4, (1, 2)));
}

/// A stranger sends ids above the recall in the leader's epoch, like first deliveries of the leader.
#[test]
fn a_connection_with_invented_messages_records_nothing() {
    let f = fixture(redis_server());
    let mut stranger = ScriptedDispatcher::lead(f.consumer.address, 5, &[]);
    for id in [100, 101, 102] {
        f.permits.send(()).expect("the handler lives");
        stranger.send(&[Frame::Process { id: MessageId(id), delivery: 1, body: b"made up" }]);
        stranger.expect_acks(&[id]);
    }
    let stats = &f.consumer.stats;
    assert_eq!((f.figures(), f.results()), ((1, 1, 3), 1));
    assert_eq!((stats.not_pending(), stats.breaches()), (3, 0));
}

#[test]
fn under_load_only_the_first_batch_of_a_connection_uses_the_script() {
    const BATCH: u64 = 1_000;
    let redis = redis_server();
    let handler = |_: &Delivery<'_>| Ok(Outcome::new().field("x", "x"));
    let builder = Consumer::builder().redis_url(redis.url()).listen("127.0.0.1:0").concurrency(2).prefetch(60_000);
    let consumer = RunningConsumer::start(builder.handler(handler));
    write_recall(&redis, 5, 0);
    let mut leader = ScriptedDispatcher::elected(&redis, consumer.address, 5, &[]);
    let ids: Vec<u64> = (1..=20 * BATCH).collect();
    for ids in ids.chunks(100) {
        let members = ids.iter().map(|id| (*id, format!("{id:016x}:x"))).collect::<Vec<_>>();
        let mut add = redis::cmd("ZADD");
        add.arg("messages:pending");
        members.iter().for_each(|(id, member)| {
            add.arg(id).arg(member);
        });
        add.exec(&mut client(&redis.url())).expect("Redis answers");
        leader.send(
            &ids.iter().map(|id| Frame::Process { id: MessageId(*id), delivery: 1, body: b"x" }).collect::<Vec<_>>(),
        );
    }
    leader.expect_acks(&ids);
    let stats = &consumer.stats;
    assert_eq!((stats.recorded(), stats.dropped(), stats.breaches()), (20 * BATCH, 0, 0));
    assert!((1..=BATCH).contains(&stats.scripted()), "{} were recorded by script", stats.scripted());
}

#[test]
fn a_result_that_redis_refuses_in_a_transaction_is_not_lost() {
    let mut f = fixture(redis_server());
    run_on::<()>(&f.redis, &["DEL", "messages:processed"]);
    run_on::<()>(&f.redis, &["SET", "messages:processed", "mine"]);
    f.deliver(2, 1);
    f.permits.send(()).expect("the handler waits");
    wait_until("an error of Redis to be counted", || (f.consumer.stats.redis_errors() > 0).then_some(()));
    assert_eq!(run_on::<u64>(&f.redis, &["ZCARD", "messages:pending"]), 1, "its message is put back");
    run_on::<()>(&f.redis, &["DEL", "messages:processed"]);
    f.leader.expect_acks(&[2]);
    assert_eq!((f.results(), f.consumer.stats.breaches()), (1, 0));
}

#[test]
fn the_epoch_of_each_frame_decides_and_not_the_newest_known() {
    let mut f = fixture(redis_server());
    f.deliver(2, 1);
    // The next leader vouches for messages that it delivers itself, not for those that this consumer held before.
    write_recall(&f.redis, 6, 1);
    elect(&f.redis, 6);
    f.leader = ScriptedDispatcher::connect(f.consumer.address);
    f.leader.send(&[Frame::Lead { epoch: Epoch(6), group: "messages" }]);
    assert_eq!((f.leader.next().as_str(), f.leader.next().as_str()), ("READY", "HELD 2"));
    f.remove(2);
    f.finish(2);
    assert_eq!((f.figures(), f.results()), ((1, 1, 1), 1));
}

/// The recall can't be read for a while, as when Redis loads its file. What was known about the server before the
/// restart must not be used.
#[test]
fn a_refused_watch_is_retried() {
    let mut f = fixture(lasting_redis_server());
    let before: String = run_on(&f.redis, &["GET", "messages:recall"]);
    let before = before.split(' ').nth(1).expect("a run id").to_owned();
    f.redis.kill().expect("it runs");
    f.redis.start_again().expect("it starts again");
    wait_until("it to connect again", || {
        (f.consumer.stats.redis_reconnects() > 0 && f.consumer.stats.redis_is_up()).then_some(())
    });
    run_on::<()>(&f.redis, &["ACL", "SETUSER", "default", "-get"]);
    f.deliver(2, 1);
    f.finish(2);
    run_on::<()>(&f.redis, &["ACL", "SETUSER", "default", "+get"]);
    assert_eq!(f.figures(), (2, 2, 0));
    // The run id from before the restart; Redis may have lost writes since.
    run_on::<()>(&f.redis, &["SET", "messages:recall", &format!("6 {before} 0")]);
    f.leader = ScriptedDispatcher::elected(&f.redis, f.consumer.address, 6, &[]);
    f.deliver(3, 1);
    f.finish(3);
    f.deliver(4, 1);
    f.remove(4);
    f.finish(4);
    assert_eq!((f.figures(), f.consumer.stats.breaches()), ((3, 3, 1), 0));
}

/// A stranger that knows the epoch delivers a message to a second consumer. The first one, which has it from the
/// leader, would record it in a transaction.
#[test]
fn a_message_delivered_by_a_stranger_as_well_is_recorded_once() {
    let mut f = fixture(redis_server());
    // The leader delivered this message to the consumer of the fixture, whose handler works on it.
    f.deliver(2, 1);
    let builder = Consumer::builder().redis_url(f.redis.url()).listen("127.0.0.1:0").concurrency(1).prefetch(8);
    let other = RunningConsumer::start(builder.handler(|_: &Delivery<'_>| Ok(Outcome::new().field("by", "other"))));
    let mut stranger = ScriptedDispatcher::lead(other.address, 5, &[]);
    stranger.send(&[Frame::Process { id: MessageId(2), delivery: 1, body: b"x" }]);
    stranger.expect_acks(&[2]);
    f.finish(2);
    assert_eq!((f.results(), f.consumer.stats.breaches(), f.consumer.stats.dropped()), (2, 0, 1));
}
