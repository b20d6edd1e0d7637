//! The consumer against a real Redis and a scripted dispatcher.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use oncecast::base::id::{Epoch, MessageId};
use oncecast::lab::{ChildProcess, RedisServer, Signal, ports};
use oncecast::wire::{Frame, HEADER_BYTES};
use oncecast::{Consumer, ConsumerBuilder, Delivery, HandlerError, Outcome};
use parking_lot::Mutex;
use tungstenite::Message;

use crate::support::running_consumer::RunningConsumer;
use crate::support::scripted_dispatcher::ScriptedDispatcher;
use crate::support::{DEADLINE, elect, lasting_redis_server, pend, programs, redis_server, run_on, wait_until};

fn process(id: u64, body: &str) -> Frame<'_> {
    Frame::Process { id: MessageId(id), delivery: 1, body: body.as_bytes() }
}

/// A consumer of this server, on any port.
fn consumer_of(redis: &RedisServer) -> ConsumerBuilder {
    Consumer::builder().redis_url(redis.url()).listen("127.0.0.1:0")
}

/// How many messages are pending.
fn pending(redis: &RedisServer) -> u64 {
    run_on(redis, &["ZCARD", "messages:pending"])
}

/// The entries of the result stream, each as `name=value` in order.
fn entries(redis: &RedisServer) -> Vec<Vec<String>> {
    let entries: Vec<(String, Vec<String>)> = run_on(redis, &["XRANGE", "messages:processed", "-", "+"]);
    let fields = |fields: &[String]| fields.chunks(2).map(|pair| format!("{}={}", pair[0], pair[1])).collect();
    entries.iter().map(|(_, values)| fields(values)).collect()
}

/// The program `oncecast-consumer` with these arguments.
fn program(arguments: &[&str]) -> ChildProcess {
    let mut command = programs().command("oncecast-consumer").expect("it is built");
    command.args(arguments);
    ChildProcess::spawn("oncecast-consumer", command).expect("it starts")
}

/// Waits for a program's end with this exit code, having logged lines with these parts.
fn expect_end(mut program: ChildProcess, code: i32, parts: &[&str]) {
    let ended = program.wait(DEADLINE).expect("it ends");
    assert_eq!(ended.code(), Some(code), "{}", program.failure("ended otherwise"));
    for part in parts {
        program.wait_for_line(part, DEADLINE).expect("it is logged");
    }
}

/// A handler that records the payload, after a permit for each message has been sent.
fn gated() -> (crossbeam_channel::Sender<()>, impl oncecast::Handler) {
    let (permits, gate) = bounded(1_000);
    let handler = move |delivery: &Delivery<'_>| {
        gate.recv()?;
        Ok(Outcome::new().field("body", delivery.payload()))
    };
    (permits, handler)
}

