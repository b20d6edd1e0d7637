//! What lanes that can't be served cost a consumer: nodes of a Redis Cluster that hang, and threads that can't start.

use std::process::Command;

use oncecast::base::id::Epoch;
use oncecast::lab::{RedisCluster, RedisClusterOptions, RedisServer, ports};
use oncecast::ledger::{Command as RedisCommand, Connection, Keys, LaneNumber, slot_of};
use oncecast::wire::Frame;
use oncecast::{Consumer, Delivery, HandlerError, Outcome};

use super::fixture::program;
use crate::support::http::get;
use crate::support::running_consumer::RunningConsumer;
use crate::support::scripted_dispatcher::ScriptedDispatcher;
use crate::support::{DEADLINE, redis_server, run_on, wait_until};

const GROUP: &str = "{orders}";

fn keys(lane: LaneNumber) -> Keys {
    Keys::new(GROUP).lane(lane).expect("the group has a tag")
}

fn send_lead(peer: &mut ScriptedDispatcher, lane: LaneNumber, epoch: u64) {
    peer.send(&[Frame::Lead { epoch: Epoch(epoch), group: &keys(lane).group }]);
}

/// The lanes whose keys a node has, the lowest first.
fn lanes_of(cluster: &RedisCluster, node: usize) -> impl Iterator<Item = LaneNumber> {
    (1..).filter(move |lane| cluster.owner(slot_of(keys(*lane).leader.as_bytes())).expect("an owner") == node)
}

fn elect_in(cluster: &RedisCluster, lane: LaneNumber, epoch: u64) {
    let key = keys(lane).epoch;
    let mut connection = Connection::new(cluster.server().for_key(&key), DEADLINE);
    connection.query("testing", RedisCommand::of(&["SET", &key, &epoch.to_string()])).expect("it is set");
}

#[test]
fn lanes_on_a_node_that_hangs_delay_no_lane_of_another_node() {
    /// More than are asked about at a time.
    const HUNG: usize = 9;
    // The hung node stays in its place.
    let options = RedisClusterOptions { replicas: false, node_timeout_ms: 60_000, ..RedisClusterOptions::default() };
    let mut cluster = RedisCluster::start(options).expect("a cluster starts");
    let home = cluster.owner(slot_of(GROUP.as_bytes())).expect("an owner");
    let [hung, other] = [1, 2].map(|distance| (home + distance) % 3);
    let lanes: Vec<LaneNumber> = lanes_of(&cluster, hung).take(HUNG).collect();
    let good = lanes_of(&cluster, other).next().expect("there are many");
    elect_in(&cluster, 0, 5);
    elect_in(&cluster, good, 5);
    let builder = Consumer::builder().redis_url(cluster.url()).group(GROUP).listen("127.0.0.1:0");
    let handler = |_: &Delivery<'_>| Ok::<_, HandlerError>(Outcome::new());
    let consumer = RunningConsumer::start(builder.handler(handler));
    let mut zero = ScriptedDispatcher::connect(consumer.address);
    send_lead(&mut zero, 0, 5);
    assert_eq!(zero.next(), "READY");

    cluster.pause(hung).expect("it is paused");
    let connect = |lane: LaneNumber| (lane, ScriptedDispatcher::connect(consumer.address));
    let mut waiting: Vec<_> = lanes.iter().map(|lane| connect(*lane)).collect();
    let mut peer = ScriptedDispatcher::connect(consumer.address);
    waiting.iter_mut().for_each(|(lane, peer)| send_lead(peer, *lane, 5));
    // Each of them waits by now: nothing else would answer in between.
    send_lead(&mut peer, good, 5);
    assert_eq!(peer.next(), "READY");
    assert_eq!(consumer.stats.unconfirmed(), 0, "it did not wait for a question about another lane");
    // The dispatcher of each gets an answer in the time that it waits for one, however many there are.
    for (lane, peer) in &mut waiting {
        let answer = peer.next();
        assert!(answer.starts_with("ERROR 9 "), "lane {lane}: {answer}");
    }
    cluster.resume(hung).expect("it was paused");
    elect_in(&cluster, lanes[0], 5);
    let (_, mut peer) = connect(lanes[0]);
    send_lead(&mut peer, lanes[0], 5);
    assert_eq!(peer.next(), "READY");
    drop(zero);
    consumer.stop();
}

