//! Messages that can't be kept are counted, logged and recorded as a gap. All others are processed.

use oncecast::lab::{Node, Signal};

use crate::support::{
    CHANNEL, DEADLINE, assert_each_once, assert_status_shows_gap, client_of, cluster_of, dispatcher, options, publish,
    publish_payloads, recorded_ids, run, state, stream, wait_for_another_leader, wait_for_intake, wait_until,
    wait_until_done, wait_until_in_sync,
};

const DISPATCHERS: [Node; 2] = [Node::Dispatcher(0), Node::Dispatcher(1)];

#[test]
fn stored_messages_survive_all_dispatchers_and_unheard_ones_are_a_gap() {
    let mut cluster = cluster_of(options(2, 1, "", ""));
    let connection = &mut client_of(&mut cluster);
    cluster.kill_node(Node::Consumer(0)).unwrap();
    publish(connection, "before", 0..1_000);
    wait_for_intake(connection);
    for dispatcher in DISPATCHERS {
        cluster.kill_node(dispatcher).unwrap();
    }
    wait_until("no dispatcher to be subscribed", || {
        let heard: u64 = run(connection, &["PUBLISH", CHANNEL, "{\"message_id\":\"unheard\"}"]);
        (heard == 0).then_some(())
    });
    // Read now: if the leader died first, the other may have led for a moment.
    let cursor: String = run(connection, &["GET", "messages:cursor"]);
    for dispatcher in DISPATCHERS {
        cluster.start_node(dispatcher).unwrap();
    }
    cluster.wait_for_leader(DEADLINE).unwrap();
    wait_until_in_sync(connection, 2);
    cluster.start_node(Node::Consumer(0)).unwrap();
    publish(connection, "after", 0..1_000);
    wait_until_done(connection, 2_000);
    let owed = ["before", "after"].iter().flat_map(|p| (0..1_000).map(move |n| format!("{p}{n}")));
    let mut owed: Vec<String> = owed.collect();
    // A message published while the last subscription was closing may have been received; then it is recorded once.
    owed.extend(recorded_ids(connection).iter().filter(|id| *id == "unheard").take(1).cloned());
    assert_each_once(connection, &owed);
    let gaps = stream(connection, "messages:gaps");
    assert!(gaps.len() == 1 && gaps[0]["reason"] == "not-subscribed", "{gaps:?}");
    assert_eq!(gaps[0]["begin"], cursor, "the gap begins where the last leader stopped");
    assert_status_shows_gap(&cluster, "not-subscribed", "unknown");
}

#[test]
fn messages_dropped_by_a_full_ring_are_counted_exactly() {
    const MESSAGES: usize = 1_000;
    // The smallest ring: 32 MiB. The leader hangs and its lease does not expire, so the standby's ring overruns.
    let mut cluster = cluster_of(options(2, 2, "--lease-ttl-ms 600000 --ring-bytes 33554432", ""));
    let connection = &mut client_of(&mut cluster);
    wait_until_in_sync(connection, 2);
    let (leader, lease) = cluster.wait_for_leader(DEADLINE).unwrap();
    cluster.signal(leader, Signal::SIGSTOP).unwrap();
    let payload = |n: usize| format!("{{\"message_id\":\"m{n}\",\"pad\":\"{}\"}}", "x".repeat(50_000));
    for chunk in 0..10 {
        publish_payloads(connection, (0..100).map(|n| payload(100 * chunk + n)));
    }
    cluster.kill_node(leader).unwrap();
    let (standby, _) = wait_for_another_leader(&mut cluster, &lease);
    wait_for_intake(connection);
    wait_until("nothing to be pending", || (state(connection).0 == 0).then_some(()));
    let recorded = recorded_ids(connection);
    let lost = MESSAGES - recorded.len();
    assert!(recorded.len() > 500, "the ring keeps about 32 MiB of the newest, {} messages", recorded.len());
    let owed: Vec<String> = (lost..MESSAGES).map(|n| format!("m{n}")).collect();
    assert_each_once(connection, &owed);
    let gaps = stream(connection, "messages:gaps");
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    assert_eq!((gaps[0]["reason"].as_str(), gaps[0]["count"].as_str()), ("ring-overrun", &*lost.to_string()));
    assert_status_shows_gap(&cluster, "ring-overrun", &lost.to_string());
    let line = cluster.process(standby).unwrap().wait_for_line("event=gap", DEADLINE).unwrap();
    assert!(line.contains("reason=ring-overrun") && line.contains(&format!("count={lost}")), "{line}");
}

#[test]
fn a_broken_subscription_is_no_gap_if_another_dispatcher_takes_over() {
    let mut cluster = cluster_of(options(2, 2, "", ""));
    let connection = &mut client_of(&mut cluster);
    wait_until_in_sync(connection, 2);
    let (_, lease) = cluster.wait_for_leader(DEADLINE).unwrap();
    // Each loses its subscription once, one after the other. The other one is in sync each time.
    let mut list: Vec<String> = subscriptions(connection);
    list.sort();
    for id in list {
        publish(connection, &format!("before{id}-"), 0..200);
        assert_eq!(run::<usize>(connection, &["CLIENT", "KILL", "ID", &id]), 1);
        publish(connection, &format!("after{id}-"), 0..200);
        wait_until_in_sync(connection, 2);
    }
    wait_until_done(connection, 800);
    assert_eq!(state(connection), (0, 800, 0));
    assert_eq!(stream(connection, "messages:gaps"), [], "nothing was missed");
    assert_ne!(cluster.wait_for_leader(DEADLINE).unwrap().1.epoch, lease.epoch, "the leader changed");
}

fn subscriptions(connection: &mut redis::Connection) -> Vec<String> {
    let list: String = run(connection, &["CLIENT", "LIST", "TYPE", "PUBSUB"]);
    list.lines().filter_map(|line| line.strip_prefix("id=")?.split(' ').next().map(str::to_owned)).collect()
}

/// A leader that stops in order ends at a marker, which has a place in another channel's messages, too.
#[test]
fn a_leader_on_another_channel_continues_where_the_last_one_ended() {
    let mut cluster = cluster_of(options(1, 1, "", ""));
    let connection = &mut client_of(&mut cluster);
    wait_until_in_sync(connection, 1);
    publish(connection, "one", 0..100);
    wait_until_done(connection, 100);
    let addresses = [cluster.address(0).to_string()];
    let other = dispatcher(&cluster, "other", &addresses, "--channel another --lease-ttl-ms 500");
    other.wait_for_line("event=subscribed", DEADLINE).expect("it listens");
    publish(connection, "one", 100..200);
    other.wait_for_line("event=other-interests", DEADLINE).expect("it warns of the others' channel");
    wait_until_done(connection, 200);
    cluster.stop_node(Node::Dispatcher(0), DEADLINE).unwrap();
    // What only one of them listens to is stored only while that one leads.
    for n in 0..50 {
        let () = run(connection, &["PUBLISH", "another", &format!("{{\"message_id\":\"two{n}\"}}")]);
    }
    wait_until_done(connection, 250);
    let owed: Vec<String> = (0..200).map(|n| format!("one{n}")).chain((0..50).map(|n| format!("two{n}"))).collect();
    assert_each_once(connection, &owed);
    assert_eq!(stream(connection, "messages:gaps"), []);
}
