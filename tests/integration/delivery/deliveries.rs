//! What counts as a delivery: sending a message again, or a failure that a consumer reports. A link that breaks while
//! the consumer still works on the message does not count.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};
use oncecast::lab::{ChildProcess, Cluster, ports};
use oncecast::{Consumer, Delivery, HandlerError, Outcome};
use parking_lot::Mutex;

use crate::support::peer::Peer;
use crate::support::proxy::Proxy;
use crate::support::{
    DEADLINE, RunningConsumer, bare_cluster, client_of, dispatcher, publish_payloads, run, state, stream, wait_until,
    wait_until_done, wait_until_in_sync,
};

/// More than the deliveries that a message may have.
const CUTS: usize = 6;

/// A consumer whose handler waits for a permit, and its server.
struct Worker {
    permits: Sender<Result<(), HandlerError>>,
    /// The numbers of the deliveries that were run.
    runs: Arc<Mutex<Vec<u16>>>,
    consumer: RunningConsumer,
    cluster: Cluster,
}

impl Worker {
    fn start() -> Worker {
        let mut cluster = bare_cluster();
        let (permits, gate) = bounded(8);
        let runs = Arc::new(Mutex::new(Vec::new()));
        let noted = runs.clone();
        let handler = move |delivery: &Delivery<'_>| {
            noted.lock().push(delivery.number());
            gate.recv()??;
            Ok(Outcome::new().field("body", delivery.payload()))
        };
        let builder = Consumer::builder().redis_url(cluster.redis().url()).listen("127.0.0.1:0").consumer_id("worker");
        let consumer = RunningConsumer::start(builder.concurrency(2).prefetch(8).handler(handler));
        Worker { permits, runs, consumer, cluster }
    }

    fn dispatcher(&self, addresses: &[String], args: &str) -> ChildProcess {
        dispatcher(&self.cluster, "d0", addresses, args)
    }

    /// A connection, after the dispatcher has become leader.
    fn client(&mut self) -> redis::Connection {
        let mut connection = client_of(&mut self.cluster);
        wait_until_in_sync(&mut connection, 1);
        connection
    }

    fn wait_for_runs(&self, count: usize) {
        wait_until(format!("{count} runs"), || (self.runs.lock().len() == count).then_some(()));
    }
}

/// Cuts the link so many times. After each, waits until the consumer is linked again and reports that it holds one
/// message.
fn cut_while_held(proxy: &Proxy, dispatcher: &ChildProcess, times: usize) {
    let log = dispatcher.stderr();
    for _ in 0..times {
        let seen = log.count();
        proxy.cut();
        let linked = log.wait_for_after(seen, "event=consumer-linked", DEADLINE).expect("it is linked again");
        assert!(linked.contains(" held=1"), "{linked}");
    }
}

#[test]
fn broken_links_do_not_dead_letter_a_message_in_progress() {
    // With one delivery allowed, and with the usual number.
    for args in ["--max-deliveries 1", ""] {
        let mut worker = Worker::start();
        let proxy = Proxy::to(&worker.consumer.address.to_string());
        let dispatcher = worker.dispatcher(std::slice::from_ref(&proxy.address), args);
        let connection = &mut worker.client();
        publish_payloads(connection, ["slow"]);
        worker.wait_for_runs(1);
        cut_while_held(&proxy, &dispatcher, CUTS);
        worker.permits.send(Ok(())).expect("the handler waits");
        wait_until_done(connection, 1);
        assert_eq!(state(connection), (0, 1, 0), "{args}: recorded, and no dead letter");
        assert_eq!(*worker.runs.lock(), [1], "{args}: it ran once");
        assert_eq!(run::<usize>(connection, &["EXISTS", "messages:attempts"]), 0);
    }
}

#[test]
fn broken_links_of_a_held_message_do_not_count_as_deliveries() {
    let mut worker = Worker::start();
    let proxy = Proxy::to(&worker.consumer.address.to_string());
    let dispatcher = worker.dispatcher(std::slice::from_ref(&proxy.address), "--max-deliveries 2");
    let connection = &mut worker.client();
    publish_payloads(connection, ["slow"]);
    worker.wait_for_runs(1);
    cut_while_held(&proxy, &dispatcher, 3);
    worker.permits.send(Err(HandlerError::retry("not yet"))).expect("the handler waits");
    worker.wait_for_runs(2);
    let counted: Vec<String> = run(connection, &["HVALS", "messages:attempts"]);
    assert!(counted.len() == 1 && counted[0].starts_with("2 @"), "{counted:?}");
    cut_while_held(&proxy, &dispatcher, 3);
    worker.permits.send(Err(HandlerError::retry("never"))).expect("the handler waits");
    wait_until_done(connection, 1);
    let letter = stream(connection, "messages:dead").remove(0);
    assert_eq!((letter["reason"].as_str(), letter["deliveries"].as_str()), ("never", "2"));
    assert_eq!(*worker.runs.lock(), [1, 2]);
}