#[test]
fn a_message_is_recorded_removed_and_acknowledged() {
    let redis = redis_server();
    let consumer = RunningConsumer::start(
        consumer_of(&redis).consumer_id("c0").prefetch(8).handler(oncecast::programs::consumer::stamp),
    );
    elect(&redis, 5);
    let mut peer = ScriptedDispatcher::connect(consumer.address);
    peer.send(&[Frame::Lead { epoch: Epoch(5), group: "messages" }]);
    let mut bytes = peer.next_message();
    while bytes.len() < 2 * HEADER_BYTES + 7 {
        bytes.extend(peer.next_message());
    }
    assert_eq!(bytes, b"\x01\x04\0\0\0\x07\0\0\0\x08\x01c0\x01\x05\0\0\0\0", "READY, then an empty HELD");

    let bodies = [(7, r#"{"message_id":"m7"}"#), (8, r#"{"n":[1, 2],"message_id":"m8"}"#), (9, "plain")];
    bodies.iter().for_each(|(id, body)| pend(&redis, *id, body));
    peer.send(&bodies.map(|(id, body)| process(id, body)));
    peer.expect_acks(&[7, 8, 9]);
    assert_eq!(pending(&redis), 0);
    let mut entries = entries(&redis);
    for entry in &mut entries {
        let random = entry.iter().position(|field| field.starts_with("random_property=")).expect("it is stamped");
        assert_eq!(entry.remove(random).len(), "random_property=".len() + 8);
    }
    entries.sort();
    assert_eq!(
        entries,
        [
            vec!["message_id=m7", "consumer_id=c0"],
            vec!["message_id=m8", "n=[1,2]", "consumer_id=c0"],
            vec!["payload=plain", "consumer_id=c0"],
        ]
    );
    assert_eq!((consumer.stats.received(), consumer.stats.recorded()), (3, 3));
    consumer.stop();
}

#[test]
fn what_is_not_pending_is_acknowledged_and_not_stored() {
    let redis = redis_server();
    let consumer = RunningConsumer::start(consumer_of(&redis).handler(oncecast::programs::consumer::stamp));
    let mut peer = ScriptedDispatcher::elected(&redis, consumer.address, 5, &[]);
    peer.send(&[process(1, "late")]);
    peer.expect_acks(&[1]);
    assert!(entries(&redis).is_empty());
    assert_eq!(consumer.stats.dropped(), 1);
}

/// As when somebody has deleted the set of pending messages.
#[test]
fn first_deliveries_that_are_not_pending_are_told_of_once_and_then_in_sum() {
    let redis = redis_server();
    let port = ports::free_port().expect("a free port");
    let listen = format!("127.0.0.1:{port}");
    let program = program(&["--listen", &listen, "--redis-url", &redis.url(), "--prefetch", "1000"]);
    let address = ([127, 0, 0, 1], port).into();
    wait_until("it to listen", || std::net::TcpStream::connect(address).is_ok().then_some(()));
    let mut peer = ScriptedDispatcher::elected(&redis, address, 5, &[]);
    peer.send(&[process(1, "gone")]);
    peer.expect_acks(&[1]);
    let line =
        program.wait_for_line("event=not-pending count=1 example=0000000000000001 ", DEADLINE).expect("it tells");
    assert!(line.contains("level=warn") && line.contains("Redis URL"), "{line}");
    for id in 2..=500 {
        peer.send(&[process(id, "gone")]);
    }
    peer.expect_acks(&(2..=500).collect::<Vec<_>>());
    // Also when nothing more comes.
    program.wait_for_line("event=not-pending count=499 example=", DEADLINE).expect("it tells of the others");
    let lines = program.stderr().all();
    assert_eq!(lines.iter().filter(|line| line.contains("event=not-pending")).count(), 2, "{lines:?}");
}

#[test]
fn an_outcome_without_fields_stores_nothing() {
    let redis = redis_server();
    let consumer = RunningConsumer::start(consumer_of(&redis).handler(|_: &Delivery<'_>| Ok(Outcome::new())));
    let mut peer = ScriptedDispatcher::elected(&redis, consumer.address, 5, &[]);
    pend(&redis, 1, "x");
    peer.send(&[process(1, "x")]);
    peer.expect_acks(&[1]);
    assert_eq!((pending(&redis), entries(&redis).len()), (0, 0));
}

#[test]
fn the_higher_epoch_rules_and_inherits_what_is_in_hand() {
    let redis = redis_server();
    let (permits, handler) = gated();
    let consumer = RunningConsumer::start(consumer_of(&redis).prefetch(4).handler(handler));
    let mut old = ScriptedDispatcher::elected(&redis, consumer.address, 5, &[]);
    pend(&redis, 1, "one");
    old.send(&[process(1, "one")]);
    wait_until("the message to be in hand", || (consumer.stats.held() == 1).then_some(()));

    let mut new = ScriptedDispatcher::elected(&redis, consumer.address, 6, &[1]);
    // It may see that it is closed.
    old.try_send(&[process(2, "two")]);
    old.expect_error(6);
    let mut late = ScriptedDispatcher::connect(consumer.address);
    late.send(&[Frame::Lead { epoch: Epoch(5), group: "messages" }]);
    late.expect_error(6);
    // Sent again by the new leader, which had not read HELD yet: it is not run twice.
    new.send(&[process(1, "one")]);
    new.sync();
    permits.send(()).expect("handlers live");
    new.expect_acks(&[1]);
    assert_eq!(entries(&redis), [["body=one"]]);
    assert_eq!((consumer.stats.received(), consumer.stats.ruling_epoch()), (1, 6));
    wait_until("both to be counted", || (consumer.stats.stale() == 2).then_some(()));
}

#[test]
fn a_replaced_leader_that_has_nothing_to_send_is_told_as_well() {
    let redis = redis_server();
    let consumer = RunningConsumer::start(consumer_of(&redis).handler(oncecast::programs::consumer::stamp));
    let mut old = ScriptedDispatcher::elected(&redis, consumer.address, 5, &[]);
    let _new = ScriptedDispatcher::elected(&redis, consumer.address, 6, &[]);
    old.expect_error(6);
}

#[test]
fn work_outlives_its_connection() {
    let redis = redis_server();
    let (permits, handler) = gated();
    let consumer = RunningConsumer::start(consumer_of(&redis).concurrency(2).prefetch(4).handler(handler));
    let mut first = ScriptedDispatcher::elected(&redis, consumer.address, 5, &[]);
    pend(&redis, 1, "one");
    pend(&redis, 2, "two");
    first.send(&[process(1, "one"), process(2, "two")]);
    wait_until("both to be in hand", || (consumer.stats.held() == 2).then_some(()));
    drop(first);
    wait_until("the connection to be gone", || (consumer.stats.ruling_epoch() == 0).then_some(()));
    permits.send(()).expect("handlers live");
    wait_until("one to be recorded", || (consumer.stats.held() == 1).then_some(()));
    let left = if entries(&redis) == [["body=one"]] { 2 } else { 1 };
    let mut second = ScriptedDispatcher::elected(&redis, consumer.address, 5, &[left]);
    permits.send(()).expect("handlers live");
    second.expect_acks(&[left]);
    assert_eq!((entries(&redis).len(), pending(&redis)), (2, 0));
}

#[test]
fn slow_work_is_reported_each_second_and_on_every_ping() {
    let redis = redis_server();
    let (permits, handler) = gated();
    let consumer = RunningConsumer::start(consumer_of(&redis).handler(handler));
    let mut peer = ScriptedDispatcher::elected(&redis, consumer.address, 5, &[]);
    peer.send(&[process(1, "slow")]);
    assert_eq!(peer.next(), "PROGRESS 1");
    assert_eq!(peer.next(), "PROGRESS 1");
    // By the clock alone these would take forty seconds.
    let asked = Instant::now();
    for _ in 0..40 {
        peer.ping();
        assert_eq!(peer.next(), "PROGRESS 1");
    }
    assert!(asked.elapsed() < Duration::from_secs(20), "forty reports took {:?}", asked.elapsed());
    permits.send(()).expect("handlers live");
    peer.expect_acks(&[1]);
}

#[test]
fn a_handler_past_its_time_is_no_longer_reported_and_its_late_result_counts() {
    let redis = redis_server();
    let (permits, handler) = gated();
    let consumer =
        RunningConsumer::start(consumer_of(&redis).handler_timeout(Duration::from_millis(100)).handler(handler));
    let mut peer = ScriptedDispatcher::elected(&redis, consumer.address, 5, &[]);
    pend(&redis, 1, "slow");
    peer.send(&[process(1, "slow")]);
    wait_until("it to be given up", || (consumer.stats.timed_out() == 1).then_some(()));
    let mut next = ScriptedDispatcher::elected(&redis, consumer.address, 6, &[]);
    permits.send(()).expect("handlers live");
    next.expect_acks(&[1]);
    assert_eq!(entries(&redis), [["body=slow"]]);
}

#[test]
fn failures_say_when_to_deliver_again_and_why() {
    let redis = redis_server();
    let handler = |delivery: &Delivery<'_>| match delivery.payload() {
        b"retry" => Err(HandlerError::retry("no luck")),
        b"later" => Err(HandlerError::retry_after(Duration::from_secs(3), "too early")),
        b"reject" => Err(HandlerError::reject("never")),
        b"silent" => Err(HandlerError::retry("")),
        b"panic" => panic!("a bug in {}", "a handler"),
        b"error" => Ok("seven".parse::<u64>().map(|_| Outcome::new())?),
        _ => Ok(Outcome::new().field("delivery", delivery.number().to_string())),
    };
    let consumer = RunningConsumer::start(consumer_of(&redis).concurrency(1).prefetch(10).handler(handler));
    let mut peer = ScriptedDispatcher::elected(&redis, consumer.address, 5, &[]);
    pend(&redis, 7, "fine");
    let bodies = ["retry", "later", "reject", "panic", "error", "silent"];
    let frames: Vec<_> = bodies.iter().zip(1..).map(|(body, id)| process(id, body)).collect();
    peer.send(&frames);
    assert_eq!(peer.next_but_progress(), "NACK 1 0 no luck");
    assert_eq!(peer.next_but_progress(), "NACK 2 3000 too early");
    assert_eq!(peer.next_but_progress(), format!("NACK 3 {} never", u32::MAX));
    assert_eq!(peer.next_but_progress(), "NACK 4 0 handler panicked: a bug in a handler");
    assert_eq!(peer.next_but_progress(), "NACK 5 0 invalid digit found in string");
    assert_eq!(peer.next_but_progress(), "NACK 6 0 the handler gave no reason", "an empty one means that none began");
    peer.send(&[Frame::Process { id: MessageId(7), delivery: 3, body: b"fine" }]);
    peer.expect_acks(&[7]);
    assert_eq!(entries(&redis), [["delivery=3"]]);
    let stats = &consumer.stats;
    assert_eq!((stats.retried(), stats.rejected(), stats.panicked()), (5, 1, 1));
}

#[test]
fn a_failure_that_nobody_hears_is_told_to_the_next_leader() {
    let redis = redis_server();
    let (permits, gate) = bounded::<()>(1);
    let handler = move |_: &Delivery<'_>| {
        gate.recv()?;
        Err(HandlerError::retry("no luck"))
    };
    let consumer = RunningConsumer::start(consumer_of(&redis).handler(handler));
    let mut peer = ScriptedDispatcher::elected(&redis, consumer.address, 5, &[]);
    peer.send(&[process(1, "x")]);
    wait_until("it to be in hand", || (consumer.stats.held() == 1).then_some(()));
    drop(peer);
    wait_until("the connection to be gone", || (consumer.stats.ruling_epoch() == 0).then_some(()));
    permits.send(()).expect("handlers live");
    wait_until("it to fail", || (consumer.stats.retried() == 1).then_some(()));
    let mut peer = ScriptedDispatcher::elected(&redis, consumer.address, 6, &[1]);
    assert_eq!(peer.next(), "NACK 1 0 no luck");
    wait_until("nothing to be in hand", || (consumer.stats.held() == 0).then_some(()));
}

#[test]
fn more_than_the_prefetch_costs_the_connection() {
    let redis = redis_server();
    let (permits, handler) = gated();
    let consumer = RunningConsumer::start(consumer_of(&redis).prefetch(2).handler(handler));
    let mut greedy = ScriptedDispatcher::elected(&redis, consumer.address, 5, &[]);
    greedy.send(&[process(1, "x"), process(2, "x")]);
    wait_until("both to be in hand", || (consumer.stats.held() == 2).then_some(()));
    greedy.send(&[process(3, "x")]);
    greedy.expect_error(8);
    let mut modest = ScriptedDispatcher::elected(&redis, consumer.address, 5, &[1, 2]);
    permits.send(()).and(permits.send(())).expect("handlers live");
    modest.expect_acks(&[1, 2]);
}

#[test]
fn garbage_closes_its_own_socket_and_nothing_else() {
    let redis = redis_server();
    let consumer =
        RunningConsumer::start(consumer_of(&redis).prefetch(100).handler(oncecast::programs::consumer::stamp));
    let mut ruler = ScriptedDispatcher::elected(&redis, consumer.address, 5, &[]);
    let lead = |epoch| Frame::Lead { epoch: Epoch(epoch), group: "messages" }.to_vec();
    let binary = |bytes: &[u8]| Message::binary(bytes.to_vec());
    let cases = [
        ("random bytes", binary(&[0x5a; 100]), 1),
        ("another version", binary(b"\x02\x03\0\0\0\x00"), 1),
        ("an unknown command", binary(b"\x01\x63\0\0\0\x00"), 2),
        ("a huge length", binary(b"\x01\x00\xff\xff\xff\xff"), 3),
        ("a message over the limit", binary(&vec![1; 100_000]), 3),
        ("a lying length", binary(b"\x01\x03\0\0\0\x09x"), 4),
        ("half a header", binary(b"\x01\x03\0"), 4),
        ("bytes left over", binary(&[lead(9), vec![1]].concat()), 4),
        ("a text", Message::text("hello"), 4),
        ("work before LEAD", binary(&process(1, "x").to_vec()), 5),
        ("a frame of the other side", binary(&Frame::Drain.to_vec()), 5),
        ("another group", binary(&Frame::Lead { epoch: Epoch(9), group: "other" }.to_vec()), 7),
    ];
    let count = cases.len() as u64;
    for (case, message, code) in cases {
        println!("{case}");
        let mut peer = ScriptedDispatcher::connect(consumer.address);
        peer.send_message(message);
        peer.expect_error(code);
    }
    wait_until("all to be counted", || (consumer.stats.bad_frames() == count).then_some(()));
    for not_even_websocket in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 64], b""] {
        ScriptedDispatcher::raw(consumer.address, not_even_websocket);
    }
    wait_until("strangers to be counted", || (consumer.stats.strangers() == 3).then_some(()));
    pend(&redis, 1, "x");
    ruler.send(&[process(1, "x")]);
    ruler.expect_acks(&[1]);
    // The ruler's own mistakes cost no more than its connection, either.
    ruler.send_message(Message::binary(b"\x01\x00\0\0\0\x05short".to_vec()));
    ruler.expect_error(4);
    ScriptedDispatcher::elected(&redis, consumer.address, 5, &[]).send(&[process(2, "x")]);
    wait_until("it to be dropped", || (consumer.stats.dropped() == 1).then_some(()));
}

