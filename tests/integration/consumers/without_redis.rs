//! A consumer whose Redis is down, or refuses it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use oncecast::base::id::Epoch;
use oncecast::wire::Frame;
use oncecast::{Consumer, Delivery, Outcome};

use crate::support::running_consumer::RunningConsumer;
use crate::support::scripted_dispatcher::ScriptedDispatcher;
use crate::support::{elect, lasting_redis_server, pend, redis_server, wait_until};

use super::fixture::{consumer_of, entries, gated, pending, process};

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
    wait_until("Redis to count as down", || {
        (!consumer.stats.redis_is_up() && consumer.stats.held() == 500).then_some(())
    });
    redis.start_again().expect("it starts again");
    peer.expect_acks(&ids);
    assert_eq!((entries(&redis).len(), pending(&redis)), (500, 0));
    wait_until("Redis to count as up", || consumer.stats.redis_is_up().then_some(()));
}

#[test]
fn a_consumer_starts_without_redis() {
    let mut redis = lasting_redis_server();
    redis.kill().expect("it is ours");
    let consumer = RunningConsumer::start(consumer_of(&redis).handler(oncecast::programs::consumer::stamp));
    wait_until("an error of Redis to be counted", || (consumer.stats.redis_errors() > 0).then_some(()));
    redis.start_again().expect("it starts again");
    let mut peer = ScriptedDispatcher::elected(&redis, consumer.address, 5, &[]);
    peer.send(&[process(1, "x")]);
    peer.expect_acks(&[1]);
}

/// The consumer is connected to the leader but not to Redis: it keeps the messages it has started, returns the rest,
/// and accepts no more.
#[test]
fn a_consumer_without_redis_returns_messages_it_has_not_started() {
    let mut redis = lasting_redis_server();
    let (permits, handler) = gated();
    let consumer = RunningConsumer::start(consumer_of(&redis).concurrency(2).prefetch(50).handler(handler));
    (1..=40).for_each(|id| pend(&redis, id, "x"));
    let mut peer = ScriptedDispatcher::elected(&redis, consumer.address, 5, &[]);
    peer.send(&(1..=40).map(|id| process(id, "x")).collect::<Vec<_>>());
    wait_until("all to be held", || (consumer.stats.held() == 40).then_some(()));
    redis.kill().expect("it is ours");
    // One result waits for Redis, and two handlers are running.
    permits.send(()).expect("handlers live");
    assert_eq!(peer.next_but_progress(), "DRAIN");
    let mut back: Vec<String> = (0..37).map(|_| peer.next_but_progress()).collect();
    back.sort();
    let mut expected: Vec<String> = (4..=40).map(|id| format!("NACK {id} 0 ")).collect();
    expected.sort();
    assert_eq!(back, expected);
    assert_eq!(peer.next(), "PROGRESS 1 2 3");
    // The same leader connects again.
    let mut peer = ScriptedDispatcher::lead(consumer.address, 5, &[1, 2, 3]);
    assert_eq!(peer.next(), "DRAIN");
    assert!(consumer.stats.is_unable() && consumer.stats.ready().is_err());

    redis.start_again().expect("it starts again");
    let first = peer.next_but_progress();
    assert!(first == "ACK 1" || first == "ACK 2", "{first}");
    wait_until("it to be ready", || consumer.stats.ready().is_ok().then_some(()));
    // Its held messages would go to others if it closed the connection now.
    permits.send(()).and(permits.send(())).expect("handlers live");
    peer.expect_close_after_acks();
    let mut again = ScriptedDispatcher::lead(consumer.address, 5, &[]);
    again.send(&(4..=40).map(|id| process(id, "x")).collect::<Vec<_>>());
    (4..=40).for_each(|_| permits.send(()).expect("handlers live"));
    again.expect_acks(&(4..=40).collect::<Vec<_>>());
    assert_eq!((entries(&redis).len(), pending(&redis)), (40, 0));
}

/// A handler with results of 4 MiB each, and a count of its runs. The count is shared for as long as a thread has the
/// handler.
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
fn unrecorded_results_are_bounded_in_memory_and_recorded_later() {
    const MESSAGES: u64 = 40;
    let mut redis = lasting_redis_server();
    let (runs, handler) = large_results();
    let builder = consumer_of(&redis).concurrency(2).prefetch(MESSAGES as u32).handler(handler);
    let consumer = RunningConsumer::start(builder);
    (1..=MESSAGES).for_each(|id| pend(&redis, id, "x"));
    let mut peer = ScriptedDispatcher::elected(&redis, consumer.address, 5, &[]);
    redis.kill().expect("it is ours");
    peer.send(&(1..=MESSAGES).map(|id| process(id, "x")).collect::<Vec<_>>());
    // Less than 16 results of 4 MiB fit into 64 MiB; each thread holds one more.
    let runs = || runs.load(Ordering::Relaxed);
    wait_until("the handlers to wait", || (runs() == 17).then_some(()));
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!((runs(), consumer.stats.held()), (17, MESSAGES));
    redis.start_again().expect("it starts again");
    peer.expect_acks(&(1..=MESSAGES).collect::<Vec<_>>());
    assert_eq!((runs(), entries(&redis).len() as u64, pending(&redis)), (MESSAGES, MESSAGES, 0));
}

#[test]
fn handlers_waiting_for_redis_do_not_delay_the_stop() {
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
fn a_wrong_password_is_logged_and_not_fatal() {
    let redis = redis_server();
    let url = format!("redis://:wrong@127.0.0.1:{}", redis.port());
    let consumer = RunningConsumer::start(
        Consumer::builder().redis_url(url).listen("127.0.0.1:0").handler(oncecast::programs::consumer::stamp),
    );
    wait_until("an error of Redis to be counted", || (consumer.stats.redis_errors() >= 3).then_some(()));
    // It does not accept messages whose results it can't record.
    elect(&redis, 5);
    let mut peer = ScriptedDispatcher::connect(consumer.address);
    peer.send(&[Frame::Lead { epoch: Epoch(5), group: "messages" }]);
    peer.expect_error(9);
}
