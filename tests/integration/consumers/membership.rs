//! Consumers come, go, hang and misbehave: their messages move to others, each is recorded once, and no other consumer
//! is affected. `faults/consumer.rs` kills and pauses consumers.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use oncecast::base::id::MessageId;
use oncecast::lab::{ChildProcess, Cluster, Node, ports};
use oncecast::wire::{ErrorCode, Field, Frame, NackDelay};
use oncecast::{Consumer, Delivery, Outcome};
use tungstenite::Message;

use crate::support::load::Load;
use crate::support::peer::{Heard, Line, Peer};
use crate::support::proxy::Proxy;
use crate::support::scripted_group::{Scripted, wait_until_listed};
use crate::support::{
    DEADLINE, RunningConsumer, assert_each_once, bare_cluster, client_of, cluster_of, dispatcher, occurrences, options,
    publish, publish_payloads, recorded_ids, resident_bytes, run, state, stream, wait_for_intake, wait_until,
    wait_until_done, wait_until_in_sync,
};

fn results_of(connection: &mut redis::Connection, consumer: &str) -> usize {
    occurrences(&stream(connection, "messages:processed"), "consumer_id").get(consumer).copied().unwrap_or(0)
}

#[test]
fn a_restarted_consumer_is_listed_and_used_again() {
    let mut cluster = cluster_of(options(2, 3, "", ""));
    let connection = &mut client_of(&mut cluster);
    wait_until_listed(connection, &["c0", "c1", "c2"]);
    cluster.kill_node(Node::Consumer(1)).unwrap();
    wait_until_listed(connection, &["c0", "c2"]);
    publish(connection, "without", 0..300);
    wait_until_done(connection, 300);
    assert_eq!(results_of(connection, "c1"), 0);
    cluster.start_node(Node::Consumer(1)).unwrap();
    wait_until_listed(connection, &["c0", "c1", "c2"]);
    publish(connection, "with", 0..300);
    wait_until_done(connection, 600);
    assert!(results_of(connection, "c1") > 0, "a restarted consumer is used");
    // A change of leader rewrites the list, without consumers that are dead by then.
    let (leader, lease) = cluster.wait_for_leader(DEADLINE).unwrap();
    wait_until_in_sync(connection, 2);
    cluster.kill_node(leader).unwrap();
    cluster.kill_node(Node::Consumer(2)).unwrap();
    crate::support::wait_for_another_leader(&mut cluster, &lease);
    wait_until_listed(connection, &["c0", "c1"]);
}

#[test]
fn with_concurrency_and_prefetch_1_order_is_kept() {
    let mut cluster = cluster_of(options(2, 1, "", "--concurrency 1 --prefetch 1"));
    let connection = &mut client_of(&mut cluster);
    cluster.kill_node(Node::Consumer(0)).unwrap();
    publish(connection, "m", 0..500);
    wait_for_intake(connection);
    cluster.start_node(Node::Consumer(0)).unwrap();
    publish(connection, "m", 500..1_000);
    wait_until_done(connection, 1_000);
    assert_eq!(recorded_ids(connection), (0..1_000).map(|n| format!("m{n}")).collect::<Vec<_>>());
}

#[test]
fn a_consumer_stopped_under_load_fails_no_message() {
    // With one delivery allowed, each that counts as failed is a dead letter.
    let mut cluster = cluster_of(options(2, 3, "--max-deliveries 1", ""));
    let connection = &mut client_of(&mut cluster);
    let load = Load::start(&cluster.redis().url(), "m", 4_000);
    for consumer in [0, 1] {
        load.wait_for_more(1_000);
        let log = cluster.process(Node::Consumer(consumer)).unwrap().stderr().clone();
        cluster.stop_node(Node::Consumer(consumer), DEADLINE).expect("exit code 0");
        let line = log.wait_for("event=stopped", DEADLINE).unwrap();
        assert!(line.contains("drained=true") && line.contains("held=0"), "{line}");
        load.wait_for_more(1_000);
        cluster.start_node(Node::Consumer(consumer)).unwrap();
    }
    let sent = load.stop();
    wait_until_done(connection, sent.owed.len());
    assert_each_once(connection, &sent.owed);
    assert_eq!(state(connection).2, 0, "messages that a stopping consumer returns do not count as failed");
}

