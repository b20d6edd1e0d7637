//! TLS to Sentinels and their servers, and to all nodes of a Redis Cluster, which require certificates of their clients
//! and have no port without TLS.

use std::path::{Path, PathBuf};
use std::process::Command;

use oncecast::lab::folder::PrivateFolder;
use oncecast::lab::{
    ChildProcess, Cluster, ClusterOptions, RedisCluster, RedisClusterOptions, RedisOptions, SentinelSet, ports,
};
use oncecast::ledger::{Connection, slot_of};
use redis::Value;

use super::{shown, tool};
use crate::support::certificates::{Authority, redis_tls};
use crate::support::{DEADLINE, options, programs, wait_until};

fn over_tls(only: bool) -> RedisOptions {
    RedisOptions { tls: Some(redis_tls(only)), ..RedisOptions::default() }
}

fn start(name: &str, program: &str, arguments: &[String], more: &[&str]) -> ChildProcess {
    let mut command = programs().command(program).expect("it is built");
    command.args(arguments).args(more);
    ChildProcess::spawn(name, command).expect("it starts")
}

fn number(connection: &mut Connection, words: &[&str]) -> Option<i64> {
    match connection.query("testing", oncecast::ledger::Command::of(words)) {
        Ok(Value::Int(number)) => Some(number),
        _ => None,
    }
}

/// Publishes at a server until so many messages were heard, and returns how many were.
fn publish(connection: &mut Connection, wanted: i64) -> i64 {
    let mut heard = 0;
    wait_until("somebody to hear the messages", || {
        heard += i64::from(number(connection, &["PUBLISH", "messages:published", "x"])? > 0);
        (heard == wanted).then_some(heard)
    })
}

#[test]
fn a_group_behind_sentinels_follows_a_failover() {
    let mut set = SentinelSet::start(&over_tls(true), 1).expect("servers and Sentinels start");
    let redis = set.arguments();
    let address = format!("127.0.0.1:{}", ports::free_port().expect("a free port"));
    let consumer = start("c0", "oncecast-consumer", &redis, &["--listen", &address]);
    consumer.wait_for_line("event=listening", DEADLINE).expect("it listens");
    let more = ["--consumers", &address, "--lease-ttl-ms", "1000", "--wait-replicas", "1"];
    let dispatcher = start("d0", "oncecast-dispatcher", &redis, &more);
    dispatcher.wait_for_line("event=elected", DEADLINE).expect("it leads");
    let mut sent = 0;
    let mut primary = 0;
    for round in 0..2 {
        let connection = &mut set.server(primary).connection();
        sent += publish(connection, 100);
        wait_until("all to be recorded", || {
            (number(connection, &["XLEN", "messages:processed"]) == Some(sent)).then_some(())
        });
        if round == 0 {
            set.fail_over(0).expect("it is started");
            primary = set.wait_for_another(0, primary, DEADLINE).expect("it is replaced");
            dispatcher.wait_for_line("event=server-moved", DEADLINE).expect("it notices");
            set.wait_until_complete().expect("the old primary follows");
        }
    }
    let mut doctor = programs().command("oncecast").expect("it is built");
    let doctor = doctor.arg("doctor").args(&redis).args(["--wait-replicas", "1"]).output().expect("it runs");
    assert!(doctor.status.success() && shown(&doctor).contains("- replica 127.0.0.1:"), "{}", shown(&doctor));
}

