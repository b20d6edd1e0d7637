//! Row 50: the lanes of a group on a Redis Cluster are taken over under load. Messages are published by `SPUBLISH` on a
//! channel of each node, so that the group has a lane on each.
//!
//! All figures are sums over the lanes, as the audit and `oncecast status` give them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use oncecast::lab::folder::PrivateFolder;
use oncecast::lab::lanes::channels_of_nodes;
use oncecast::lab::{self, Cluster, LanesView, Node, RedisCluster, Signal, Snapshot};
use oncecast::ledger::{LaneNumber, slot_of};

use crate::mode::{Mode, in_both_modes};
use crate::run::Run;
use crate::scene::{DRAIN_LIMIT, RESUME_LIMIT, audit_of, keys_of};
use crate::support::sharded::{ShardedLoad, status_of};
use crate::support::{DEADLINE, skipped, wait_until};

/// How many primaries there are at first.
const PRIMARIES: usize = 3;

/// A group with a lane on each node of a Redis Cluster, and the load on them.
struct Scene {
    run: Run,
    mode: Mode,
    cluster: Cluster,
    view: LanesView,
    channels: Vec<String>,
    load: ShardedLoad,
    folder: PrivateFolder,
}

impl Scene {
    /// Starts everything, and waits until results come in each lane. `None` if the server has no sharded channels.
    fn start(mode: Mode, row: &str) -> Option<Scene> {
        let run = Run::in_mode(mode, row);
        let channels = channels_of_nodes("orders.", PRIMARIES);
        let args = format!("--lease-ttl-ms 1000 --sharded-channel {}", channels.join(","));
        let mut options = mode.options(2, 2, &args);
        options.on_redis_cluster();
        options.readiness = true;
        let mut cluster = Cluster::start(options).expect("a cluster starts");
        if cluster.server_version().expect("it answers").starts_with("redis 6.") {
            skipped("Redis 6.2 has no sharded channels");
            return None;
        }
        wait_until_ready(&mut cluster);
        let load = ShardedLoad::start(&cluster.server(), "row-", &channels, run.scale(200, 1_000));
        let view = LanesView::new(cluster.server(), keys_of(&cluster, mode));
        let folder = PrivateFolder::create("lanes").expect("a folder");
        let mut scene = Scene { run, mode, cluster, view, channels, load, folder };
        let lanes = scene.leaders_of_all();
        scene.wait_for_more(&lanes.into_keys().collect());
        Some(scene)
    }

    fn redis(&mut self) -> &mut RedisCluster {
        self.cluster.redis_cluster().expect("it is on a Redis Cluster")
    }

    /// The state of each lane. A node may not answer for a while.
    fn lanes(&mut self) -> BTreeMap<LaneNumber, Snapshot> {
        wait_until("Redis to tell the state of all lanes", || self.view.read().ok())
    }

    /// The lanes that have a leader that runs, with it.
    fn leaders(&mut self) -> BTreeMap<LaneNumber, Node> {
        let Ok(lanes) = self.view.read() else { return BTreeMap::new() };
        let led = lanes.into_iter().filter_map(|(lane, seen)| Some((lane, self.cluster.leader(&seen)?)));
        led.collect()
    }

    /// Each lane with its leader, once all have one.
    fn leaders_of_all(&mut self) -> BTreeMap<LaneNumber, Node> {
        wait_until("a leader in each lane", || Some(self.leaders()).filter(|leaders| leaders.len() == PRIMARIES))
    }

    /// The lanes of which each has a leader now.
    fn led(&mut self) -> BTreeSet<LaneNumber> {
        self.leaders().into_keys().collect()
    }

    /// The lanes that are led, the slot of one of them, and the node that has it.
    fn one_lane(&mut self) -> (BTreeSet<LaneNumber>, u16, usize) {
        let lanes = self.led();
        let number = self.run.random.usize(..lanes.len());
        let slot = self.slot(*lanes.iter().nth(number).expect("it is one of them"));
        let owner = self.redis().owner(slot).expect("it has an owner");
        (lanes, slot, owner)
    }

    fn slot(&self, lane: LaneNumber) -> u16 {
        slot_of(self.cluster.keys().lane(lane).expect("the group has a tag").pending.as_bytes())
    }

