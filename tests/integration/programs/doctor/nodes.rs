//! What the doctor says of nodes of a Redis Cluster that have no slots, and of those that the URL alone names.

use oncecast::lab::{RedisCluster, RedisClusterOptions};
use serde_json::Value;

use super::places::{USER, as_user, problems, said};
use super::{program, report, type_line};
use crate::support::{redis_server, run_on, wait_until};

const GROUP: [&str; 2] = ["--group", "{orders}"];

/// A cluster with a fourth node, which has no slots, and the user on all four.
fn cluster_with_a_node_without_slots() -> (RedisCluster, usize) {
    let options = RedisClusterOptions { replicas: false, ..RedisClusterOptions::default() };
    let mut cluster = RedisCluster::start(options).expect("a Redis Cluster starts");
    let new = cluster.add_node().expect("a node is added");
    for number in 0..cluster.len() {
        type_line(cluster.node(number), USER);
    }
    (cluster, new)
}

/// The URL of the first three.
fn url_of_three(cluster: &RedisCluster) -> String {
    as_user(cluster.url().rsplit_once(',').expect("several nodes").0)
}

fn warnings(report: &Value) -> String {
    report["warnings"].to_string()
}

#[test]
fn a_node_without_slots_is_tried_with_the_user() {
    let (mut cluster, new) = cluster_with_a_node_without_slots();
    let (named, found_by_others) = (as_user(&cluster.url()), url_of_three(&cluster));
    for url in [&named, &found_by_others] {
        let (code, found) = report(url, &GROUP);
        assert_eq!((code, problems(&found).as_str()), (Some(0), "[]"), "{found:#}");
        assert_eq!(said(&found, cluster.node(new)), Ok("knows the owners of 16384 slots".to_owned()), "{found:#}");
        assert!(found["notes"].to_string().contains("CONFIG SET cluster-require-full-coverage no"), "{found:#}");
    }
    for number in 0..cluster.len() {
        type_line(cluster.node(number), "CONFIG SET cluster-require-full-coverage no");
    }
    assert_eq!(report(&named, &GROUP).1["notes"], serde_json::json!([]), "nothing is to be said");
    type_line(cluster.node(new), "ACL SETUSER app -xadd");
    for url in [&named, &found_by_others] {
        let (code, found) = report(url, &GROUP);
        let there = "type there: ACL SETUSER app +xadd";
        assert!(code == Some(3) && program(&found, "consumer").to_string().contains(there), "{found:#}");
    }
    let _: i64 = run_on(cluster.node(new), &["ACL", "DELUSER", "app"]);
    for url in [&named, &found_by_others] {
        let (code, found) = report(url, &GROUP);
        let refused = said(&found, cluster.node(new)).expect_err("it has no such user");
        assert!(code == Some(3) && (refused.contains("WRONGPASS") || refused.contains("login")), "{found:#}");
        assert!(problems(&found).contains("set the user app there"), "{found:#}");
    }
    // Without the right to ask for all nodes, only the URL says that there is such a one.
    for number in 0..new {
        // Redis 6 can't take away one subcommand.
        type_line(cluster.node(number), "ACL SETUSER app -cluster +cluster|slots +cluster|myid");
    }
    let (code, found) = report(&found_by_others, &GROUP);
    assert!(code == Some(0) && found["notes"].to_string().contains("may not call CLUSTER NODES"), "{found:#}");
    let (code, found) = report(&named, &GROUP);
    assert!(code == Some(3) && problems(&found).contains("the URL names node 127.0.0.1"), "{found:#}");
}

#[test]
fn a_node_of_the_url_that_does_not_run_is_a_warning() {
    let (mut cluster, new) = cluster_with_a_node_without_slots();
    let three = url_of_three(&cluster);
    let (code, found) = report(&format!("{three},127.0.0.1:1"), &GROUP);
    assert_eq!((code, problems(&found).as_str()), (Some(0), "[]"), "{found:#}");
    let told = warnings(&found);
    let says = ["the URL names node 127.0.0.1:1", "refused", "start it, or take it out of the URL"];
    assert!(says.iter().all(|part| told.contains(part)), "{found:#}");
    let single = redis_server();
    type_line(&single, USER);
    let (code, found) = report(&format!("{three},127.0.0.1:{}", single.port()), &GROUP);
    assert!(code == Some(3) && problems(&found).contains("it is no node of a Redis Cluster"), "{found:#}");
    // The same node by another name is no other node.
    let (code, found) = report(&three.replace("127.0.0.1", "localhost"), &GROUP);
    assert_eq!((code, problems(&found).as_str(), warnings(&found).as_str()), (Some(0), "[]", "[]"), "{found:#}");

    cluster.kill(new).expect("killed");
    wait_until("a warning", || {
        let (code, found) = report(&three, &GROUP);
        assert_eq!((code, problems(&found).as_str()), (Some(0), "[]"), "{found:#}");
        warnings(&found).contains("redis-cli --cluster del-node").then_some(())
    });
}
