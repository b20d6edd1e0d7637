//! A trial: a whole cluster under load that is struck by faults, until everything is processed and the results are
//! audited. The demonstration is one with a single strike, `oncecast chaos` one with many.
//!
//! All in the caller's thread; `Watch::run` in `trial/watch.rs` is the main loop. Every process is stopped whatever happens:
//! in order after the run and on Ctrl-C, with SIGKILL after an error, at a second Ctrl-C, or when one does not end in
//! time.

use std::time::Duration;

use log::LevelFilter;

use self::screen::{Screen, Tone};
use self::strikes::Struck;
use self::timeline::Timeline;
use self::watch::Watch;
use super::folder::PrivateFolder;
use super::{ChildProcess, Cluster, ClusterOptions, Member};
use crate::base::error::Result;
use crate::base::shutdown::ShutdownRequests;
use crate::programs::audit::settings::AuditConfig;
use crate::programs::audit::{AuditReport, audit};
use crate::programs::common::CommonConfig;

pub mod plan;
pub mod recovery;
pub mod screen;
pub mod strikes;
pub mod timeline;
mod watch;

use self::plan::Strike;

/// How long the cluster may take until it can work.
const READY_LIMIT: Duration = Duration::from_secs(20);
/// How long a process may take to end after SIGTERM.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// What is tried.
#[derive(Clone, Debug)]
pub struct Trial {
    /// The cluster.
    pub cluster: ClusterOptions,
    /// Messages per second.
    pub rate: u64,
    /// Messages in a burst; `None`: evenly spread.
    pub batch: Option<u64>,
    /// How long is published.
    pub duration: Duration,
    /// What happens meanwhile.
    pub strikes: Vec<Strike>,
    /// What each message's id starts with.
    pub id_prefix: &'static str,
    /// What the processes log.
    pub log_level: LevelFilter,
}

/// What was found.
#[derive(Debug)]
pub struct Findings {
    /// Messages that somebody received.
    pub published: u64,
    /// From the first message to the last result.
    pub elapsed: Duration,
    /// What was done to the cluster, and what came of it.
    pub struck: Vec<Struck>,
    /// The counts over time, and the processes' memory.
    pub timeline: Timeline,
    /// What the results say.
    pub audit: AuditReport,
    /// The server's version.
    pub redis: String,
}

impl Trial {
    /// Runs it, showing on the screen how it goes. `None`: it was asked to stop before there was anything to judge.
    pub fn run(mut self, screen: &mut Screen, requests: &ShutdownRequests) -> Result<Option<Findings>> {
        let level = ["--log-level".to_owned(), self.log_level.as_str().to_ascii_lowercase()];
        self.cluster.dispatcher_args.extend(level.clone());
        self.cluster.consumer_args.extend(level);
        self.cluster.readiness = true;
        let mut cluster = Cluster::start(self.cluster.clone())?;
        if !self.wait_until_ready(&mut cluster, requests)? {
            return interrupted(screen, cluster, None, requests);
        }
        self.introduce(screen, &mut cluster)?;
        let folder = PrivateFolder::create("trial")?;
        let before = cluster.view().snapshot_with_publishes()?;
        let publisher = self.publisher(&cluster, &folder)?;
        let mut watch = Watch::new(&self, &before, cluster, publisher, screen, requests);
        let published = watch.run();
        // Before an error is shown, too.
        watch.screen.wipe();
        match published? {
            Some(published) => self.judge(watch, published, &folder).map(Some),
            None => {
                let Watch { cluster, publisher, screen, .. } = watch;
                interrupted(screen, cluster, Some(publisher), requests)
            }
        }
    }

    /// Waits until the cluster can work; `false` if it was asked to stop.
    fn wait_until_ready(&self, cluster: &mut Cluster, requests: &ShutdownRequests) -> Result<bool> {
        cluster.wait_for(READY_LIMIT, "a leader that is connected to all consumers", |cluster, snapshot| {
            let linked = cluster.leader(snapshot).is_some() && snapshot.consumers.len() == cluster.consumers();
            if requests.receiver().try_recv().is_ok() {
                return Some(false);
            }
            (linked && cluster.is_ready()).then_some(true)
        })
    }

