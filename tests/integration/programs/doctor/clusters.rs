//! What the doctor says of a node of a Redis Cluster.

use oncecast::lab::RedisServer;

use super::{keys, program, report, server_with, verdict};
use crate::support::{run_on, wait_until};

fn node() -> RedisServer {
    server_with(&[("cluster-enabled", "yes")])
}

fn add_slots(node: &RedisServer, slots: impl Iterator<Item = u16>) {
    let slots: Vec<String> = slots.map(|slot| slot.to_string()).collect();
    let words = ["CLUSTER", "ADDSLOTS"].into_iter().chain(slots.iter().map(String::as_str));
    let () = run_on(node, &words.collect::<Vec<_>>());
}

fn wait_until_complete(node: &RedisServer) {
    wait_until("the cluster to be complete", || {
        run_on::<String>(node, &["CLUSTER", "INFO"]).contains("cluster_state:ok").then_some(())
    });
}

#[test]
fn a_node_needs_braces_in_the_groups_name() {
    let node = node();
    let (code, found) = report(&node.url(), &[]);
    assert_eq!((code, verdict(&found, "consumer")), (Some(3), "does not work"), "{found:#}");
    let consumer = program(&found, "consumer");
    assert!(consumer.to_string().contains("CLUSTER INFO shows why"), "{found:#}");
    assert_eq!(consumer["findings"].as_array().map(Vec::len), Some(1), "it is said once: {found:#}");
    add_slots(&node, 0..16_384);
    wait_until_complete(&node);
    let (code, found) = report(&node.url(), &[]);
    assert_eq!(code, Some(3), "{found:#}");
    for name in ["dispatcher", "consumer"] {
        assert!(program(&found, name).to_string().contains("braces around the group's name"), "{found:#}");
    }
    for args in [&["--group", "{messages}"][..], &["--group", "{messages}", "--deliver", "stream"]] {
        let (code, found) = report(&node.url(), args);
        assert_eq!((code, verdict(&found, "publisher")), (Some(0), "works"), "{found:#}");
        assert!(found["programs"].as_array().expect("a list").iter().all(|program| program["verdict"] == "works"));
    }
    assert_eq!(keys(&node), [""; 0]);
}

#[test]
fn a_node_without_the_groups_keys_names_their_owner() {
    let (one, other) = (node(), node());
    let slot: u16 = run_on(&one, &["CLUSTER", "KEYSLOT", "{messages}"]);
    add_slots(&one, (0..16_384).filter(|other| *other != slot));
    add_slots(&other, [slot].into_iter());
    let epoch: redis::RedisResult<()> =
        redis::cmd("CLUSTER").arg("SET-CONFIG-EPOCH").arg(2).query(&mut crate::support::client(&other.url()));
    epoch.expect("it is alone");
    let () = run_on(&one, &["CLUSTER", "MEET", "127.0.0.1", &other.port().to_string()]);
    wait_until_complete(&one);
    wait_until_complete(&other);
    let group = ["--group", "{messages}"];
    let (code, found) = report(&one.url(), &group);
    assert_eq!((code, verdict(&found, "consumer")), (Some(3), "does not work"), "{found:#}");
    let owner = format!("their owner, 127.0.0.1:{}", other.port());
    assert!(program(&found, "dispatcher").to_string().contains(&owner), "{found:#}");
    assert_eq!(report(&other.url(), &group).0, Some(0));
    assert_eq!(keys(&other), [""; 0]);
}