#[test]
fn silent_strangers_do_not_keep_a_dispatcher_out() {
    let redis = redis_server();
    let consumer = RunningConsumer::start(consumer_of(&redis).handler(oncecast::programs::consumer::stamp));
    let mut ruler = ScriptedDispatcher::elected(&redis, consumer.address, 5, &[]);
    let silent: Vec<_> =
        (0..100).map(|_| std::net::TcpStream::connect(consumer.address).expect("it listens")).collect();
    let mut next = ScriptedDispatcher::elected(&redis, consumer.address, 6, &[]);
    next.send(&[process(1, "x")]);
    next.expect_acks(&[1]);
    ruler.expect_error(6);
    assert!(consumer.stats.strangers() >= 100 - 64);
    drop(silent);
}

#[test]
fn a_dispatcher_that_does_not_read_delays_nobody() {
    let redis = redis_server();
    let (permits, handler) = gated();
    let consumer = RunningConsumer::start(consumer_of(&redis).prefetch(1_000).handler(handler));
    let ids: Vec<u64> = (1..=1_000).collect();
    let mut stalled = ScriptedDispatcher::elected(&redis, consumer.address, 5, &[]);
    stalled.send(&ids.iter().map(|id| process(*id, "x")).collect::<Vec<_>>());
    wait_until("all to be in hand", || (consumer.stats.held() == 1_000).then_some(()));
    stalled.ping_until_stalled();
    let started = Instant::now();
    let mut next = ScriptedDispatcher::elected(&redis, consumer.address, 6, &ids);
    ids.iter().for_each(|_| permits.send(()).expect("handlers live"));
    next.expect_acks(&ids);
    // A committer that waited for the stalled socket would wait for its write timeout, five seconds.
    assert!(started.elapsed() < Duration::from_millis(4_500), "it took {:?}", started.elapsed());
}

