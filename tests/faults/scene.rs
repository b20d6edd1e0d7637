//! A group on a Redis Cluster under load, for the rows about it.
//!
//! Messages are published by `oncecast-publisher`, which knows where the dispatchers are subscribed, and judged by the
//! audit of its ids. A message that reached no subscriber on the publisher's node while the keys moved may have reached
//! one on another node: it may be recorded, but not twice.

use std::path::PathBuf;
use std::time::Duration;

use oncecast::lab::folder::PrivateFolder;
use oncecast::lab::{ChildProcess, Cluster, RedisCluster};
use oncecast::ledger::{Keys, slot_of};
use oncecast::process::scheduling::Scheduling;
use oncecast::programs::audit::settings::AuditConfig;
use oncecast::programs::audit::{AuditReport, audit};
use oncecast::programs::common::CommonConfig;
use oncecast::programs::patience::PATIENCE;

use crate::mode::Mode;
use crate::run::Run;
use crate::slow_bus::SlowBus;
use crate::support::{DEADLINE, logs, wait_until};

/// How long results may take to come again after a node was lost: it is noticed after 1.5 s, and then replaced.
pub const RESUME_LIMIT: Duration = Duration::from_secs(20);
/// How long what was published may take to be done.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(60);
/// The instant in which a node is killed or paused, as a part of a second.
const AN_INSTANT: u64 = 20;
/// A node's own bus port, above its port.
const BUS_PORT_OFFSET: u16 = 10_000;
/// How late messages of a slow bus arrive: much later than dispatchers have moved.
const BUS_DELAY: Duration = Duration::from_millis(300);

/// A group on a Redis Cluster, and the load on it.
pub struct Scene {
    pub run: Run,
    mode: Mode,
    cluster: Cluster,
    publisher: Option<ChildProcess>,
    folder: PrivateFolder,
    /// How many messages may be lost with killed nodes.
    may_lose: u64,
    /// How many messages may be recorded twice after the pause of a node.
    may_repeat: u64,
}

impl Scene {
    /// Starts everything, and waits until results come.
    pub fn start(mode: Mode, row: &str) -> Scene {
        Scene::start_with(mode, row, "", &[])
    }

    /// The same with more arguments for the dispatchers, separated by spaces, and for the publisher.
    pub fn start_with(mode: Mode, row: &str, dispatchers: &str, publisher: &[&str]) -> Scene {
        let run = Run::in_mode(mode, row);
        let mut options = mode.options(2, 2, &format!("--lease-ttl-ms 1000 {dispatchers}"));
        options.on_redis_cluster();
        options.readiness = true;
        let mut cluster = Cluster::start(options).expect("a cluster starts");
        let folder = PrivateFolder::create("clusters").expect("a folder");
        let mut command = cluster.command("oncecast-publisher").expect("the program is built");
        let rate = run.scale(400, 2_000).to_string();
        command.args(["--rate", &rate, "--id-prefix", "row-"]).arg("--ids-file").arg(folder.path().join("ids"));
        command.args(publisher);
        cluster
            .wait_for(DEADLINE, "a leader, and all to be ready", |cluster, snapshot| {
                (cluster.leader(snapshot).is_some() && cluster.is_ready()).then_some(())
            })
            .expect("all ready");
        let publisher = Some(ChildProcess::spawn("publisher", command).expect("a publisher"));
        let mut scene = Scene { run, mode, cluster, publisher, folder, may_lose: 0, may_repeat: 0 };
        scene.wait_for_more();
        scene
    }

    pub fn redis(&mut self) -> &mut RedisCluster {
        self.cluster.redis_cluster().expect("it is on a Redis Cluster")
    }

    pub fn slot(&self) -> u16 {
        slot_of(self.cluster.keys().pending.as_bytes())
    }

    /// The node with the group's keys.
    pub fn owner(&mut self) -> usize {
        let slot = self.slot();
        self.redis().owner(slot).expect("the slot has an owner")
    }

