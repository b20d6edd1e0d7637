//! Groups that listen to several channels, to patterns and to keyspace events.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::time::Duration;

use oncecast::lab::{ChildProcess, Cluster, Signal};
use oncecast::wire::{Frame, NackDelay, ReadyFlags};

use crate::support::load::{Load, number};
use crate::support::peer::{Heard, Peer};
use crate::support::scripted_group::{Scripted, wait_until_listed};
use crate::support::{
    CHANNEL, DEADLINE, assert_each_once_but, bare_cluster, client_of, cluster_of, dispatcher, options, run, state,
    stream, wait_for_another_leader, wait_until, wait_until_done,
};

/// Publishes `{"message_id":"<channel>/<n>"}` on each channel in turn.
fn publish_on(connection: &mut redis::Connection, channels: &[&str], numbers: Range<usize>) {
    let mut pipeline = redis::pipe();
    for number in numbers {
        let channel = channels[number % channels.len()];
        pipeline.publish(channel, format!("{{\"message_id\":\"{channel}/{number}\"}}"));
    }
    let _: Vec<u64> = pipeline.query(connection).expect("PUBLISH is answered");
}

#[test]
fn overlapping_interests_deliver_each_message_once_with_its_channel() {
    const CHANNELS: [&str; 5] = ["orders.eu", "orders.us", "invoices.eu", "orders.@1:x,\u{e9}", "x.eu"];
    let mut cluster = cluster_of(options(2, 2, "--channel orders.eu --pattern orders.* --pattern *.eu,*.e?", ""));
    let connection = &mut client_of(&mut cluster);
    three_rounds(&mut cluster, connection, |connection, numbers| {
        publish_on(connection, &CHANNELS, numbers);
        publish_on(connection, &["elsewhere", "orders"], 0..10);
    });
    for result in &each_of_three_rounds_once(connection) {
        let (channel, _) = result["message_id"].rsplit_once('/').expect("an id");
        assert_eq!(result["channel"], channel);
    }
}

/// Messages of one of three rounds.
const ROUND: usize = 1_000;

/// Has the messages of three rounds published, and in the middle of each kills the leader.
pub fn three_rounds(
    cluster: &mut Cluster,
    connection: &mut redis::Connection,
    publish: impl Fn(&mut redis::Connection, Range<usize>),
) {
    for first in [0, ROUND, 2 * ROUND] {
        wait_until_reported_in_sync(connection, 2);
        let (leader, lease) = cluster.wait_for_leader(DEADLINE).expect("a dispatcher leads");
        publish(connection, first..first + ROUND / 2);
        cluster.kill_node(leader).expect("it is killed");
        publish(connection, first + ROUND / 2..first + ROUND);
        wait_for_another_leader(cluster, &lease);
        cluster.start_node(leader).expect("it starts");
    }
    wait_until_done(connection, 3 * ROUND);
}

/// Fails unless each of these messages has one result, and there is no gap. Returns the results.
pub fn each_of_three_rounds_once(connection: &mut redis::Connection) -> Vec<HashMap<String, String>> {
    let results = stream(connection, "messages:processed");
    let ids: BTreeSet<&String> = results.iter().map(|result| &result["message_id"]).collect();
    assert_eq!((results.len(), ids.len()), (3 * ROUND, 3 * ROUND), "each once");
    assert_eq!(stream(connection, "messages:gaps"), []);
    results
}

/// Waits until so many dispatchers live and report that they are in sync. If another one leads next, there is no gap.
fn wait_until_reported_in_sync(connection: &mut redis::Connection, dispatchers: usize) {
    wait_until("the dispatchers to be in sync", || {
        let alive: Vec<String> = run(connection, &["PUBSUB", "CHANNELS", "messages:alive:*"]);
        let mut in_sync = |channel: &String| {
            let key = channel.replacen("alive", "status", 1);
            let report: Option<String> = run(connection, &["GET", &key]);
            report.is_some_and(|report| report.contains("\"in_sync\":true"))
        };
        (alive.iter().filter(|channel| in_sync(channel)).count() == dispatchers).then_some(())
    });
}

