//! What the tools show of a group with several lanes, on a real Redis Cluster, without a dispatcher.

use std::process::Output;

use oncecast::lab::{RedisCluster, RedisClusterOptions, RedisOptions};
use oncecast::ledger::slot_of;
use serde_json::{Value, json};

use crate::support::{programs, run_on};

/// An id that occurs in two lanes.
const SAME: &str = "0000000000000007";
const OTHER: &str = "0000000000000009";

/// A group with the lanes 0, 3 and 31. Lane 0 and 3 have the same pending message and the same dead letter, lane 31
/// another letter and no pending message; lane 3 and 31 have two results each, one of them of the same message.
pub(super) fn group() -> RedisCluster {
    // Nodes go on while another one is down.
    let config = vec![("cluster-require-full-coverage".to_owned(), "no".to_owned())];
    let node = RedisOptions { config, ..RedisOptions::default() };
    let options = RedisClusterOptions { replicas: false, node, ..RedisClusterOptions::default() };
    let mut cluster = RedisCluster::start(options).expect("a Redis Cluster starts");
    let mut run = |key: &str, words: &[&str]| {
        let owner = cluster.owner(slot_of(key.as_bytes())).expect("it has an owner");
        let _: redis::Value = run_on(cluster.node(owner), &[&[words[0], key], &words[1..]].concat());
    };
    run("{orders}:lanes", &["SADD", "3", "31"]);
    for (lane, id) in [("{orders}", SAME), ("{orders/3}", SAME), ("{orders/31}", OTHER)] {
        run(&format!("{lane}:recall"), &["SET", "5 R 0"]);
        let letter = ["XADD", "*", "id", id, "payload", lane, "reason", "no such customer", "deliveries", "8"];
        run(&format!("{lane}:dead"), &letter);
    }
    for lane in ["{orders}", "{orders/3}"] {
        run(&format!("{lane}:pending"), &["ZADD", "7", &format!("{SAME}:{lane}")]);
    }
    for (lane, ids) in [("{orders/3}", ["a", "b"]), ("{orders/31}", ["b", "c"])] {
        for id in ids {
            run(&format!("{lane}:processed"), &["XADD", "*", "message_id", id]);
        }
    }
    cluster
}

fn output(cluster: &RedisCluster, args: &[&str]) -> Output {
    let mut command = programs().command("oncecast").expect("the program is built");
    command.args(args).args(["--redis-url", &cluster.url(), "--group", "{orders}"]).output().expect("it runs")
}

fn text(cluster: &RedisCluster, args: &[&str]) -> String {
    String::from_utf8(output(cluster, args).stdout).expect("text")
}

fn lines(cluster: &RedisCluster, args: &[&str]) -> Vec<Value> {
    text(cluster, args).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn assert_refused(cluster: &RedisCluster, args: &[&str], says: &str) {
    let output = output(cluster, args);
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && log.contains(says), "{args:?}: {output:?}");
}

