//! Rows about a Redis Cluster: the group's slot moves under load, its node is lost or replaced, nodes come and go.
//!
//! Messages are published by `oncecast-publisher`, which knows where the dispatchers are subscribed, and judged by the
//! audit of its ids. A message that reached no subscriber on the publisher's node while the keys moved may have reached
//! one on another node: it may be recorded, but not twice.

use std::time::Duration;

use oncecast::lab::folder::PrivateFolder;
use oncecast::lab::{ChildProcess, Cluster, RedisCluster};
use oncecast::ledger::slot_of;
use oncecast::programs::audit::settings::AuditConfig;
use oncecast::programs::audit::{AuditReport, audit};
use oncecast::programs::common::CommonConfig;
use oncecast::programs::patience::PATIENCE;

use crate::mode::{Mode, in_both_modes};
use crate::run::Run;
use crate::support::{DEADLINE, wait_until};

/// How long results may take to come again after a node was lost: it is noticed after 1.5 s, and then replaced.
const RESUME_LIMIT: Duration = Duration::from_secs(20);
/// How long what was published may take to be done.
const DRAIN_LIMIT: Duration = Duration::from_secs(60);

/// A group on a Redis Cluster, and the load on it.
struct Scene {
    run: Run,
    mode: Mode,
    cluster: Cluster,
    publisher: Option<ChildProcess>,
    folder: PrivateFolder,
}

impl Scene {
    /// Starts everything, and waits until results come.
    fn start(mode: Mode, row: &str) -> Scene {
        let run = Run::in_mode(mode, row);
        let mut options = mode.options(2, 2, "--lease-ttl-ms 1000");
        options.on_redis_cluster();
        options.readiness = true;
        let mut cluster = Cluster::start(options).expect("a cluster starts");
        cluster.wait_for_leader(DEADLINE).expect("a leader");
        cluster
            .wait_for(DEADLINE, "all to be ready", |cluster, _| cluster.is_ready().then_some(()))
            .expect("all ready");
        let folder = PrivateFolder::create("clusters").expect("a folder");
        let mut command = cluster.command("oncecast-publisher").expect("the program is built");
        let rate = run.scale(400, 2_000).to_string();
        command.args(["--rate", &rate, "--id-prefix", "row-"]).arg("--ids-file").arg(folder.path().join("ids"));
        let publisher = Some(ChildProcess::spawn("publisher", command).expect("a publisher"));
        let mut scene = Scene { run, mode, cluster, publisher, folder };
        scene.wait_for_more();
        scene
    }

    fn redis(&mut self) -> &mut RedisCluster {
        self.cluster.redis_cluster().expect("it is on a Redis Cluster")
    }

    fn slot(&self) -> u16 {
        slot_of(self.cluster.keys().pending.as_bytes())
    }

    /// The node with the group's keys.
    fn owner(&mut self) -> usize {
        let slot = self.slot();
        self.redis().owner(slot).expect("the slot has an owner")
    }

    /// How many results there are, or entries in the stream; `None` if Redis does not say.
    fn recorded(&mut self) -> Option<u64> {
        let mut view = self.cluster.view();
        match self.mode {
            Mode::Stream => view.count_entries(&self.cluster.stream()).ok()?,
            _ => Some(view.snapshot().ok()?.processed),
        }
    }

    /// Waits until some more results have come. They count from the first answer: a lost node may have lost the last.
    fn wait_for_more(&mut self) {
        let before = wait_until("Redis to say how many results there are", || self.recorded());
        let more = self.run.scale(200, 2_000);
        oncecast::lab::wait_until(RESUME_LIMIT, "more results", || {
            self.cluster.must_run()?;
            Ok(self.recorded().filter(|now| *now >= before + more).map(drop))
        })
        .expect("results come again");
    }

    /// Ends the load, waits until all is done, and fails unless each owed message is recorded and none twice.
    fn end(mut self) {
        let mut publisher = self.publisher.take().expect("it ends once");
        publisher.stop(DEADLINE).expect("the publisher ends");
        let summary = publisher.stdout().all().pop().expect("a summary");
        let number = |name: &str| -> u64 {
            let word = summary.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            word.and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("{name} in {summary}"))
        };
        let (published, unknown) = (number("published"), number("unknown"));
        let _ = oncecast::lab::wait_until(DRAIN_LIMIT, "the drain", || {
            let pending = self.cluster.view().snapshot()?.pending;
            Ok((pending == 0 && self.recorded().is_some_and(|recorded| recorded >= published)).then_some(()))
        });
        let report = self.audit();
        self.run.say(format_args!("{published} published, {unknown} unknown, {} recorded", report.distinct));
        let foreign = report.foreign.unwrap_or_default();
        let sound = report.lost == Some(0) && report.twice == 0 && report.pending == 0 && foreign <= unknown;
        assert!(sound, "{report}\n{summary}\ngaps {:?}", self.cluster.view().snapshot().map(|seen| seen.gaps));
    }

    fn audit(&self) -> AuditReport {
        let keys = self.cluster.keys();
        let keys = if self.mode == Mode::Stream { keys.with_stream(&self.cluster.stream()) } else { keys };
        let common = CommonConfig {
            redis: self.cluster.server(),
            keys,
            lane: None,
            log_level: log::LevelFilter::Warn,
            metrics: None,
        };
        let ids = Some(self.folder.path().join("ids"));
        let id_field = "message_id".to_owned();
        audit(&AuditConfig { common, expect: None, ids, id_field, patience: PATIENCE }).expect("an audit")
    }
}

