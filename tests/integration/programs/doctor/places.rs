//! What the doctor says of the Sentinels or nodes of a URL, and of the servers that may take the present one's place.

use oncecast::lab::{RedisCluster, RedisClusterOptions, RedisOptions, RedisServer, SentinelSet};
use oncecast::ledger::slot_of;
use serde_json::Value;

use super::{keys, lines, output_of, program, report, type_line, verdict};
use crate::support::run_on;

/// A user who may do anything.
pub(super) const USER: &str = "ACL SETUSER app on >pass ~* &* +@all";

fn set() -> SentinelSet {
    SentinelSet::start(&RedisOptions::default(), 1).expect("servers and Sentinels start")
}

pub(super) fn as_user(url: &str) -> String {
    url.replace("://", "://app:pass@")
}

/// What was said of a server, or what is wrong with it.
pub(super) fn said(report: &Value, server: &RedisServer) -> Result<String, String> {
    let address = format!("127.0.0.1:{}", server.port());
    let places = report["places"].as_array().expect("a list");
    let place = places.iter().find(|place| place["address"] == address.as_str());
    let place = place.unwrap_or_else(|| panic!("no {address}: {report:#}"));
    let text = |name: &str| place[name].as_str().map(str::to_owned);
    text("says").ok_or_else(|| text("error").expect("one of the two"))
}

pub(super) fn problems(report: &Value) -> String {
    report["problems"].to_string()
}

#[test]
fn sentinels_are_asked_one_by_one() {
    let mut set = set();
    let url = set.url();
    let (code, found) = report(&url, &[]);
    assert_eq!((code, problems(&found).as_str()), (Some(0), "[]"), "{found:#}");
    let primary = format!("names 127.0.0.1:{}", set.port(0));
    for number in 0..3 {
        assert!(said(&found, set.sentinel(number)).is_ok_and(|said| said.starts_with(&primary)), "{found:#}");
    }
    assert_eq!(said(&found, set.server(1)), Ok("accepts the user default".to_owned()));
    assert_eq!(keys(set.server(0)), [""; 0]);

    // A failure of one is shown, and stops nobody.
    type_line(set.sentinel(0), "SENTINEL REMOVE main");
    let (code, found) = report(&url, &[]);
    let unknown = said(&found, set.sentinel(0)).expect_err("it knows no such name");
    assert!(code == Some(0) && unknown.contains("knows no primary of this name"), "{found:#}");
    // Two are too many.
    type_line(set.sentinel(1), "ACL SETUSER default >secret");
    let (code, found) = report(&url, &[]);
    let locked = said(&found, set.sentinel(1)).expect_err("it requires a login");
    assert!(locked.contains("sentinel_password"), "{locked}");
    assert!(code == Some(3) && problems(&found).contains("only 1 of 3 Sentinels"), "{found:#}");
    let alone = format!("redis+sentinel://127.0.0.1:{}/main?sentinel_password=other", set.sentinel(1).port());
    let output = output_of(&alone, &[]);
    let text = String::from_utf8_lossy(&output.stderr);
    let advice = "check sentinel_user and sentinel_password";
    assert!(output.status.code() == Some(1) && text.contains(advice) && !text.contains("=other"), "{output:?}");
    set.sentinel(2).kill().expect("killed");
    let output = output_of(&url, &[]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && text.contains("is the Sentinel running there?"), "{output:?}");
}

#[test]
fn a_server_that_may_become_the_primary_needs_the_same_user() {
    let mut set = set();
    let url = as_user(&set.url());
    type_line(set.server(0), USER);
    let (code, found) = report(&url, &[]);
    let refused = said(&found, set.server(1)).expect_err("it has no such user");
    assert!(code == Some(3) && refused.contains("users are not replicated"), "{found:#}");
    assert!(problems(&found).contains("after a failover to 127.0.0.1"), "{found:#}");

    type_line(set.server(1), &format!("{USER} -zadd -mget"));
    let (code, found) = report(&url, &["--program", "dispatcher,status"]);
    assert_eq!((code, verdict(&found, "dispatcher")), (Some(3), "works in part"), "{found:#}");
    let there = "type there: ACL SETUSER app +mget +zadd";
    assert!(program(&found, "dispatcher").to_string().contains(there), "{found:#}");
    assert!(program(&found, "status").to_string().contains("type there: ACL SETUSER app +mget\""), "{found:#}");
    assert!(!problems(&found).contains("status"), "it works without MGET: {found:#}");
    type_line(set.server(1), "ACL SETUSER app +mget +zadd");
    let (code, found) = report(&url, &[]);
    assert_eq!((code, problems(&found).as_str()), (Some(0), "[]"), "{found:#}");
}

