//! A group with several lanes, on a real Redis Cluster: its consumers and its tools.

use oncecast::lab::folder::PrivateFolder;
use oncecast::lab::lanes::channels_of_nodes;
use oncecast::lab::{ChildProcess, Cluster};
use oncecast::ledger::{SLOTS, slot_of};
use serde_json::Value;

use crate::support::sharded::{status_of as status, tool};
use crate::support::{DEADLINE, options, wait_until};

/// How many slots each of three primaries has.
const SHARE: u16 = SLOTS.div_ceil(3);

/// The lanes of which `holds` is true.
fn lanes_where(status: &Value, holds: impl Fn(&Value) -> bool) -> usize {
    status["lanes"].as_object().map_or(0, |lanes| lanes.values().filter(|lane| holds(lane)).count())
}

#[test]
fn consumers_serve_all_lanes_and_tools_add_them_up() {
    let channels = channels_of_nodes("orders.", 3);
    let mut options = options(2, 2, &format!("--sharded-channel {}", channels.join(",")), "");
    options.on_redis_cluster();
    let mut cluster = Cluster::start(options).expect("a cluster starts");
    if cluster.redis_cluster().expect("it is on one").version().expect("it answers").starts_with("redis 6.") {
        return;
    }
    cluster.wait_for_leader(DEADLINE).expect("a leader");
    wait_until("each lane to have a leader and both consumers", || {
        let is_served =
            |lane: &Value| !lane["leader"].is_null() && lane["consumers"].as_array().is_some_and(|c| c.len() == 2);
        (lanes_where(&status(&cluster), is_served) == 3).then_some(())
    });
    for channel in &channels {
        let output = tool(&cluster, "oncecast-publisher", &["--sharded-channel", channel, "--count", "300"]);
        assert!(output.status.success(), "{channel}: {output:?}");
    }
    wait_until("all to be recorded once", || {
        let output = tool(&cluster, "oncecast", &["audit", "--expect", "900"]);
        let text = String::from_utf8_lossy(&output.stdout);
        (output.status.success() && text.contains("nothing lost, nothing recorded twice")).then_some(())
    });
    let found = status(&cluster);
    assert_eq!((&found["results"], &found["pending"]), (&Value::from(900), &Value::from(0)), "{found:#}");
    assert_eq!(lanes_where(&found, |lane| lane["results"] == 300), 3, "{found:#}");

    // A pause concerns all lanes, or the one that is named.
    assert!(tool(&cluster, "oncecast", &["pause"]).status.success());
    let paused = |status: &Value| lanes_where(status, |lane| !lane["delivery"]["paused"].is_null());
    wait_until("all lanes to be paused", || (paused(&status(&cluster)) == 3).then_some(()));
    assert!(tool(&cluster, "oncecast", &["resume", "--lane", "0"]).status.success());
    wait_until("one lane to go on", || (paused(&status(&cluster)) == 2).then_some(()));
    let listed = tool(&cluster, "oncecast", &["pending", "list"]);
    assert_eq!(String::from_utf8_lossy(&listed.stdout).matches("lane ").count(), 3, "{listed:?}");
    let shown = tool(&cluster, "oncecast", &["dead", "show", "0000000000000001"]);
    assert!(String::from_utf8_lossy(&shown.stderr).contains("--lane"), "{shown:?}");

    // A lane whose slot moves to a node that has another lane listens no more, and delivers what is pending. The lane
    // that takes its place is paused like all.
    assert!(tool(&cluster, "oncecast", &["pause"]).status.success());
    for channel in &channels {
        let output = tool(&cluster, "oncecast-publisher", &["--sharded-channel", channel, "--count", "100"]);
        assert!(output.status.success(), "{channel}: {output:?}");
    }
    wait_until("all to be pending", || (status(&cluster)["pending"] == 300).then_some(()));
    let lanes: Vec<u16> = found["lanes"].as_object().expect("lanes").keys().filter_map(|n| n.parse().ok()).collect();
    let highest = lanes.iter().max().expect("three lanes");
    let slot = slot_of(cluster.keys().lane(*highest).expect("it is one").pending.as_bytes());
    let redis = cluster.redis_cluster().expect("it is on one");
    let from = redis.owner(slot).expect("it has an owner");
    redis.move_slot(slot, (from + 1) % 3).expect("it moves");
    wait_until("another lane to listen in its place", || {
        let is_led = |lane: &Value| !lane["leader"].is_null() && !lane["delivery"]["paused"].is_null();
        (lanes_where(&status(&cluster), is_led) == 4).then_some(())
    });
    assert!(tool(&cluster, "oncecast", &["resume"]).status.success());
    wait_until("all to be recorded once", || {
        let output = tool(&cluster, "oncecast", &["audit", "--expect", "1200"]);
        let text = String::from_utf8_lossy(&output.stdout);
        (output.status.success() && text.contains("nothing lost, nothing recorded twice")).then_some(())
    });
    wait_until("the lane to be empty", || (status(&cluster)["pending"] == 0).then_some(()));
    let moved = channels.iter().find(|channel| slot_of(channel.as_bytes()) / SHARE == slot / SHARE).expect("one");
    let output = tool(&cluster, "oncecast-publisher", &["--sharded-channel", moved, "--count", "100"]);
    assert!(output.status.success(), "{output:?}");
    wait_until("the new lane's messages to be recorded", || (status(&cluster)["results"] == 1300).then_some(()));

    // Channels of several nodes are not one publisher's.
    let several = tool(&cluster, "oncecast-publisher", &["--sharded-channel", &channels.join(","), "--count", "1"]);
    assert!(String::from_utf8_lossy(&several.stderr).contains("--sharded-channel"), "{several:?}");
    cluster.stop(DEADLINE).expect("a clean end");
}