/// The slot moves to each of the other primaries, under load.
fn row_48_slot_moves(mode: Mode) {
    let mut scene = Scene::start(mode, "row_48_slot_moves");
    for _ in 0..scene.run.scale(3, 12) {
        let (slot, owner) = (scene.slot(), scene.owner());
        let others: Vec<usize> =
            scene.redis().primaries().expect("primaries").into_iter().filter(|other| *other != owner).collect();
        let to = others[scene.run.random.usize(..others.len())];
        scene.redis().move_slot(slot, to).expect("the slot moves");
        scene.wait_for_more();
    }
    scene.end();
}

/// The move takes seconds: some keys are at the new node, others still at the old one, and no step can be taken.
fn row_48_slot_moves_slowly(mode: Mode) {
    let mut scene = Scene::start(mode, "row_48_slot_moves_slowly");
    let (slot, from) = (scene.slot(), scene.owner());
    let to = scene.redis().primaries().expect("primaries").into_iter().find(|other| *other != from).expect("another");
    scene.redis().begin_move(slot, from, to).expect("the move begins");
    // While it lasts, the keys that do not exist are refused, too.
    for _ in 0..3 {
        scene.redis().move_keys(slot, from, to, 2).expect("keys move");
        std::thread::sleep(Duration::from_millis(scene.run.random.u64(300..1_000)));
    }
    while scene.redis().move_keys(slot, from, to, 10).expect("keys move") > 0 {}
    scene.redis().finish_move(slot, from, to).expect("the move ends");
    scene.wait_for_more();
    scene.end();
}

/// A node is added and gets the slot, and is removed again.
fn row_48_node_added_and_removed(mode: Mode) {
    let mut scene = Scene::start(mode, "row_48_node_added_and_removed");
    let (slot, before) = (scene.slot(), scene.owner());
    let new = scene.redis().add_node().expect("a node is added");
    scene.redis().move_slot(slot, new).expect("the slot moves there");
    scene.wait_for_more();
    scene.redis().move_slot(slot, before).expect("the slot moves back");
    scene.redis().remove_node(new).expect("the node is removed");
    scene.wait_for_more();
    scene.end();
}

/// The node is killed, its replica takes its place, and it comes back as a replica.
fn row_49_node_killed(mode: Mode) {
    let mut scene = Scene::start(mode, "row_49_node_killed");
    for _ in 0..scene.run.scale(2, 6) {
        let owner = scene.owner();
        scene.redis().kill(owner).expect("killed");
        scene.wait_for_more();
        scene.redis().start_again(owner).expect("it starts again");
        scene.redis().wait_until_agreed().expect("the nodes agree");
        scene.wait_for_more();
    }
    scene.end();
}

/// The node hangs, its replica takes its place, and then it goes on.
fn row_49_node_paused(mode: Mode) {
    let mut scene = Scene::start(mode, "row_49_node_paused");
    let owner = scene.owner();
    scene.redis().pause(owner).expect("paused");
    scene.wait_for_more();
    scene.redis().resume(owner).expect("resumed");
    scene.redis().wait_until_agreed().expect("the nodes agree");
    scene.wait_for_more();
    scene.end();
}

/// A replica takes the place of a node that works.
fn row_49_failover_by_hand(mode: Mode) {
    let mut scene = Scene::start(mode, "row_49_failover_by_hand");
    for _ in 0..scene.run.scale(3, 12) {
        let owner = scene.owner();
        let replica = scene.redis().replica_of(owner).expect("a replica");
        scene.redis().fail_over(replica).expect("it takes over");
        scene.wait_for_more();
    }
    scene.end();
}

/// Node and replica are lost: the cluster is down until the node is back.
fn row_49_cluster_down(mode: Mode) {
    let mut scene = Scene::start(mode, "row_49_cluster_down");
    let owner = scene.owner();
    let replica = scene.redis().replica_of(owner).expect("a replica");
    scene.redis().kill(replica).expect("killed");
    scene.redis().kill(owner).expect("killed");
    std::thread::sleep(Duration::from_millis(scene.run.random.u64(2_000..4_000)));
    scene.redis().start_again(owner).expect("it starts again");
    scene.wait_for_more();
    scene.redis().start_again(replica).expect("it starts again");
    scene.redis().wait_until_agreed().expect("the nodes agree");
    scene.end();
}

in_both_modes! {
    row_48_slot_moves,
    row_48_slot_moves_slowly,
    row_48_node_added_and_removed,
    row_49_node_killed,
    row_49_node_paused,
    row_49_failover_by_hand,
    row_49_cluster_down,
}
