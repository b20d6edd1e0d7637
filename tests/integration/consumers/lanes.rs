//! A consumer that serves several lanes of its group, with a real Redis and a scripted leader for each lane.

use std::thread;
use std::time::Duration;

use crossbeam_channel::bounded;
use oncecast::base::id::Epoch;
use oncecast::lab::RedisServer;
use oncecast::wire::Frame;
use oncecast::{ConsumerBuilder, Delivery, HandlerError, Outcome};

use crate::support::running_consumer::RunningConsumer;
use crate::support::scripted_dispatcher::ScriptedDispatcher;
use crate::support::{redis_server, run_on, wait_until};

use super::fixture::{consumer_of, process};

/// The group's name by lane.
fn name(lane: u16) -> String {
    if lane == 0 { "{orders}".to_owned() } else { format!("{{orders/{lane}}}") }
}

/// A consumer of the group `{orders}` that records lane and payload.
fn consumer(redis: &RedisServer) -> ConsumerBuilder {
    consumer_of(redis).group("{orders}").prefetch(1_000).handler(|delivery: &Delivery<'_>| {
        Ok(Outcome::new().field("key", delivery.key()).field("body", delivery.payload()))
    })
}

/// Makes this the newest epoch of a lane.
fn elect(redis: &RedisServer, lane: u16, epoch: u64) {
    run_on::<()>(redis, &["SET", &format!("{}:epoch", name(lane)), &epoch.to_string()]);
}

/// A connection that has sent LEAD for a lane.
fn led(consumer: &RunningConsumer, group: &str, epoch: u64) -> ScriptedDispatcher {
    let mut peer = ScriptedDispatcher::connect(consumer.address);
    peer.send(&[Frame::Lead { epoch: Epoch(epoch), group }]);
    peer
}

/// The elected leader of a lane, to which the consumer lists these messages.
fn leader(redis: &RedisServer, consumer: &RunningConsumer, lane: u16, epoch: u64, held: &[u64]) -> ScriptedDispatcher {
    elect(redis, lane, epoch);
    let mut peer = led(consumer, &name(lane), epoch);
    assert_eq!(peer.next(), "READY");
    let ids: String = held.iter().map(|id| format!(" {id}")).collect();
    assert_eq!(peer.next(), format!("HELD{ids}"));
    peer
}

/// Makes messages of a lane pending and delivers them.
fn deliver(redis: &RedisServer, peer: &mut ScriptedDispatcher, lane: u16, ids: impl Iterator<Item = u64> + Clone) {
    let mut words = vec!["ZADD".to_owned(), format!("{}:pending", name(lane))];
    words.extend(ids.clone().flat_map(|id| [id.to_string(), format!("{id:016x}:x")]));
    run_on::<u64>(redis, &words.iter().map(String::as_str).collect::<Vec<_>>());
    peer.send(&ids.map(|id| process(id, "x")).collect::<Vec<_>>());
}

/// The field `key` of each result of a lane.
fn recorded(redis: &RedisServer, lane: u16) -> Vec<String> {
    let key = format!("{}:processed", name(lane));
    let entries: Vec<(String, Vec<String>)> = run_on(redis, &["XRANGE", &key, "-", "+"]);
    let mut keys: Vec<String> = entries.into_iter().map(|(_, fields)| fields[1].clone()).collect();
    keys.sort();
    keys
}

fn keys(lane: u16, ids: std::ops::RangeInclusive<u64>) -> Vec<String> {
    let begin = if lane == 0 { String::new() } else { format!("{lane}/") };
    ids.map(|id| format!("{begin}{id:016x}")).collect()
}

#[test]
fn two_lanes_with_the_same_ids_record_each_in_its_own_stream() {
    let redis = redis_server();
    let consumer = RunningConsumer::start(consumer(&redis));
    let mut peers = [0, 5].map(|lane| (lane, leader(&redis, &consumer, lane, 7 + u64::from(lane), &[])));
    for (lane, peer) in &mut peers {
        deliver(&redis, peer, *lane, 1..=40);
    }
    let ids: Vec<u64> = (1..=40).collect();
    for (lane, peer) in &mut peers {
        peer.expect_acks(&ids);
        assert_eq!(recorded(&redis, *lane), keys(*lane, 1..=40));
        assert_eq!(run_on::<u64>(&redis, &["ZCARD", &format!("{}:pending", name(*lane))]), 0);
    }
    let lanes = consumer.stats.lanes();
    assert_eq!(lanes.iter().map(|(number, lane)| (*number, lane.recorded())).collect::<Vec<_>>(), [(0, 40), (5, 40)]);
    assert_eq!((consumer.stats.recorded(), consumer.stats.not_pending(), consumer.stats.breaches()), (80, 0, 0));
    consumer.stop();
}

#[test]
fn six_lanes_get_the_same_share_of_the_handlers_whatever_each_has_waiting() {
    let redis = redis_server();
    let (permits, gate) = bounded::<()>(0);
    let (begun, order) = crossbeam_channel::unbounded();
    let handler = move |delivery: &Delivery<'_>| {
        begun.send(delivery.lane())?;
        // Disconnected: all may pass.
        let _ = gate.recv();
        // Longer than a turn: so each message is one.
        thread::sleep(Duration::from_millis(2));
        Ok::<_, HandlerError>(Outcome::new())
    };
    let consumer = RunningConsumer::start(consumer(&redis).concurrency(1).handler(handler));
    let mut peers: Vec<_> = (0..6).map(|lane| leader(&redis, &consumer, lane, 5, &[])).collect();
    // Lane 0 has 400 messages before any other lane has one.
    deliver(&redis, &mut peers[0], 0, 1..=400);
    order.recv().expect("the first begins");
    for lane in 1..6 {
        deliver(&redis, &mut peers[usize::from(lane)], lane, 1..=50);
        peers[usize::from(lane)].sync();
    }
    drop(permits);
    let first: Vec<u16> = order.iter().take(300).collect();
    for lane in 0..6 {
        assert_eq!(first.iter().filter(|begun| **begun == lane).count(), 50, "lane {lane} of {first:?}");
    }
    for (lane, peer) in peers.iter_mut().enumerate() {
        peer.expect_acks(&(1..=if lane == 0 { 400 } else { 50 }).collect::<Vec<_>>());
    }
    consumer.stop();
}

