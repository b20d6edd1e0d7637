//! What the users of the tools and of shadows need more with Sentinels, in a Redis Cluster, and with lanes: it
//! suffices, and without any of it something is missing.

use std::process::Command;

use oncecast::lab::lanes::channels_of_nodes;
use oncecast::lab::{self, ChildProcess, RedisCluster, RedisClusterOptions, RedisOptions, RedisServer, SentinelSet};
use oncecast::ledger::slot_of;

use super::rights::{Rights, additions, set_user, tools_with, without};
use super::users::{DEAD, DOCUMENT, LOOK, OPERATE, SHADOW};
use crate::support::{DEADLINE, client, is_too_old, programs, run, wait_until};

const GROUP: &str = "{orders}";
/// How many slots each of three primaries has.
const SHARE: u16 = 5_462;
/// What a shadow logs if it lacks a right.
const REFUSED: [&str; 3] = ["NOPERM", "NoPerm", "unknown-role"];
/// These only leave out a warning: that nobody has ever led the group, or the lane.
const RECALLS: [&str; 1] = ["%R~{orders/*}:recall"];

/// Servers that the programs reach in one way.
struct Place {
    /// The URL without a login, for an administrator.
    url: String,
    /// That of each server.
    servers: Vec<String>,
    group: &'static str,
}

