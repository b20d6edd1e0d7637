//! The lanes of groups on a real Redis Cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::RecvTimeoutError;
use redis::Value;

use crate::base::error::Result;
use crate::base::id::DispatcherId;
use crate::base::shutdown::{ShutdownHandle, shutdown_channel};
use crate::lab::{RedisCluster, RedisClusterOptions, RedisOptions, wait_until};
use crate::lane::tests::settings_of;
use crate::ledger::{Command, Connection, Destination, Interests, Keys, LaneNumber, slot_of};
use crate::programs::dispatcher::balance::Balance;
use crate::programs::dispatcher::health::ready;
use crate::programs::dispatcher::hosted::Host;
use crate::programs::dispatcher::service::Process;

mod incomplete;
mod unheard;

const LIMIT: Duration = Duration::from_secs(60);
/// The shortest time between two lanes that a dispatcher hands over.
const HAND_OVER_EVERY: Duration = Duration::from_secs(2);
const GROUP: &str = "{orders}";

/// A cluster of primaries without replicas; `None` if the server has no sharded channels.
fn cluster(primaries: usize, config: &[(&str, &str)]) -> Option<RedisCluster> {
    let config = config.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let node = RedisOptions { config, ..RedisOptions::default() };
    let options = RedisClusterOptions { primaries, replicas: false, node, ..RedisClusterOptions::default() };
    let cluster = RedisCluster::start(options).expect("a cluster starts");
    let old = cluster.version().expect("it answers").starts_with("redis 6.");
    (!old).then_some(cluster)
}

/// A dispatcher that adds messages to a stream in each lane.
struct Dispatcher {
    host: Arc<Host>,
    handle: ShutdownHandle,
    main: JoinHandle<Result<()>>,
}

impl Dispatcher {
    fn start(name: &str, cluster: &RedisCluster, interests: &Interests) -> Dispatcher {
        let stream = format!("{GROUP}:messages");
        let mut settings = settings_of(None, cluster.server(), GROUP, Vec::new());
        settings.keys = Keys::new(GROUP).with_stream(&stream);
        settings.interests = Arc::new(interests.clone());
        settings.destination = Destination::Stream { key: stream, maxlen: 0 };
        settings.lease_ttl = Duration::from_secs(2);
        let host = Arc::new(Host::new(DispatcherId::generate(name), String::new()));
        let (handle, requests) = shutdown_channel();
        let main = thread::spawn({
            let host = host.clone();
            move || Process::start(&host, settings, Balance::new(HAND_OVER_EVERY), None)?.run(&requests)
        });
        Dispatcher { host, handle, main }
    }

    /// The lanes that it leads.
    fn leads(&self) -> BTreeSet<LaneNumber> {
        let lanes = self.host.lanes();
        let leading = lanes.iter().filter(|hosted| super::get(&hosted.lane.stats.leading) == 1);
        leading.map(|hosted| hosted.number).collect()
    }

    fn stop(self) {
        self.handle.shutdown();
        self.main.join().expect("no panic").expect("a clean end");
    }
}

fn names(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|number| format!("orders.{number}").into_bytes()).collect()
}

/// A connection to the node that owns a key.
fn at(cluster: &RedisCluster, key: &str) -> Connection {
    Connection::new(cluster.server().for_key(key), Duration::from_secs(5))
}

fn number(connection: &mut Connection, words: &[&str]) -> i64 {
    match connection.query("testing", Command::of(words)).expect("it is carried out") {
        Value::Int(number) => number,
        other => panic!("{words:?}: {other:?}"),
    }
}

/// Publishes so many messages on each channel, at its own node, and returns what a dispatcher received.
fn publish(cluster: &RedisCluster, channels: &[Vec<u8>], round: usize, count: usize) -> BTreeSet<String> {
    let mut heard = BTreeSet::new();
    for channel in channels {
        let channel = String::from_utf8_lossy(channel);
        let mut connection = at(cluster, &channel);
        for message in 0..count {
            let payload = format!("{channel}/{round}/{message}");
            if number(&mut connection, &["SPUBLISH", &channel, &payload]) > 0 {
                heard.insert(payload);
            }
        }
    }
    heard
}

/// What the streams of these lanes hold, with the number of each payload.
fn stored(cluster: &RedisCluster, lanes: impl IntoIterator<Item = LaneNumber>) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for lane in lanes {
        let keys = Keys::new(GROUP).with_stream(&format!("{GROUP}:messages")).lane(lane).expect("it has a tag");
        let stream = keys.stream.expect("it was given");
        let reply = at(cluster, &stream).query("testing", Command::of(&["XRANGE", &stream, "-", "+"]));
        let Ok(Value::Array(entries)) = reply else { panic!("{reply:?}") };
        for entry in entries {
            let Value::Array(parts) = entry else { panic!("an entry") };
            let Value::Array(fields) = &parts[1] else { panic!("fields") };
            let words: Vec<String> = fields
                .iter()
                .map(|field| match field {
                    Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                    other => panic!("{other:?}"),
                })
                .collect();
            let payload = words.iter().skip_while(|word| *word != "payload").nth(1).expect("a payload").clone();
            *found.entry(payload).or_default() += 1;
        }
    }
    found
}

