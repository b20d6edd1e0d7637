//! How a consumer drains and stops, and when it refuses to start.

use std::time::Duration;

use oncecast::lab::{Signal, ports};

use crate::support::running_consumer::RunningConsumer;
use crate::support::scripted_dispatcher::ScriptedDispatcher;
use crate::support::{DEADLINE, lasting_redis_server, pend, redis_server, wait_until};

use super::fixture::{consumer_of, entries, expect_end, expect_refused, gated, pending, process, program};

#[test]
fn a_stopping_consumer_finishes_its_work_and_serves_a_new_leader_meanwhile() {
    let redis = redis_server();
    let (permits, handler) = gated();
    let consumer = RunningConsumer::start(consumer_of(&redis).concurrency(2).handler(handler));
    let mut peer = ScriptedDispatcher::elected(&redis, consumer.address, 5, &[]);
    pend(&redis, 1, "one");
    pend(&redis, 2, "two");
    peer.send(&[process(1, "one"), process(2, "two")]);
    wait_until("both to be held", || (consumer.stats.held() == 2).then_some(()));
    consumer.handle.shutdown();
    assert_eq!(peer.next_but_progress(), "DRAIN");
    peer.send(&[process(3, "too late")]);
    peer.sync();
    // The leader stops as well, and the next one connects.
    let mut next = ScriptedDispatcher::elected(&redis, consumer.address, 6, &[1, 2]);
    assert_eq!(next.next(), "DRAIN");
    peer.expect_error(6);
    next.send(&[process(4, "too late")]);
    permits.send(()).expect("handlers live");
    wait_until("one to be recorded", || (entries(&redis).len() == 1).then_some(()));
    let left = if entries(&redis) == [["body=one"]] { 2 } else { 1 };
    next.expect_acks(&[3 - left]);
    // The one after it finds the remaining message.
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

/// A result that is on its way to Redis when the drain is cut short is acknowledged, if Redis accepts it within the
/// time that threads have to end.
#[test]
fn a_drain_cut_short_answers_before_it_closes_connections() {
    let redis = redis_server();
    let (permits, handler) = gated();
    let consumer = RunningConsumer::start(consumer_of(&redis).concurrency(2).handler(handler));
    let mut peer = ScriptedDispatcher::elected(&redis, consumer.address, 5, &[]);
    pend(&redis, 1, "one");
    pend(&redis, 2, "two");
    peer.send(&[process(1, "one"), process(2, "two")]);
    wait_until("both to be held", || (consumer.stats.held() == 2).then_some(()));
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
fn a_second_stop_request_stops_at_once_despite_a_stuck_handler() {
    let redis = redis_server();
    let (permits, handler) = gated();
    let patient = consumer_of(&redis).drain_timeout(10 * DEADLINE);
    let consumer = RunningConsumer::start(patient.handler(handler));
    let mut peer = ScriptedDispatcher::elected(&redis, consumer.address, 5, &[]);
    peer.send(&[process(1, "stuck")]);
    wait_until("it to be held", || (consumer.stats.held() == 1).then_some(()));
    consumer.handle.shutdown();
    assert_eq!(peer.next_but_progress(), "DRAIN");
    // `stop` waits less than the drain would take.
    consumer.stop();
    drop(permits);
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
fn a_port_in_use_and_an_invalid_setting_have_distinct_exit_codes() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    expect_end(program(&["--listen", &address]), 1, &[&address, "--listen", "ONCECAST_LISTEN"]);
    expect_end(program(&["--prefetch", "0"]), 2, &["--prefetch"]);
}

/// All handler threads hang on messages whose time is over. The messages queued behind them are returned.
#[test]
fn a_consumer_with_only_stuck_handlers_drains_and_returns_when_one_ends() {
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
    assert_eq!(peer.next(), "NACK 4 0 ", "no PROGRESS comes first");
    // A new leader receives DRAIN as well.
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
    assert_eq!((entries(&redis).len(), pending(&redis), consumer.stats.returned()), (4, 0, 3));
}

#[test]
fn a_consumer_that_cannot_serve_metrics_does_not_start() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let metrics_addr = taken.local_addr().expect("bound").to_string();
    let program = program(&["--listen", "127.0.0.1:0", "--metrics-addr", &metrics_addr]);
    expect_end(program, 1, &["--metrics-addr", &metrics_addr]);
}
