//! A consumer accepts a leader only if its own Redis names the same epoch. It refuses a forged epoch, and it refuses
//! the true leader if its Redis is not that of the dispatchers.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use oncecast::base::id::{Epoch, MessageId};
use oncecast::lab::{ChildProcess, RedisServer, Signal};
use oncecast::wire::Frame;
use oncecast::{Consumer, ConsumerBuilder};

use crate::support::proxy::Proxy;
use crate::support::running_consumer::RunningConsumer;
use crate::support::scripted_dispatcher::ScriptedDispatcher;
use crate::support::{
    DEADLINE, client, elect, lasting_redis_server, pend, programs, publish, redis_server, run, run_on, state,
    wait_until, wait_until_in_sync,
};

/// A dispatcher waits 3 s for the answer to its LEAD.
const ANSWER_LIMIT: Duration = Duration::from_millis(2_500);

fn consumer_at(url: &str) -> ConsumerBuilder {
    Consumer::builder().redis_url(url).listen("127.0.0.1:0").handler(oncecast::programs::consumer::stamp)
}

/// The answer to LEAD with this epoch; fails if it is late.
fn answer(address: SocketAddr, epoch: u64) -> String {
    let mut dispatcher = ScriptedDispatcher::connect(address);
    let asked = Instant::now();
    dispatcher.send(&[Frame::Lead { epoch: Epoch(epoch), group: "messages" }]);
    let answer = dispatcher.next();
    assert!(asked.elapsed() < ANSWER_LIMIT, "{answer} after {:?}", asked.elapsed());
    if answer.starts_with("ERROR") {
        dispatcher.expect_close();
    }
    answer
}

/// Fails unless the answer is an error of this code whose text has these parts.
fn assert_refused(answer: &str, code: u16, parts: &[&str]) {
    assert!(answer.starts_with(&format!("ERROR {code} ")), "{answer}");
    parts.iter().for_each(|part| assert!(answer.contains(part), "no {part} in {answer}"));
}

fn signal(redis: &mut RedisServer, signal: Signal) {
    redis.process().expect("it runs").signal(signal).expect("it is ours");
}

/// A dispatcher of this group with one consumer.
fn dispatcher(redis_url: &str, consumer: SocketAddr) -> ChildProcess {
    let mut command = programs().command("oncecast-dispatcher").expect("it is built");
    command.args(["--redis-url", redis_url, "--consumers", &consumer.to_string(), "--dispatcher-id", "d0"]);
    ChildProcess::spawn("d0", command).expect("it starts")
}

/// A consumer with this Redis URL, which is not the dispatchers', gets no messages, and the log gives the reason.
fn assert_nothing_is_handed_to(redis: &RedisServer, consumer_url: &str, place: &str) {
    let consumer = RunningConsumer::start(consumer_at(consumer_url));
    let dispatcher = dispatcher(&redis.url(), consumer.address);
    let connection = &mut client(&redis.url());
    wait_until_in_sync(connection, 1);
    assert_eq!(publish(connection, "m", 0..10), 1);
    let line = dispatcher.wait_for_line("event=consumer-unreachable", DEADLINE).expect("it is refused");
    for part in [place, "messages:epoch is not there", "Redis URL"] {
        assert!(line.contains(part), "no {part} in {line}");
    }
    wait_until("it to try again", || (consumer.stats.unconfirmed() >= 3).then_some(()));
    assert_eq!((consumer.stats.received(), consumer.stats.ruling_epoch()), (0, 0));
    wait_until("all messages to be pending", || (state(connection) == (10, 0, 0)).then_some(()));
    // A consumer with the right URL takes its port and gets the messages.
    let address = consumer.address;
    consumer.stop();
    let right = RunningConsumer::start(consumer_at(&redis.url()).listen(address.to_string()));
    wait_until("all to be recorded", || (state(connection) == (0, 10, 0)).then_some(()));
    assert_eq!(right.stats.unconfirmed(), 0);
}

