//! The cluster on one machine, with stand-ins for our programs: members are started, killed, paused and stopped.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use oncecast::base::id::Epoch;
use oncecast::lab::{Cluster, ClusterOptions, Node, Programs, Signal};
use oncecast::ledger::Command;

use crate::support::DEADLINE;

/// A dispatcher that does nothing until SIGTERM.
const DISPATCHER: &str = "#!/bin/sh\ntrap 'exit 0' TERM\necho \"dispatcher $*\" >&2\nwhile :; do sleep 0.01; done\n";
/// A consumer that listens on its address: a Redis does just that, and stops cleanly on SIGTERM.
const CONSUMER: &str = "#!/bin/sh\n\
    while [ $# -gt 0 ]; do case $1 in --listen) port=${2##*:} ;; esac; shift; done\n\
    server=$(command -v redis-server || command -v valkey-server)\n\
    exec \"$server\" --bind 127.0.0.1 --port \"$port\" --save ''\n";

/// A folder with stand-ins; removed on drop.
struct StandIns(PathBuf);

impl StandIns {
    fn create(test: &str) -> StandIns {
        let folder = std::env::temp_dir().join(format!("oncecast-stand-ins-{test}-{}", std::process::id()));
        fs::create_dir(&folder).expect("a new folder");
        for (name, script) in [("oncecast-dispatcher", DISPATCHER), ("oncecast-consumer", CONSUMER)] {
            fs::write(folder.join(name), script).expect("a new file");
            fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o755)).expect("our own file");
        }
        StandIns(folder)
    }

    fn cluster(&self) -> Cluster {
        let options = ClusterOptions { consumers: 2, ..ClusterOptions::new(Programs::in_folder(&self.0)) };
        Cluster::start(options).expect("the cluster starts")
    }
}

impl Drop for StandIns {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn listens(cluster: &Cluster, consumer: usize) -> bool {
    TcpStream::connect(cluster.address(consumer)).is_ok()
}

#[test]
fn killed_members_can_be_started_again_in_place() {
    let programs = StandIns::create("members");
    let mut cluster = programs.cluster();
    let everybody = [Node::Dispatcher(0), Node::Dispatcher(1), Node::Consumer(0), Node::Consumer(1)];
    assert_eq!(cluster.running(), everybody);
    let addresses = format!("{},{}", cluster.address(0), cluster.address(1));
    let arguments = format!("--consumers {addresses} --dispatcher-id d1");
    cluster.process(Node::Dispatcher(1)).unwrap().wait_for_line(&arguments, DEADLINE).unwrap();

    cluster.kill_node(Node::Consumer(1)).unwrap();
    assert!(listens(&cluster, 0) && !listens(&cluster, 1));
    assert_eq!(cluster.running(), everybody[..3]);
    cluster.must_run().expect("who was killed on purpose need not run");
    assert!(cluster.process(Node::Consumer(1)).unwrap_err().to_string().contains("c1 does not run"));
    cluster.start_node(Node::Consumer(1)).unwrap();
    assert!(listens(&cluster, 1));

    cluster.stop_node(Node::Dispatcher(0), DEADLINE).unwrap();
    cluster.start_node(Node::Dispatcher(0)).unwrap();
    cluster.process(Node::Dispatcher(0)).unwrap().wait_for_line("dispatcher", DEADLINE).unwrap();
    cluster.signal(Node::Dispatcher(0), Signal::SIGSTOP).unwrap();
    let (url, consumer) = (cluster.redis().url(), cluster.address(0));
    cluster.stop(DEADLINE).expect("everybody ends in order, also who is paused");
    assert!(TcpStream::connect(consumer).is_err());
    assert!(TcpStream::connect(url.trim_start_matches("redis://")).is_err());
}

#[test]
fn a_member_that_exits_by_itself_is_a_named_error() {
    let programs = StandIns::create("loss");
    let mut cluster = programs.cluster();
    cluster.process(Node::Consumer(0)).unwrap().kill().unwrap();
    let error = cluster.must_run().unwrap_err().to_string();
    assert!(error.contains("c0 ended with signal: 9"), "{error}");
    let error = cluster.wait_for_leader(DEADLINE).unwrap_err().to_string();
    assert!(error.contains("c0 ended"), "a wait ends at once: {error}");
}

#[test]
fn a_test_can_wait_for_a_state_of_the_group() {
    let programs = StandIns::create("state");
    let mut cluster = programs.cluster();
    let short = Duration::from_millis(30);
    let error = cluster.wait_for_leader(short).unwrap_err().to_string();
    assert!(error.contains("a dispatcher to lead") && error.contains("lease: None"), "{error}");

    let keys = cluster.keys();
    let mut connection = cluster.redis().connection();
    let mut run = |words: &[&str]| connection.query("making up a state", Command::of(words)).expect("Redis answers");
    run(&["SET", &keys.leader, "d1-5f3a9c 17"]);
    run(&["RPUSH", &keys.consumers, "c0"]);
    run(&["XADD", &keys.processed, "*", "message_id", "m1"]);
    run(&["ZADD", &keys.pending, "5", "0000000000000005:m2"]);
    let (leader, lease) = cluster.wait_for_leader(DEADLINE).unwrap();
    assert_eq!((leader, lease.epoch), (Node::Dispatcher(1), Epoch(17)));
    cluster.wait_for_consumers(short).expect_err("c1 is not connected");
    run(&["RPUSH", &keys.consumers, "c1"]);
    cluster.wait_for_consumers(DEADLINE).unwrap();
    let error = cluster.wait_for_results(1, short).unwrap_err().to_string();
    assert!(error.contains("pending: 1"), "{error}");
    run(&["DEL", &keys.pending]);
    assert_eq!(cluster.wait_for_results(1, DEADLINE).unwrap().processed, 1);

    cluster.kill_node(Node::Dispatcher(1)).unwrap();
    let snapshot = cluster.view().snapshot().unwrap();
    assert_eq!(cluster.leader(&snapshot), None, "the lease outlives its killed holder");
}
