//! A change of leader loses no message, records none twice and repeats no work. `faults/leader.rs` kills leaders under
//! load.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use oncecast::base::id::Epoch;
use oncecast::lab::{ChildProcess, Cluster, ClusterOptions, Lease, Node, RedisOptions, Signal};
use oncecast::{Consumer, Delivery, HandlerError, Outcome};
use parking_lot::{Condvar, Mutex};

use crate::support::load::Load;
use crate::support::{
    DEADLINE, RunningConsumer, assert_each_once, bare_cluster, client_of, cluster, cluster_of, dispatcher, options,
    publish, publish_payloads, run, stream, subscribers, wait_for_another_leader, wait_until, wait_until_done,
    wait_until_in_sync,
};

fn leader(cluster: &mut Cluster) -> (Node, Lease) {
    cluster.wait_for_leader(DEADLINE).expect("a dispatcher leads")
}

fn load(cluster: &mut Cluster, prefix: &'static str, per_second: u64) -> Load {
    Load::start(&cluster.redis().url(), prefix, per_second)
}

#[test]
fn a_stopped_leader_is_replaced_at_once() {
    let mut cluster = cluster_of(options(2, 3, "--lease-ttl-ms 60000", ""));
    let connection = &mut client_of(&mut cluster);
    wait_until_in_sync(connection, 2);
    let (first, lease) = leader(&mut cluster);
    let log = cluster.process(first).unwrap().stderr().clone();
    let load = load(&mut cluster, "m", 3_000);
    load.wait_for_more(2_000);
    cluster.stop_node(first, DEADLINE).expect("exit code 0 on SIGTERM");
    let released = log.wait_for("event=lease-released", DEADLINE);
    released.expect("a leader that stops releases the lease, and does not only close its connection");
    log.wait_for("event=stopped terms=1", DEADLINE).expect("the last line sums up");
    wait_for_another_leader(&mut cluster, &lease);
    load.wait_for_more(2_000);
    let sent = load.stop();
    wait_until_done(connection, sent.owed.len());
    assert_each_once(connection, &sent.owed);
    assert_eq!(stream(connection, "messages:gaps"), [], "a clean change of leader leaves no gap");
}

#[test]
fn a_leader_without_the_needed_rights_yields_to_one_that_has_them() {
    let mut cluster = Cluster::start(options(0, 1, "", "")).expect("it starts");
    let connection = &mut client_of(&mut cluster);
    for user in ["first", "second"] {
        let () = run(connection, &["ACL", "SETUSER", user, "on", ">secret", "~*", "&*", "+@all"]);
    }
    let url =
        |user: &str, cluster: &Cluster| cluster.redis_url().replace("redis://", &format!("redis://{user}:secret@"));
    let consumers = cluster.address(0).to_string();
    let start = |user: &str, cluster: &Cluster| {
        let mut command = crate::support::programs().command("oncecast-dispatcher").expect("the program is built");
        command.args(["--redis-url", &url(user, cluster), "--dispatcher-id", user, "--consumers", &consumers]);
        ChildProcess::spawn(user, command).expect("it starts")
    };
    let first = start("first", &cluster);
    let lease = |connection: &mut redis::Connection| run::<Option<String>>(connection, &["GET", "messages:leader"]);
    wait_until("it to lead", || lease(connection).filter(|lease| lease.starts_with("first-")));
    let _second = start("second", &cluster);
    wait_until_in_sync(connection, 2);
    publish(connection, "before", 0..100);
    wait_until_done(connection, 100);
    // It may still renew its lease, but no longer store messages.
    let () = run(connection, &["ACL", "SETUSER", "first", "resetkeys", "~messages:leader", "~messages:status:*"]);
    publish(connection, "after", 0..100);
    wait_until_done(connection, 200);
    assert!(lease(connection).is_some_and(|lease| lease.starts_with("second-")));
    first.wait_for_line("event=denied", DEADLINE).expect("the reason is logged");
}

#[test]
fn a_restarted_standby_syncs_and_takes_over_later() {
    let mut cluster = cluster(2, 3);
    let connection = &mut client_of(&mut cluster);
    let (first, lease) = leader(&mut cluster);
    let standby = if first == Node::Dispatcher(0) { Node::Dispatcher(1) } else { Node::Dispatcher(0) };
    let load = load(&mut cluster, "m", 2_000);
    load.wait_for_more(500);
    cluster.kill_node(standby).unwrap();
    load.wait_for_more(500);
    cluster.start_node(standby).unwrap();
    wait_until_in_sync(connection, 2);
    load.wait_for_more(500);
    cluster.kill_node(first).unwrap();
    let (second, _) = wait_for_another_leader(&mut cluster, &lease);
    assert_eq!(second, standby);
    // Catches a joiner that does not know how far the leader is, and so starts from its own join marker.
    let line = cluster.process(standby).unwrap().wait_for_line("event=taken-over", DEADLINE).unwrap();
    assert!(line.contains("standing=InSync"), "{line}");
    load.wait_for_more(500);
    let sent = load.stop();
    wait_until_done(connection, sent.owed.len());
    assert_each_once(connection, &sent.owed);
    assert_eq!(stream(connection, "messages:gaps"), []);
}

