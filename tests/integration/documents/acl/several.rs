//! What users need more with Sentinels, in a Redis Cluster, and with lanes: it suffices for a whole group, and
//! `oncecast doctor` misses each right that is taken away.

use std::collections::BTreeMap;

use oncecast::lab::lanes::channels_of_nodes;
use oncecast::lab::{RedisCluster, RedisClusterOptions, RedisOptions, RedisServer, SentinelSet};

use super::rights::{Rights, additions, set_user, users_with, with, without};
use super::site::{Site, Watched};
use super::users::{CONSUMER, DISPATCHER, DOCUMENT, OPERATOR, PUBLISHER, stream_user};
use crate::support::{DEADLINE, client, is_too_old, programs, run_on, wait_until};

const GROUP: &str = "{orders}";
const NAMES: [&str; 4] = [DISPATCHER, CONSUMER, PUBLISHER, OPERATOR];

fn in_cluster() -> RedisCluster {
    let options = RedisClusterOptions { replicas: false, ..RedisClusterOptions::default() };
    RedisCluster::start(options).expect("a Redis Cluster starts")
}

#[test]
fn users_behind_sentinels_need_what_the_document_adds() {
    let set = SentinelSet::start(&RedisOptions::default(), 1).expect("servers and Sentinels start");
    let users = users_with("messages", &["acl-sentinel"]);
    let servers: Vec<&RedisServer> = set.servers().collect();
    for server in &servers {
        users.iter().for_each(|(name, rights)| set_user(&server.url(), name, rights));
    }
    let site = Site { url: set.url(), group: "messages", interests: Vec::new() };
    let mut watched = Watched::new([servers[0]]);
    site.work(&[&[]], &["--wait-replicas", "1"], || watched.catch_up());
    let called = watched.end(&users);
    for (name, call) in [(DISPATCHER, "role"), (DISPATCHER, "wait"), (CONSUMER, "role"), (PUBLISHER, "role")] {
        assert!(called[name].contains(call), "{name} {call}: {called:?}");
    }
    let added = additions("acl-sentinel");
    for name in NAMES {
        let args: &[&str] = if name == DISPATCHER { &["--wait-replicas", "1"] } else { &[] };
        site.each_is_named(&servers, name, &users[name], &added[name], args);
    }
}

/// The user of the Sentinels themselves.
#[test]
fn the_user_of_sentinels_needs_its_rights() {
    let set = SentinelSet::start(&RedisOptions::default(), 1).expect("servers and Sentinels start");
    let line = DOCUMENT.lines().find_map(|line| line.strip_prefix("user oncecast on >secret-for-sentinels "));
    let rights: Vec<&str> = line.expect("the document has it").split(' ').collect();
    let give = |rights: &[&str]| {
        for sentinel in set.sentinels() {
            let begin = ["ACL", "SETUSER", "oncecast", "reset", "on", ">secret-for-sentinels"];
            let () = run_on(sentinel, &[&begin[..], rights].concat());
        }
    };
    let login = "?sentinel_user=oncecast&sentinel_password=secret-for-sentinels";
    let doctor = || {
        let mut command = programs().command("oncecast").expect("the program is built");
        let output = command.args(["doctor", "--redis-url", &format!("{}{login}", set.url())]).output();
        let output = output.expect("it runs");
        let text = String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned();
        (output.status.code(), text)
    };
    give(&rights);
    let (code, text) = doctor();
    assert!(code == Some(0) && !text.contains("lacks"), "{text}");
    assert_eq!(rights.len(), 2, "each is tried below: {rights:?}");
    give(&["+sentinel|master"]);
    let (code, text) = doctor();
    assert!(code == Some(1) && text.contains("lacks the right +sentinel|get-master-addr-by-name"), "{text}");
    give(&["+sentinel|get-master-addr-by-name"]);
    let (code, text) = doctor();
    assert!(code == Some(0) && text.contains("lacks +sentinel|master"), "{text}");
}

