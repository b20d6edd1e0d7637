//! The lanes of groups on a real Redis Cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use redis::Value;

use crate::base::error::Result;
use crate::base::id::DispatcherId;
use crate::base::shutdown::{ShutdownHandle, shutdown_channel};
use crate::lab::{RedisCluster, RedisClusterOptions, RedisOptions, wait_until};
use crate::lane::tests::settings_of;
use crate::ledger::{Command, Connection, Destination, Interests, Keys, LaneNumber, slot_of};
use crate::programs::dispatcher::hosted::Host;
use crate::programs::dispatcher::service::Process;

const LIMIT: Duration = Duration::from_secs(60);
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
            move || Process::start(&host, settings, None)?.run(&requests)
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
        let plan = |of: &Dispatcher| -> Vec<(LaneNumber, String)> {
            let lanes = of.host.lanes();
            lanes.iter().map(|lane| (lane.number, lane.lane.settings.interests.identity().to_owned())).collect()
        };
        (plan(&d0) == plan(&d1) && d0.leads().len() + d1.leads().len() == 3).then_some(())
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
    for key in &keys {
        at(&cluster, key).query("testing", Command::of(&["SET", key, "x"])).expect("it is set");
    }
    let ours = || stored(&cluster, 0..12).into_iter().filter(|(key, _)| key.starts_with("key-")).collect();
    wait_for("all events", || {
        let found: BTreeMap<String, usize> = ours();
        (found.keys().cloned().collect::<BTreeSet<_>>() == keys).then_some(())
    });
    assert!(ours().values().all(|count| *count == 1), "each once");
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