impl Place {
    fn new<'a>(url: String, servers: impl Iterator<Item = &'a RedisServer>, group: &'static str) -> Place {
        Place { url, servers: servers.map(RedisServer::url).collect(), group }
    }

    fn give(&self, user: &str, rights: &Rights) {
        self.servers.iter().for_each(|url| set_user(url, user, rights));
    }

    fn command(&self, program: &str, user: Option<&str>, args: &[&str]) -> Command {
        let login = |user: &str| self.url.replace("://", &format!("://{user}:{}@", password(user)));
        let url = user.map_or_else(|| self.url.clone(), login);
        let mut command = programs().command(program).expect("the program is built");
        command.args(args).args(["--redis-url", &url, "--group", self.group]);
        command
    }

    fn dispatcher(&self, args: &[&str]) -> ChildProcess {
        let own = ["--dispatcher-id", "d0", "--consumers", "127.0.0.1:1"];
        let command = self.command("oncecast-dispatcher", None, &[&own[..], args].concat());
        ChildProcess::spawn("d0", command).expect("it starts")
    }

    /// Calls a command where its key is.
    fn on_key<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let call = |url: &String| redis::cmd(words[0]).arg(&words[1..]).query(&mut client(url)).ok();
        self.servers.iter().find_map(call).unwrap_or_else(|| panic!("one of the servers takes {words:?}"))
    }

    /// What a tool did not do, if it did not do everything.
    fn complaint(&self, user: &str, args: &[&str]) -> Option<String> {
        let output = self.command("oncecast", Some(user), args).output().expect("it runs");
        let text = [&output.stdout[..], &output.stderr[..]].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        let is_partial = ["NOPERM", "-unknown", "unknown-role", "no-such-group"].iter().any(|sign| text.contains(sign));
        (is_partial || !output.status.success()).then(|| format!("{args:?}: {text}"))
    }

    /// Fails unless a user can do this, and can't without any of these rights.
    fn each_is_needed(
        &self,
        user: &str,
        rights: &Rights,
        added: &Rights,
        mut complaint: impl FnMut() -> Option<String>,
    ) {
        self.give(user, rights);
        assert_eq!(complaint(), None, "{user}");
        for right in added.iter().filter(|right| !RECALLS.contains(&right.as_str())) {
            self.give(user, &without(rights, right));
            assert!(complaint().is_some(), "{user} does not need {right}");
        }
        self.give(user, rights);
        assert_eq!(complaint(), None, "{user}");
    }

    /// Each user of the tools does its work in these lanes, of which each has pending messages and results, and needs
    /// all that these blocks add.
    fn tools_need_all(&self, kinds: &[&str], lanes: &[String]) {
        let users = tools_with(self.group, kinds);
        let added =
            |user: &str| -> Rights { kinds.iter().filter_map(|kind| additions(kind).remove(user)).flatten().collect() };
        let last = lanes.last().expect("there is one");
        let number = last.split_once('/').map_or("0", |(_, rest)| rest.trim_end_matches('}'));
        let (results, dead) = (format!("{last}:processed"), format!("{last}:dead"));
        let _: String = self.on_key(&["XADD", &results, "*", "a", "b"]);

        self.each_is_needed(LOOK, &users[LOOK], &added(LOOK), || {
            let tail = ["results", "tail", "--from-start", "--count", "1", "--lane", number];
            self.complaint(LOOK, &["pending", "list"]).or_else(|| self.complaint(LOOK, &tail))
        });
        self.each_is_needed(OPERATE, &users[OPERATE], &added(OPERATE), || {
            self.complaint(OPERATE, &["pause"]).or_else(|| self.complaint(OPERATE, &["resume"]))
        });
        let mut id = 0;
        self.each_is_needed(DEAD, &users[DEAD], &added(DEAD), || {
            let mut letter = || -> String {
                id += 1;
                let id = format!("{id:016x}");
                self.on_key(&["XADD", &dead, "*", "id", &id, "payload", "x", "deliveries", "8"])
            };
            letter();
            let replayed = self.complaint(DEAD, &["dead", "replay", "--all", "--yes"]);
            letter();
            let dropped = self.complaint(DEAD, &["dead", "drop", "--all", "--yes"]);
            let _: i64 = self.on_key(&["XTRIM", &dead, "MAXLEN", "0"]);
            replayed.or(dropped)
        });
    }

    /// What a shadow did not do.
    fn shadows_complaint(&self, lane: &str, args: &[&str]) -> Option<String> {
        let args = [&["--shadow", "--dispatcher-id", "s0"], args].concat();
        let command = self.command("oncecast-dispatcher", Some(SHADOW), &args);
        let mut shadow = ChildProcess::spawn("s0", command).expect("it starts");
        let reports = |_| -> usize {
            let keys = format!("{lane}:status:shadow:s0-*");
            self.servers.iter().map(|url| run::<Vec<String>>(&mut client(url), &["KEYS", &keys]).len()).sum()
        };
        let is_refused = |shadow: &ChildProcess| {
            shadow.stderr().all().iter().any(|line| REFUSED.iter().any(|sign| line.contains(sign)))
        };
        let outcome = lab::wait_until(DEADLINE, "a comparison", || {
            let compares = shadow.stderr().all().iter().any(|line| line.contains("event=comparing")) && reports(()) > 0;
            Ok((shadow.ended()?.is_some() || is_refused(&shadow) || compares).then_some(()))
        });
        let ended = shadow.stop(DEADLINE).expect("it ends");
        let left = reports(());
        let log = || shadow.stderr().tail(30);
        self.servers.iter().for_each(|url| {
            let keys: Vec<String> = run(&mut client(url), &["KEYS", &format!("{lane}:status:shadow:s0-*")]);
            keys.iter().for_each(|key| run::<()>(&mut client(url), &["DEL", key]));
        });
        (outcome.is_err() || !ended.success() || left > 0 || is_refused(&shadow)).then(log)
    }

    /// Moves the slot of a group while a shadow follows it. Returns whether that was not refused anything.
    fn shadow_moves(&self, cluster: &mut RedisCluster, group: &str, args: &[&str]) -> bool {
        let args = [&["--shadow", "--dispatcher-id", "s0"], args].concat();
        let command = self.command("oncecast-dispatcher", Some(SHADOW), &args);
        let shadow = ChildProcess::spawn("s0", command).expect("it starts");
        shadow.wait_for_line("event=comparing", DEADLINE).expect("it compares");
        let slot = slot_of(group.as_bytes());
        let owner = cluster.owner(slot).expect("a node has it");
        cluster.move_slot(slot, (owner + 1) % 3).expect("it moves");
        wait_until("it to follow", || {
            let log = shadow.stderr().all();
            (log.iter().filter(|line| line.contains("event=subscribed")).count() == 2).then_some(())
        });
        !shadow.stderr().all().iter().any(|line| line.contains("NOPERM") && !line.contains("event=redis-setting"))
    }
}

/// The password of a user of the document.
fn password(user: &str) -> &'static str {
    let line = DOCUMENT.lines().find(|line| line.starts_with(&format!("ACL SETUSER {user} reset ")));
    let mut words = line.expect("the document has the user").split(' ');
    words.find_map(|word| word.strip_prefix('>')).expect("it has a password")
}

fn cluster() -> RedisCluster {
    let options = RedisClusterOptions { replicas: false, ..RedisClusterOptions::default() };
    RedisCluster::start(options).expect("a Redis Cluster starts")
}