fn wait_until_stored(cluster: &RedisCluster, owed: &BTreeSet<String>, lanes: u16) {
    let missing = || -> Vec<&String> {
        let found = stored(cluster, 0..lanes);
        owed.iter().filter(|payload| !found.contains_key(*payload)).collect()
    };
    let all = wait_until(LIMIT, "all to be stored", || Ok(missing().is_empty().then_some(())));
    all.unwrap_or_else(|error| panic!("{error}: {:?}", missing()));
    assert!(stored(cluster, 0..lanes).values().all(|count| *count == 1), "each once");
}

fn wait_for<T>(what: &str, find: impl Fn() -> Option<T>) -> T {
    wait_until(LIMIT, what, || Ok(find())).expect("in time")
}

#[test]
fn sharded_channels_are_spread_over_lanes_that_follow_their_slots() {
    /// More lanes than this group ever has.
    const LANES: u16 = 12;
    let Some(mut cluster) = cluster(3, &[]) else { return };
    let channels = names(12);
    let interests = Interests::of_sharded(channels.clone()).expect("good ones");
    let d0 = Dispatcher::start("d0", &cluster, &interests);
    wait_for("a leader in each lane", || (d0.leads().len() == 3).then_some(()));
    let mut owed = publish(&cluster, &channels, 0, 20);
    assert_eq!(owed.len(), 12 * 20, "each has a subscriber");
    wait_until_stored(&cluster, &owed, LANES);

    // The other dispatcher gets its share, and nothing is lost while a lane changes hands.
    let d1 = Dispatcher::start("d1", &cluster, &interests);
    let mut round = 1;
    let got = wait_until(LIMIT, "the other dispatcher to lead a lane", || {
        owed.extend(publish(&cluster, &channels, round, 1));
        round += 1;
        Ok((!d1.leads().is_empty()).then_some(()))
    });
    got.expect("in time");
    wait_for("a leader in each lane", || (d0.leads().len() + d1.leads().len() == 3).then_some(()));
    wait_until_stored(&cluster, &owed, LANES);

    // A channel moves to another node: the lane of that node listens to it from now on.
    let slot = slot_of(&channels[0]);
    let from = cluster.owner(slot).expect("it has an owner");
    let to = (from + 1) % 3;
    cluster.move_slot(slot, to).expect("it moves");
    // While one dispatcher of the lane listens to the channel already, and the other does not, a message that only one
    // has heard is not owed.
    let settled = wait_until(LIMIT, "the leader to listen to the channel that moved", || {
        round += 1;
        let heard = publish(&cluster, &channels[..1], round, 1);
        let found = stored(&cluster, 0..LANES);
        Ok(heard.iter().any(|payload| found.contains_key(payload)).then_some(()))
    });
    settled.expect("in time");
    wait_for("both to follow the same plan", || {
        (plan_of(&d0) == plan_of(&d1) && d0.leads().len() + d1.leads().len() == 3).then_some(())
    });
    owed.extend(publish(&cluster, &channels, round + 1, 20));
    wait_until_stored(&cluster, &owed, LANES);
    d0.stop();
    let ours = d1;
    wait_for("all lanes to be led by the other", || (ours.leads().len() == 3).then_some(()));
    ours.stop();
}

#[test]
fn keyspace_events_of_every_primary_come_once() {
    let Some(mut cluster) = cluster(3, &[("notify-keyspace-events", "E$")]) else { return };
    let interests = Interests::of(vec![b"__keyevent@0__:set".to_vec()], Vec::new()).expect("good ones");
    let d0 = Dispatcher::start("d0", &cluster, &interests);
    wait_for("a leader in each lane", || (d0.leads().len() == 3).then_some(()));
    let keys: BTreeSet<String> = (0..200).map(|number| format!("key-{number}")).collect();
    // Before the users' keys: reports of lanes, as of those that drain on a node where another one listens.
    let reports = (0..12).map(|lane| Keys::new(GROUP).lane(lane).expect("it has a tag").report_of("d9-0a1b2c"));
    for key in &reports.chain(keys.iter().cloned()).collect::<Vec<_>>() {
        at(&cluster, key).query("testing", Command::of(&["SET", key, "x"])).expect("it is set");
    }
    let found = || stored(&cluster, 0..12);
    wait_for("all events", || keys.iter().all(|key| found().contains_key(key)).then_some(()));
    assert_eq!(found(), keys.into_iter().map(|key| (key, 1)).collect(), "each once, and none of the group's keys");
    let lanes: usize = d0.host.lanes().len();
    // A primary that is added gets a lane as soon as it has a slot.
    let node = cluster.add_node().expect("it joins");
    for slot in 0..40 {
        cluster.move_slot_at_once(slot, 0, node).expect("it moves");
    }
    cluster.wait_until_agreed().expect("they agree");
    wait_for("a lane for the new node", || (d0.leads().len() > lanes).then_some(()));
    d0.stop();
}