#[test]
#[cfg(target_os = "linux")]
fn a_stopped_and_continued_program_keeps_its_connections() {
    let redis = redis_server();
    let port = ports::free_port().expect("a free port");
    let listen = format!("127.0.0.1:{port}");
    let mut program = program(&["--listen", &listen, "--redis-url", &redis.url()]);
    let address = ([127, 0, 0, 1], port).into();
    wait_until("it to listen", || std::net::TcpStream::connect(address).is_ok().then_some(()));
    let mut peer = ScriptedDispatcher::elected(&redis, address, 5, &[]);
    for id in 1..=3 {
        program.signal(Signal::SIGSTOP).expect("it runs");
        wait_until("it to be stopped", || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", program.pid())).expect("it lives");
            stat.contains(") T ").then_some(())
        });
        pend(&redis, id, "x");
        peer.send(&[process(id, "x")]);
        program.signal(Signal::SIGCONT).expect("it runs");
        peer.expect_acks(&[id]);
    }
    assert_eq!(entries(&redis).len(), 3);
}

#[test]
fn results_survive_a_restart_of_redis() {
    let mut redis = lasting_redis_server();
    let consumer =
        RunningConsumer::start(consumer_of(&redis).prefetch(600).handler(oncecast::programs::consumer::stamp));
    let mut peer = ScriptedDispatcher::elected(&redis, consumer.address, 5, &[]);
    let ids: Vec<u64> = (1..=500).collect();
    ids.iter().for_each(|id| pend(&redis, *id, "x"));
    redis.kill().expect("it is ours");
    peer.send(&ids.iter().map(|id| process(*id, "x")).collect::<Vec<_>>());
    wait_until("redis to be in trouble", || {
        (!consumer.stats.redis_is_up() && consumer.stats.held() == 500).then_some(())
    });
    redis.start_again().expect("it starts again");
    peer.expect_acks(&ids);
    assert_eq!((entries(&redis).len(), pending(&redis)), (500, 0));
    wait_until("redis to be well", || consumer.stats.redis_is_up().then_some(()));
}