    /// Waits until each of these lanes has recorded more. A lost node may have lost the last results.
    fn wait_for_more(&mut self, lanes: &BTreeSet<LaneNumber>) {
        let before = self.lanes();
        let more = self.run.scale(60, 600);
        let waited = lab::wait_until(RESUME_LIMIT, "more results in each lane", || {
            self.cluster.must_run()?;
            let Ok(now) = self.view.read() else { return Ok(None) };
            let recorded =
                |of: &BTreeMap<LaneNumber, Snapshot>, lane: &LaneNumber| of.get(lane).map_or(0, |seen| seen.processed);
            let has_more = |lane: &LaneNumber| recorded(&now, lane) >= recorded(&before, lane) + more;
            Ok(lanes.iter().all(has_more).then_some(()))
        });
        waited.unwrap_or_else(|error| panic!("{error}: {lanes:?} of {:#?} after {before:#?}", self.view.read()));
    }

    /// Waits until so many lanes record results, and no other.
    fn wait_for_busy(&mut self, lanes: usize) {
        let mut before = self.lanes();
        let more = self.run.scale(60, 600);
        let waited = lab::wait_until(RESUME_LIMIT, format!("{lanes} lanes with results"), || {
            let Ok(now) = self.view.read() else { return Ok(None) };
            let has_more = |(lane, seen): &(&LaneNumber, &Snapshot)| {
                seen.processed >= before.get(lane).map_or(0, |seen| seen.processed) + more
            };
            let busy = now.iter().filter(has_more).count();
            if busy > lanes {
                // One that drains had results, too.
                before = now;
            }
            Ok((busy == lanes).then_some(()))
        });
        waited.unwrap_or_else(|error| panic!("{error}: {:#?} after {before:#?}", self.view.read()));
    }

    /// Waits until all dispatchers hear all channels and could lead each lane at once.
    fn settle(&mut self) {
        lab::wait_until(RESUME_LIMIT, "all dispatchers to hear all channels", || {
            Ok((self.load.heard_by() == 2 && self.cluster.is_ready()).then_some(()))
        })
        .expect("they hear them");
    }

    /// Ends the load, waits until all is done, and fails unless each owed message is recorded and none twice.
    fn end(mut self) {
        let sent = self.load.stop();
        let (owed, uncertain) = (sent.owed.len() as u64, sent.uncertain.len() as u64);
        // What no subscriber on a node received may have reached one on another node of the shard.
        let unheard = sent.unheard.len() as u64;
        let ids = self.folder.path().join("ids");
        fs::write(&ids, sent.owed.join("\n")).expect("it is written");
        // Counts do not tell when all is done: what is not owed may have been recorded, too.
        let _ = lab::wait_until(DRAIN_LIMIT, "the drain", || {
            let report = audit_of(&self.cluster, self.mode, ids.clone());
            Ok((report.lost == Some(0) && report.pending == 0).then_some(()))
        });
        let report = audit_of(&self.cluster, self.mode, ids);
        self.run
            .say(format_args!("{owed} owed, {uncertain} uncertain, {unheard} unheard, {} recorded", report.distinct));
        let lanes = wait_until("Redis to tell the state of all lanes", || self.view.read().ok());
        let sound = report.lost == Some(0) && report.twice == 0 && report.pending == 0;
        let sound = sound && report.foreign.is_some_and(|foreign| foreign <= uncertain + unheard);
        assert!(sound, "{report}\n{owed} owed, {uncertain} uncertain, {unheard} unheard; {lanes:#?}");
        // What operators see is the same sum, as soon as each leader has reported.
        let figure = if self.mode == Mode::Stream { "stream_entries" } else { "results" };
        let status = wait_until("the status to have all entries", || {
            Some(status_of(&self.cluster)).filter(|status| status[figure] == report.entries)
        });
        assert_eq!(status["pending"], 0, "{status:#}");
        assert_eq!(status["lanes"].as_object().map(|shown| shown.len()), Some(lanes.len()), "{status:#}");
    }
}

fn wait_until_ready(cluster: &mut Cluster) {
    let ready = cluster.wait_for(DEADLINE, "all to be ready", |cluster, _| cluster.is_ready().then_some(()));
    ready.expect("all ready");
}

/// Leaders of lanes are killed and paused, whatever lanes each of them leads: the other takes them over.
fn row_50_leader_of_lanes_killed_and_paused(mode: Mode) {
    let Some(mut scene) = Scene::start(mode, "row_50_leader_of_lanes_killed_and_paused") else { return };
    for round in 0..scene.run.scale(2, 12) {
        wait_until_ready(&mut scene.cluster);
        let leaders = scene.leaders_of_all();
        let lanes: Vec<LaneNumber> = leaders.keys().copied().collect();
        let hit = leaders[&lanes[scene.run.random.usize(..lanes.len())]];
        if round % 2 == 0 {
            scene.cluster.kill_node(hit).expect("it is killed");
        } else {
            scene.cluster.signal(hit, Signal::SIGSTOP).expect("it runs");
        }
        scene.wait_for_more(&lanes.into_iter().collect());
        if round % 2 == 0 {
            scene.cluster.start_node(hit).expect("it starts again");
        } else {
            scene.cluster.signal(hit, Signal::SIGCONT).expect("it is paused");
        }
    }
    scene.end();
}