#[test]
fn the_leader_records_for_a_consumer_without_redis() {
    let peer = Peer::bind("scripted");
    let mut group = Scripted::start(&[&peer], "");
    let mut line = peer.accept(8);
    let connection = &mut group.client();
    wait_until_listed(connection, &["scripted"]);

    publish_payloads(connection, ["with a result"]);
    let (id, delivery, body) = line.next_message();
    assert_eq!((delivery, body.as_str()), (1, "with a result"));
    let fields = vec![Field { name: b"answer", value: b"42" }, Field { name: b"bytes", value: b"\0\xff" }];
    line.send(&[Frame::Result { id, fields }]);
    wait_until_done(connection, 1);
    let expected = vec![(b"answer".to_vec(), b"42".to_vec()), (b"bytes".to_vec(), b"\0\xff".to_vec())];
    assert_eq!(
        crate::support::raw_stream(connection, "messages:processed"),
        [expected],
        "the fields as they were sent"
    );
    // A second RESULT for the same message: it is no longer pending.
    line.send(&[Frame::Result { id, fields: vec![Field { name: b"answer", value: b"43" }] }]);

    publish_payloads(connection, ["without a result"]);
    let (id, ..) = line.next_message();
    line.send(&[Frame::Ack(vec![id])]);
    wait_until("a plain ACK to remove the message", || (state(connection).0 == 0).then_some(()));
    assert_eq!(state(connection), (0, 1, 0), "neither a plain ACK nor a repeated RESULT stores anything");

    publish_payloads(connection, ["not now"]);
    let (id, ..) = line.next_message();
    line.send(&[Frame::Nack { id, delay: NackDelay::AfterMs(400), reason: "busy" }]);
    let asked = Instant::now();
    let (again, delivery, body) = line.next_message();
    // Less than the delay of 400 ms, since the clock is read after sending.
    assert!(asked.elapsed() >= Duration::from_millis(390), "came back after {:?}", asked.elapsed());
    assert_eq!((again, delivery, body.as_str()), (id, 2, "not now"));
    let counted: String = run(connection, &["HGET", "messages:attempts", &id.0.to_string()]);
    assert!(counted.starts_with("2 @") && counted.ends_with(" +400"), "{counted}");
    line.send(&[Frame::Nack { id, delay: NackDelay::Never, reason: "never" }]);
    wait_until("a dead letter", || (state(connection).2 == 1).then_some(()));
    let letter = stream(connection, "messages:dead").remove(0);
    assert_eq!((letter["payload"].as_str(), letter["reason"].as_str()), ("not now", "never"));
    assert_eq!((letter["consumer"].as_str(), letter["deliveries"].as_str()), ("scripted", "2"));
    assert_eq!(state(connection).0, 0);
    assert_eq!(run::<usize>(connection, &["EXISTS", "messages:attempts"]), 0);
}

#[test]
fn results_for_undelivered_messages_change_nothing() {
    let (peer, other) = (Peer::bind("liar"), Peer::bind("other"));
    let mut group = Scripted::start(&[&peer, &other], "");
    let (mut liar, mut line) = (peer.accept(1), other.accept(1));
    let connection = &mut group.client();
    wait_until_listed(connection, &["liar", "other"]);
    // ACK, NACK and PROGRESS for ids that no consumer holds are ignored.
    let nobodys = MessageId(77);
    liar.send(&[Frame::Ack(vec![nobodys]), Frame::Progress(vec![nobodys])]);
    liar.send(&[
        Frame::Nack { id: nobodys, delay: NackDelay::ByBackoff, reason: "?" },
        Frame::Nack { id: nobodys, delay: NackDelay::Never, reason: "?" },
    ]);
    publish_payloads(connection, ["one", "two"]);
    for line in [&mut liar, &mut line] {
        let (id, ..) = line.next_message();
        line.send(&[Frame::Result { id, fields: vec![Field { name: b"message_id", value: b"m" }] }]);
    }
    wait_until_done(connection, 2);
    assert_eq!(state(connection), (0, 2, 0));
}