#[test]
fn it_starts_without_redis() {
    let mut redis = lasting_redis_server();
    redis.kill().expect("it is ours");
    let consumer = RunningConsumer::start(consumer_of(&redis).handler(oncecast::programs::consumer::stamp));
    wait_until("the trouble to be seen", || (consumer.stats.redis_errors() > 0).then_some(()));
    redis.start_again().expect("it starts again");
    let mut peer = ScriptedDispatcher::elected(&redis, consumer.address, 5, &[]);
    peer.send(&[process(1, "x")]);
    peer.expect_acks(&[1]);
}

/// Nobody listens there. A child that another test is just starting holds a copy of this process's sockets until it
/// runs its own program, so it may take a moment.
fn expect_refused(address: std::net::SocketAddr) {
    wait_until("connections to be refused", || std::net::TcpStream::connect(address).is_err().then_some(()));
}

#[test]
fn a_stopping_consumer_finishes_what_it_has_in_hand_and_answers_a_new_leader_meanwhile() {
    let redis = redis_server();
    let (permits, handler) = gated();
    let consumer = RunningConsumer::start(consumer_of(&redis).concurrency(2).handler(handler));
    let mut peer = ScriptedDispatcher::elected(&redis, consumer.address, 5, &[]);
    pend(&redis, 1, "one");
    pend(&redis, 2, "two");
    peer.send(&[process(1, "one"), process(2, "two")]);
    wait_until("both to be in hand", || (consumer.stats.held() == 2).then_some(()));
    consumer.handle.shutdown();
    assert_eq!(peer.next_but_progress(), "DRAIN");
    peer.send(&[process(3, "too late")]);
    peer.sync();
    // The leader is stopped as well, and the next one comes.
    let mut next = ScriptedDispatcher::elected(&redis, consumer.address, 6, &[1, 2]);
    assert_eq!(next.next(), "DRAIN");
    peer.expect_error(6);
    next.send(&[process(4, "too late")]);
    permits.send(()).expect("handlers live");
    wait_until("one to be recorded", || (entries(&redis).len() == 1).then_some(()));
    let left = if entries(&redis) == [["body=one"]] { 2 } else { 1 };
    next.expect_acks(&[3 - left]);
    // And one more, which finds what is left.
    let mut last = ScriptedDispatcher::elected(&redis, consumer.address, 7, &[left]);
    assert_eq!(last.next(), "DRAIN");
    permits.send(()).expect("handlers live");
    last.expect_acks(&[left]);
    last.expect_close();
    let address = consumer.address;
    consumer.stop();
    expect_refused(address);
    assert_eq!((entries(&redis).len(), pending(&redis)), (2, 0));
}

