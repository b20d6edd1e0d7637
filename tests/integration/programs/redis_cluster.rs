//! The URL of a Redis Cluster: what is refused at start, what is said of the nodes, and the rights that it needs.

use std::io::{BufRead, BufReader};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use oncecast::lab::{RedisCluster, RedisClusterOptions, RedisOptions};

use crate::support::{programs, redis_server, run_on};

fn cluster(node: RedisOptions) -> RedisCluster {
    let options = RedisClusterOptions { replicas: false, node, ..RedisClusterOptions::default() };
    RedisCluster::start(options).expect("a Redis Cluster starts")
}

fn oncecast(url: &str, args: &[&str]) -> Output {
    let mut command = programs().command("oncecast").expect("the program is built");
    command.args(args).args(["--redis-url", url]).output().expect("it runs")
}

fn assert_refused(url: &str, args: &[&str], says: &str) {
    let output = oncecast(url, args);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && text.contains(says), "{args:?}: {output:?}");
}

#[test]
fn a_group_without_braces_is_refused_with_the_name_to_type() {
    let url = "redis+cluster://127.0.0.1:1,127.0.0.1:2";
    assert_refused(url, &["status", "--group", "orders"], "so that the group's keys share a slot: {orders}");
    assert_refused(url, &["status"], "{messages}");
    assert_refused(url, &["status", "--group", "a{b"], "{ab}");
    assert_refused(url, &["audit", "--group", "{orders}", "--stream", "jobs"], "{orders}:NAME");
    assert_refused(url, &["status", "--group", "{orders/1}"], "a lane of another group: give that group");
    assert_refused(&format!("{url}/1"), &["status", "--group", "{orders}"], "only database 0");
}

#[test]
fn some_node_of_the_url_must_answer_and_be_one() {
    let cluster = cluster(RedisOptions::default());
    let live = cluster.url().rsplit_once(',').expect("several nodes").1.to_owned();
    let group = ["--group", "{orders}"];
    let partly = format!("redis+cluster://127.0.0.1:1,{live},127.0.0.1:2");
    let output = oncecast(&partly, &[&["doctor"], &group[..]].concat());
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && !text.contains("does not work"), "{output:?}");

    let failure = |url: &str| {
        let output = oncecast(url, &[&["status"], &group[..]].concat());
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let none = failure("redis+cluster://127.0.0.1:1,127.0.0.1:2");
    assert!(none.contains("127.0.0.1:1: Connection refused") && none.contains("127.0.0.1:2"), "{none}");
    let single = redis_server();
    let other = failure(&format!("redis+cluster://127.0.0.1:{}", single.port()));
    assert!(other.contains("it is no node of a Redis Cluster"), "{other}");
    let login = failure(&format!("redis+cluster://nobody:secret@{live}"));
    assert!(login.contains("check user and password") && !login.contains("secret"), "{login}");
}

#[test]
fn the_rights_that_a_cluster_needs_are_named() {
    let mut cluster = cluster(RedisOptions::default());
    for number in 0..cluster.len() {
        let rule = ["ACL", "SETUSER", "app", "on", ">pass", "~*", "&*", "+@all", "-cluster|myid"];
        let () = run_on(cluster.node(number), &rule);
    }
    let url = cluster.url().replace("://", "://app:pass@");
    let output = oncecast(&url, &["doctor", "--group", "{orders}"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("ACL SETUSER app +cluster|myid"), "{output:?}");
    for number in 0..cluster.len() {
        let () = run_on(cluster.node(number), &["ACL", "SETUSER", "app", "-cluster|slots"]);
    }
    let output = oncecast(&url, &["doctor", "--group", "{orders}"]);
    let text = String::from_utf8_lossy(&output.stdout);
    let says = ["does not work", "may not call CLUSTER SLOTS", "type: ACL SETUSER app +cluster|slots"];
    assert!(output.status.code() == Some(3) && says.iter().all(|part| text.contains(part)), "{output:?}");
    assert!(!text.contains("oncecast doctor"), "it does not name itself: {output:?}");
    // Waiting is of no use, although the audit waits for nodes that don't answer.
    for tool in ["status", "audit", "dead list", "pending list", "results tail --lane 0"] {
        let began = Instant::now();
        let args: Vec<&str> = tool.split(' ').chain(["--group", "{orders}"]).collect();
        let output = oncecast(&url, &args);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && text.contains("+cluster|slots"), "{tool}: {output:?}");
        assert!(!text.contains("no node of the Redis Cluster answers"), "{tool}: {text}");
        assert!(began.elapsed() < Duration::from_secs(5), "{tool} tries again: {text}");
    }
}

#[test]
fn a_dispatcher_names_the_missing_right_at_once() {
    let mut cluster = cluster(RedisOptions::default());
    for number in 0..cluster.len() {
        let rule = ["ACL", "SETUSER", "app", "on", ">pass", "~*", "&*", "+@all", "-cluster|slots"];
        let () = run_on(cluster.node(number), &rule);
    }
    let url = cluster.url().replace("://", "://app:pass@");
    let args = ["--group", "{orders}", "--channel", "orders", "--consumers", "127.0.0.1:1", "--redis-url", &url];
    let mut command = programs().command("oncecast-dispatcher").expect("the program is built");
    command.args(args).stderr(Stdio::piped());
    let mut dispatcher = command.spawn().expect("it runs");
    let mut log = BufReader::new(dispatcher.stderr.take().expect("a pipe")).lines();
    let reason = log.find(|line| line.as_ref().is_ok_and(|line| line.contains("error=")));
    dispatcher.kill().expect("it is ours");
    dispatcher.wait().expect("it ends");
    let reason = reason.expect("it is logged").expect("text");
    assert!(reason.contains("its user lacks the right +cluster|slots"), "{reason}");
}