/// After a failover the former primary is a replica: it takes what is published on a sharded channel, passes it on, and
/// counts none of the dispatchers, which have moved to the new primary.
#[test]
fn the_publisher_follows_a_sharded_channel_to_a_promoted_replica() {
    let channels = channels_of_nodes("orders.", 3);
    let mut options = options(2, 1, &format!("--sharded-channel {}", channels.join(",")), "");
    options.on_redis_cluster();
    options.readiness = true;
    let mut cluster = Cluster::start(options).expect("a cluster starts");
    if cluster.server_version().expect("it answers").starts_with("redis 6.") {
        return;
    }
    cluster.wait_for(DEADLINE, "all to be ready", |cluster, _| cluster.is_ready().then_some(())).expect("all ready");
    let folder = PrivateFolder::create("publisher").expect("a folder");
    let ids = folder.path().join("ids").display().to_string();
    let mut command = cluster.command("oncecast-publisher").expect("the program is built");
    command.args(["--sharded-channel", &channels[0], "--rate", "500", "--ids-file", &ids]);
    let mut publisher = ChildProcess::spawn("publisher", command).expect("a publisher");
    let recorded = |cluster: &Cluster| status(cluster)["results"].as_u64();
    let wait_for_more = |cluster: &Cluster| {
        let goal = recorded(cluster).expect("a number") + 300;
        wait_until("more results", || recorded(cluster).filter(|now| *now >= goal));
    };
    wait_for_more(&cluster);
    for _ in 0..2 {
        let redis = cluster.redis_cluster().expect("it is on one");
        let owner = redis.owner(slot_of(channels[0].as_bytes())).expect("it has an owner");
        let replica = redis.replica_of(owner).expect("a replica");
        redis.fail_over(replica).expect("it takes over");
        wait_for_more(&cluster);
    }
    publisher.stop(DEADLINE).expect("it ends");
    wait_until("all to be recorded once", || {
        let output = tool(&cluster, "oncecast", &["audit", "--ids", &ids]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let figure = |name: &str| {
            let rest = text.lines().find_map(|line| line.strip_prefix(name)).expect("it is shown");
            rest.split_whitespace().next().and_then(|number| number.parse::<u64>().ok()).expect("a number")
        };
        assert_eq!(figure("recorded twice"), 0, "{text}");
        // Shown if the test fails.
        println!("{text}");
        (figure("lost") == 0).then_some(())
    });
    let summary = publisher.stdout().all().pop().expect("a summary");
    assert!(summary.contains(" unreceived=0 "), "{summary}");
}