/// What is on its way to Redis when the time is over is acknowledged, if Redis takes it in the time that threads have to
/// end, and a leader that comes in that time is answered.
#[test]
fn a_drain_that_is_cut_short_closes_its_connections_after_the_last_answers() {
    let redis = redis_server();
    let (permits, handler) = gated();
    let consumer = RunningConsumer::start(consumer_of(&redis).concurrency(2).handler(handler));
    let mut peer = ScriptedDispatcher::elected(&redis, consumer.address, 5, &[]);
    pend(&redis, 1, "one");
    pend(&redis, 2, "two");
    peer.send(&[process(1, "one"), process(2, "two")]);
    wait_until("both to be in hand", || (consumer.stats.held() == 2).then_some(()));
    let admin = &mut crate::support::client(&redis.url());
    let () = crate::support::run(admin, &["CLIENT", "PAUSE", "600000", "WRITE"]);
    permits.send(()).expect("handlers live");
    wait_until("the result to be on its way", || {
        let clients: String = crate::support::run(admin, &["CLIENT", "LIST"]);
        clients.contains(" flags=b ").then_some(())
    });
    consumer.handle.shutdown();
    assert_eq!(peer.next_but_progress(), "DRAIN");
    consumer.handle.shutdown();
    let () = crate::support::run(admin, &["CLIENT", "UNPAUSE"]);
    let acked = peer.next_but_progress();
    assert!(acked == "ACK 1" || acked == "ACK 2", "{acked}");
    peer.expect_close_after_acks();
    consumer.stop();
    assert_eq!((entries(&redis).len(), pending(&redis)), (1, 1));
    drop(permits);
}

#[test]
fn a_second_request_stops_at_once_and_a_stuck_handler_does_not_hinder() {
    let redis = redis_server();
    let (permits, handler) = gated();
    let patient = consumer_of(&redis).drain_timeout(10 * DEADLINE);
    let consumer = RunningConsumer::start(patient.handler(handler));
    let mut peer = ScriptedDispatcher::elected(&redis, consumer.address, 5, &[]);
    peer.send(&[process(1, "stuck")]);
    wait_until("it to be in hand", || (consumer.stats.held() == 1).then_some(()));
    consumer.handle.shutdown();
    assert_eq!(peer.next_but_progress(), "DRAIN");
    // Within the deadline of the wait, which is shorter than the drain.
    consumer.stop();
    drop(permits);
}

#[test]
fn leadership_moves_to_and_fro_and_every_message_is_recorded_once() {
    const LEADERS: u64 = 6;
    const EACH: u64 = 300;
    let redis = redis_server();
    let handler = |delivery: &Delivery<'_>| Ok(Outcome::new().field("id", delivery.payload()));
    let consumer = RunningConsumer::start(consumer_of(&redis).concurrency(4).prefetch(10_000).handler(handler));
    let bodies: Vec<String> = (0..LEADERS * EACH).map(|id| id.to_string()).collect();
    (1..).zip(&bodies).for_each(|(id, body)| pend(&redis, id, body));
    let newest = Mutex::new(1);
    std::thread::scope(|scope| {
        for leader in 0..LEADERS {
            let (bodies, newest, redis, address) = (&bodies, &newest, &redis, consumer.address);
            scope.spawn(move || {
                // Some come too late, some are replaced half-way: all keep sending until they are thrown out.
                let mut peer = ScriptedDispatcher::connect(address);
                let mut elections = newest.lock();
                *elections += u64::from(leader % 2 == 0);
                let epoch = Epoch(*elections);
                elect(redis, epoch.0);
                drop(elections);
                peer.try_send(&[Frame::Lead { epoch, group: "messages" }]);
                for id in 1 + leader * EACH..=(leader + 1) * EACH {
                    if !peer.try_send(&[process(id, &bodies[id as usize - 1])]) {
                        return;
                    }
                }
            });
        }
    });
    // The last leader sends the whole backlog again.
    elect(&redis, 100);
    let mut last = ScriptedDispatcher::connect(consumer.address);
    last.send(&[Frame::Lead { epoch: Epoch(100), group: "messages" }]);
    assert_eq!(last.next(), "READY");
    assert!(last.next().starts_with("HELD"));
    for (id, body) in (1..).zip(bodies.iter()) {
        last.send(&[process(id, body)]);
    }
    // What was in hand when it came may be acknowledged, sent again, and acknowledged again.
    let mut acknowledged = std::collections::HashSet::new();
    while acknowledged.len() < bodies.len() {
        let frame = last.next_but_progress();
        let list = frame.strip_prefix("ACK ").expect("nothing fails");
        acknowledged.extend(list.split(' ').map(str::to_owned));
    }
    let mut distinct = entries(&redis);
    distinct.sort();
    distinct.dedup();
    assert_eq!((distinct.len() as u64, pending(&redis)), (LEADERS * EACH, 0));
    assert_eq!((entries(&redis).len() as u64, consumer.stats.recorded()), (LEADERS * EACH, LEADERS * EACH));
}