#[test]
fn users_of_a_cluster_need_what_the_document_adds() {
    let cluster = in_cluster();
    let users = users_with(GROUP, &["acl-cluster"]);
    let url = cluster.url();
    let servers = cluster.nodes().collect::<Vec<_>>();
    for server in &servers {
        users.iter().for_each(|(name, rights)| set_user(&server.url(), name, rights));
    }
    let channel = "{orders}:published";
    let interests = ["--channel", channel].map(str::to_owned).to_vec();
    let site = Site { url, group: GROUP, interests };
    let mut watched = Watched::new(servers.iter().copied());
    site.work(&[&["--channel", channel]], &[], || watched.catch_up());
    let called = watched.end(&users);
    // MONITOR of Redis 6.2 leaves out CLUSTER.
    for call in ["exists", "pubsub|numsub"] {
        assert!(called[PUBLISHER].contains(call), "{call}: {called:?}");
    }
    let added = additions("acl-cluster");
    for name in NAMES {
        // These two are taken below.
        let is_here = |right: &&String| !["+cluster|slots", "+smembers"].contains(&right.as_str());
        let added: Rights = added[name].iter().filter(is_here).cloned().collect();
        site.each_is_named(&servers, name, &users[name], &added, &[]);
    }
    let take = |name: &str, right: &str| {
        servers.iter().for_each(|server| set_user(&server.url(), name, &without(&users[name], right)));
    };
    take(OPERATOR, "+smembers");
    let (_, text) = site.oncecast(&["status"]);
    assert!(text.contains("event=lanes-unknown"), "{text}");
    for name in NAMES {
        take(name, "+cluster|slots");
        let output = site.command("oncecast", name, &["doctor", "--channel", channel]).output().expect("it runs");
        let text = String::from_utf8_lossy(&output.stdout);
        let line = format!("type: ACL SETUSER {name} +cluster|slots");
        assert!(output.status.code() == Some(3) && text.contains(&line), "{name}: {output:?}");
    }
}

#[test]
fn users_of_lanes_need_what_the_document_adds() {
    let cluster = in_cluster();
    let servers = cluster.nodes().collect::<Vec<_>>();
    if is_too_old(servers[0], "has no sharded channels") {
        return;
    }
    let users = users_with(GROUP, &["acl-cluster", "acl-lanes"]);
    for server in &servers {
        users.iter().for_each(|(name, rights)| set_user(&server.url(), name, rights));
    }
    let channels = channels_of_nodes("jobs.", 3);
    let interests = vec!["--sharded-channel".to_owned(), channels.join(",")];
    let site = Site { url: cluster.url(), group: GROUP, interests };
    let mut watched = Watched::new(servers.iter().copied());
    let on: Vec<[&str; 2]> = channels.iter().map(|channel| ["--sharded-channel", channel.as_str()]).collect();
    let on: Vec<&[&str]> = on.iter().map(<[&str; 2]>::as_slice).collect();
    site.work(&on, &[], || watched.catch_up());
    let called = watched.end(&users);
    for call in ["sadd", "smembers", "ssubscribe", "spublish", "hmget"] {
        assert!(called[DISPATCHER].contains(call), "{call}: {called:?}");
    }
    assert!(called[PUBLISHER].contains("exists"), "{called:?}");
    assert!(called[PUBLISHER].contains("spublish") && called[OPERATOR].contains("smembers"), "{called:?}");
    let added = additions("acl-lanes");
    for name in NAMES {
        site.each_is_named(&servers, name, &users[name], &added[name], &[]);
    }
    site.each_is_named(&servers, PUBLISHER, &users[PUBLISHER], &vec!["+exists".to_owned()], &[]);
}

/// Dispatchers that deliver to a stream give a new lane the group's settings as well.
#[test]
fn the_dispatchers_of_lanes_that_deliver_to_a_stream_need_what_the_document_adds() {
    let cluster = in_cluster();
    let servers = cluster.nodes().collect::<Vec<_>>();
    if is_too_old(servers[0], "has no sharded channels") {
        return;
    }
    let user = [(DISPATCHER, stream_user())];
    let rights = with(user.into(), GROUP, &["acl-cluster", "acl-lanes"]).remove(DISPATCHER).expect("the only one");
    servers.iter().for_each(|server| set_user(&server.url(), DISPATCHER, &rights));
    let channels = channels_of_nodes("jobs.", 3);
    let interests = vec!["--sharded-channel".to_owned(), channels.join(",")];
    let site = Site { url: cluster.url(), group: GROUP, interests };
    // A limit from before, which a new lane is given.
    let settings = format!("{GROUP}:settings");
    let home = servers.iter().find(|server| {
        let set: redis::RedisResult<()> =
            redis::cmd("HSET").arg(&[&settings, "max_in_flight", "5"]).query(&mut client(&server.url()));
        set.is_ok()
    });
    assert!(home.is_some(), "one of the nodes has the group's slot");
    let watched = Watched::new(servers.iter().copied());
    let mut dispatcher = site.spawn(
        DISPATCHER,
        "d0",
        &["--dispatcher-id", "d0", "--deliver", "stream", "--sharded-channel", &site.interests[1]],
    );
    wait_until("it to lead each lane", || {
        let log = dispatcher.stderr().all();
        (log.iter().filter(|line| line.contains("event=taken-over")).count() == 3).then_some(())
    });
    let called = watched.end(&BTreeMap::from([(DISPATCHER, rights.clone())]));
    for call in ["hmget", "hset", "sadd"] {
        assert!(called[DISPATCHER].contains(call), "{call}: {called:?}");
    }
    assert!(dispatcher.stop(DEADLINE).expect("it ends").success());
    let added = additions("acl-lanes");
    site.each_is_named(&servers, DISPATCHER, &rights, &added[DISPATCHER], &["--deliver", "stream"]);
}
