//! The kill switch: however a term ends, all three workers stop together, and the dispatcher continues as a standby
//! that can lead again.

use std::collections::BTreeMap;
use std::time::Duration;

use oncecast::base::id::Epoch;
use oncecast::lab::lines::Lines;
use oncecast::lab::{ChildProcess, Cluster, Lease, Node, Signal};
use oncecast::wire::{ErrorCode, Frame};

use crate::support::load::Load;
use crate::support::peer::Peer;
use crate::support::{
    DEADLINE, assert_each_once, bare_cluster, client_of, cluster_of, dispatcher, options, run, subscription_of,
    threads, wait_until, wait_until_done, wait_until_in_sync,
};

/// The threads of a term.
const WORKERS: [&str; 3] = ["courier", "ingest", "redistributor"];
/// The threads that live as long as the process.
const OTHERS: [&str; 2] = ["election", "listener"];

/// The threads with these names, by name; `None` unless all exist.
fn found(process: &ChildProcess, names: &[&str]) -> Option<BTreeMap<String, u32>> {
    let mut threads = threads(process.pid());
    threads.retain(|name, _| names.contains(&name.as_str()));
    (threads.len() == names.len()).then_some(threads)
}

fn is_alive(process: &ChildProcess, task: u32) -> bool {
    std::path::Path::new(&format!("/proc/{}/task/{task}", process.pid())).exists()
}

/// Ends the leader's term by `cause`, which gets the leader's lease, in a group under light load. Fails unless its
/// workers stop for one of these reasons and a new term begins.
fn every_worker_ends(reasons: &[&str], cause: impl FnOnce(&mut Cluster, &mut redis::Connection, &Lease)) {
    let mut cluster = cluster_of(options(2, 2, "--lease-ttl-ms 600", ""));
    let connection = &mut client_of(&mut cluster);
    wait_until_in_sync(connection, 2);
    let (leader, lease) = cluster.wait_for_leader(DEADLINE).unwrap();
    let standby = if leader == Node::Dispatcher(0) { Node::Dispatcher(1) } else { Node::Dispatcher(0) };
    let process = cluster.process(leader).unwrap();
    let workers = wait_until("the leader's three workers", || found(process, &WORKERS));
    let others = found(process, &OTHERS).expect("listener and election");
    let (log, seen) = (process.stderr().clone(), process.stderr().count());
    let idle = cluster.process(standby).unwrap();
    assert!(found(idle, &OTHERS).is_some() && found(idle, &["ingest"]).is_none(), "a standby has no workers");
    let load = Load::start(&cluster.redis().url(), "m", 1_000);
    load.wait_for_more(300);

    cause(&mut cluster, connection, &lease);

    let line = log.wait_for_after(seen, "event=term-ended", DEADLINE).expect("the term ends");
    assert!(reasons.iter().any(|reason| line.contains(&format!("reason={reason}"))), "{line}, not one of {reasons:?}");
    let process = cluster.process(leader).unwrap();
    // Even if it leads again at once, with new threads, those of the old term must be gone.
    wait_until(format!("{workers:?} to be gone"), || {
        workers.values().all(|task| !is_alive(process, *task)).then_some(())
    });
    // By their ids, since a thread that has just been started still has its parent's name.
    assert!(others.values().all(|task| is_alive(process, *task)), "listener and election live on");
    let next = cluster.wait_for(DEADLINE, "a new term", |cluster, snapshot| {
        snapshot.lease.clone().filter(|next| next.epoch > lease.epoch).zip(cluster.leader(snapshot))
    });
    let (next, leader) = next.unwrap();
    let process = cluster.process(leader).unwrap();
    wait_until("the new leader's workers", || found(process, &WORKERS));
    load.wait_for_more(300);
    let sent = load.stop();
    assert!(sent.unheard.is_empty(), "one of the two was always subscribed");
    wait_until_done(connection, sent.owed.len());
    assert_each_once(connection, &sent.owed);
    let epoch: u64 = run(connection, &["GET", "messages:epoch"]);
    assert!(Epoch(epoch) >= next.epoch, "epochs do not go back");
}

#[test]
fn a_newer_epoch_ends_the_term() {
    every_worker_ends(&["fenced"], |_, connection, lease| {
        // The lease still exists: only the scripts of ingest and redistributor detect this.
        let () = run(connection, &["SET", "messages:epoch", &(lease.epoch.0 + 1).to_string()]);
    });
}

#[test]
fn loss_of_the_epoch_ends_the_term() {
    every_worker_ends(&["fenced"], |_, connection, _| run(connection, &["DEL", "messages:epoch"]));
}

#[test]
fn loss_of_the_lease_ends_the_term() {
    // The standby may be faster than the leader's next renewal; then a script is refused first.
    every_worker_ends(&["lease-lost", "fenced"], |_, connection, _| run(connection, &["DEL", "messages:leader"]));
}