#[test]
fn each_expired_key_is_processed_once_while_leaders_are_killed() {
    const KEYS: usize = 10_000;
    let mut cluster = cluster_of(options(2, 3, "--keyevent expired", ""));
    let connection = &mut client_of(&mut cluster);
    let () = run(connection, &["CONFIG", "SET", "notify-keyspace-events", "Ex"]);
    let mut pipeline = redis::pipe();
    for key in 0..KEYS {
        pipeline.cmd("SET").arg(format!("session:{key}")).arg("x").arg("PX").arg(100 + key % 3_000).ignore();
    }
    let () = pipeline.query(connection).expect("the keys are set");
    for kill in 1..=2 {
        wait_until("some to be processed", || (state(connection).1 >= kill * KEYS / 5).then_some(()));
        let (leader, lease) = cluster.wait_for_leader(DEADLINE).expect("a dispatcher leads");
        cluster.kill_node(leader).expect("it is killed");
        wait_for_another_leader(&mut cluster, &lease);
        cluster.start_node(leader).expect("it starts");
        wait_until_subscribed(connection, "__keyevent@0__:expired", 2);
    }
    wait_until_done(connection, KEYS);
    let results = stream(connection, "messages:processed");
    let keys: BTreeSet<&String> = results.iter().map(|result| &result["payload"]).collect();
    assert_eq!((results.len(), keys.len()), (KEYS, KEYS), "each once, and no event of the group's own keys");
    assert!(keys.iter().all(|key| key.starts_with("session:")));
}

fn wait_until_subscribed(connection: &mut redis::Connection, channel: &str, dispatchers: u64) {
    wait_until("the dispatchers to be subscribed", || {
        let found: HashMap<String, u64> = run(connection, &["PUBSUB", "NUMSUB", channel]);
        (found[channel] == dispatchers).then_some(())
    });
}

/// A group without a consumer program's cluster: two dispatchers of different settings, and consumers.
fn start(cluster: &Cluster, name: &str, interests: &str) -> ChildProcess {
    let addresses: Vec<String> = (0..2).map(|number| cluster.address(number).to_string()).collect();
    let process = dispatcher(cluster, name, &addresses, interests);
    process.wait_for_line("event=subscribed", DEADLINE).expect("it subscribes");
    process
}

fn stop(mut process: ChildProcess) {
    process.signal(Signal::SIGTERM).expect("it runs");
    assert!(process.wait(DEADLINE).expect("it ends").success());
}

#[test]
fn a_rolling_restart_with_other_interests_loses_nothing_that_both_name() {
    const CHANNELS: [&str; 4] = ["kept", "kept.too", "removed", "added"];
    const OLD: &str = "--channel kept,removed --pattern kept.*";
    const NEW: &str = "--pattern kept.* --channel added --channel kept";
    let mut cluster = Cluster::start(options(0, 2, "", "")).expect("it starts");
    let connection = &mut client_of(&mut cluster);
    let mut dispatchers = [start(&cluster, "d0", OLD), start(&cluster, "d1", OLD)];
    let load = Load::start_on(&cluster.redis().url(), "m", 4_000, &CHANNELS);
    for interests in [NEW, OLD, NEW] {
        for (number, process) in dispatchers.iter_mut().enumerate() {
            load.wait_for_more(1_500);
            let name = format!("d{number}");
            stop(std::mem::replace(process, start(&cluster, &name, interests)));
        }
    }
    load.wait_for_more(1_500);
    let sent = load.stop();
    let is_kept = |id: &&String| number(id) % 4 < 2;
    let owed: Vec<String> = sent.owed.iter().filter(is_kept).cloned().collect();
    let others: BTreeSet<String> = sent.owed.iter().chain(&sent.unheard).filter(|id| !is_kept(id)).cloned().collect();
    assert!(sent.uncertain.is_empty() && !sent.unheard.iter().any(|id| is_kept(&id)), "two dispatchers at least");
    let found = wait_until_recorded(connection, &owed);
    assert_each_once_but(connection, &owed, &others);
    assert_eq!(stream(connection, "messages:gaps"), [], "{found} recorded");
}