    fn introduce(&self, screen: &mut Screen, cluster: &mut Cluster) -> Result<()> {
        let redis = format!("{} on 127.0.0.1:{}, private", cluster.redis().version()?, cluster.redis().port());
        let bursts = self.batch.map_or(String::new(), |batch| format!(", in bursts of {batch}"));
        let rate = format!("{} messages a second for {} s{bursts}", self.rate, self.duration.as_secs_f64());
        let names = |count: usize, member: fn(usize) -> Member| {
            (0..count).map(|number| member(number).to_string()).collect::<Vec<_>>().join(" ")
        };
        screen.line("");
        for (what, detail) in [
            ("redis", redis),
            ("dispatchers", names(self.cluster.dispatchers, Member::Dispatcher)),
            ("consumers", names(self.cluster.consumers, Member::Consumer)),
            ("publisher", rate),
        ] {
            screen.line(&format!("  {}{detail}", screen.paint(Tone::Faint, &format!("{what:<14}"))));
        }
        screen.line("");
        Ok(())
    }

    fn publisher(&self, cluster: &Cluster, folder: &PrivateFolder) -> Result<ChildProcess> {
        let mut command = cluster.command("oncecast-publisher")?;
        let duration = format!("{}ms", self.duration.as_millis().max(1));
        command.args(["--rate", &self.rate.to_string(), "--duration", &duration, "--id-prefix", self.id_prefix]);
        if let Some(batch) = self.batch {
            command.args(["--batch", &batch.to_string()]);
        }
        command.arg("--ids-file").arg(folder.path().join("ids"));
        command.args(["--log-level", &self.log_level.as_str().to_ascii_lowercase()]);
        ChildProcess::spawn("publisher", command)
    }

    /// Stops the members, so that nothing changes any more, and has the results audited.
    fn judge(&self, watch: Watch<'_>, published: u64, folder: &PrivateFolder) -> Result<Findings> {
        let elapsed = watch.elapsed();
        let Watch { mut cluster, strikes, mut timeline, .. } = watch;
        timeline.look_at_memory(&mut cluster);
        for member in cluster.running() {
            cluster.stop_member(member, STOP_LIMIT)?;
        }
        let common = CommonConfig {
            redis: cluster.redis().server(),
            keys: cluster.keys(),
            log_level: self.log_level,
            metrics_addr: None,
        };
        let ids = Some(folder.path().join("ids"));
        let audit = audit(&AuditConfig { common, expect: None, ids, id_field: "message_id".to_owned() })?;
        let redis = cluster.redis().version()?;
        cluster.redis().stop()?;
        Ok(Findings { published, elapsed, struck: strikes.struck(), timeline, audit, redis })
    }
}

fn interrupted(
    screen: &mut Screen,
    cluster: Cluster,
    publisher: Option<ChildProcess>,
    requests: &ShutdownRequests,
) -> Result<Option<Findings>> {
    screen.line("  stopping, as asked");
    stop(cluster, publisher, requests)?;
    screen.line("  every process has ended; the results were not audited");
    Ok(None)
}

/// Stops everything in order; at once if it is asked again.
fn stop(mut cluster: Cluster, publisher: Option<ChildProcess>, requests: &ShutdownRequests) -> Result<()> {
    let at_once = || requests.receiver().try_recv().is_ok();
    if let Some(mut publisher) = publisher {
        publisher.stop(STOP_LIMIT)?;
    }
    for member in cluster.running() {
        if at_once() {
            // Dropping the cluster kills what is left.
            return Ok(());
        }
        cluster.stop_member(member, STOP_LIMIT)?;
    }
    cluster.redis().stop()
}
