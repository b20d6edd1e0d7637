//! Rows about consumers that are asked to stop while leadership moves.

use std::collections::BTreeMap;

use oncecast::lab::{Cluster, Signal};

use crate::pair::Pair;
use crate::run::{Run, assert_l0};
use crate::support::load::{Load, Sent};
use crate::support::{
    DEADLINE, bare_cluster, client_of, publish, run as run_command, state, wait_until, wait_until_in_sync,
};
use crate::workers::{GATED, SLOW, Workers};

/// How many consumers there are, and handler threads in each.
const WORKERS: usize = 3;
const THREADS: usize = 2;
/// With one delivery allowed, each message that counts as failed is a dead letter. No consumer is lost for being slow.
const ARGS: &str = "--lease-ttl-ms 600000 --link-timeout-ms 600000 --max-deliveries 1";

/// Consumers whose handlers can be made to wait, and two dispatchers.
struct Group {
    // The processes before the server that they use.
    dispatchers: Pair,
    workers: Workers,
    cluster: Cluster,
}

impl Group {
    fn start() -> (Group, redis::Connection) {
        let mut cluster = bare_cluster();
        let mut connection = client_of(&mut cluster);
        let mut workers = Workers::new(&mut cluster, WORKERS, THREADS);
        (0..WORKERS).for_each(|number| workers.start(number));
        let dispatchers = Pair::start(&cluster, &workers.addresses, ARGS);
        let group = Group { dispatchers, workers, cluster };
        group.wait_until_complete(&mut connection);
        (group, connection)
    }

    fn wait_until_complete(&self, connection: &mut redis::Connection) {
        wait_until_in_sync(connection, 2);
        wait_until("all consumers to be linked", || {
            (run_command::<usize>(connection, &["LLEN", "messages:consumers"]) == WORKERS).then_some(())
        });
    }

    /// Publishes messages that wait in the handlers, more than there are threads, and waits until so many threads work
    /// on them. Returns their names.
    fn occupy(&self, connection: &mut redis::Connection, prefix: &str, threads: usize) -> Vec<String> {
        let count = 4 * WORKERS * THREADS;
        publish(connection, prefix, 0..count as u64);
        wait_until("threads to be at work on them", || {
            let begun = self.workers.runs().keys().filter(|name| name.starts_with(prefix)).count();
            (begun >= threads).then_some(())
        });
        (0..count).map(|number| format!("{prefix}{number}")).collect()
    }

    /// Waits until a consumer that was asked to stop ends. It must have finished all messages that it held.
    fn expect_drained(&mut self, number: usize) {
        let process = self.workers.process(number);
        let ended = process.wait(DEADLINE).expect("it ends on SIGTERM");
        assert!(ended.success(), "{}", process.failure(ended));
        let line = process.wait_for_line("event=stopped", DEADLINE).expect("it says what it has done");
        assert!(line.contains("drained=true") && line.contains("held=0"), "{line}");
    }

    fn assert_no_run_twice(&self, connection: &mut redis::Connection) {
        let twice: BTreeMap<String, usize> = self.workers.runs().into_iter().filter(|(_, runs)| *runs > 1).collect();
        assert_eq!(twice, BTreeMap::new(), "no handler is run twice");
        assert_eq!(state(connection).2, 0, "returned messages do not count as failed");
    }
}

/// The consumer is asked to stop first, and is still working when the next leader connects.
#[test]
fn row_35_leader_changes_while_a_consumer_drains() {
    let _run = Run::of("row_35");
    let (mut group, mut connection) = Group::start();
    let owed = group.occupy(&mut connection, GATED, WORKERS * THREADS);
    let leader = group.dispatchers.leader(&mut connection);
    group.workers.process(0).signal(Signal::SIGTERM).unwrap();
    group.dispatchers[leader].wait_for_line("event=consumer-draining consumer=w0", DEADLINE).unwrap();
    group.dispatchers[leader].signal(Signal::SIGTERM).unwrap();
    // Catches a consumer that no longer answers, which the next leader would take for dead.
    group.dispatchers[1 - leader].wait_for_line("event=consumer-draining consumer=w0", DEADLINE).unwrap();
    group.workers.open_gate();
    group.expect_drained(0);
    assert_l0(&mut connection, &Sent { owed, ..Sent::default() });
    group.assert_no_run_twice(&mut connection);
    group.cluster.must_run().unwrap();
}

/// Both are asked to stop at about the same time, in either order, repeatedly.
#[test]
fn row_35_consumer_and_leader_are_stopped_together_under_load() {
    let mut run = Run::of("row_35_load");
    let (mut group, mut connection) = Group::start();
    let load = Load::start(&group.cluster.redis().url(), SLOW, run.scale(400, 600));
    let mut gated = Vec::new();
    for round in 0..run.scale(5, 40) {
        group.wait_until_complete(&mut connection);
        load.wait_for_more(run.random.u64(50..300));
        group.workers.shut_gate();
        // Because of the load they are not spread evenly.
        gated.extend(group.occupy(&mut connection, &format!("{GATED}-{round}-"), THREADS));
        let (victim, leader) = (run.random.usize(..WORKERS), group.dispatchers.leader(&mut connection));
        let consumer_first = run.random.bool();
        for consumer in [consumer_first, !consumer_first] {
            let process = if consumer { group.workers.process(victim) } else { &mut group.dispatchers[leader] };
            process.signal(Signal::SIGTERM).unwrap();
            load.wait_for_more(run.random.u64(1..60));
        }
        assert!(group.dispatchers[leader].wait(DEADLINE).expect("it ends on SIGTERM").success());
        assert_eq!(group.dispatchers.leader(&mut connection), 1 - leader);
        load.wait_for_more(run.random.u64(1..200));
        group.workers.open_gate();
        group.expect_drained(victim);
        group.dispatchers.restart(&group.cluster, leader);
        group.workers.start(victim);
    }
    let mut sent = load.stop();
    sent.owed.extend(gated);
    assert_l0(&mut connection, &sent);
    group.assert_no_run_twice(&mut connection);
}