#[test]
fn messages_are_named_by_lane_and_id() {
    let cluster = group();
    let lanes = |entries: &[Value]| entries.iter().map(|entry| entry["lane"].as_u64()).collect::<Vec<_>>();
    let letters = lines(&cluster, &["dead", "list", "--json"]);
    assert_eq!(lanes(&letters), [Some(0), Some(3), Some(31)]);
    assert_eq!((&letters[2]["id"], &letters[1]["id"]), (&json!(OTHER), &json!(SAME)), "as logs show it");
    assert_eq!(lanes(&lines(&cluster, &["pending", "list", "--no-ask", "--json"])), [Some(0), Some(3)]);
    let listed = text(&cluster, &["dead", "list"]);
    for part in [
        &format!("\n3/{SAME}  "),
        &format!("\n31/{OTHER}  "),
        "lane 31:\n",
        "1 listed, 1 dead letters in {orders/3}:dead\n",
        "all 3 lanes: 3 listed, 3 dead letters\n",
    ] {
        assert!(listed.contains(part), "{part:?}: {listed}");
    }
    let listed = text(&cluster, &["pending", "list", "--no-ask"]);
    assert!(
        listed.contains(&format!("\n0/{SAME}  ")) && listed.ends_with("all 3 lanes: 2 listed, 2 pending\n"),
        "{listed}"
    );

    // A name from a list works everywhere, and so does the id with --lane.
    let name = &format!("3/{SAME}");
    for args in [&["show", name][..], &["show", SAME, "--lane", "3"], &["show", name, "--lane", "3"]] {
        for (tool, no_ask) in [("dead", None), ("pending", Some("--no-ask"))] {
            let args: Vec<&str> = [tool].into_iter().chain(args.iter().copied()).chain(no_ask).collect();
            let shown = text(&cluster, &args);
            let named = shown.starts_with(&format!("id                {name}\n"));
            assert!(named && shown.contains("{orders/3}\n"), "{args:?}: {shown}");
        }
    }
    let shown = lines(&cluster, &["dead", "show", "--json", name, &format!("31/{OTHER}")]);
    assert_eq!((lanes(&shown), &shown[0]["payload"]), (vec![Some(3), Some(31)], &json!("{orders/3}")));
    for tool in ["dead", "pending"] {
        assert_refused(
            &cluster,
            &[tool, "show", SAME],
            &format!("one of 0, 3, 31; or write the id with its lane, such as 31/{SAME}"),
        );
        assert_refused(&cluster, &[tool, "show", name, "--lane", "0"], &format!("got 0 beside the id {name}, takes 3"));
        assert_refused(&cluster, &[tool, "show", &format!("5/{SAME}")], "got 5, takes a lane of the group: 0, 3, 31");
        assert_refused(&cluster, &[tool, "list", "--lane", "5"], "got 5, takes a lane of the group: 0, 3, 31");
    }
    let absent = output(&cluster, &["dead", "show", &format!("31/{SAME}")]);
    let log = String::from_utf8_lossy(&absent.stderr);
    assert!(absent.status.code() == Some(3) && log.contains(&format!("ids=31/{SAME} ")), "{log}");
}

#[test]
fn letters_are_changed_by_lane_and_in_sum() {
    let cluster = group();
    let refused = output(&cluster, &["dead", "drop", "--all"]);
    let log = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && log.contains("drop 3 letters"), "asked once, for all: {log}");
    let dropped = text(&cluster, &["dead", "drop", "--yes", &format!("3/{SAME}")]);
    assert_eq!(dropped, "lane 3:\n1 of 1 matching dead letters dropped\n");
    let dry = text(&cluster, &["dead", "drop", "--all", "--dry-run"]);
    assert!(dry.ends_with("all 3 lanes:\n2 dead letters match; they would be dropped\n"), "{dry}");
    let dropped = lines(&cluster, &["dead", "drop", "--all", "--yes", "--json"]);
    let counts: Vec<_> = dropped.iter().map(|lane| (lane["lane"].as_u64(), lane["dropped"].as_u64())).collect();
    assert_eq!(counts, [(Some(0), Some(1)), (Some(3), Some(0)), (Some(31), Some(1))]);
}