    /// What the other nodes send to this one arrives late from now on.
    pub fn slow_down_the_bus_to(&mut self, node: usize) -> SlowBus {
        let bus = SlowBus::start(self.redis().node(node).port() + BUS_PORT_OFFSET, BUS_DELAY);
        self.redis().announce_bus_port(node, bus.port()).expect("the nodes agree");
        bus
    }

    /// Kills the node at which messages are published. The last ones it may have counted, and not forwarded.
    pub fn kill_owner(&mut self, owner: usize) {
        self.redis().kill(owner).expect("killed");
        self.may_lose += self.rate() / AN_INSTANT;
    }

    /// Pauses that node. When it goes on, it passes on to the other nodes what it has sent only to its own subscribers.
    pub fn pause_owner(&mut self, owner: usize) {
        self.redis().pause(owner).expect("paused");
        self.may_repeat += self.rate() / AN_INSTANT;
    }

    /// Messages per second.
    fn rate(&self) -> u64 {
        self.run.scale(400, 2_000)
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
    pub fn wait_for_more(&mut self) {
        let before = wait_until("Redis to say how many results there are", || self.recorded());
        let more = self.run.scale(200, 2_000);
        oncecast::lab::wait_until(RESUME_LIMIT, "more results", || {
            self.cluster.must_run()?;
            Ok(self.recorded().filter(|now| *now >= before + more).map(drop))
        })
        .expect("results come again");
    }

    /// Ends the load, waits until all is done, and fails unless each owed message is recorded and none twice.
    pub fn end(mut self) {
        let mut publisher = self.publisher.take().expect("it ends once");
        let status = publisher.stop(DEADLINE).expect("the publisher ends");
        let summary = publisher.stdout().all().pop();
        let summary = summary.unwrap_or_else(|| panic!("{}", publisher.failure(format_args!("ended with {status}"))));
        let number = |name: &str| -> u64 {
            let word = summary.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            word.and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("{name} in {summary}"))
        };
        let (published, unknown) = (number("published"), number("unknown"));
        let _ = oncecast::lab::wait_until(DRAIN_LIMIT, "the drain", || {
            let pending = self.cluster.view().snapshot()?.pending;
            Ok((pending == 0 && self.recorded().is_some_and(|recorded| recorded >= published)).then_some(()))
        });
        let report = audit_of(&self.cluster, self.mode, self.folder.path().join("ids"));
        let recorded = report.distinct;
        self.run
            .say(format_args!("{published} published, {unknown} unknown, {recorded} recorded, {:?} lost", report.lost));
        let foreign = report.foreign.unwrap_or_default();
        let lost = report.lost.expect("the ids are known");
        let sound =
            lost <= self.may_lose && report.twice <= self.may_repeat && report.pending == 0 && foreign <= unknown;
        assert!(sound, "{report}\n{summary}\ngaps {:?}", self.cluster.view().snapshot().map(|seen| seen.gaps));
    }
}

/// The keys of a cluster's group in this mode.
pub fn keys_of(cluster: &Cluster, mode: Mode) -> Keys {
    if mode == Mode::Stream { cluster.keys().with_stream(&cluster.stream()) } else { cluster.keys() }
}

/// The audit of a group, over all its lanes. `ids` has the ids that are owed.
pub fn audit_of(cluster: &Cluster, mode: Mode, ids: PathBuf) -> AuditReport {
    let common = CommonConfig {
        redis: cluster.server(),
        keys: keys_of(cluster, mode),
        lane: None,
        log_level: log::LevelFilter::Warn,
        metrics: None,
        scheduling: Scheduling::Normal,
    };
    let (ids, id_field) = (Some(ids), "message_id".to_owned());
    audit(&AuditConfig { common, expect: None, ids, json: false, id_field, patience: PATIENCE }).expect("an audit")
}

impl Drop for Scene {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for node in self.cluster.running() {
            if let Ok(process) = self.cluster.process(node) {
                logs::show(process);
            }
        }
        self.publisher.iter().for_each(logs::show);
        let nodes = self.cluster.redis_cluster().expect("it is on a Redis Cluster");
        for number in 0..nodes.len() {
            if let Some(process) = nodes.node(number).process() {
                logs::show_as(&format!("node {number}"), process);
            }
        }
    }
}