#[test]
fn sigterm_drains_the_program_and_it_ends_with_0() {
    let mut redis = lasting_redis_server();
    let port = ports::free_port().expect("a free port");
    let listen = format!("127.0.0.1:{port}");
    let mut program = program(&["--listen", &listen, "--redis-url", &redis.url(), "--consumer-id", "c7"]);
    let address = ([127, 0, 0, 1], port).into();
    wait_until("it to listen", || std::net::TcpStream::connect(address).is_ok().then_some(()));
    let mut peer = ScriptedDispatcher::elected(&redis, address, 5, &[]);
    pend(&redis, 1, "x");
    redis.kill().expect("it is ours");
    peer.send(&[process(1, "x")]);
    assert_eq!(peer.next(), "PROGRESS 1");
    program.signal(Signal::SIGTERM).expect("it runs");
    assert_eq!(peer.next_but_progress(), "DRAIN");
    redis.start_again().expect("it starts again");
    peer.expect_acks(&[1]);
    peer.expect_close();
    let events =
        ["started", "listening", "dispatcher-rules", "redis-trouble", "redis-recovered", "draining", "stopped"];
    let events = events.map(|event| format!("event={event} "));
    let logged: Vec<&str> = events.iter().map(String::as_str).chain(["instance=c7 role=consumer epoch=5"]).collect();
    expect_end(program, 0, &logged);
    assert_eq!(entries(&redis).len(), 1);
}

#[test]
fn a_port_in_use_and_a_bad_setting_have_their_exit_codes() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    expect_end(program(&["--listen", &address]), 1, &[&address, "--listen", "ONCECAST_LISTEN"]);
    expect_end(program(&["--prefetch", "0"]), 2, &["--prefetch"]);
}

/// All handler threads hang on messages whose time is over: what is queued behind them goes back, not begun.
#[test]
fn a_consumer_whose_handlers_are_all_given_up_hands_back_what_is_queued_and_returns_when_one_does() {
    let redis = redis_server();
    let (permits, handler) = gated();
    let builder = consumer_of(&redis).concurrency(1).prefetch(8).handler_timeout(Duration::from_millis(100));
    let consumer = RunningConsumer::start(builder.handler(handler));
    (1..=4).for_each(|id| pend(&redis, id, "x"));
    let mut peer = ScriptedDispatcher::elected(&redis, consumer.address, 5, &[]);
    peer.send(&[process(1, "stuck"), process(2, "x"), process(3, "x")]);
    let frames: Vec<String> = (0..3).map(|_| peer.next_but_progress()).collect();
    assert_eq!(frames, ["DRAIN", "NACK 2 0 ", "NACK 3 0 "]);
    wait_until("it to be not ready", || consumer.stats.ready().is_err().then_some(()));
    // Sent before DRAIN was read.
    peer.send(&[process(4, "x")]);
    assert_eq!(peer.next(), "NACK 4 0 ", "nothing is reported, either");
    // A new leader hears the same.
    let mut next = ScriptedDispatcher::elected(&redis, consumer.address, 6, &[]);
    assert_eq!(next.next(), "DRAIN");

    permits.send(()).expect("handlers live");
    next.expect_close_after_acks();
    wait_until("the late result to be recorded", || (consumer.stats.held() == 0).then_some(()));
    let mut again = ScriptedDispatcher::lead(consumer.address, 6, &[]);
    (2..=4).for_each(|_| permits.send(()).expect("handlers live"));
    again.send(&[process(2, "x"), process(3, "x"), process(4, "x")]);
    again.expect_acks(&[2, 3, 4]);
    assert!(consumer.stats.ready().is_ok());
    assert_eq!((entries(&redis).len(), pending(&redis), consumer.stats.handed_back()), (4, 0, 3));
}