#[test]
fn a_change_of_leader_in_one_lane_leaves_the_others_alone() {
    let redis = redis_server();
    let (permits, gate) = bounded::<()>(100);
    let handler = move |delivery: &Delivery<'_>| {
        if delivery.lane() == 3 {
            gate.recv()?;
        }
        Ok::<_, HandlerError>(Outcome::new().field("key", delivery.key()))
    };
    let consumer = RunningConsumer::start(consumer(&redis).concurrency(4).handler(handler));
    let mut zero = leader(&redis, &consumer, 0, 5, &[]);
    let mut old = leader(&redis, &consumer, 3, 5, &[]);
    deliver(&redis, &mut old, 3, 1..=2);
    old.sync();
    deliver(&redis, &mut zero, 0, 1..=10);
    zero.expect_acks(&(1..=10).collect::<Vec<_>>());
    // A later leader of lane 3 is told what is held of it; that of lane 0 does not notice.
    let mut new = leader(&redis, &consumer, 3, 9, &[1, 2]);
    old.expect_error(6);
    deliver(&redis, &mut zero, 0, 11..=20);
    zero.expect_acks(&(11..=20).collect::<Vec<_>>());
    // Epoch 9 of lane 3 says nothing about lane 0, and lane 0's epoch 5 nothing about lane 3.
    led(&consumer, &name(3), 5).expect_error(6);
    (0..2).for_each(|_| permits.send(()).expect("it waits"));
    new.expect_acks(&[1, 2]);
    assert_eq!(recorded(&redis, 3), keys(3, 1..=2));
    // The leader of lane 0 is lost with its connection, and comes again.
    drop(zero);
    let mut zero = leader(&redis, &consumer, 0, 6, &[]);
    deliver(&redis, &mut zero, 0, 21..=30);
    zero.expect_acks(&(21..=30).collect::<Vec<_>>());
    assert_eq!(recorded(&redis, 0), keys(0, 1..=30));
    consumer.stop();
}

#[test]
fn a_lane_is_served_only_once_redis_has_confirmed_its_leader() {
    let redis = redis_server();
    let consumer = RunningConsumer::start(consumer(&redis));
    let mut zero = leader(&redis, &consumer, 0, 5, &[]);
    for lane in 1..40 {
        // Lane 0 has this epoch; the lane has none.
        led(&consumer, &name(lane), 5).expect_error(6);
    }
    elect(&redis, 1, 8);
    led(&consumer, &name(1), 5).expect_error(6);
    led(&consumer, &name(1), 9).expect_error(6);
    for other in ["orders", "{orders/01}", "{orders/x}", "{orders/70000}", "{others}", "{orders/1/2}"] {
        led(&consumer, other, 5).expect_error(7);
    }
    assert_eq!(consumer.stats.lanes().len(), 1);
    assert_eq!(consumer.stats.unconfirmed(), 41);
    drop(leader(&redis, &consumer, 1, 8, &[]));
    assert_eq!(consumer.stats.lanes().len(), 2);
    deliver(&redis, &mut zero, 0, 1..=3);
    zero.expect_acks(&[1, 2, 3]);
    consumer.stop();
}

#[test]
fn a_group_without_braces_has_only_lane_0() {
    let redis = redis_server();
    let consumer = RunningConsumer::start(consumer(&redis).group("orders"));
    run_on::<()>(&redis, &["MSET", "orders:epoch", "5", "orders/1:epoch", "5", "{orders/1}:epoch", "5"]);
    led(&consumer, "orders/1", 5).expect_error(7);
    led(&consumer, "{orders/1}", 5).expect_error(7);
    assert_eq!(led(&consumer, "orders", 5).next(), "READY");
    consumer.stop();
}

#[test]
fn a_stop_finishes_what_is_held_of_all_lanes() {
    let redis = redis_server();
    let (permits, gate) = bounded::<()>(100);
    let handler = move |delivery: &Delivery<'_>| {
        gate.recv()?;
        Ok::<_, HandlerError>(Outcome::new().field("key", delivery.key()))
    };
    let consumer = RunningConsumer::start(consumer(&redis).concurrency(1).handler(handler));
    let mut peers: Vec<_> = (0..3).map(|lane| leader(&redis, &consumer, lane, 5, &[])).collect();
    for (lane, peer) in (0..).zip(&mut peers) {
        deliver(&redis, peer, lane, 1..=2);
        peer.sync();
    }
    consumer.handle.shutdown();
    for peer in &mut peers {
        assert_eq!(peer.next_but_progress(), "DRAIN");
    }
    // A lane that is not known can hold nothing here.
    elect(&redis, 4, 5);
    assert!(led(&consumer, &name(4), 5).next().starts_with("ERROR 9 "));
    (0..6).for_each(|_| permits.send(()).expect("it waits"));
    peers.iter_mut().for_each(ScriptedDispatcher::expect_close_after_acks);
    for lane in 0..3 {
        assert_eq!(recorded(&redis, lane), keys(lane, 1..=2));
    }
    wait_until("nothing to be held", || (consumer.stats.held() == 0).then_some(()));
}