#[test]
fn two_addresses_of_one_consumer_are_logged_and_harmless() {
    let mut worker = Worker::start();
    let other = format!("127.0.0.1:{}", ports::free_port().expect("a free port"));
    let addresses = [worker.consumer.address.to_string(), other];
    let mut dispatcher = worker.dispatcher(&addresses, "--max-deliveries 1 --link-timeout-ms 300");
    let connection = &mut worker.client();
    publish_payloads(connection, ["slow"]);
    worker.wait_for_runs(1);
    let log = dispatcher.stderr().clone();
    let _proxy = Proxy::at(&addresses[1], &addresses[0]);
    let line = log.wait_for("event=same-consumer", DEADLINE).expect("it is logged");
    for part in ["consumer=worker", &addresses[0], &addresses[1], "setting=consumers", "--consumer-id"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    // One link replaces the other again and again. If that counted as a delivery, the message would be a dead letter.
    for _ in 0..3 {
        log.wait_for_after(log.count(), "event=consumer-lost", DEADLINE).expect("one replaces the other");
    }
    worker.permits.send(Ok(())).expect("the handler waits");
    wait_until_done(connection, 1);
    assert_eq!((state(connection), worker.runs.lock().clone()), ((0, 1, 0), vec![1]));
    // Once it has ended, its whole log has been read.
    dispatcher.stop(DEADLINE).expect("it ends");
    let lines = dispatcher.stderr().all();
    assert_eq!(lines.iter().filter(|line| line.contains("event=same-consumer")).count(), 1, "reported once");
}

#[test]
fn a_message_that_always_kills_its_consumer_becomes_a_dead_letter() {
    // The retry policy's waits apply to messages that failed. The loss of a consumer delays its messages only a little.
    let mut cluster = bare_cluster();
    let peer = Peer::bind("victim");
    let _dispatcher = dispatcher(&cluster, "d0", &[peer.address()], "--max-deliveries 3 --retry fixed:10m");
    let mut line = peer.accept(8);
    let connection = &mut client_of(&mut cluster);
    wait_until_in_sync(connection, 1);
    publish_payloads(connection, ["poison"]);
    for number in 1..=3 {
        let (id, delivery, body) = line.next_message();
        assert_eq!((delivery, body.as_str()), (number, "poison"));
        if number > 1 {
            wait_until("the delivery to be counted", || {
                let counted: Option<u16> = run(connection, &["HGET", "messages:attempts", &id.0.to_string()]);
                (counted == Some(number)).then_some(())
            });
        }
        drop(line);
        line = peer.accept(8);
    }
    wait_until_done(connection, 1);
    let letter = stream(connection, "messages:dead").remove(0);
    assert_eq!((letter["payload"].as_str(), letter["deliveries"].as_str()), ("poison", "3"));
    assert_eq!(letter["consumer"], "victim");
    assert!(letter["reason"].starts_with("the link to the consumer was lost"), "{}", letter["reason"]);
    assert_eq!(line.next_within(Duration::from_millis(50)), None, "it is not delivered once more");
    assert_eq!(run::<usize>(connection, &["EXISTS", "messages:attempts"]), 0);
}

#[test]
fn a_message_held_by_two_consumers_continues_at_the_surviving_one() {
    let mut worker = Worker::start();
    let proxy = Proxy::to(&worker.consumer.address.to_string());
    let other = Peer::bind("other");
    let dispatcher = worker.dispatcher(&[proxy.address.clone(), other.address()], "--max-deliveries 2");
    // It has one place, so the worker gets the other message.
    let mut other_line = other.accept(1);
    let connection = &mut worker.client();
    dispatcher.wait_for_line("event=consumer-linked consumer=worker", DEADLINE).expect("it is linked");
    publish_payloads(connection, ["a", "b"]);
    worker.wait_for_runs(1);
    let (others, ..) = other_line.next_message();
    let seen = dispatcher.stderr().count();
    other_line.send(&[oncecast::wire::Frame::Ack(vec![others])]);
    wait_until("one to be done", || (state(connection).0 == 1).then_some(()));
    proxy.cut();
    // The message is sent to the other consumer as well, while the worker reconnects and lists it in HELD.
    let (_, delivery, _) = other_line.next_message();
    assert_eq!(delivery, 2);
    let linked = dispatcher.stderr().wait_for_after(seen, "event=consumer-linked consumer=worker", DEADLINE);
    assert!(linked.as_ref().is_ok_and(|line| line.contains("held=1")), "{linked:?}");
    drop(other_line);
    dispatcher.wait_for_line("event=consumer-lost consumer=other", DEADLINE).expect("its link is gone");
    worker.permits.send(Ok(())).expect("the handler waits");
    wait_until_done(connection, 1);
    assert_eq!(state(connection).2, 0, "no dead letter: its last delivery was lost, but the worker still had it");
    assert_eq!(*worker.runs.lock(), [1]);
}