/// It reaches the leader and not Redis: it keeps what it has begun, hands back the rest, and takes nothing more.
#[test]
fn a_consumer_that_does_not_reach_redis_hands_back_what_it_has_not_begun() {
    let mut redis = lasting_redis_server();
    let (permits, handler) = gated();
    let consumer = RunningConsumer::start(consumer_of(&redis).concurrency(2).prefetch(50).handler(handler));
    (1..=40).for_each(|id| pend(&redis, id, "x"));
    let mut peer = ScriptedDispatcher::elected(&redis, consumer.address, 5, &[]);
    peer.send(&(1..=40).map(|id| process(id, "x")).collect::<Vec<_>>());
    wait_until("all to be in hand", || (consumer.stats.held() == 40).then_some(()));
    redis.kill().expect("it is ours");
    // One result waits for Redis, and two handlers are at work.
    permits.send(()).expect("handlers live");
    assert_eq!(peer.next_but_progress(), "DRAIN");
    let mut back: Vec<String> = (0..37).map(|_| peer.next_but_progress()).collect();
    back.sort();
    let mut expected: Vec<String> = (4..=40).map(|id| format!("NACK {id} 0 ")).collect();
    expected.sort();
    assert_eq!(back, expected);
    assert_eq!(peer.next(), "PROGRESS 1 2 3");
    // The same leader connects anew.
    let mut peer = ScriptedDispatcher::lead(consumer.address, 5, &[1, 2, 3]);
    assert_eq!(peer.next(), "DRAIN");
    assert!(consumer.stats.is_unable() && consumer.stats.ready().is_err());

    redis.start_again().expect("it starts again");
    let first = peer.next_but_progress();
    assert!(first == "ACK 1" || first == "ACK 2", "{first}");
    wait_until("it to be well", || consumer.stats.ready().is_ok().then_some(()));
    // What is in hand would go to others if it closed the connection now.
    permits.send(()).and(permits.send(())).expect("handlers live");
    peer.expect_close_after_acks();
    let mut again = ScriptedDispatcher::lead(consumer.address, 5, &[]);
    again.send(&(4..=40).map(|id| process(id, "x")).collect::<Vec<_>>());
    (4..=40).for_each(|_| permits.send(()).expect("handlers live"));
    again.expect_acks(&(4..=40).collect::<Vec<_>>());
    assert_eq!((entries(&redis).len(), pending(&redis)), (40, 0));
}

/// A handler whose results have 4 MiB each; it tells how often it ran, and lives as long as a thread runs it.
fn large_results() -> (Arc<AtomicU64>, impl oncecast::Handler) {
    let runs = Arc::new(AtomicU64::new(0));
    let counted = runs.clone();
    let handler = move |_: &Delivery<'_>| {
        counted.fetch_add(1, Ordering::Relaxed);
        Ok(Outcome::new().field("large", vec![b'x'; 4 << 20]))
    };
    (runs, handler)
}

#[test]
fn results_that_redis_does_not_take_fill_no_memory_and_are_recorded_later() {
    const MESSAGES: u64 = 40;
    let mut redis = lasting_redis_server();
    let (runs, handler) = large_results();
    let builder = consumer_of(&redis).concurrency(2).prefetch(MESSAGES as u32).handler(handler);
    let consumer = RunningConsumer::start(builder);
    (1..=MESSAGES).for_each(|id| pend(&redis, id, "x"));
    let mut peer = ScriptedDispatcher::elected(&redis, consumer.address, 5, &[]);
    redis.kill().expect("it is ours");
    peer.send(&(1..=MESSAGES).map(|id| process(id, "x")).collect::<Vec<_>>());
    // A little less than 16 times 4 MiB fit into 64 MiB; one more waits with each thread.
    let runs = || runs.load(Ordering::Relaxed);
    wait_until("the handlers to wait", || (runs() == 17).then_some(()));
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!((runs(), consumer.stats.held()), (17, MESSAGES));
    redis.start_again().expect("it starts again");
    peer.expect_acks(&(1..=MESSAGES).collect::<Vec<_>>());
    assert_eq!((runs(), entries(&redis).len() as u64, pending(&redis)), (MESSAGES, MESSAGES, 0));
}

#[test]
fn handlers_that_wait_for_redis_do_not_hold_up_the_end() {
    let mut redis = redis_server();
    let (runs, handler) = large_results();
    let builder = consumer_of(&redis).drain_timeout(Duration::from_millis(100));
    let consumer = RunningConsumer::start(builder.concurrency(3).prefetch(30).handler(handler));
    let mut peer = ScriptedDispatcher::elected(&redis, consumer.address, 5, &[]);
    redis.kill().expect("it is ours");
    peer.send(&(1..=30).map(|id| process(id, "x")).collect::<Vec<_>>());
    wait_until("the handlers to wait", || (runs.load(Ordering::Relaxed) == 18).then_some(()));
    consumer.stop();
    assert_eq!(Arc::strong_count(&runs), 1, "handler threads are left");
}

#[test]
fn a_program_that_cannot_serve_its_metrics_does_not_serve_dispatchers_either() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let metrics_addr = taken.local_addr().expect("bound").to_string();
    let program = program(&["--listen", "127.0.0.1:0", "--metrics-addr", &metrics_addr]);
    expect_end(program, 1, &["--metrics-addr", &metrics_addr]);
}

#[test]
fn the_wrong_password_is_told_and_not_fatal() {
    let redis = redis_server();
    let url = format!("redis://:wrong@127.0.0.1:{}", redis.port());
    let consumer = RunningConsumer::start(
        Consumer::builder().redis_url(url).listen("127.0.0.1:0").handler(oncecast::programs::consumer::stamp),
    );
    wait_until("the trouble to be seen", || (consumer.stats.redis_errors() >= 3).then_some(()));
    // Nor does it take work whose results it can't record.
    elect(&redis, 5);
    let mut peer = ScriptedDispatcher::connect(consumer.address);
    peer.send(&[Frame::Lead { epoch: Epoch(5), group: "messages" }]);
    peer.expect_error(9);
}