#[test]
fn a_consumer_of_another_database_gets_no_messages() {
    let redis = redis_server();
    let url = format!("{}/5", redis.url());
    let place = format!("redis 127.0.0.1:{} database 5", redis.port());
    assert_nothing_is_handed_to(&redis, &url, &place);
}

#[test]
fn a_consumer_of_another_server_gets_no_messages() {
    let (redis, other) = (redis_server(), redis_server());
    let place = format!("redis 127.0.0.1:{} database 0", other.port());
    assert_nothing_is_handed_to(&redis, &other.url(), &place);
}

#[test]
fn a_forged_epoch_is_refused_and_the_true_leader_continues() {
    let redis = redis_server();
    let consumer = RunningConsumer::start(consumer_at(&redis.url()));
    let deliver = |leader: &mut ScriptedDispatcher, id| {
        pend(&redis, id, "x");
        leader.send(&[Frame::Process { id: MessageId(id), delivery: 1, body: b"x" }]);
        leader.expect_acks(&[id]);
    };
    // No dispatcher leads yet: neither the highest possible epoch nor 0, the initial value, is accepted.
    for epoch in [u64::MAX, 0] {
        assert_refused(&answer(consumer.address, epoch), 6, &["messages:epoch is not there"]);
    }
    let mut leader = ScriptedDispatcher::elected(&redis, consumer.address, 5, &[]);
    deliver(&mut leader, 1);
    for (forged, epoch) in (0..20).zip([u64::MAX, 6].into_iter().cycle()) {
        let text = answer(consumer.address, epoch);
        assert_refused(&text, 6, &[&format!("epoch {epoch} is not in redis"), "messages:epoch names another epoch"]);
        assert!(!text.contains(" 5"), "an unproven client learns no epoch: {text}");
        deliver(&mut leader, 2 + forged);
    }
    assert_eq!(consumer.stats.ruling_epoch(), 5, "the leader's connection was open all the time");
    // A lower one is refused with the same text, which doesn't reveal whether the true one is higher.
    let [lower, higher] = [4, 6].map(|epoch| answer(consumer.address, epoch).replace(&format!("epoch {epoch} "), ""));
    assert_eq!(lower, higher);
    // The refused epoch is not remembered: the epochs of the next leaders are lower.
    let mut next = ScriptedDispatcher::elected(&redis, consumer.address, 6, &[]);
    deliver(&mut next, 30);
    leader.expect_error(6);
    assert_eq!(consumer.stats.unconfirmed(), 23);
}

/// After Redis came back with an older clock or empty, every new leader would otherwise be refused for ever.
#[test]
fn a_leader_confirmed_by_redis_learns_the_highest_epoch_seen() {
    let redis = redis_server();
    let consumer = RunningConsumer::start(consumer_at(&redis.url()));
    let _leader = ScriptedDispatcher::elected(&redis, consumer.address, 1_790_000_000_123, &[]);
    run_on::<()>(&redis, &["DEL", "messages:epoch"]);
    elect(&redis, 7);
    let text = answer(consumer.address, 7);
    assert_refused(&text, 6, &["epoch 7 is the newest in redis"]);
    assert!(text.starts_with("ERROR 6 seen 1790000000123: "), "{text}");
    for epoch in [6, 8, 1_790_000_000_122, 1_790_000_000_124] {
        let text = answer(consumer.address, epoch);
        assert_refused(&text, 6, &[&format!("epoch {epoch} is not in redis")]);
        assert!(!text.contains("1790000000123") && !text.contains(" 7"), "{text}");
    }
}

#[test]
fn a_leader_replaced_before_it_connects_receives_an_error() {
    let redis = redis_server();
    let consumer = RunningConsumer::start(consumer_at(&redis.url()));
    elect(&redis, 7);
    assert_refused(&answer(consumer.address, 6), 6, &["messages:epoch names another epoch", "later leader"]);
    assert_eq!(answer(consumer.address, 7), "READY");
}