/// Bytes that are no frames, and frames that are not allowed at that point, with the error code of the answer.
fn garbage() -> Vec<(&'static str, Message, Option<ErrorCode>)> {
    let binary = |bytes: &[u8]| Message::Binary(bytes.to_vec().into());
    let frame = |frame: Frame<'_>| Message::Binary(frame.to_vec().into());
    vec![
        ("a length longer than the message", binary(&[1, 1, 0, 0, 0, 16, 0, 0]), Some(ErrorCode::Malformed)),
        ("a length over the limit", binary(&[1, 1, 0xff, 0xff, 0xff, 0xff]), Some(ErrorCode::TooLarge)),
        ("a length that is too short", binary(&[1, 1, 0, 0, 0, 3, 1, 2, 3]), Some(ErrorCode::Malformed)),
        ("half a header", binary(&[1, 1, 0]), Some(ErrorCode::Malformed)),
        ("a good frame and rubbish", binary(&[1, 8, 0, 0, 0, 0, 1]), Some(ErrorCode::Malformed)),
        ("an unknown command", binary(&[1, 99, 0, 0, 0, 0]), Some(ErrorCode::Command)),
        ("an unknown version", binary(&[2, 1, 0, 0, 0, 0]), Some(ErrorCode::Version)),
        ("a text message", Message::Text("hello".into()), Some(ErrorCode::Malformed)),
        (
            "a dispatcher's frame",
            frame(Frame::Process { id: MessageId(1), delivery: 1, body: b"x" }),
            Some(ErrorCode::Unexpected),
        ),
        ("a second HELD", frame(Frame::Held(Vec::new())), Some(ErrorCode::Unexpected)),
        ("a complaint", frame(Frame::Error { code: ErrorCode::Other(77), text: "I give up" }), None),
    ]
}

#[test]
fn garbage_closes_only_its_own_link() {
    let cases = garbage();
    // In parallel, since the dispatcher pauses before it connects to the bad one again.
    std::thread::scope(|scope| {
        for cases in cases.chunks(4) {
            scope.spawn(move || send_garbage(cases));
        }
    });
}

/// Sends these to a dispatcher of their own, one after the other.
fn send_garbage(cases: &[(&str, Message, Option<ErrorCode>)]) {
    let (bad, good) = (Peer::bind("bad"), Peer::bind("good"));
    let mut group = Scripted::start(&[&bad, &good], "");
    let mut good_line = good.accept(64);
    let mut bad_line = bad.accept(1);
    let connection = &mut group.client();
    let epoch = group.epoch();
    for (number, (what, message, code)) in cases.iter().enumerate() {
        wait_until_listed(connection, &["bad", "good"]);
        // One for each, so that the bad one holds a message, which must move to the good one.
        publish_payloads(connection, [format!("{what} 1"), format!("{what} 2")]);
        bad_line.next_message();
        bad_line.send_raw(message.clone());
        let answer = bad_line.rest();
        match code {
            Some(code) => {
                let is_it = |heard: &Heard| matches!(heard, Heard::Error(found, _) if found == code);
                assert!(answer.iter().any(is_it), "{what}: answered {answer:?}, not {code:?}");
            }
            None => assert_eq!(answer, [], "{what}"),
        }
        for _ in 0..2 {
            let (id, ..) = good_line.next_message();
            good_line
                .send(&[Frame::Result { id, fields: vec![Field { name: b"message_id", value: what.as_bytes() }] }]);
        }
        wait_until_done(connection, 2 * (number + 1));
        // The dispatcher connects to the bad one again by itself.
        bad_line = bad.accept(1);
    }
    assert_eq!(group.epoch(), epoch, "the leader did not change");
    group.dispatcher.must_run().unwrap();
    assert_eq!(state(connection).2, 0);
}

#[test]
fn a_peer_that_neither_reads_nor_answers_pings_is_dropped() {
    let (silent, good) = (Peer::bind("silent"), Peer::bind("good"));
    let mut group = Scripted::start(&[&silent, &good], "--link-timeout-ms 500");
    // Never read again.
    let silent_line = silent.accept(1_000);
    let mut good_line = good.accept(1_000);
    let connection = &mut group.client();
    wait_until_listed(connection, &["good", "silent"]);
    // More than the sockets' buffers hold: the dispatcher must not block in a write.
    let payloads: Vec<String> = (0..200).map(|n| format!("{n:03}{}", "x".repeat(60_000))).collect();
    publish_payloads(connection, &payloads);
    let mut seen = BTreeSet::new();
    while seen.len() < payloads.len() {
        let (id, _, body) = good_line.next_message();
        seen.insert(body[..3].to_owned());
        good_line.send(&[Frame::Ack(vec![id])]);
    }
    wait_until("nothing to be pending", || (state(connection).0 == 0).then_some(()));
    group.dispatcher.wait_for_line("event=consumer-lost consumer=silent", DEADLINE).unwrap();
    drop(silent_line);
}