#[test]
fn a_group_is_audited_and_its_status_shown_by_lane_and_in_sum() {
    let cluster = group();
    let audited = output(&cluster, &["audit"]);
    let report = String::from_utf8_lossy(&audited.stdout);
    assert_eq!(audited.status.code(), Some(3), "one message has results in two lanes");
    for part in [
        "\n3                2             2               0              0          1             1\n",
        "\nall lanes:\nresults                      4\n",
        "recorded twice               1  1 entries too many\n",
    ] {
        assert!(report.contains(part), "{part:?}: {report}");
    }
    let [report] = &lines(&cluster, &["audit", "--json"])[..] else { panic!("one line") };
    assert_eq!(
        (&report["results"], &report["recorded_twice"], &report["clean"]),
        (&json!(4), &json!(1), &json!(false))
    );
    assert_eq!((&report["lanes"]["31"]["dead_letters"], &report["dead_letters"]), (&json!(1), &json!(3)));
    assert_eq!(lines(&cluster, &["audit", "--json", "--lane", "3"])[0]["lanes"], Value::Null);

    let shown = text(&cluster, &["status"]);
    let rows: Vec<Vec<&str>> = shown.lines().take(7).map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0][..2], ["3", "lanes:"], "{shown}");
    assert_eq!(rows[4], ["3", "none", "1", "?", "?", "1", "0", "?", "?"], "{shown}");
    assert_eq!(rows[6], ["all", "2", "?", "?", "3", "0", "0", "of", "3"], "{shown}");
    let [status] = &lines(&cluster, &["status", "--json"])[..] else { panic!("one line") };
    assert_eq!((&status["pending"], &status["lanes"]["3"]["pending"]), (&json!(2), &json!(1)));
    assert_eq!((&status["in_flight"], &status["recent_dead_letters"]), (&Value::Null, &Value::Null), "{status:#}");

    let paused = lines(&cluster, &["pause", "--json"]);
    let lanes: Vec<_> = paused.iter().map(|lane| (lane["lane"].as_u64(), lane["paused"].is_object())).collect();
    assert_eq!(lanes, [(Some(0), true), (Some(3), true), (Some(31), true)]);
    let resumed = text(&cluster, &["resume", "--lane", "3"]);
    assert!(resumed.starts_with("lane 3:\nnot paused\n"), "{resumed}");
    let set = lines(&cluster, &["set", "--json"]);
    let paused: Vec<_> = set.iter().map(|lane| lane["paused"].is_object()).collect();
    assert_eq!(paused, [true, false, true]);
    assert_refused(&cluster, &["resume", "--lane", "7"], "a lane of the group: 0, 3, 31");
}

/// What a tool says as the user `app`, and its exit code.
fn as_app(cluster: &RedisCluster, args: &[&str]) -> (String, Option<i32>) {
    let url = cluster.url().replace("://", "://app:pass@");
    let mut command = programs().command("oncecast").expect("the program is built");
    let output = command.args(args).args(["--redis-url", &url, "--group", "{orders}"]).output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (text, output.status.code())
}