#[test]
fn what_sentinels_and_replicas_need_is_tried() {
    let mut set = set();
    let url = as_user(&set.url());
    for number in 0..2 {
        type_line(set.server(number), &format!("{USER} -role -wait"));
    }
    let (code, found) = report(&url, &[]);
    assert_eq!(code, Some(0), "INFO says it, and nothing waits: {found:#}");
    for name in ["dispatcher", "consumer", "publisher", "status", "audit"] {
        assert_eq!(verdict(&found, name), "works in part", "{name}: {found:#}");
        assert_eq!(lines(&found, name), ["ACL SETUSER app +role"], "{name}: {found:#}");
    }
    let (code, found) = report(&url, &["--wait-replicas", "1"]);
    assert_eq!((code, verdict(&found, "dispatcher")), (Some(3), "does not work"), "{found:#}");
    assert_eq!(lines(&found, "dispatcher"), ["ACL SETUSER app +role +wait"]);
    assert_eq!(verdict(&found, "consumer"), "works in part", "only dispatchers wait: {found:#}");
    for number in 0..2 {
        type_line(set.server(number), "ACL SETUSER app +role +wait");
    }
    assert_eq!(report(&url, &["--wait-replicas", "1"]).0, Some(0));
    let (code, found) = report(&url, &["--wait-replicas", "2"]);
    assert_eq!((code, verdict(&found, "dispatcher")), (Some(3), "does not work"), "{found:#}");
    let lacking = program(&found, "dispatcher").to_string();
    assert!(lacking.contains("only 1 of 2 replicas confirm") && lacking.contains("lower --wait-replicas"), "{lacking}");
    assert_eq!(keys(set.server(0)), [""; 0]);
}

#[test]
fn the_nodes_of_a_cluster_are_asked_one_by_one() {
    let cluster = RedisCluster::start(RedisClusterOptions::default());
    let mut cluster = cluster.expect("a Redis Cluster starts");
    let group = ["--group", "{orders}"];
    for number in 0..cluster.len() {
        type_line(cluster.node(number), USER);
    }
    let url = as_user(&cluster.url());
    let (code, found) = report(&url, &group);
    assert_eq!((code, problems(&found).as_str()), (Some(0), "[]"), "{found:#}");
    for number in 0..cluster.len() {
        let all = Ok("knows the owners of 16384 slots".to_owned());
        assert_eq!(said(&found, cluster.node(number)), all, "{found:#}");
    }
    // A user that is on one node less, and one with fewer rights there.
    let owner = cluster.owner(slot_of(b"{orders}")).expect("it has one");
    let [other, another] = [1, 2].map(|more| (owner + more) % 3);
    let _: i64 = run_on(cluster.node(other), &["ACL", "DELUSER", "app"]);
    type_line(cluster.node(another), "ACL SETUSER app -xadd");
    let (code, found) = report(&url, &group);
    let refused = said(&found, cluster.node(other)).expect_err("it has no such user");
    assert!(code == Some(3) && refused.contains("users must be set on every node"), "{found:#}");
    let there = "type there: ACL SETUSER app +xadd";
    assert!(program(&found, "consumer").to_string().contains(there), "{found:#}");
    type_line(cluster.node(another), "ACL SETUSER app +xadd");
    type_line(cluster.node(other), USER);
    assert_eq!(report(&url, &group).0, Some(0));

    let replica = cluster.replica_of(other).expect("it has one");
    cluster.kill(replica).expect("killed");
    cluster.kill(other).expect("killed");
    let (code, found) = report(&url, &group);
    let gone = said(&found, cluster.node(other)).expect_err("it does not run");
    assert!(code == Some(3) && gone.contains("refused"), "{found:#}");
}