/// How often the server was asked for an epoch.
fn questions(redis: &RedisServer) -> u64 {
    let stats: String = run_on(redis, &["INFO", "commandstats"]);
    let calls = stats.lines().find_map(|line| line.strip_prefix("cmdstat_getrange:calls="));
    calls.map_or(0, |calls| calls.split(',').next().and_then(|calls| calls.parse().ok()).expect("a number"))
}

#[test]
fn redis_is_asked_once_about_the_first_leader_of_a_lane() {
    let redis = redis_server();
    let handler = |_: &Delivery<'_>| Ok::<_, HandlerError>(Outcome::new());
    let builder = Consumer::builder().redis_url(redis.url()).group(GROUP).listen("127.0.0.1:0");
    let consumer = RunningConsumer::start(builder.handler(handler));
    for lane in [3, 4] {
        run_on::<()>(&redis, &["SET", &keys(lane).epoch, "5"]);
        let before = questions(&redis);
        let mut peer = ScriptedDispatcher::connect(consumer.address);
        send_lead(&mut peer, lane, 5);
        assert_eq!(peer.next(), "READY");
        assert_eq!(questions(&redis) - before, 1);
    }
    consumer.stop();
}

/// Limits the address space of a process to what it has now, or lifts the limit.
#[cfg(target_os = "linux")]
fn limit_memory(pid: u32, is_limited: bool) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")).expect("each process has it");
    let kib: u64 = size.trim().trim_end_matches(" kB").parse().expect("a number");
    // A little less than the stack of a thread takes.
    let limit = if is_limited { ((kib + 1_024) * 1_024).to_string() } else { "unlimited".to_owned() };
    let limited =
        Command::new("prlimit").args(["--pid", &pid.to_string(), &format!("--as={limit}:unlimited")]).status();
    assert!(limited.expect("util-linux is installed").success());
}

#[cfg(target_os = "linux")]
#[test]
fn a_lane_whose_thread_does_not_start_leaves_nothing() {
    const LANE: LaneNumber = 5;
    let redis = redis_server();
    run_on::<()>(&redis, &["SET", &keys(LANE).epoch, "5"]);
    let [port, metrics_port] = [0; 2].map(|_| ports::free_port().expect("a free port"));
    let [address, metrics] = [port, metrics_port].map(|port| format!("127.0.0.1:{port}"));
    let url = redis.url();
    let args = ["--redis-url", &url, "--group", GROUP, "--listen", &address, "--metrics-addr", &metrics];
    let consumer = program(&args);
    consumer.wait_for_line("event=listening", DEADLINE).expect("it listens");
    let lanes_shown = || {
        let text = get(metrics.parse().expect("an address"), "/metrics").map(|(_, text)| text);
        text.map(|text| text.contains(&format!("lane=\"{LANE}\"")))
    };
    let address = address.parse().expect("an address");
    // Their threads run, on the stacks of threads that have ended, if there were any.
    let connect = || {
        let mut peer = ScriptedDispatcher::connect(address);
        peer.sync();
        peer
    };
    let [mut peer, others @ ..] = [0; 4].map(|_| connect());
    limit_memory(consumer.pid(), true);
    send_lead(&mut peer, LANE, 5);
    let answer = peer.next();
    assert!(answer.starts_with("ERROR 9 ") && answer.contains("committer"), "{answer}");
    limit_memory(consumer.pid(), false);
    drop(others);
    assert!(!wait_until("metrics", lanes_shown), "the lane is not served");
    let mut peer = ScriptedDispatcher::connect(address);
    send_lead(&mut peer, LANE, 5);
    assert_eq!(peer.next(), "READY");
    assert!(wait_until("metrics", lanes_shown));
}