/// Waits until all of these are recorded and nothing is pending.
fn wait_until_recorded(connection: &mut redis::Connection, owed: &[String]) -> usize {
    wait_until("all to be recorded", || {
        let (pending, processed, _) = state(connection);
        if pending > 0 || processed < owed.len() {
            return None;
        }
        let recorded: BTreeSet<String> = crate::support::recorded_ids(connection).into_iter().collect();
        owed.iter().all(|id| recorded.contains(id)).then_some(recorded.len())
    })
}

#[test]
fn dispatchers_with_other_interests_say_so_and_do_not_fight() {
    let mut cluster = Cluster::start(options(0, 1, "", "")).expect("it starts");
    let connection = &mut client_of(&mut cluster);
    let address = [cluster.address(0).to_string()];
    let first = dispatcher(&cluster, "d0", &address, "--channel a");
    first.wait_for_line("event=taken-over", DEADLINE).expect("it leads");
    let second = dispatcher(&cluster, "d1", &address, "--channel a --pattern b*");
    for (process, other) in [(&first, "interests=interests:"), (&second, "interests=a")] {
        let line = process.wait_for_line("event=other-interests", DEADLINE).expect("it says so");
        assert!(line.contains(other) && line.contains("--pattern"), "{line}");
    }
    let lease: String = run(connection, &["GET", "messages:leader"]);
    publish_on(connection, &["a"], 0..2_000);
    wait_until_done(connection, 2_000);
    assert_eq!(run::<String>(connection, &["GET", "messages:leader"]), lease, "it leads all the time");
    // A leader that dies without a last marker leaves a place that the other can't know exactly. Nothing is stored
    // twice, and the gap says why.
    drop(first);
    second.wait_for_line("event=taken-over", DEADLINE).expect("it takes over");
    publish_on(connection, &["a"], 2_000..3_000);
    wait_until("the others to be done", || (state(connection).1 >= 3_000).then_some(()));
    let results = stream(connection, "messages:processed");
    let ids: BTreeSet<&String> = results.iter().map(|result| &result["message_id"]).collect();
    assert_eq!((results.len(), ids.len()), (3_000, 3_000), "nothing twice");
}

/// A leader that is killed leaves a cursor that counts other messages than its successor does.
#[test]
fn a_killed_leader_with_other_interests_leaves_nothing_that_is_stored_twice() {
    const CHANNELS: [&str; 3] = ["both", "first", "second"];
    const INTERESTS: [&str; 2] = ["--channel both --channel first", "--channel both --pattern second*"];
    let mut cluster = Cluster::start(options(0, 2, "", "")).expect("it starts");
    let connection = &mut client_of(&mut cluster);
    let load = Load::start_on(&cluster.redis().url(), "m", 6_000, &CHANNELS);
    let mut leader = start(&cluster, "d0", INTERESTS[0]);
    leader.wait_for_line("event=taken-over", DEADLINE).expect("it leads");
    for round in 1..=6 {
        load.wait_for_more(600);
        // It has joined just now: the leader's last marker may be from before.
        let successor = start(&cluster, &format!("d{round}"), INTERESTS[round % 2]);
        drop(std::mem::replace(&mut leader, successor));
        leader.wait_for_line("event=taken-over", DEADLINE).expect("it takes over");
    }
    load.wait_for_more(600);
    let sent = load.stop();
    wait_until("nothing to be pending", || (state(connection).0 == 0 && state(connection).1 > 1_000).then_some(()));
    let results = stream(connection, "messages:processed");
    let twice: Vec<String> = crate::support::occurrences(&results, "message_id")
        .into_iter()
        .filter_map(|(id, count)| (count > 1).then_some(id))
        .collect();
    assert_eq!(twice, [""; 0], "of {}", results.len());
    let gaps = stream(connection, "messages:gaps");
    assert!(gaps.iter().all(|gap| ["other-interests", "not-subscribed"].contains(&gap["reason"].as_str())), "{gaps:?}");
    assert!(sent.owed.len() > 3_000);
}