/// After a restart of Redis every dispatcher has a break behind the cursor. The first one to subscribe again has
/// received every message since, so it must lead: a later one lacks the beginning.
#[test]
fn after_a_redis_restart_messages_heard_by_one_dispatcher_are_not_lost() {
    let config = vec![("appendfsync".to_owned(), "no".to_owned())];
    let redis = RedisOptions { append_only: true, config, ..RedisOptions::default() };
    let mut cluster = cluster_of(ClusterOptions { redis, ..options(2, 3, "", "") });
    let mut owed = Vec::new();
    for (round, prefix) in ["a", "b", "c", "d"].into_iter().enumerate() {
        wait_until_in_sync(&mut client_of(&mut cluster), 2);
        cluster.redis().stop().unwrap();
        let late = Node::Dispatcher(round % 2);
        cluster.signal(late, Signal::SIGSTOP).unwrap();
        cluster.redis().start_again().unwrap();
        let connection = &mut client_of(&mut cluster);
        wait_until("one dispatcher to be back", || (subscribers(connection) == 1).then_some(()));
        assert_eq!(publish(connection, prefix, 0..500), 1, "one dispatcher receives it");
        cluster.signal(late, Signal::SIGCONT).unwrap();
        wait_until("the other to be back", || (subscribers(connection) == 2).then_some(()));
        publish(connection, prefix, 500..600);
        owed.extend((0..600).map(|n| format!("{prefix}{n}")));
        wait_until_done(connection, owed.len());
    }
    assert_each_once(&mut client_of(&mut cluster), &owed);
}

/// A door at which handlers wait, and how often each message arrived at it.
#[derive(Default)]
struct Door {
    runs: Mutex<HashMap<String, usize>>,
    open: Mutex<bool>,
    opened: Condvar,
}

impl Door {
    fn handle(&self, delivery: &Delivery<'_>) -> Result<Outcome, HandlerError> {
        let payload = String::from_utf8_lossy(delivery.payload()).into_owned();
        *self.runs.lock().entry(payload.clone()).or_default() += 1;
        let mut open = self.open.lock();
        while !*open {
            self.opened.wait(&mut open);
        }
        Ok(Outcome::new().field("message_id", payload))
    }

    fn open(&self) {
        *self.open.lock() = true;
        self.opened.notify_all();
    }
}

#[test]
fn work_in_progress_is_not_repeated_on_a_change_of_leader() {
    let door = Arc::new(Door::default());
    let mut cluster = bare_cluster();
    let url = cluster.redis().url();
    let consumers = ["one", "two"].map(|name| {
        let door = door.clone();
        let handler = move |delivery: &Delivery<'_>| door.handle(delivery);
        let builder = Consumer::builder().redis_url(&url).listen("127.0.0.1:0").consumer_id(name);
        RunningConsumer::start(builder.concurrency(3).prefetch(8).handler(handler))
    });
    // Opened also when the test fails: handlers that wait cannot be joined.
    let _opener = Opener(door.clone());
    let addresses = consumers.each_ref().map(|consumer| consumer.address.to_string());
    // In the other order: a new leader that did not read HELD would deliver each message to the other consumer.
    let reversed = [addresses[1].clone(), addresses[0].clone()];
    let connection = &mut client_of(&mut cluster);
    let received = || consumers.iter().map(|consumer| consumer.stats.received()).sum::<u64>();
    let ruled_by = |epoch: Epoch| consumers.iter().all(|consumer| consumer.stats.ruling_epoch() == epoch.0);

    let mut first = dispatcher(&cluster, "d0", &addresses, "");
    let lease = cluster.wait_for(DEADLINE, "d0 to lead", |_, snapshot| snapshot.lease.clone()).unwrap();
    let second = dispatcher(&cluster, "d1", &reversed, "");
    wait_until_in_sync(connection, 2);
    // Otherwise the first one to be linked would get more.
    wait_until("both consumers to be linked", || ruled_by(lease.epoch).then_some(()));
    publish_payloads(connection, (0..10).map(|n| format!("held{n}")));
    // Three run at each consumer and the others wait there for a thread.
    wait_until("ten messages to be held", || (received() == 10).then_some(()));

    first.kill().unwrap();
    let next = cluster
        .wait_for(DEADLINE, "d1 to lead", |_, snapshot| snapshot.lease.clone().filter(|next| next.epoch > lease.epoch));
    let next = next.unwrap();
    assert_eq!(next.name(), "d1");
    wait_until("both consumers to be linked again", || ruled_by(next.epoch).then_some(()));
    for _ in 0..2 {
        second.wait_for_line("held=5", DEADLINE).expect("the new leader adopts the messages that are held");
    }
    // New messages queue behind the backlog, so once these arrive all redeliveries have been made.
    publish_payloads(connection, (0..4).map(|n| format!("new{n}")));
    wait_until("four more messages to be held", || (received() >= 14).then_some(()));
    door.open();
    wait_until_done(connection, 14);
    assert_eq!(received(), 14, "no held message is delivered to another consumer");
    let runs = door.runs.lock().clone();
    assert!(runs.len() == 14 && runs.values().all(|runs| *runs == 1), "each handler ran once: {runs:?}");
    let owed: Vec<String> = runs.into_keys().collect();
    assert_each_once(connection, &owed);
}