#[test]
fn another_holder_of_the_lease_ends_the_term() {
    every_worker_ends(&["lease-lost"], |cluster, connection, lease| {
        // The new holder counts as alive, so no dispatcher takes the lease from it. Only the renewal detects this.
        let mut other_client = client_of(cluster);
        let mut alive = other_client.as_pubsub();
        alive.subscribe("messages:alive:somebody-else").expect("Redis takes subscriptions");
        let seen = holder_log(cluster, lease);
        let other = format!("somebody-else {}", lease.epoch);
        let () = run(connection, &["SET", "messages:leader", &other, "PX", "2000"]);
        seen.wait_for("event=term-ended", DEADLINE).expect("the term ends");
    });
}

fn holder_log(cluster: &mut Cluster, lease: &Lease) -> Lines {
    cluster.process(holder(lease)).unwrap().stderr().clone()
}

fn holder(lease: &Lease) -> Node {
    if lease.name() == "d0" { Node::Dispatcher(0) } else { Node::Dispatcher(1) }
}

#[test]
fn loss_of_its_subscription_ends_the_term() {
    // The standby may lead before the leader's workers notice the break.
    every_worker_ends(&["subscription-lost", "fenced"], |cluster, connection, lease| {
        let pid = cluster.process(holder(lease)).unwrap().pid();
        let id = subscription_of(connection, pid);
        assert_eq!(run::<usize>(connection, &["CLIENT", "KILL", "ID", &id]), 1);
    });
}

#[test]
fn a_pause_of_redis_longer_than_the_lease_ends_the_term() {
    every_worker_ends(&["lease-expired"], |cluster, _, lease| {
        let Some(redis) = cluster.redis().process() else { panic!("Redis runs") };
        redis.signal(Signal::SIGSTOP).unwrap();
        let log = holder_log(cluster, lease);
        // By its own clock alone, since Redis does not answer.
        let ended = log.wait_for("event=term-ended", Duration::from_secs(5));
        cluster.redis().process().expect("Redis runs").signal(Signal::SIGCONT).unwrap();
        ended.expect("the term ends while Redis is silent");
    });
}

#[test]
fn a_cursor_moved_by_another_client_ends_the_term() {
    let mut cluster = cluster_of(options(2, 2, "", ""));
    let connection = &mut client_of(&mut cluster);
    wait_until_in_sync(connection, 2);
    let (leader, lease) = cluster.wait_for_leader(DEADLINE).unwrap();
    let process = cluster.process(leader).unwrap();
    let workers = wait_until("the leader's three workers", || found(process, &WORKERS));
    // The same position, as another leader would write it.
    let cursor: String = run(connection, &["GET", "messages:cursor"]);
    let (place, last_id) = cursor.rsplit_once(' ').expect("three words");
    let moved = format!("{place} {}", last_id.parse::<u64>().expect("a number") + 1);
    let () = run(connection, &["SET", "messages:cursor", &moved]);
    crate::support::publish(connection, "m", 0..10);
    let ended = process.wait_for_line("event=term-ended", DEADLINE).expect("the term ends");
    assert!(ended.contains("reason=cursor-moved"), "{ended}");
    wait_until("its workers to be gone", || workers.values().all(|task| !is_alive(process, *task)).then_some(()));
    let next = cluster
        .wait_for(DEADLINE, "a new term", |_, snapshot| snapshot.lease.clone().filter(|next| next.epoch > lease.epoch));
    next.unwrap();
    // The messages of the refused intake are not lost with the term.
    wait_until_done(connection, 10);
    assert_each_once(connection, &(0..10).map(|n| format!("m{n}")).collect::<Vec<_>>());
}

/// Only Redis decides which dispatcher leads. A consumer that claims otherwise loses its link, nothing else happens.
#[test]
fn a_consumer_claiming_a_newer_epoch_does_not_end_the_term() {
    let peer = Peer::bind("peer");
    let mut cluster = bare_cluster();
    let process = dispatcher(&cluster, "d0", &[peer.address()], "--lease-ttl-ms 600");
    let connection = &mut client_of(&mut cluster);
    let mut line = peer.accept(10);
    let workers = wait_until("the leader's three workers", || found(&process, &WORKERS));
    let epoch: u64 = run(connection, &["GET", "messages:epoch"]);
    line.send(&[Frame::Error { code: ErrorCode::Stale, text: "epoch 99 is here" }]);
    process.wait_for_line("event=consumer-lost", DEADLINE).expect("the link is dropped");
    let mut line = peer.accept(10);
    assert_eq!(run::<u64>(connection, &["GET", "messages:epoch"]), epoch, "the term continues");
    assert!(workers.values().all(|task| is_alive(&process, *task)));
    wait_until_in_sync(connection, 1);
    crate::support::publish_payloads(connection, ["after"]);
    let (id, ..) = line.next_message();
    line.send(&[Frame::Ack(vec![id])]);
    wait_until("nothing to be pending", || (crate::support::state(connection).0 == 0).then_some(()));
}