fn json_as_app(cluster: &RedisCluster, tool: &str) -> (Value, Option<i32>) {
    let (text, code) = as_app(cluster, &[tool, "--json", "--log-level", "error"]);
    (serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")), code)
}

/// The number and the address of the node that has a lane.
pub(super) fn node_of(cluster: &RedisCluster, lane: &str) -> (usize, String) {
    let number = cluster.owner(slot_of(lane.as_bytes())).expect("it has an owner");
    (number, format!("127.0.0.1:{}", cluster.nodes().nth(number).expect("it is there").port()))
}

fn set_user(cluster: &mut RedisCluster, node: usize, rules: &[&str]) {
    let () = run_on(cluster.node(node), &[&["ACL", "SETUSER", "app"], rules].concat());
}

/// Adds a lane with one result on the node that has none of the group's. Returns its number.
pub(super) fn add_lane_on_the_third_node(cluster: &mut RedisCluster) -> u64 {
    let taken = ["{orders}", "{orders/3}"].map(|lane| node_of(cluster, lane).0);
    let fits = |lane: &u64| !taken.contains(&node_of(cluster, &format!("{{orders/{lane}}}")).0);
    let lane = (1..).find(fits).expect("there are many");
    let mut run = |key: &str, words: &[&str]| {
        let owner = cluster.owner(slot_of(key.as_bytes())).expect("it has an owner");
        let _: redis::Value = run_on(cluster.node(owner), &[&[words[0], key], &words[1..]].concat());
    };
    run("{orders}:lanes", &["SADD", &lane.to_string()]);
    run(&format!("{{orders/{lane}}}:processed"), &["XADD", "*", "message_id", "z"]);
    lane
}

/// Lane 3 and lane 31 are on one node, lane 0 on another.
#[test]
fn lanes_are_shown_although_a_node_refuses_the_login_or_is_down() {
    let mut cluster = group();
    let third = add_lane_on_the_third_node(&mut cluster);
    for number in 0..cluster.len() {
        set_user(&mut cluster, number, &["on", ">pass", "~*", "&*", "+@all"]);
    }
    let (refusing, address) = node_of(&cluster, "{orders/3}");
    set_user(&mut cluster, refusing, &["resetpass", ">another"]);
    let (shown, code) = as_app(&cluster, &["status"]);
    assert_eq!(code, Some(3), "{shown}");
    for part in [
        "\nthe sums lack lanes 3, 31, which could not be read",
        &format!("redis cluster node {address}"),
        "WRONGPASS",
        "users must be set on every node",
        &format!("\nlane {third}:\ngroup "),
    ] {
        assert!(shown.contains(part), "{part:?}: {shown}");
    }
    assert_eq!(shown.matches("appendonly is no").count(), 1, "what all nodes have in common is said once: {shown}");
    let (status, code) = json_as_app(&cluster, "status");
    assert_eq!((&status["unread_lanes"], code), (&json!([3, 31]), Some(3)), "{status:#}");
    assert_eq!((&status["pending"], &status["dead_letters"], &status["results"]), (&json!(1), &json!(1), &json!(1)));
    assert_eq!(status["problems"][0], "the sums lack lanes 3, 31, which could not be read");
    assert_eq!(status["lanes"]["3"]["health"], "attention");
    audits_lack_lanes(&cluster, &address);
    changes_reach_the_other_lanes(&cluster, third);

    // Without lane 0's node nobody says which lanes there are: those with entries are found.
    set_user(&mut cluster, refusing, &["resetpass", ">pass"]);
    let (home, _) = node_of(&cluster, "{orders}");
    set_user(&mut cluster, home, &["resetpass", ">another"]);
    let (status, code) = json_as_app(&cluster, "status");
    assert_eq!((&status["unread_lanes"], &status["results"], code), (&json!([0]), &json!(5), Some(3)), "{status:#}");
    assert_eq!((&status["leader"], &status["group"]), (&Value::Null, &json!("{orders}")));
    let (report, _) = json_as_app(&cluster, "audit");
    assert_eq!((&report["results"], &report["unread_lanes"]["31"]), (&json!(5), &Value::Null), "{report:#}");
    let (found, code) = as_app(&cluster, &["doctor"]);
    assert!(code == Some(3) && found.contains("WRONGPASS"), "{found}");
    assert!(found.contains("\nservers:\n") && found.contains("knows the owners"), "{found}");
    set_user(&mut cluster, home, &["resetpass", ">pass"]);

    cluster.kill(refusing).expect("it is ours");
    let (status, code) = json_as_app(&cluster, "status");
    assert_eq!((&status["unread_lanes"], code), (&json!([3, 31]), Some(3)), "{status:#}");
    assert!(status["problems"].to_string().contains(&address), "{status:#}");
}

/// While the node at this address, of lane 3 and lane 31, refuses the login.
fn audits_lack_lanes(cluster: &RedisCluster, address: &str) {
    let (report, code) = as_app(cluster, &["audit", "--expect", "3"]);
    assert_eq!(code, Some(3), "{report}");
    for part in [
        "\n3     could not be read: ",
        address,
        "users must be set on every node",
        "\nthe lanes that could be read:\nresults                      1\n",
        "\nlost                   unknown\n",
        "verdict: unknown: lanes 3, 31 could not be read",
    ] {
        assert!(report.contains(part), "{part:?}: {report}");
    }
    let (report, _) = json_as_app(cluster, "audit");
    assert_eq!((&report["clean"], &report["lanes"]["3"], &report["results"]), (&json!(false), &Value::Null, &json!(1)));
    assert!(report["unread_lanes"]["3"].to_string().contains(address), "{report:#}");
}

/// While the node of lane 3 and lane 31 refuses the login.
fn changes_reach_the_other_lanes(cluster: &RedisCluster, third: u64) {
    for (tool, shown) in [("pause", "PAUSED"), ("resume", "not paused")] {
        let (said, code) = as_app(cluster, &[tool]);
        assert_eq!(code, Some(1), "{said}");
        for lane in [0, third] {
            assert!(said.contains(&format!("lane {lane}:\n{shown}")), "{said}");
        }
        for lane in [3, 31] {
            assert!(said.contains(&format!("event=lane-failed lane={lane} ")), "{said}");
        }
    }
}