#[test]
fn a_leader_is_deferred_while_redis_is_down() {
    let mut redis = lasting_redis_server();
    let consumer = RunningConsumer::start(consumer_at(&redis.url()));
    let first = ScriptedDispatcher::elected(&redis, consumer.address, 5, &[]);
    elect(&redis, 6);
    redis.kill().expect("it is ours");
    assert_refused(&answer(consumer.address, 6), 9, &["epoch 6", "Redis URL"]);
    assert_refused(&answer(consumer.address, 4), 9, &["epoch 4"]);
    // An epoch that it has seen needs no lookup.
    drop(first);
    assert_eq!(answer(consumer.address, 5), "READY");
    redis.start_again().expect("it starts again");
    assert_eq!(answer(consumer.address, 6), "READY");
    // The connection for epoch checks was closed meanwhile, unnoticed. No leader is deferred because of that.
    redis.kill().expect("it is ours");
    redis.start_again().expect("it starts again");
    elect(&redis, 7);
    assert_eq!(answer(consumer.address, 7), "READY");
    assert_eq!((consumer.stats.unconfirmed(), consumer.stats.bad_frames()), (1, 0));
}

/// A Redis that accepts connections and does not answer delays each client that names a new epoch, for less time than a
/// dispatcher waits, however many do so at once. It delays no other client.
#[test]
fn a_leader_is_deferred_while_redis_hangs_and_others_keep_working() {
    let mut redis = lasting_redis_server();
    let consumer = RunningConsumer::start(consumer_at(&redis.url()).prefetch(64));
    let mut leader = ScriptedDispatcher::elected(&redis, consumer.address, 5, &[]);
    elect(&redis, 6);
    signal(&mut redis, Signal::SIGSTOP);
    std::thread::scope(|scope| {
        let askers: Vec<_> = (0..8).map(|_| scope.spawn(|| answer(consumer.address, 6))).collect();
        while !askers.iter().all(|asker| asker.is_finished()) {
            let began = Instant::now();
            leader.sync();
            assert!(began.elapsed() < Duration::from_secs(1), "the leader waited {:?}", began.elapsed());
            std::thread::sleep(Duration::from_millis(20));
        }
        for asker in askers {
            assert_refused(&asker.join().expect("it is answered"), 9, &["epoch 6 can't be looked up"]);
        }
    });
    signal(&mut redis, Signal::SIGCONT);
    wait_until("it to be accepted", || (answer(consumer.address, 6) == "READY").then_some(()));
}

