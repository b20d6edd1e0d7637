//! Fencing: commands and messages of a replaced leader change nothing, and a paused standby delays nothing.
//! `faults/leader.rs` pauses leaders.

use std::collections::BTreeSet;

use oncecast::base::id::{Epoch, MessageId};
use oncecast::lab::{Node, Signal};
use oncecast::wire::{ErrorCode, Frame};
use oncecast::{Consumer, Delivery, Outcome};

use crate::support::load::Load;
use crate::support::peer::{Heard, Line};
use crate::support::{
    DEADLINE, RunningConsumer, assert_each_once, client_of, cluster_of, elect, options, redis_server, stream,
    wait_for_another_leader, wait_until_done, wait_until_in_sync,
};

#[test]
fn a_paused_standby_delays_nothing_and_catches_up() {
    let mut cluster = cluster_of(options(2, 3, "--lease-ttl-ms 500", ""));
    let connection = &mut client_of(&mut cluster);
    wait_until_in_sync(connection, 2);
    let (leader, lease) = cluster.wait_for_leader(DEADLINE).unwrap();
    let standby = if leader == Node::Dispatcher(0) { Node::Dispatcher(1) } else { Node::Dispatcher(0) };
    let load = Load::start(&cluster.redis().url(), "m", 1_500);
    cluster.signal(standby, Signal::SIGSTOP).unwrap();
    load.wait_for_more(3_000);
    cluster.signal(standby, Signal::SIGCONT).unwrap();
    wait_until_in_sync(connection, 2);
    assert_eq!(cluster.wait_for_leader(DEADLINE).unwrap().1, lease);
    cluster.kill_node(leader).unwrap();
    wait_for_another_leader(&mut cluster, &lease);
    load.wait_for_more(500);
    let sent = load.stop();
    wait_until_done(connection, sent.owed.len());
    // Catches a listener that after a pause drops its ring, or mistakes its own pause for silence of the connection.
    assert_each_once(connection, &sent.owed);
    assert_eq!(stream(connection, "messages:gaps"), []);
}

#[test]
fn consumers_refuse_a_lower_epoch_and_keep_working() {
    let mut cluster = cluster_of(options(2, 2, "", ""));
    let connection = &mut client_of(&mut cluster);
    let (_, lease) = cluster.wait_for_leader(DEADLINE).unwrap();
    for consumer in 0..2 {
        let mut stale = Line::lead(&cluster.address(consumer).to_string(), Epoch(lease.epoch.0 - 1));
        match stale.next() {
            // A stranger does not learn the true epoch.
            Heard::Error(ErrorCode::Stale, text) => assert!(!text.contains(&lease.epoch.to_string()), "{text}"),
            other => panic!("a stale LEAD was answered with {other:?}"),
        }
        assert_eq!(stale.rest(), [], "the connection is closed");
    }
    assert_eq!(crate::support::publish(connection, "m", 0..100), 2);
    wait_until_done(connection, 100);
    // Catches a consumer that disconnects its leader because of a stranger.
    assert_eq!(cluster.wait_for_leader(DEADLINE).unwrap().1, lease);
}

#[test]
fn messages_of_a_replaced_leader_are_not_started() {
    let server = redis_server();
    let handler = |_: &Delivery<'_>| Ok(Outcome::new().field("message_id", "ran"));
    let builder = Consumer::builder().redis_url(server.url()).listen("127.0.0.1:0").consumer_id("c");
    let consumer = RunningConsumer::start(builder.handler(handler));
    elect(&server, 5);
    let mut old = Line::lead(&consumer.address.to_string(), Epoch(5));
    assert!(matches!(old.next(), Heard::Ready { .. }) && matches!(old.next(), Heard::Ids("HELD", _)));
    elect(&server, 6);
    let mut new = Line::lead(&consumer.address.to_string(), Epoch(6));
    assert!(matches!(new.next(), Heard::Ready { .. }) && matches!(new.next(), Heard::Ids("HELD", _)));
    old.send(&[Frame::Process { id: MessageId(1), delivery: 1, body: b"late" }]);
    assert!(matches!(old.next(), Heard::Error(ErrorCode::Stale, _)), "messages of the old epoch are refused");
    assert_eq!(old.rest(), []);
    new.send(&[Frame::Process { id: MessageId(2), delivery: 1, body: b"now" }]);
    assert_eq!(new.next(), Heard::Ids("ACK", vec![MessageId(2)]));
    // Both were sent, one was started.
    assert_eq!(consumer.stats.received(), 1);
}

/// Each intake carries its leader's epoch and is refused in any other. So if no epoch is given out twice, two
/// dispatchers never store messages in the same one.
#[test]
fn no_epoch_is_given_to_two_dispatchers() {
    let mut cluster = cluster_of(options(3, 2, "--lease-ttl-ms 500", ""));
    let connection = &mut client_of(&mut cluster);
    wait_until_in_sync(connection, 3);
    let load = Load::start(&cluster.redis().url(), "m", 1_000);
    let (mut leader, mut lease) = cluster.wait_for_leader(DEADLINE).unwrap();
    for _ in 0..4 {
        load.wait_for_more(200);
        cluster.signal(leader, Signal::SIGSTOP).unwrap();
        let next = wait_for_another_leader(&mut cluster, &lease);
        load.wait_for_more(200);
        cluster.signal(leader, Signal::SIGCONT).unwrap();
        (leader, lease) = next;
    }
    let sent = load.stop();
    wait_until_done(connection, sent.owed.len());
    assert_each_once(connection, &sent.owed);
    // Once they have ended, their whole logs have been read.
    let lines = [0, 1, 2].map(|number| {
        let mut dispatcher = cluster.release(Node::Dispatcher(number)).unwrap();
        dispatcher.kill().unwrap();
        dispatcher.stderr().all()
    });
    let elected: Vec<&str> = lines
        .iter()
        .flatten()
        .filter_map(|line| {
            let epoch = line.split_whitespace().find_map(|word| word.strip_prefix("epoch="));
            epoch.filter(|_| line.contains(" event=elected "))
        })
        .collect();
    let epochs: BTreeSet<&str> = elected.iter().copied().collect();
    assert!(elected.len() >= 5 && epochs.len() == elected.len(), "{elected:?}");
}