struct Opener(Arc<Door>);

impl Drop for Opener {
    fn drop(&mut self) {
        self.0.open();
    }
}

#[test]
fn work_longer_than_the_link_timeout_runs_once_over_changes_of_leader() {
    let runs: Arc<Mutex<HashMap<String, usize>>> = Arc::default();
    let mut cluster = bare_cluster();
    let url = cluster.redis().url();
    let consumers = ["one", "two"].map(|name| {
        let runs = runs.clone();
        let handler = move |delivery: &Delivery<'_>| {
            let payload = String::from_utf8_lossy(delivery.payload()).into_owned();
            *runs.lock().entry(payload.clone()).or_default() += 1;
            // The duration is what is tested: more than three link timeouts.
            std::thread::sleep(Duration::from_secs(2));
            Ok(Outcome::new().field("message_id", payload))
        };
        let builder = Consumer::builder().redis_url(&url).listen("127.0.0.1:0").consumer_id(name);
        RunningConsumer::start(builder.concurrency(4).prefetch(8).handler(handler))
    });
    let addresses = consumers.each_ref().map(|consumer| consumer.address.to_string());
    // In the other order: a new leader that did not read HELD would deliver each message to the other consumer.
    let reversed = [addresses[1].clone(), addresses[0].clone()];
    let connection = &mut client_of(&mut cluster);
    let mut dispatchers: HashMap<&str, _> = [("d0", &addresses), ("d1", &reversed), ("d2", &addresses)]
        .map(|(name, addresses)| (name, dispatcher(&cluster, name, addresses, "--link-timeout-ms 600")))
        .into();
    wait_until_in_sync(connection, 3);
    // Twice as many as can run at the same time.
    publish_payloads(connection, (0..16).map(|n| format!("slow{n}")));
    wait_until("the first of them to run", || (runs.lock().len() >= 8).then_some(()));
    let mut view = cluster.view();
    for _ in 0..2 {
        let lease = wait_until("a leader that is linked to both consumers", || {
            let lease = view.snapshot().ok()?.lease?;
            let linked = |consumer: &RunningConsumer| consumer.stats.ruling_epoch() == lease.epoch.0;
            consumers.iter().all(linked).then_some(lease)
        });
        dispatchers.remove(lease.name()).expect("the lease goes with its holder").kill().unwrap();
    }
    wait_until_done(connection, 16);
    // Catches messages that a new leader sends again because it does not know them or takes them for overdue.
    let runs = runs.lock().clone();
    assert!(runs.len() == 16 && runs.values().all(|runs| *runs == 1), "runs: {runs:?}");
    assert_each_once(connection, runs.keys());
}

#[test]
fn all_dispatchers_receive_each_message_and_one_stores_it() {
    let mut cluster = cluster(3, 2);
    let connection = &mut client_of(&mut cluster);
    wait_until_in_sync(connection, 3);
    assert_eq!(publish(connection, "a", 0..2_000), 3, "all three receive each message");
    let (first, lease) = leader(&mut cluster);
    let mut logs = vec![cluster.process(first).unwrap().stderr().clone()];
    cluster.stop_node(first, DEADLINE).unwrap();
    let (second, next) = wait_for_another_leader(&mut cluster, &lease);
    assert_eq!(publish(connection, "b", 0..2_000), 2);
    wait_until_done(connection, 4_000);
    let epoch: u64 = run(connection, &["GET", "messages:epoch"]);
    assert_eq!(Epoch(epoch), next.epoch, "the highest epoch given out is the leader's");
    // The leader last, so that no other takes over meanwhile.
    let mut rest: Vec<Node> = cluster.running().into_iter().filter(|m| matches!(m, Node::Dispatcher(_))).collect();
    rest.sort_by_key(|member| *member == second);
    for member in rest {
        logs.push(cluster.process(member).unwrap().stderr().clone());
        cluster.stop_node(member, DEADLINE).unwrap();
    }
    let taken_in: Vec<u64> = logs
        .iter()
        .map(|log| {
            let line = log.wait_for("event=stopped", DEADLINE).expect("each logs its totals");
            let count = line.split_once("taken_in=").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
            count.unwrap_or_else(|| panic!("no number of stored messages: {line}"))
        })
        .collect();
    // Catches two dispatchers that store messages at the same time, even if the results would hide it.
    assert_eq!(taken_in.iter().sum::<u64>(), 4_000, "stored by each: {taken_in:?}");
    assert_eq!(taken_in.iter().filter(|count| **count > 0).count(), 2, "two led: {taken_in:?}");
    let owed: Vec<String> = ["a", "b"].iter().flat_map(|p| (0..2_000).map(move |n| format!("{p}{n}"))).collect();
    assert_each_once(connection, &owed);
}