#[test]
fn an_invalid_value_of_the_key_is_no_epoch() {
    let redis = redis_server();
    let consumer = RunningConsumer::start(consumer_at(&redis.url()));
    let huge = "9".repeat(1 << 20);
    for (value, shown) in [
        ("+5", r#"holds "+5", which is no epoch"#),
        ("05", r#"holds "05", which is no epoch"#),
        ("5\r\nERROR \"x\"", r#"holds "5\r\nERROR \"x\"", which is no epoch"#),
        ("18446744073709551621", r#"holds "18446744073709551621", which is no epoch"#),
        (huge.as_str(), &format!("holds \"{}\"…, which is no epoch", &huge[..64])),
    ] {
        run_on::<()>(&redis, &["SET", "messages:epoch", value]);
        assert_refused(&answer(consumer.address, 5), 6, &[shown, "Redis URL"]);
    }
    run_on::<()>(&redis, &["DEL", "messages:epoch"]);
    run_on::<()>(&redis, &["RPUSH", "messages:epoch", "5"]);
    assert_refused(&answer(consumer.address, 5), 6, &["messages:epoch holds no string"]);
    run_on::<()>(&redis, &["DEL", "messages:epoch"]);
    elect(&redis, 5);
    assert_eq!(answer(consumer.address, 5), "READY");
}

/// The user of docs/OPERATIONS.md without the right to read the epoch. The log line is the program's, so the program
/// runs.
#[test]
fn a_consumer_that_may_not_read_the_key_works_and_warns_once() {
    let redis = redis_server();
    let admin = &mut client(&redis.url());
    let line = include_str!("../../../docs/OPERATIONS.md")
        .lines()
        .find(|line| line.starts_with("ACL SETUSER oncecast-consumer reset "));
    let words: Vec<&str> = line.expect("consumers have a user").split(' ').collect();
    let older =
        words.iter().copied().filter(|word| !["+getrange", "~messages:epoch"].contains(word)).collect::<Vec<_>>();
    assert_eq!(older.len() + 2, words.len());
    let () = run(admin, &older);
    let mut command = programs().command("oncecast-consumer").expect("it is built");
    let url = format!("redis://oncecast-consumer:secret-of-consumers@127.0.0.1:{}", redis.port());
    command.args(["--redis-url", &url, "--listen", "127.0.0.1:0"]);
    let mut program = ChildProcess::spawn("oncecast-consumer", command).expect("it starts");
    let line = program.wait_for_line("event=listening address=", DEADLINE).expect("it listens");
    let address = line.split("address=").nth(1).and_then(|rest| rest.split_whitespace().next());
    let address: SocketAddr = address.and_then(|address| address.parse().ok()).expect("an address");
    for epoch in [5, 6, 7] {
        // None of these is elected, but the consumer can't check.
        let mut leader = ScriptedDispatcher::lead(address, epoch, &[]);
        pend(&redis, epoch, "x");
        leader.send(&[Frame::Process { id: MessageId(epoch), delivery: 1, body: b"x" }]);
        leader.expect_acks(&[epoch]);
    }
    let line = program.wait_for_line("event=epoch-unchecked", DEADLINE).expect("it is warned");
    for part in ["no permissions", "+getrange", "~messages:epoch"] {
        assert!(line.contains(part), "no {part} in {line}");
    }
    // It refuses an epoch that no Redis can have given out, and lower ones.
    assert_refused(&answer(address, u64::MAX), 6, &["more than a day ahead"]);
    assert_refused(&answer(address, 6), 6, &["epoch 6 is over"]);
    // Once it has the right, it checks from the next leader on.
    let () = run(admin, &["ACL", "SETUSER", "oncecast-consumer", "+getrange", "~messages:epoch"]);
    assert_refused(&answer(address, 8), 6, &["messages:epoch is not there"]);
    elect(&redis, 8);
    assert_eq!(answer(address, 8), "READY");
    // Once it has ended, its whole log has been read.
    program.stop(DEADLINE).expect("it ends");
    let warnings = program.stderr().all().iter().filter(|line| line.contains("event=epoch-unchecked")).count();
    assert_eq!(warnings, 1);
}

/// At a change of leader the check costs one round trip, since the connection is kept open.
#[test]
fn the_connection_for_epoch_checks_is_reused() {
    let redis = redis_server();
    let proxy = Proxy::to(&format!("127.0.0.1:{}", redis.port()));
    let consumer = RunningConsumer::start(consumer_at(&format!("redis://{}", proxy.address)));
    let _first = ScriptedDispatcher::elected(&redis, consumer.address, 5, &[]);
    let connections = |name: &str| -> u64 {
        let info: String = run_on(&redis, &["INFO", "stats"]);
        info.lines().find_map(|line| line.strip_prefix(name)).and_then(|count| count.parse().ok()).expect("a count")
    };
    let admin = &mut client(&redis.url());
    let before = connections("total_connections_received:");
    for epoch in 6..20 {
        let () = run(admin, &["SET", "messages:epoch", &epoch.to_string()]);
        assert_eq!(answer(consumer.address, epoch), "READY");
    }
    // The connection for epoch checks.
    assert_eq!(connections("total_connections_received:"), before + 1);
    // Cut while idle: it is opened again at once.
    proxy.cut();
    elect(&redis, 20);
    assert_eq!(answer(consumer.address, 20), "READY");
    assert_eq!(consumer.stats.unconfirmed(), 0);
}