/// A node that holds a lane is killed and its replica takes its place; the lanes of the other nodes go on meanwhile.
fn row_50_node_of_a_lane_killed(mode: Mode) {
    let Some(mut scene) = Scene::start(mode, "row_50_node_of_a_lane_killed") else { return };
    for _ in 0..scene.run.scale(1, 6) {
        let (lanes, _, owner) = scene.one_lane();
        scene.redis().kill(owner).expect("it is killed");
        scene.wait_for_more(&lanes);
        scene.redis().start_again(owner).expect("it starts again");
        scene.redis().wait_until_agreed().expect("the nodes agree");
        scene.settle();
    }
    scene.end();
}

/// A node is added and gets a channel: a lane appears. The node is removed again: the lane drains and ends.
fn row_50_lane_comes_and_goes(mode: Mode) {
    let Some(mut scene) = Scene::start(mode, "row_50_lane_comes_and_goes") else { return };
    let before = scene.led();
    let moved = scene.run.random.usize(..scene.channels.len());
    let channel = slot_of(scene.channels[moved].as_bytes());
    let old = scene.redis().owner(channel).expect("it has an owner");
    let new = scene.redis().add_node().expect("a node is added");
    let lane = (1..).find(|lane| !before.contains(lane)).expect("there are many");
    let slot = scene.slot(lane);
    let old_of_lane = scene.redis().owner(slot).expect("it has an owner");
    // While the channel moves from one lane to another, its messages are not owed until a leader listens there. Those
    // of the others are.
    scene.load.owe(moved, false);
    scene.redis().move_slot(slot, new).expect("it moves");
    scene.redis().move_slot(channel, new).expect("it moves");
    wait_until("a leader of the new lane", || scene.led().contains(&lane).then_some(()));
    scene.settle();
    scene.wait_for_more(&BTreeSet::from([lane]));
    let lanes = scene.led();
    scene.load.owe(moved, true);
    scene.wait_for_more(&BTreeSet::from([lane]));
    scene.load.owe(moved, false);
    scene.redis().move_slot(channel, old).expect("it moves back");
    scene.redis().move_slot(slot, old_of_lane).expect("it moves back");
    scene.redis().remove_node(new).expect("the node is removed");
    wait_until("the lane to drain", || (!scene.led().contains(&lane)).then_some(()));
    scene.settle();
    scene.wait_for_more(&before);
    scene.load.owe(moved, true);
    scene.wait_for_more(&before);
    scene.run.say(format_args!("lanes {before:?}, then {lanes:?}"));
    scene.end();
}

/// The slot of a lane moves to a node that has another lane: one of the two listens there from now on, and the node
/// that it left gets a lane. Channels change their lanes, which dispatchers notice one after the other.
fn row_50_slot_of_a_lane_moves(mode: Mode) {
    let Some(mut scene) = Scene::start(mode, "row_50_slot_of_a_lane_moves") else { return };
    for _ in 0..scene.run.scale(1, 12) {
        let (lanes, slot, from) = scene.one_lane();
        let others = scene.redis().primaries().expect("primaries").into_iter().filter(|other| *other != from);
        let others: Vec<usize> = others.collect();
        (0..PRIMARIES).for_each(|channel| scene.load.owe(channel, false));
        let to = others[scene.run.random.usize(..others.len())];
        scene.redis().move_slot(slot, to).expect("it moves");
        wait_until("another lane", || scene.led().iter().any(|lane| !lanes.contains(lane)).then_some(()));
        scene.wait_for_busy(PRIMARIES);
        scene.settle();
        scene.wait_for_busy(PRIMARIES);
        (0..PRIMARIES).for_each(|channel| scene.load.owe(channel, true));
        scene.wait_for_busy(PRIMARIES);
    }
    scene.end();
}

in_both_modes! {
    row_50_leader_of_lanes_killed_and_paused,
    row_50_node_of_a_lane_killed,
    row_50_lane_comes_and_goes,
    row_50_slot_of_a_lane_moves,
}