const TOO_OLD: &str = "has neither rights to only read a key nor scripts that only read";

#[test]
fn tools_behind_sentinels_need_what_the_document_adds() {
    let set = SentinelSet::start(&RedisOptions::default(), 1).expect("servers and Sentinels start");
    if is_too_old(set.servers().next().expect("there are two"), TOO_OLD) {
        return;
    }
    let place = Place::new(set.url(), set.servers(), "messages");
    let dispatcher = place.dispatcher(&[]);
    dispatcher.wait_for_line("event=taken-over", DEADLINE).expect("it leads");
    let _: u64 = run(&mut client(&place.servers[0]), &["PUBLISH", "messages:published", "x"]);
    place.tools_need_all(&["acl-sentinel-tools"], &["messages".to_owned()]);

    let (users, added) = (tools_with("messages", &["acl-sentinel-tools"]), additions("acl-sentinel-tools"));
    place.each_is_needed(SHADOW, &users[SHADOW], &added[SHADOW], || place.shadows_complaint("messages", &[]));
}

#[test]
fn tools_in_a_cluster_need_what_the_document_adds() {
    const KINDS: [&str; 1] = ["acl-cluster-tools"];
    let mut cluster = cluster();
    if is_too_old(cluster.node(0), TOO_OLD) {
        return;
    }
    let place = Place::new(cluster.url(), cluster.nodes(), GROUP);
    let channel = ["--channel", "{orders}:published"];
    let dispatcher = place.dispatcher(&channel);
    dispatcher.wait_for_line("event=taken-over", DEADLINE).expect("it leads");
    let _: u64 = place.on_key(&["PUBLISH", channel[1], "x"]);
    place.tools_need_all(&KINDS, &[GROUP.to_owned()]);

    let (users, added) = (tools_with(GROUP, &KINDS), additions(KINDS[0]));
    place.each_is_needed(SHADOW, &users[SHADOW], &added[SHADOW], || place.shadows_complaint(GROUP, &channel));

    // Unlike a dispatcher it need not leave the former node in order: it begins to compare anew.
    assert!(place.shadow_moves(&mut cluster, GROUP, &channel), "it is refused something");
}

#[test]
fn tools_for_lanes_need_what_the_document_adds() {
    const KINDS: [&str; 2] = ["acl-cluster-tools", "acl-lanes-tools"];
    let mut cluster = cluster();
    if is_too_old(cluster.node(0), "has no sharded channels") {
        return;
    }
    let place = Place::new(cluster.url(), cluster.nodes(), GROUP);
    let channels = channels_of_nodes("jobs.", 3);
    let dispatcher = place.dispatcher(&["--sharded-channel", &channels.join(",")]);
    wait_until("a leader for each lane", || {
        let log = dispatcher.stderr().all();
        (log.iter().filter(|line| line.contains("event=taken-over")).count() == 3).then_some(())
    });
    for channel in &channels {
        wait_until("a subscriber", || (place.on_key::<u64>(&["SPUBLISH", channel, "x"]) > 0).then_some(()));
    }
    let numbers: Vec<String> = place.on_key(&["SMEMBERS", "{orders}:lanes"]);
    let number = numbers.iter().find(|number| *number != "0").expect("there are several");
    let lane = format!("{{orders/{number}}}");
    wait_until("a pending message", || (place.on_key::<u64>(&["ZCARD", &format!("{lane}:pending")]) > 0).then_some(()));
    place.tools_need_all(&KINDS, std::slice::from_ref(&lane));

    let users = tools_with(GROUP, &KINDS);
    let channel = &channels[usize::from(slot_of(lane.as_bytes()) / SHARE)];
    let args = ["--sharded-channel", channel, "--lane", number];
    let added = &additions("acl-lanes-tools")[SHADOW];
    place.each_is_needed(SHADOW, &users[SHADOW], added, || place.shadows_complaint(&lane, &args));

    // Whether a lane was ever led is looked up by a key of its own.
    let _: u64 = place.on_key(&["SADD", "{orders}:lanes", "77"]);
    let look_there = || place.complaint(LOOK, &["pending", "list", "--lane", "77"]).unwrap_or_default();
    assert!(look_there().contains("event=no-such-group"), "{}", look_there());
    place.give(LOOK, &without(&users[LOOK], RECALLS[0]));
    assert_eq!(look_there(), "");
}