#[test]
fn keyspace_events_come_once_while_the_slot_of_a_lane_moves() {
    keyspace_events_come_once_while_a_slot_moves(1);
}

#[test]
fn keyspace_events_come_once_while_the_slot_of_lane_0_moves() {
    keyspace_events_come_once_while_a_slot_moves(0);
}

/// The slot of a lane, the first or the second, moves to a node where another lane listens: until all dispatchers have
/// noticed, neither may hear what the other one hears.
fn keyspace_events_come_once_while_a_slot_moves(which: usize) {
    let Some(mut cluster) = cluster(3, &[("notify-keyspace-events", "E$")]) else { return };
    let interests = Interests::of(vec![b"__keyevent@0__:set".to_vec()], Vec::new()).expect("good ones");
    let dispatchers = ["d0", "d1"].map(|name| Dispatcher::start(name, &cluster, &interests));
    let led = || dispatchers.iter().map(|dispatcher| dispatcher.leads().len()).sum::<usize>();
    wait_for("a leader in each lane", || (led() == 3).then_some(()));
    let is_ready = |dispatcher: &Dispatcher| ready(&dispatcher.host).is_ok();
    wait_for("all to be in sync", || dispatchers.iter().all(is_ready).then_some(()));
    let lanes: Vec<LaneNumber> = dispatchers[0].host.lanes().iter().map(|lane| lane.number).collect();
    let (moving, staying) = (lanes[which], lanes[2]);
    let slot = |lane| slot_of(Keys::new(GROUP).lane(lane).expect("it has a tag").pending.as_bytes());
    let target = cluster.owner(slot(staying)).expect("it has an owner");
    let is_there = |key: &String| cluster.owner(slot_of(key.as_bytes())).is_ok_and(|owner| owner == target);
    let there = (0..).map(|number| format!("{{{number}}}")).find(is_there).expect("there are many");
    let mut connection = at(&cluster, &there);
    let (stop, stopped) = crossbeam_channel::bounded::<()>(0);
    let load = thread::spawn(move || {
        let mut keys = 0;
        // Nothing is ever sent.
        while stopped.recv_timeout(Duration::from_millis(1)) == Err(RecvTimeoutError::Timeout) {
            let key = format!("{there}-{keys}");
            connection.query("testing", Command::of(&["SET", &key, "x"])).expect("it is set");
            keys += 1;
        }
        keys
    });
    let before = plan_of(&dispatchers[0]);
    cluster.move_slot(slot(moving), target).expect("it moves");
    let [d0, d1] = &dispatchers;
    wait_for("another plan", || {
        let plans = [plan_of(d0), plan_of(d1)];
        (plans[0] == plans[1] && plans[0] != before && led() == 3 && is_ready(d0) && is_ready(d1)).then_some(())
    });
    drop(stop);
    let keys: usize = load.join().expect("no panic");
    let found = stored(&cluster, 0..12);
    let twice: Vec<&String> = found.iter().filter(|(_, times)| **times > 1).map(|(key, _)| key).collect();
    assert!(twice.is_empty(), "of {keys}, {} twice: {twice:?}", twice.len());
    dispatchers.into_iter().for_each(Dispatcher::stop);
}

/// Two dispatchers for channels on two nodes, which lead both lanes and are in sync.
fn two_in_sync(cluster: &RedisCluster, channels: &[Vec<u8>]) -> [Dispatcher; 2] {
    let interests = Interests::of_sharded(channels.to_vec()).expect("good ones");
    let dispatchers = ["d0", "d1"].map(|name| Dispatcher::start(name, cluster, &interests));
    let led = || dispatchers.iter().map(|dispatcher| dispatcher.leads().len()).sum::<usize>();
    wait_for("a leader in each lane", || (led() == 2).then_some(()));
    let is_ready = |dispatcher: &Dispatcher| ready(&dispatcher.host).is_ok();
    wait_for("all to be in sync", || dispatchers.iter().all(is_ready).then_some(()));
    dispatchers
}

