//! What nobody listens to while the lane of a node changes lies in a gap of the new lane.

use super::*;
use crate::base::id::wall_clock_us;
use crate::ledger::reading::RecordedGap;
use crate::ledger::{Cursor, Ledger, lane_name};
use crate::programs::dispatcher::changes::PASS_ON_PAUSE;

/// More lanes than these groups ever have.
const LANES: u16 = 40;

fn lanes_slot(lane: LaneNumber) -> u16 {
    slot_of(lane_name(GROUP, lane).expect("it has a tag").as_bytes())
}

fn gaps(cluster: &RedisCluster, lane: LaneNumber) -> Vec<RecordedGap> {
    let keys = Arc::new(Keys::new(GROUP).lane(lane).expect("it has a tag"));
    Ledger::new(cluster.server(), keys, Duration::from_secs(5)).newest_gaps(100).expect("they are read")
}

/// When a gap began and when it was recorded, in microseconds since 1970.
fn stretch(gap: &RecordedGap) -> (u64, u64) {
    let begin: Cursor = gap.begin.parse().unwrap_or_else(|()| panic!("begins at a cursor: {gap:?}"));
    (begin.last_id.0, (gap.at_ms + 1) * 1_000)
}

/// Publishes on these channels until `is_done`, and then a little more. Returns what was published, and when.
fn publish_until(
    cluster: &RedisCluster,
    channels: &[Vec<u8>],
    what: &str,
    is_done: impl Fn() -> bool,
) -> BTreeMap<String, u64> {
    let mut published = BTreeMap::new();
    let (mut round, mut left) = (0, 10);
    let done = wait_until(LIMIT, what, || {
        for channel in channels {
            let channel = String::from_utf8_lossy(channel);
            let payload = format!("{channel}/{round}");
            published.insert(payload.clone(), wall_clock_us());
            // While a slot moves, the connection may be refused.
            let command = Command::of(&["SPUBLISH", &channel, &payload]);
            if at(cluster, &channel).query("testing", command).is_err() {
                published.remove(&payload);
            }
        }
        round += 1;
        left -= u8::from(is_done());
        Ok((left == 0).then_some(()))
    });
    done.expect("in time");
    published
}

/// Waits until all that is not stored was published within a gap of this lane. Returns how many messages that are.
fn wait_until_missing_lies_in_gaps(
    cluster: &RedisCluster,
    published: &BTreeMap<String, u64>,
    lane: LaneNumber,
) -> usize {
    let missing = || -> Vec<u64> {
        let found = stored(cluster, 0..LANES);
        assert!(found.values().all(|count| *count == 1), "each once");
        published.iter().filter(|(payload, _)| !found.contains_key(*payload)).map(|(_, at)| *at).collect()
    };
    let lies_in_one = |at: &u64| gaps(cluster, lane).iter().map(stretch).any(|(begin, end)| (begin..=end).contains(at));
    let all =
        wait_until(LIMIT, "what is missing to lie in a gap", || Ok(missing().iter().all(lies_in_one).then_some(())));
    all.unwrap_or_else(|error| panic!("{error}: {:?}, gaps {:?}", missing(), gaps(cluster, lane)));
    missing().len()
}

/// The slot of a node's lane moves away, so the node gets a lane that is new. Nobody listens there for a while.
#[test]
fn what_is_published_while_a_node_gets_another_lane_lies_in_a_gap() {
    let Some(mut cluster) = cluster(2, &[]) else { return };
    let started = wall_clock_us() - PASS_ON_PAUSE.as_micros() as u64;
    let interests = Interests::of_sharded(names(8)).expect("good ones");
    let dispatchers = ["d0", "d1"].map(|name| Dispatcher::start(name, &cluster, &interests));
    let [d0, d1] = &dispatchers;
    let led = || -> BTreeSet<LaneNumber> { d0.leads().union(&d1.leads()).copied().collect() };
    wait_for("a leader in each lane", || (led().len() == 2).then_some(()));
    wait_for("all to be in sync", || (ready(&d0.host).is_ok() && ready(&d1.host).is_ok()).then_some(()));
    let before = led();
    let old = *before.last().expect("two lanes");
    let node = cluster.owner(lanes_slot(old)).expect("it has an owner");
    let there = |name: &Vec<u8>| cluster.owner(slot_of(name)).expect("it has an owner") == node;
    let channels: Vec<Vec<u8>> = names(8).into_iter().filter(there).collect();
    assert!(!channels.is_empty(), "a channel on the node");
    assert_eq!((0..LANES).map(|lane| gaps(&cluster, lane).len()).sum::<usize>(), 0, "a group that begins has no gap");

    let moved = wall_clock_us();
    cluster.move_slot_at_once(lanes_slot(old), node, 1 - node).expect("it moves");
    let new = (1..).find(|lane| cluster.owner(lanes_slot(*lane)).is_ok_and(|owner| owner == node)).expect("a lane");
    let taken_in = || stored(&cluster, [new]).len() > 20;
    let published = publish_until(&cluster, &channels, "the new lane to store messages", taken_in);
    let missing = wait_until_missing_lies_in_gaps(&cluster, &published, new);
    assert!(missing > 0, "nobody listened for a while");
    let found = gaps(&cluster, new);
    let (begin, _) = stretch(&found[0]);
    assert!(found.len() == 1 && found[0].reason == "not-subscribed", "{found:?}");
    assert!((started..=moved).contains(&begin), "it begins when the former lane left: {found:?}");
    assert!(gaps(&cluster, 0).is_empty(), "lane 0 heard all that was its own");
    dispatchers.into_iter().for_each(Dispatcher::stop);
}

