//! What a consumer does with a message, with a real Redis and a scripted dispatcher.

use std::time::{Duration, Instant};

use oncecast::base::id::{Epoch, MessageId};
use oncecast::lab::ports;
use oncecast::wire::{Frame, HEADER_BYTES};
use oncecast::{Consumer, Delivery, HandlerError, Outcome};

use crate::support::running_consumer::RunningConsumer;
use crate::support::scripted_dispatcher::ScriptedDispatcher;
use crate::support::{DEADLINE, elect, pend, redis_server, run_on, wait_until};

use super::fixture::{consumer_of, entries, gated, pending, process, program};

/// The flags of a consumer's READY to the leader of epoch 5.
fn flags(consumer: &RunningConsumer) -> u8 {
    let mut peer = ScriptedDispatcher::connect(consumer.address);
    peer.send(&[Frame::Lead { epoch: Epoch(5), group: "messages" }]);
    peer.next_message()[HEADER_BYTES + 4]
}

#[test]
fn a_consumer_that_may_not_read_members_takes_no_bundles() {
    let redis = redis_server();
    let () = run_on(&redis, &["ACL", "SETUSER", "old", "on", ">old", "~*", "&*", "+@all", "-zrangebyscore"]);
    elect(&redis, 5);
    let start = |url: &str| {
        let builder = Consumer::builder().redis_url(url).listen("127.0.0.1:0");
        RunningConsumer::start(builder.handler(oncecast::programs::consumer::stamp))
    };
    let old = start(&redis.url().replace("redis://", "redis://old:old@"));
    assert_eq!(flags(&old), 3);
    let () = run_on(&redis, &["ACL", "SETUSER", "old", "+zrangebyscore"]);
    assert_eq!(flags(&old), 7, "it asks at each connection");
    assert_eq!(flags(&start(&redis.url())), 7);
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
    assert_eq!(bytes, b"\x01\x04\0\0\0\x07\0\0\0\x08\x07c0\x01\x05\0\0\0\0", "READY, then an empty HELD");

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
fn a_message_that_is_not_pending_is_acknowledged_and_not_stored() {
    let redis = redis_server();
    let consumer = RunningConsumer::start(consumer_of(&redis).handler(oncecast::programs::consumer::stamp));
    let mut peer = ScriptedDispatcher::elected(&redis, consumer.address, 5, &[]);
    peer.send(&[process(1, "late")]);
    peer.expect_acks(&[1]);
    assert!(entries(&redis).is_empty());
    assert_eq!(consumer.stats.dropped(), 1);
}

/// As when the set of pending messages was deleted.
#[test]
fn first_deliveries_that_are_not_pending_are_logged_once_and_then_as_a_count() {
    let redis = redis_server();
    let port = ports::free_port().expect("a free port");
    let listen = format!("127.0.0.1:{port}");
    let mut program = program(&["--listen", &listen, "--redis-url", &redis.url(), "--prefetch", "1000"]);
    let address = ([127, 0, 0, 1], port).into();
    wait_until("it to listen", || std::net::TcpStream::connect(address).is_ok().then_some(()));
    let mut peer = ScriptedDispatcher::elected(&redis, address, 5, &[]);
    peer.send(&[process(1, "gone")]);
    peer.expect_acks(&[1]);
    let line =
        program.wait_for_line("event=not-pending count=1 example=0000000000000001 ", DEADLINE).expect("it is logged");
    assert!(line.contains("level=warn") && line.contains("Redis URL"), "{line}");
    for id in 2..=500 {
        peer.send(&[process(id, "gone")]);
    }
    peer.expect_acks(&(2..=500).collect::<Vec<_>>());
    // Although no further message arrives.
    program.wait_for_line("event=not-pending count=499 example=", DEADLINE).expect("the others are logged");
    // Once it has ended, its whole log has been read.
    program.stop(DEADLINE).expect("it ends");
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
fn slow_work_is_reported_each_second_and_on_every_ping() {
    let redis = redis_server();
    let (permits, handler) = gated();
    let consumer = RunningConsumer::start(consumer_of(&redis).handler(handler));
    let mut peer = ScriptedDispatcher::elected(&redis, consumer.address, 5, &[]);
    peer.send(&[process(1, "slow")]);
    assert_eq!(peer.next(), "PROGRESS 1");
    assert_eq!(peer.next(), "PROGRESS 1");
    // Once a second, these would take forty seconds.
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
fn an_overdue_handler_is_no_longer_reported_and_its_late_result_counts() {
    let redis = redis_server();
    let (permits, handler) = gated();
    let consumer =
        RunningConsumer::start(consumer_of(&redis).handler_timeout(Duration::from_millis(100)).handler(handler));
    let mut peer = ScriptedDispatcher::elected(&redis, consumer.address, 5, &[]);
    pend(&redis, 1, "slow");
    peer.send(&[process(1, "slow")]);
    wait_until("its time to be over", || (consumer.stats.timed_out() == 1).then_some(()));
    let mut next = ScriptedDispatcher::elected(&redis, consumer.address, 6, &[]);
    permits.send(()).expect("handlers live");
    next.expect_acks(&[1]);
    assert_eq!(entries(&redis), [["body=slow"]]);
}

#[test]
fn a_nack_carries_delay_and_reason() {
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
    assert_eq!(
        peer.next_but_progress(),
        "NACK 6 0 the handler gave no reason",
        "an empty reason would mean that it was not started"
    );
    peer.send(&[Frame::Process { id: MessageId(7), delivery: 3, body: b"fine" }]);
    peer.expect_acks(&[7]);
    assert_eq!(entries(&redis), [["delivery=3"]]);
    let stats = &consumer.stats;
    assert_eq!((stats.retried(), stats.rejected(), stats.panicked()), (5, 1, 1));
}
