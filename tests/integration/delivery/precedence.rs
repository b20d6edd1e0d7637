//! A message that only one dispatcher has received is not lost although another could lead, whatever Redis has lost.

use oncecast::lab::{Cluster, ClusterOptions, Node, RedisOptions, Signal};

use crate::support::{
    DEADLINE, assert_each_once, assert_status_shows_gap, client_of, cluster_of, options, pending, publish, run, stream,
    subscribers, wait_until, wait_until_done, wait_until_in_sync,
};

const D0: Node = Node::Dispatcher(0);
const D1: Node = Node::Dispatcher(1);

/// `d0` alone has received messages that it could not store. Redis dies. `d1` starts and subscribes before `d0` does.
///
/// With a long TTL `d1` waits long enough for `d0`, however busy the machine is.
fn restart_with_d1_back_first(append_only: bool) -> Cluster {
    let config = vec![("appendfsync".to_owned(), "no".to_owned())];
    let redis = RedisOptions { append_only, config, ..RedisOptions::default() };
    let mut cluster = cluster_of(ClusterOptions { redis, ..options(2, 2, "--lease-ttl-ms 20000", "") });
    let connection = &mut client_of(&mut cluster);
    wait_until_in_sync(connection, 2);
    cluster.kill_node(D1).unwrap();
    wait_until("d0 to be alone", || (subscribers(connection) == 1).then_some(()));
    cluster
        .wait_for(DEADLINE, "d0 to lead", |cluster, seen| cluster.leader(seen).filter(|leader| *leader == D0))
        .unwrap();
    publish(connection, "before", 0..300);
    wait_until_done(connection, 300);
    // Intake needs memory.
    let () = run(connection, &["CONFIG", "SET", "maxmemory", "1"]);
    publish(connection, "heard", 0..300);
    // Redis answers PUBLISH before it forwards the message. By its next answer it has.
    let () = run(connection, &["PING"]);
    cluster.process(D0).unwrap().wait_for_line("OOM", DEADLINE).expect("the intake is refused");
    cluster.redis().kill().unwrap();
    cluster.signal(D0, Signal::SIGSTOP).unwrap();
    cluster.start_node(D1).unwrap();
    cluster.redis().start_again().unwrap();
    let connection = &mut client_of(&mut cluster);
    wait_until("d1 to be back", || (subscribers(connection) == 1).then_some(()));
    cluster.signal(D0, Signal::SIGCONT).unwrap();
    wait_until("both to be back", || (subscribers(connection) == 2).then_some(()));
    publish(connection, "after", 0..300);
    cluster
}

fn owed(prefixes: &[&str]) -> Vec<String> {
    prefixes.iter().flat_map(|prefix| (0..300).map(move |n| format!("{prefix}{n}"))).collect()
}

#[test]
fn a_dispatcher_that_continues_at_the_cursor_leads_first() {
    let mut cluster = restart_with_d1_back_first(true);
    let connection = &mut client_of(&mut cluster);
    wait_until_done(connection, 900);
    assert_each_once(connection, &owed(&["before", "heard", "after"]));
    let gaps = stream(connection, "messages:gaps");
    assert!(!gaps.is_empty(), "messages published while Redis was down are unknown");
}

#[test]
fn after_redis_lost_its_data_the_dispatcher_that_knows_the_cursor_leads_first() {
    let mut cluster = restart_with_d1_back_first(false);
    let connection = &mut client_of(&mut cluster);
    wait_until_done(connection, 600);
    assert_each_once(connection, &owed(&["heard", "after"]));
    let gaps = stream(connection, "messages:gaps");
    assert!(gaps.iter().any(|gap| gap["reason"] == "cursor-lost"), "{gaps:?}");
    assert_status_shows_gap(&cluster, "cursor-lost", "unknown");
}

/// Redis never loses only the cursor, but an operator may delete it. Only the leader knows exactly where it was.
#[test]
fn a_backlog_survives_the_loss_of_the_cursor() {
    let mut cluster = cluster_of(options(1, 1, "", ""));
    let connection = &mut client_of(&mut cluster);
    wait_until_in_sync(connection, 1);
    cluster.stop_node(Node::Consumer(0), DEADLINE).unwrap();
    publish(connection, "before", 0..300);
    wait_until("all to be pending", || (pending(connection) == 300).then_some(()));
    let () = run(connection, &["DEL", "messages:cursor"]);
    publish(connection, "after", 0..300);
    wait_until("the gap to be recorded", || {
        stream(connection, "messages:gaps").iter().any(|gap| gap["reason"] == "cursor-lost").then_some(())
    });
    cluster.start_node(Node::Consumer(0)).unwrap();
    wait_until_done(connection, 600);
    assert_each_once(connection, &owed(&["before", "after"]));
}