/// Lane 0 exists although there is nothing for it to listen to. Then it gets a channel from another node.
#[test]
fn a_lane_that_has_listened_to_nothing_begins_with_a_gap() {
    let Some(mut cluster) = cluster(2, &[]) else { return };
    let home = cluster.owner(slot_of(GROUP.as_bytes())).expect("it has an owner");
    let elsewhere = |name: &Vec<u8>| cluster.owner(slot_of(name)).expect("it has an owner") != home;
    let channel: Vec<Vec<u8>> = names(50).into_iter().filter(elsewhere).take(1).collect();
    let interests = Interests::of_sharded(channel.clone()).expect("good ones");
    let dispatchers = ["d0", "d1"].map(|name| Dispatcher::start(name, &cluster, &interests));
    let [d0, d1] = &dispatchers;
    wait_for("a leader in each lane", || (d0.leads().len() + d1.leads().len() == 2).then_some(()));
    wait_for("all to be ready", || (ready(&d0.host).is_ok() && ready(&d1.host).is_ok()).then_some(()));
    let cursor = || {
        let reply = at(&cluster, GROUP).query("testing", Command::of(&["GET", &format!("{GROUP}:cursor")]));
        let Ok(Value::BulkString(text)) = reply else { panic!("{reply:?}") };
        String::from_utf8(text).expect("it is text")
    };
    let begun = cursor();
    assert!(begun.parse::<Cursor>().is_ok_and(|cursor| cursor.is_unheard()), "{begun}");
    // The other leads without moving the cursor.
    let leader = if d0.leads().contains(&0) { d0 } else { d1 };
    leader.host.lanes().iter().filter(|hosted| hosted.number == 0).for_each(|hosted| hosted.lane.hand_over());
    wait_for("the other to lead", || {
        let other = if std::ptr::eq(leader, d0) { d1 } else { d0 };
        (other.leads().contains(&0) && ready(&other.host).is_ok()).then_some(())
    });
    assert_eq!((cursor(), gaps(&cluster, 0).len()), (begun.clone(), 0));

    cluster.move_slot_at_once(slot_of(&channel[0]), 1 - home, home).expect("it moves");
    let taken_in = || stored(&cluster, [0]).len() > 20;
    let published = publish_until(&cluster, &channel, "lane 0 to store messages", taken_in);
    wait_until_missing_lies_in_gaps(&cluster, &published, 0);
    let found = gaps(&cluster, 0);
    assert!(found.len() == 1 && found[0].reason == "not-subscribed" && found[0].begin == begun, "{found:?}");
    dispatchers.into_iter().for_each(Dispatcher::stop);
}

/// A node on which the dispatchers' user lacks rights: its lane can't be started.
#[test]
fn a_dispatcher_is_not_ready_while_a_lane_can_not_be_started() {
    let Some(cluster) = cluster(2, &[]) else { return };
    let home = cluster.owner(slot_of(GROUP.as_bytes())).expect("it has an owner");
    let elsewhere = |name: &Vec<u8>| cluster.owner(slot_of(name)).expect("it has an owner") != home;
    let channel = names(50).into_iter().find(elsewhere).expect("one is on the other node");
    let allow = |keys: &str| {
        let command = Command::of(&["ACL", "SETUSER", "default", "resetkeys", keys]);
        at(&cluster, &String::from_utf8_lossy(&channel)).query("testing", command).expect("it is allowed");
    };
    allow("~nothing");
    let interests = Interests::of_sharded(vec![channel.clone()]).expect("good ones");
    let dispatcher = Dispatcher::start("d0", &cluster, &interests);
    let shown = String::from_utf8_lossy(&channel).into_owned();
    wait_for("it to say so", || {
        let problem = ready(&dispatcher.host).err()?;
        (problem.contains("can't be started, so nobody hears") && problem.contains(&shown)).then_some(())
    });
    allow("~*");
    wait_for("it to be ready", || ready(&dispatcher.host).ok());
    dispatcher.stop();
}
