//! The programs under test, alone or as a cluster on this machine.

use std::path::Path;

use oncecast::lab::{ChildProcess, Cluster, ClusterOptions, Lease, Node, Programs, RedisOptions, RedisServer};

use super::waiting::DEADLINE;

/// The programs under test.
pub fn programs() -> Programs {
    let this = Path::new(env!("CARGO_BIN_EXE_oncecast"));
    Programs::in_folder(this.parent().expect("a program lies in a folder"))
}

/// A private server that persists nothing.
pub fn redis_server() -> RedisServer {
    RedisServer::start(RedisOptions::default()).expect("a private Redis starts")
}

/// A private server that writes each command to its file before it answers, so that killing it loses nothing.
pub fn lasting_redis_server() -> RedisServer {
    RedisServer::start(lasting()).expect("a private Redis starts")
}

/// A cluster with only such a server.
pub fn lasting_cluster() -> Cluster {
    Cluster::start(ClusterOptions { redis: lasting(), ..options(0, 0, "", "") }).expect("a private Redis starts")
}

fn lasting() -> RedisOptions {
    // Not synced, since only the process dies here, not the machine.
    let config = vec![("appendfsync".to_owned(), "no".to_owned())];
    RedisOptions { append_only: true, config, ..RedisOptions::default() }
}

/// A cluster whose leader is connected to all consumers.
pub fn cluster(dispatchers: usize, consumers: usize) -> Cluster {
    cluster_of(ClusterOptions { dispatchers, consumers, ..ClusterOptions::new(programs()) })
}

/// A cluster with options of one's own, whose leader is connected to all consumers.
///
/// Retried if another program on this machine took one of its ports.
pub fn cluster_of(options: ClusterOptions) -> Cluster {
    let start = || {
        let mut cluster = Cluster::start(options.clone())?;
        cluster.wait_for_leader(DEADLINE)?;
        cluster.wait_for_consumers(DEADLINE)?;
        Ok(cluster)
    };
    let mut attempt = start();
    for _ in 0..2 {
        match &attempt {
            Err(error @ oncecast::base::error::Error::Failed(_))
                if error.to_string().contains("Address already in use") =>
            {
                attempt = start();
            }
            _ => break,
        }
    }
    attempt.expect("the cluster starts and a dispatcher leads")
}

/// A cluster with only a server. The test starts dispatchers and consumers.
pub fn bare_cluster() -> Cluster {
    Cluster::start(options(0, 0, "", "")).expect("a private Redis starts")
}

/// A cluster's options with more arguments for its dispatchers and consumers, separated by spaces.
pub fn options(dispatchers: usize, consumers: usize, dispatcher_args: &str, consumer_args: &str) -> ClusterOptions {
    let words = |args: &str| args.split_whitespace().map(str::to_owned).collect();
    ClusterOptions {
        dispatchers,
        consumers,
        dispatcher_args: words(dispatcher_args),
        consumer_args: words(consumer_args),
        ..ClusterOptions::new(programs())
    }
}

/// A dispatcher with these consumers' addresses, if there are any.
pub fn dispatcher(cluster: &Cluster, name: &str, addresses: &[String], args: &str) -> ChildProcess {
    let mut command = cluster.command("oncecast-dispatcher").expect("the program is built");
    command.args(["--dispatcher-id", name]).args(args.split_whitespace());
    if !addresses.is_empty() {
        command.args(["--consumers", &addresses.join(",")]);
    }
    ChildProcess::spawn(name, command).expect("the dispatcher starts")
}

/// Waits until another dispatcher than the holder of `before` leads. Returns it and its lease.
pub fn wait_for_another_leader(cluster: &mut Cluster, before: &Lease) -> (Node, Lease) {
    let other = cluster.wait_for(DEADLINE, "another dispatcher to lead", |cluster, snapshot| {
        let lease = snapshot.lease.clone().filter(|lease| lease.holder != before.holder)?;
        Some((cluster.leader(snapshot)?, lease))
    });
    let (member, lease) = other.expect("another dispatcher leads");
    assert!(lease.epoch > before.epoch, "epochs must rise: {lease:?} after {before:?}");
    (member, lease)
}