#[test]
fn a_slow_consumer_delays_no_other() {
    // Prefetch 10 at both; the slow one answers nothing, but answers pings.
    let (slow, quick) = (Peer::bind("slow"), Peer::bind("quick"));
    let mut group = Scripted::start(&[&slow, &quick], "--link-timeout-ms 60000");
    let (mut slow_line, mut quick_line) = (slow.accept(10), quick.accept(10));
    let connection = &mut group.client();
    wait_until_listed(connection, &["quick", "slow"]);
    publish(connection, "m", 0..200);
    let mut quick_done = 0;
    while quick_done < 190 {
        let (id, ..) = quick_line.next_message();
        quick_line.send(&[Frame::Ack(vec![id])]);
        quick_done += 1;
    }
    // Catches messages that wait for a place at the slow one, or that exceed its prefetch.
    wait_until("ten to be pending", || (state(connection).0 == 10).then_some(()));
    let held: Vec<MessageId> = (0..10).map(|_| slow_line.next_message().0).collect();
    assert_eq!(slow_line.next_within(Duration::from_millis(100)), None, "no more than its prefetch");
    slow_line.send(&[Frame::Ack(held)]);
    wait_until("nothing to be pending", || (state(connection).0 == 0).then_some(()));
}

#[test]
fn a_drain_redirects_new_messages_and_returns_the_rest_uncounted() {
    let (leaving, staying) = (Peer::bind("leaving"), Peer::bind("staying"));
    let mut group = Scripted::start(&[&leaving, &staying], "--max-deliveries 1");
    let (mut leaving_line, mut staying_line): (Line, Line) = (leaving.accept(10), staying.accept(10));
    let connection = &mut group.client();
    wait_until_listed(connection, &["leaving", "staying"]);
    publish_payloads(connection, ["1", "2"]);
    leaving_line.next_message();
    let (id, ..) = staying_line.next_message();
    staying_line.send(&[Frame::Ack(vec![id])]);
    leaving_line.send(&[Frame::Drain]);
    group.dispatcher.wait_for_line("event=consumer-draining consumer=leaving", DEADLINE).unwrap();
    publish_payloads(connection, ["3", "4", "5"]);
    for _ in 0..3 {
        let (id, delivery, _) = staying_line.next_message();
        assert_eq!(delivery, 1);
        staying_line.send(&[Frame::Ack(vec![id])]);
    }
    assert_eq!(leaving_line.next_within(Duration::from_millis(50)), None, "nothing new after DRAIN");
    drop(leaving_line);
    let (id, delivery, _) = staying_line.next_message();
    assert_eq!(delivery, 1, "a returned message does not count as delivered");
    staying_line.send(&[Frame::Ack(vec![id])]);
    wait_until("nothing to be pending", || (state(connection).0 == 0).then_some(()));
    assert_eq!(state(connection).2, 0);
}

/// A consumer of a group whose handler waits until the sender of the gate is dropped.
fn gated_consumer(
    name: &str,
    url: String,
    address: &str,
) -> (crossbeam_channel::Sender<()>, oncecast::ConsumerBuilder) {
    let (gate, waiting) = crossbeam_channel::bounded::<()>(0);
    let handler = move |delivery: &Delivery<'_>| {
        let _ = waiting.recv();
        Ok(Outcome::new().field("message_id", delivery.payload()))
    };
    (gate, Consumer::builder().redis_url(url).listen(address).consumer_id(name).concurrency(1).handler(handler))
}

/// A group with one dispatcher and the addresses of two consumers that do not run yet.
fn group_of_two() -> (ChildProcess, Cluster, redis::Connection, [String; 2]) {
    let mut cluster = bare_cluster();
    let addresses = [0, 1].map(|_| format!("127.0.0.1:{}", ports::free_port().unwrap()));
    let dispatcher = dispatcher(&cluster, "d0", &addresses, "--link-timeout-ms 1000");
    let mut connection = client_of(&mut cluster);
    wait_until_in_sync(&mut connection, 1);
    (dispatcher, cluster, connection, addresses)
}

fn quick_consumer(cluster: &mut Cluster, address: &str) -> RunningConsumer {
    let handler = |delivery: &Delivery<'_>| Ok(Outcome::new().field("message_id", delivery.payload()));
    let builder = Consumer::builder().redis_url(cluster.redis().url()).listen(address).consumer_id("quick");
    RunningConsumer::start(builder.concurrency(1).prefetch(8).handler(handler))
}