#[test]
fn a_group_on_a_cluster_follows_a_failover() {
    let mut options = ClusterOptions { redis: over_tls(true), readiness: true, ..options(2, 1, "", "") };
    options.on_redis_cluster();
    let mut cluster = Cluster::start(options).expect("a Redis Cluster starts");
    for round in 1..=2 {
        cluster.wait_for(DEADLINE, "all to be ready", |cluster, _| cluster.is_ready().then_some(())).expect("ready");
        let publisher = tool_of(&cluster, "oncecast-publisher", &["--count", "500"]);
        assert!(publisher.status.success(), "{}", shown(&publisher));
        cluster.wait_for_results(500 * round, DEADLINE).expect("all recorded");
        if round == 1 {
            let slot = slot_of(cluster.keys().pending.as_bytes());
            let redis = cluster.redis_cluster().expect("it is on one");
            let owner = redis.owner(slot).expect("it has one");
            let replica = redis.replica_of(owner).expect("it has a replica");
            redis.fail_over(replica).expect("it takes over");
        }
    }
    let audit = tool(&mut cluster, &["audit", "--expect", "1000"]);
    assert_eq!(audit.status.code(), Some(0), "{}", shown(&audit));
    let doctor = tool(&mut cluster, &["doctor"]);
    assert!(doctor.status.success() && shown(&doctor).contains("- node 127.0.0.1:"), "{}", shown(&doctor));
}

fn tool_of(cluster: &Cluster, program: &str, args: &[&str]) -> std::process::Output {
    cluster.command(program).expect("it is built").args(args).output().expect("it runs")
}

/// What `oncecast status` says with this URL and these files.
fn failure(url: &str, files: &[(&str, &Path)]) -> String {
    let mut command: Command = programs().command("oncecast").expect("it is built");
    command.args(["status", "--group", "{messages}", "--redis-url", url]);
    for (flag, path) in files {
        command.arg(flag).arg(path);
    }
    let output = command.output().expect("it runs");
    assert_eq!(output.status.code(), Some(1), "{url}: {}", shown(&output));
    shown(&output)
}

/// Tries each mistake with the ports of a server with and without TLS, and its authority's file.
fn each_mistake_names_the_address(scheme: &str, behind: &str, [plain, tls]: [u16; 2], ca: PathBuf) {
    let folder = PrivateFolder::create("tls").expect("a folder");
    let other = folder.path().join("other.pem");
    std::fs::write(&other, Authority::new("other").pem()).expect("a file");
    let ca = [("--redis-ca", ca.as_path())];
    let (plain, tls) = (format!("127.0.0.1:{plain}"), format!("127.0.0.1:{tls}"));
    let secure = |address: &str| format!("rediss+{scheme}://{address}{behind}");
    for (url, files, address, parts) in [
        (secure(&plain), &ca[..], &plain, ["it speaks no TLS on this port", "use the port that has TLS"]),
        (
            secure(&tls),
            &[("--redis-ca", other.as_path())][..],
            &tls,
            ["was not signed by an authority in", "--redis-ca"],
        ),
        (secure(&tls), &ca[..], &tls, ["it requires a certificate from us", "--redis-cert"]),
        (format!("redis+{scheme}://{tls}{behind}"), &[][..], &tls, ["is this a port for TLS?", "rediss"]),
    ] {
        let said = failure(&url, files);
        let named = said.split_once(&format!("{address}: ")).unwrap_or_else(|| panic!("no {address} in: {said}")).1;
        for part in parts {
            assert!(named.contains(part), "no {part} in: {said}");
        }
    }
}

#[test]
fn what_is_wrong_with_tls_to_a_sentinel_is_said_with_its_address() {
    let mut set = SentinelSet::start(&over_tls(false), 0).expect("servers and Sentinels start");
    let sentinel = set.sentinel(0);
    let ports = [sentinel.port(), sentinel.tls_port().expect("it has TLS")];
    let ca = sentinel.folder().join("ca.pem");
    each_mistake_names_the_address("sentinel", "/main", ports, ca);
}

#[test]
fn what_is_wrong_with_tls_to_a_node_is_said_with_its_address() {
    let options = RedisClusterOptions { replicas: false, node: over_tls(false), ..RedisClusterOptions::default() };
    let mut cluster = RedisCluster::start(options).expect("a Redis Cluster starts");
    let node = cluster.node(0);
    let ports = [node.port(), node.tls_port().expect("it has TLS")];
    let ca = node.folder().join("ca.pem");
    each_mistake_names_the_address("cluster", "", ports, ca);
}