/// Whether both follow the same plan for two lanes, another one than before.
fn is_another_plan(d0: &Dispatcher, d1: &Dispatcher, before: &[(LaneNumber, String)]) -> bool {
    let plans = [plan_of(d0), plan_of(d1)];
    plans[0] == plans[1] && plans[0] != before && plans[0].len() == 2
}

/// What each dispatcher's lanes listen to.
fn plan_of(of: &Dispatcher) -> Vec<(LaneNumber, String)> {
    let lanes = of.host.lanes();
    lanes.iter().map(|lane| (lane.number, lane.lane.settings.interests.identity().to_owned())).collect()
}

/// The node of the first channel, and the others there.
fn beside_the_first(cluster: &RedisCluster, channels: &[Vec<u8>]) -> (usize, Vec<Vec<u8>>) {
    let owner = |channel: &[u8]| cluster.owner(slot_of(channel)).expect("it has an owner");
    let from = owner(&channels[0]);
    (from, channels[1..].iter().filter(|channel| owner(channel) == from).cloned().collect())
}

fn set_memory(cluster: &mut RedisCluster, node: usize, bytes: &str) {
    let command = Command::of(&["CONFIG", "SET", "maxmemory", bytes]);
    cluster.node(node).connection().query("testing", command).expect("it is set");
}

/// Two dispatchers go one after the other: while one channel moves, no message on the other channels is missed.
#[test]
fn a_channel_that_moves_interrupts_no_other() {
    let Some(mut cluster) = cluster(2, &[]) else { return };
    let channels = names(8);
    let dispatchers = two_in_sync(&cluster, &channels);
    let [d0, d1] = &dispatchers;
    let before = plan_of(d0);
    let (from, _) = beside_the_first(&cluster, &channels);
    cluster.move_slot(slot_of(&channels[0]), 1 - from).expect("it moves");
    let (mut owed, mut round) = (BTreeSet::new(), 0);
    let changed = wait_until(LIMIT, "both to follow another plan", || {
        owed.extend(publish(&cluster, &channels[1..], round, 1));
        round += 1;
        Ok(is_another_plan(d0, d1, &before).then_some(()))
    });
    changed.expect("in time");
    for _ in 0..5 {
        owed.extend(publish(&cluster, &channels[1..], round, 1));
        round += 1;
    }
    assert_eq!(owed.len(), round * 7, "each had a subscriber");
    wait_until_stored(&cluster, &owed, 12);
    dispatchers.into_iter().for_each(Dispatcher::stop);
}

/// What both dispatchers hold because Redis refuses writes is not lost when their lane's channels change.
#[test]
fn messages_in_the_rings_outlive_a_change_of_the_plan() {
    let Some(mut cluster) = cluster(2, &[]) else { return };
    let channels = names(8);
    let dispatchers = two_in_sync(&cluster, &channels);
    let [d0, d1] = &dispatchers;
    let before = plan_of(d0);
    let (from, others) = beside_the_first(&cluster, &channels);
    assert!(!others.is_empty(), "another channel on the same node");
    set_memory(&mut cluster, from, "1");
    let owed = publish(&cluster, &others, 0, 5);
    assert_eq!(owed.len(), others.len() * 5, "each has a subscriber");
    cluster.move_slot_at_once(slot_of(&channels[0]), from, 1 - from).expect("it moves");
    wait_for("both to follow another plan", || is_another_plan(d0, d1, &before).then_some(()));
    set_memory(&mut cluster, from, "0");
    wait_until_stored(&cluster, &owed, 12);
    dispatchers.into_iter().for_each(Dispatcher::stop);
}

/// Neither a node that is gone nor what it has of old lanes keeps the lanes of the other nodes from starting.
#[test]
fn lanes_start_although_the_node_of_lane_0_is_gone() {
    let Some(mut cluster) = cluster(3, &[("cluster-require-full-coverage", "no")]) else { return };
    let channels = names(12);
    let interests = Interests::of_sharded(channels.clone()).expect("good ones");
    let d0 = Dispatcher::start("d0", &cluster, &interests);
    wait_for("a leader in each lane", || (d0.leads().len() == 3).then_some(()));
    d0.stop();
    let home = cluster.owner(slot_of(GROUP.as_bytes())).expect("it has an owner");
    cluster.kill(home).expect("it dies");
    let d1 = Dispatcher::start("d1", &cluster, &interests);
    wait_for("the lanes of the other nodes to be led", || (d1.leads().len() == 2).then_some(()));
    cluster.start_again(home).expect("it starts");
    wait_for("all lanes to be led", || (d1.leads().len() == 3).then_some(()));
    d1.stop();
}