#[test]
fn messages_queued_behind_a_hanging_handler_move_to_other_consumers() {
    let (_dispatcher, mut cluster, mut connection, addresses) = group_of_two();
    let connection = &mut connection;
    let (gate, builder) = gated_consumer("stuck", cluster.redis().url(), &addresses[0]);
    let _stuck = RunningConsumer::start(builder.prefetch(8).handler_timeout(Duration::from_millis(300)));
    wait_until_listed(connection, &["stuck"]);
    publish_payloads(connection, (0..8).map(|n| n.to_string()));
    wait_until("all to be stored", || (state(connection).0 == 8).then_some(()));
    let _quick = quick_consumer(&mut cluster, &addresses[1]);
    // Including the hanging one, which is overdue.
    wait_until_done(connection, 8);
    drop(gate);
    // It gets its share again.
    wait_until_listed(connection, &["quick", "stuck"]);
    publish_payloads(connection, (8..100).map(|n| n.to_string()));
    wait_until_done(connection, 100);
    assert_each_once(connection, &(0..100).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[test]
fn messages_queued_at_a_consumer_without_redis_move_to_other_consumers() {
    let (dispatcher, mut cluster, mut connection, addresses) = group_of_two();
    let connection = &mut connection;
    let redis = cluster.redis().url();
    let target = redis.trim_start_matches("redis://").split('/').next().unwrap().to_owned();
    let proxy = Proxy::to(&target);
    let near = proxy.address.clone();
    let (gate, builder) = gated_consumer("cut", format!("redis://{near}"), &addresses[0]);
    let _cut = RunningConsumer::start(builder.prefetch(50));
    wait_until_listed(connection, &["cut"]);
    publish_payloads(connection, (0..50).map(|n| n.to_string()));
    wait_until("all to be stored", || (state(connection).0 == 50).then_some(()));
    let _quick = quick_consumer(&mut cluster, &addresses[1]);
    wait_until_listed(connection, &["cut", "quick"]);
    drop(proxy);
    dispatcher.wait_for_line("event=consumer-draining consumer=cut", DEADLINE).unwrap();
    wait_until("all but the one that was started", || (state(connection).1 == 49).then_some(()));
    assert_eq!(state(connection).0, 1);

    let _proxy = Proxy::at(&near, &target);
    drop(gate);
    wait_until_done(connection, 50);
    wait_until_listed(connection, &["cut", "quick"]);
    publish_payloads(connection, (50..200).map(|n| n.to_string()));
    wait_until_done(connection, 200);
    assert_each_once(connection, &(0..200).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[test]
fn a_backlog_larger_than_memory_waits_in_redis_and_is_delivered_in_order() {
    const MESSAGES: usize = 1_000;
    let port = ports::free_port().unwrap();
    let address = format!("127.0.0.1:{port}");
    let mut cluster = bare_cluster();
    // The smallest value allowed, a quarter of the bytes published.
    let addresses = [address.clone()];
    let dispatcher = dispatcher(&cluster, "d0", &addresses, "--ready-bytes 16777216");
    let connection = &mut client_of(&mut cluster);
    wait_until_in_sync(connection, 1);
    for chunk in 0..10 {
        let payloads = (0..100).map(|n| format!("{:04}{}", 100 * chunk + n, "x".repeat(64 << 10)));
        publish_payloads(connection, payloads.collect::<Vec<_>>());
    }
    wait_until("all to be stored", || (state(connection).0 == MESSAGES).then_some(()));
    let resident = resident_bytes(dispatcher.pid());
    let handler = |delivery: &Delivery<'_>| Ok(Outcome::new().field("message_id", &delivery.payload()[..4]));
    let builder = Consumer::builder().redis_url(cluster.redis().url()).listen(&address).consumer_id("late");
    let _consumer = RunningConsumer::start(builder.concurrency(1).prefetch(50).handler(handler));
    // While the backlog is read back and memory has room at times, new messages must not overtake it.
    for chunk in 0..20 {
        publish_payloads(connection, (0..25).map(|n| format!("{:04}", MESSAGES + 25 * chunk + n)));
        wait_for_intake(connection);
    }
    wait_until_done(connection, MESSAGES + 500);
    let expected: Vec<String> = (0..MESSAGES + 500).map(|n| format!("{n:04}")).collect();
    assert_eq!(recorded_ids(connection), expected, "in the order of intake, each once");
    // The ring may hold 64 MiB for a while, and the waiting messages 16.
    assert!(resident < 160 << 20, "the dispatcher took {resident} bytes of memory");
}
