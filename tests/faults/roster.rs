//! Rows about consumers that come and go: the dispatchers follow a file.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use oncecast::lab::Cluster;

use crate::pair::Pair;
use crate::run::{Run, assert_l0};
use crate::support::load::Load;
use crate::support::{DEADLINE, bare_cluster, client_of, run as run_command, wait_until, wait_until_in_sync};
use crate::workers::{SLOW, Workers};

/// How many consumers there are at most, and handler threads in each.
const WORKERS: usize = 5;
const THREADS: usize = 2;
/// No consumer is lost for being slow.
const ARGS: &str = "--link-timeout-ms 600000";

/// Consumers, of which some are listed in a file, and two dispatchers that follow it.
struct Group {
    // The processes before the server that they use.
    dispatchers: Pair,
    workers: Workers,
    list: PathBuf,
    cluster: Cluster,
}

impl Group {
    fn start() -> (Group, redis::Connection) {
        let mut cluster = bare_cluster();
        let mut connection = client_of(&mut cluster);
        let mut workers = Workers::new(&mut cluster, WORKERS, THREADS);
        workers.start_all();
        let list = cluster.redis().folder().join("consumers");
        fs::write(&list, format!("{}\n", workers.addresses[0])).expect("the folder is ours");
        let dispatchers = Pair::start(&cluster, &[format!("file:{}", list.display())], ARGS);
        let group = Group { dispatchers, workers, list, cluster };
        wait_until_in_sync(&mut connection, 2);
        group.wait_for_links(&mut connection, &BTreeSet::from([0]));
        (group, connection)
    }

    /// Replaces the list.
    fn list(&self, listed: &BTreeSet<usize>) {
        let text: String = listed.iter().map(|number| format!("{}\n", self.workers.addresses[*number])).collect();
        let new = self.list.with_extension("new");
        fs::write(&new, text).and_then(|()| fs::rename(&new, &self.list)).expect("the folder is ours");
    }

    fn wait_for_links(&self, connection: &mut redis::Connection, listed: &BTreeSet<usize>) {
        let wanted: BTreeSet<String> = listed.iter().map(|number| format!("w{number}")).collect();
        wait_until(format!("links to {wanted:?}"), || {
            let linked: BTreeSet<String> = run_command(connection, &["LRANGE", "messages:consumers", "0", "-1"]);
            (linked == wanted).then_some(())
        });
    }

    /// Starts a dispatcher anew, and waits until it could lead.
    fn restart(&mut self, number: usize, connection: &mut redis::Connection) {
        self.dispatchers.restart(&self.cluster, number);
        wait_until_in_sync(connection, 2);
    }
}

/// Some of the consumers, at least one.
fn some(run: &mut Run) -> BTreeSet<usize> {
    let always = run.random.usize(..WORKERS);
    (0..WORKERS).filter(|number| *number == always || run.random.bool()).collect()
}

/// Nothing dies, so each handler runs once, even if the leader is stopped while a consumer is drained.
#[test]
fn row_45_consumers_come_and_go_and_leaders_stop() {
    let mut run = Run::of("row_45");
    let (mut group, mut connection) = Group::start();
    let load = Load::start(&group.cluster.redis().url(), SLOW, run.scale(300, 600));
    for round in 0..run.scale(8, 60) {
        let listed = some(&mut run);
        group.list(&listed);
        if round % 3 == 2 {
            load.wait_for_more(run.random.u64(1..600));
            let leader = group.dispatchers.leader(&mut connection);
            let ended = group.dispatchers[leader].stop(DEADLINE).expect("it ends on SIGTERM");
            assert!(ended.success(), "{}", group.dispatchers[leader].failure(ended));
            group.restart(leader, &mut connection);
        }
        group.wait_for_links(&mut connection, &listed);
        load.wait_for_more(run.random.u64(50..200));
    }
    let sent = load.stop();
    assert_l0(&mut connection, &sent);
    let twice: Vec<_> = group.workers.runs().into_iter().filter(|(_, runs)| *runs > 1).collect();
    assert_eq!(twice, [], "no handler is run twice");
    group.workers.must_run();
}

/// Consumers die while they are listed, as they leave, and before they are listed; so do leaders.
#[test]
fn row_45_consumers_come_go_and_die() {
    let mut run = Run::of("row_45_kills");
    let (mut group, mut connection) = Group::start();
    let load = Load::start(&group.cluster.redis().url(), SLOW, run.scale(300, 600));
    for round in 0..run.scale(8, 60) {
        let (mut listed, victim) = (some(&mut run), run.random.usize(..WORKERS));
        let list_first = run.random.bool();
        if list_first {
            group.list(&listed);
            load.wait_for_more(run.random.u64(1..400));
        }
        group.workers.kill(victim);
        if !list_first {
            group.list(&listed);
        }
        if round % 3 == 2 {
            let leader = group.dispatchers.leader(&mut connection);
            group.dispatchers[leader].kill().expect("it can be killed");
            load.wait_for_more(run.random.u64(1..100));
            group.restart(leader, &mut connection);
        }
        listed.remove(&victim);
        group.wait_for_links(&mut connection, &listed);
        group.workers.start(victim);
    }
    let all = (0..WORKERS).collect();
    group.list(&all);
    group.wait_for_links(&mut connection, &all);
    assert_l0(&mut connection, &load.stop());
}