#[test]
fn only_consumers_that_understand_it_are_sent_the_channel() {
    let new = Peer::bind("new");
    let old = Peer::bind("old");
    let mut group = Scripted::start(&[&new, &old], "--channel a,b");
    let mut lines = [
        new.accept_with(8, ReadyFlags::COMMITS.and(ReadyFlags::CHANNELS), &[]),
        old.accept_with(8, ReadyFlags::COMMITS, &[]),
    ];
    let connection = &mut client_of(&mut group.cluster);
    wait_until_listed(connection, &["new", "old"]);
    publish_on(connection, &["a", "b"], 0..8);
    let mut heard: BTreeMap<String, usize> = BTreeMap::new();
    while heard.values().sum::<usize>() < 8 {
        for (line, name) in lines.iter_mut().zip(["new", "old"]) {
            match line.next_within(Duration::from_millis(5)) {
                Some(Heard::Deliver { channel, body, .. }) => {
                    assert!(name == "new" && body.contains(&format!("\"{channel}/")), "{channel} {body}");
                }
                Some(Heard::Process { body, .. }) => assert!(name == "old" && body.starts_with(b"{"), "{body:?}"),
                _ => continue,
            }
            *heard.entry(name.to_owned()).or_default() += 1;
        }
    }
    assert_eq!(heard.len(), 2, "both are given some");
}

/// What an earlier release has left in Redis: members without a channel, which stay as they are.
#[test]
fn messages_of_an_earlier_release_are_delivered_beside_new_ones() {
    let mut cluster = bare_cluster();
    let connection = &mut client_of(&mut cluster);
    let () = run(connection, &["SET", "messages:epoch", "7"]);
    let () = run(connection, &["SET", "messages:cursor", "7.1 2 1700000000000002"]);
    let members = ["00060a24181e4001:a@1:b", "00060a24181e4002:{\"message_id\":\"old\"}"];
    for (id, member) in ["1700000000000001", "1700000000000002"].iter().zip(members) {
        let _: i64 = run(connection, &["ZADD", "messages:pending", id, member]);
    }
    let peer = Peer::bind("c0");
    let process = dispatcher(&cluster, "d0", &[peer.address()], "--pattern new.*");
    let mut line = peer.accept_with(8, ReadyFlags::CHANNELS, &[]);
    let old: Vec<String> = (0..2).map(|_| line.next_message().2).collect();
    assert_eq!(old, ["a@1:b", "{\"message_id\":\"old\"}"]);
    process.wait_for_line("event=taken-over", DEADLINE).expect("it leads");
    publish_on(connection, &["new.eu"], 0..1);
    let heard = line.next();
    let Heard::Deliver { id, channel, body } = heard else { panic!("{heard:?}") };
    assert_eq!((channel.as_str(), body.as_str()), ("new.eu", "{\"message_id\":\"new.eu/0\"}"));
    let pending: Vec<Vec<u8>> = redis::cmd("ZRANGE").arg("messages:pending").arg(2).arg(2).query(connection).unwrap();
    assert_eq!(pending, [format!("{:016x}@6:new.eu{body}", id.0).into_bytes()]);
    // Its dead letter has them apart.
    line.send(&[Frame::Nack { id, delay: NackDelay::Never, reason: "no" }]);
    let letters =
        wait_until("the dead letter", || Some(stream(connection, "messages:dead")).filter(|all| !all.is_empty()));
    assert_eq!((letters[0]["channel"].as_str(), &letters[0]["payload"]), ("new.eu", &body));
}

/// A consumer of this release is sent messages by a leader of an earlier one.
#[test]
fn one_channel_by_its_name_is_not_sent_with_each_message() {
    let peer = Peer::bind("c0");
    let mut group = Scripted::start(&[&peer], "");
    let mut line = peer.accept_with(8, ReadyFlags::CHANNELS, &[]);
    let connection = &mut client_of(&mut group.cluster);
    wait_until_listed(connection, &["c0"]);
    publish_on(connection, &[CHANNEL], 0..1);
    assert_eq!(line.next_message().2, format!("{{\"message_id\":\"{CHANNEL}/0\"}}"));
    let members: Vec<String> = run(connection, &["ZRANGE", "messages:pending", "0", "-1"]);
    assert_eq!(members[0][16..17], *":", "{members:?}");
}
