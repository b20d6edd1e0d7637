//! A consumer and its leaders: which one it obeys, and what it keeps when a connection or a leader changes.

use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use oncecast::base::id::Epoch;
use oncecast::lab::{Signal, ports};
use oncecast::wire::Frame;
use oncecast::{Delivery, HandlerError, Outcome};
use parking_lot::Mutex;

use crate::support::running_consumer::RunningConsumer;
use crate::support::scripted_dispatcher::ScriptedDispatcher;
use crate::support::{elect, pend, redis_server, wait_until};

use super::fixture::{consumer_of, entries, gated, pending, process, program};

#[test]
fn the_higher_epoch_replaces_the_lower_and_inherits_its_messages() {
    let redis = redis_server();
    let (permits, handler) = gated();
    let consumer = RunningConsumer::start(consumer_of(&redis).prefetch(4).handler(handler));
    let mut old = ScriptedDispatcher::elected(&redis, consumer.address, 5, &[]);
    pend(&redis, 1, "one");
    old.send(&[process(1, "one")]);
    wait_until("the message to be held", || (consumer.stats.held() == 1).then_some(()));

    let mut new = ScriptedDispatcher::elected(&redis, consumer.address, 6, &[1]);
    // The connection may be closed already.
    old.try_send(&[process(2, "two")]);
    old.expect_error(6);
    let mut late = ScriptedDispatcher::connect(consumer.address);
    late.send(&[Frame::Lead { epoch: Epoch(5), group: "messages" }]);
    late.expect_error(6);
    // The new leader had not read HELD yet and sends the message again. It does not run twice.
    new.send(&[process(1, "one")]);
    new.sync();
    permits.send(()).expect("handlers live");
    new.expect_acks(&[1]);
    assert_eq!(entries(&redis), [["body=one"]]);
    assert_eq!((consumer.stats.received(), consumer.stats.ruling_epoch()), (1, 6));
    wait_until("both to be counted", || (consumer.stats.stale() == 2).then_some(()));
}

#[test]
fn an_idle_replaced_leader_is_notified_too() {
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
    wait_until("both to be held", || (consumer.stats.held() == 2).then_some(()));
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
fn an_unsent_nack_goes_to_the_next_leader() {
    let redis = redis_server();
    let (permits, gate) = bounded::<()>(1);
    let handler = move |_: &Delivery<'_>| {
        gate.recv()?;
        Err(HandlerError::retry("no luck"))
    };
    let consumer = RunningConsumer::start(consumer_of(&redis).handler(handler));
    let mut peer = ScriptedDispatcher::elected(&redis, consumer.address, 5, &[]);
    peer.send(&[process(1, "x")]);
    wait_until("it to be held", || (consumer.stats.held() == 1).then_some(()));
    drop(peer);
    wait_until("the connection to be gone", || (consumer.stats.ruling_epoch() == 0).then_some(()));
    permits.send(()).expect("handlers live");
    wait_until("it to fail", || (consumer.stats.retried() == 1).then_some(()));
    let mut peer = ScriptedDispatcher::elected(&redis, consumer.address, 6, &[1]);
    assert_eq!(peer.next(), "NACK 1 0 no luck");
    wait_until("nothing to be held", || (consumer.stats.held() == 0).then_some(()));
}

#[test]
fn a_dispatcher_that_does_not_read_delays_no_other() {
    let redis = redis_server();
    let (permits, handler) = gated();
    let consumer = RunningConsumer::start(consumer_of(&redis).prefetch(1_000).handler(handler));
    let ids: Vec<u64> = (1..=1_000).collect();
    let mut stalled = ScriptedDispatcher::elected(&redis, consumer.address, 5, &[]);
    stalled.send(&ids.iter().map(|id| process(*id, "x")).collect::<Vec<_>>());
    wait_until("all to be held", || (consumer.stats.held() == 1_000).then_some(()));
    stalled.ping_until_stalled();
    let started = Instant::now();
    let mut next = ScriptedDispatcher::elected(&redis, consumer.address, 6, &ids);
    ids.iter().for_each(|_| permits.send(()).expect("handlers live"));
    next.expect_acks(&ids);
    // A committer blocked by the stalled socket would wait for its write timeout of five seconds.
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
fn every_message_is_recorded_once_over_many_changes_of_leader() {
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
                // Some connect too late, some are replaced half-way. All send until they are disconnected.
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
    // A message that was held when it connected may be acknowledged, sent again, and acknowledged again.
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
