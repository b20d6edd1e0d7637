//! A shadow in a Redis Cluster, when sharded channels move to other nodes.

use oncecast::lab::{ChildProcess, RedisCluster, RedisClusterOptions, RedisOptions};
use oncecast::ledger::slot_of;

use crate::support::{DEADLINE, programs, run_on};

const GROUP: &str = "{orders}";

/// Starts the shadow of lane 0 for these channels.
fn shadow(cluster: &RedisCluster, channels: &str) -> ChildProcess {
    let mut command = programs().command("oncecast-dispatcher").expect("the program is built");
    command.args(["--shadow", "--group", GROUP, "--sharded-channel", channels, "--redis-url", &cluster.url()]);
    ChildProcess::spawn("shadow", command).expect("it starts")
}

#[test]
fn a_shadow_follows_the_channels_of_its_lane() {
    let options =
        RedisClusterOptions { replicas: false, node: RedisOptions::default(), ..RedisClusterOptions::default() };
    let mut cluster = RedisCluster::start(options).expect("a Redis Cluster starts");
    let home = cluster.owner(slot_of(GROUP.as_bytes())).expect("it has an owner");
    let probe: redis::Value = run_on(cluster.node(home), &["COMMAND", "INFO", "SSUBSCRIBE"]);
    if format!("{probe:?}").contains("nil") {
        return;
    }
    let mut here = (0..).map(|number| format!("jobs.{number}"));
    let mut channel = || {
        let is_here = |name: &String| cluster.owner(slot_of(name.as_bytes())).expect("an owner") == home;
        here.find(is_here).expect("there are many")
    };
    let (stays, moves) = (channel(), channel());
    let shadow = shadow(&cluster, &format!("{stays},{moves}"));
    shadow.wait_for_line("event=subscribed", DEADLINE).expect("it subscribes");
    let other = (home + 1) % cluster.len();
    let slot = slot_of(moves.as_bytes());
    cluster.move_slot(slot, other).expect("the slot moves");
    let line = shadow.wait_for_line("event=channels-changed", DEADLINE).expect("it follows");
    assert!(line.contains(&stays) && !line.contains(&moves), "{line}");
    let heard = |channel: &str, cluster: &mut RedisCluster, node: usize| {
        crate::support::wait_until("the shadow to hear what is published", || {
            (run_on::<u64>(cluster.node(node), &["SPUBLISH", channel, "x"]) == 1).then_some(())
        });
    };
    heard(&stays, &mut cluster, home);
    cluster.move_slot(slot, home).expect("the slot moves back");
    heard(&moves, &mut cluster, home);
}
