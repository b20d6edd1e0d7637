//! An experiment: a whole cluster under load, with faults injected, until everything is processed and the results are
//! audited. `oncecast demo` runs one with a single fault, `oncecast chaos` one with many.
//!
//! Everything runs in the caller's thread. `Run::drive` is the main loop. Every process is stopped in any case. After
//! the run and on Ctrl-C they are stopped in order; after an error, at a second Ctrl-C, or when a process does not exit
//! in time, with SIGKILL.

use std::time::Duration;

use log::LevelFilter;

use self::injector::InjectedFault;
use self::plan::PlannedFault;
use self::publishers::{Load, Publishers};
use self::run::{Run, RunPlan, Started};
use self::timeline::Timeline;
use self::watch::GroupWatch;
use super::cluster::{Cluster, ClusterOptions, Node};
use super::console::{Console, Tone};
use super::folder::PrivateFolder;
use super::stream_workers::{ReadEntries, StreamWorkers};
use super::wait::wait_until;
use crate::base::error::{Error, Result};
use crate::base::shutdown::ShutdownRequests;
use crate::process::scheduling::Scheduling;
use crate::programs::audit::settings::AuditConfig;
use crate::programs::audit::{AuditReport, audit};
use crate::programs::common::CommonConfig;
use crate::programs::patience::PATIENCE;

pub mod injector;
pub mod plan;
mod publishers;
mod recoveries;
pub mod recovery;
mod run;
pub mod timeline;
mod watch;

/// How long the cluster may take until it is ready.
const READY_LIMIT: Duration = Duration::from_secs(20);
/// How long the first result may take, since the first message was published. More than a handler needs to start.
pub const FIRST_RESULT_LIMIT: Duration = Duration::from_secs(30);
/// How long a process may take to exit after SIGTERM.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// The cluster, its load, and the faults.
#[derive(Clone, Debug)]
pub struct Experiment {
    /// The cluster.
    pub cluster: ClusterOptions,
    /// Messages per second.
    pub rate: u64,
    /// Messages in a burst; with `None` they are spread evenly.
    pub batch: Option<u64>,
    /// Over how many channels they are spread, heard through one pattern; `None`: one channel, heard by its name.
    pub channels: Option<u64>,
    /// The sharded channels that they are published on instead, one on each primary of a Redis Cluster.
    pub sharded: Option<Vec<String>>,
    /// How many workers read the stream that the dispatchers then add messages to, in place of consumers. `None`: the
    /// cluster's consumers get the messages.
    pub workers: Option<usize>,
    /// How long messages are published.
    pub duration: Duration,
    /// How long the first result may take, usually [`FIRST_RESULT_LIMIT`].
    pub first_result_limit: Duration,
    /// The faults to inject meanwhile.
    pub faults: Vec<PlannedFault>,
    /// The beginning of each message's id.
    pub id_prefix: &'static str,
    /// What the processes log.
    pub log_level: LevelFilter,
}

/// The findings of an experiment.
#[derive(Debug)]
pub struct Findings {
    /// Messages that at least one subscriber received.
    pub published: u64,
    /// From the first message to the last result.
    pub elapsed: Duration,
    /// The faults that were injected, and how long each took to recover from.
    pub faults: Vec<InjectedFault>,
    /// The counts over time, and the memory of the processes.
    pub timeline: Timeline,
    /// The audit of the results, or of the stream's entries.
    pub audit: AuditReport,
    /// How much the workers have read, if there were any.
    pub read: Option<ReadEntries>,
    /// The server's version.
    pub redis: String,
}

impl Findings {
    /// Recorded messages of which the publisher does not know whether they were published, because the reply was lost.
    /// They explain why more may be processed than published.
    pub fn unknown(&self) -> u64 {
        self.audit.foreign.unwrap_or(0)
    }
}

impl Experiment {
    /// Runs the experiment and shows its progress. Returns `None` if it was asked to stop before the results could be
    /// audited.
    pub fn run(mut self, console: &mut Console, requests: &ShutdownRequests) -> Result<Option<Findings>> {
        self.cluster.log_level = Some(self.log_level);
        self.cluster.readiness = true;
        if self.channels.is_some() {
            self.cluster.listen_to_many();
        }
        if let Some(channels) = &self.sharded {
            self.cluster.listen_to_sharded(channels);
        }
        if self.workers.is_some() {
            self.cluster.deliver_to_stream();
        }
        let mut cluster = Cluster::start(self.cluster.clone())?;
        let mut watch = GroupWatch::new(&cluster, self.sharded.as_ref().map(Vec::len));
        if !wait_until_ready(&mut cluster, &mut watch, requests)? {
            return interrupted(console, cluster, None, requests);
        }
        let workers = self.workers.map(|count| StreamWorkers::start(&mut cluster, count)).transpose()?;
        self.introduce(console, &cluster, workers.as_ref())?;
        let folder = PrivateFolder::create("experiment")?;
        let before = watch.read(None)?.sum;
        let load = Load {
            rate: self.rate,
            batch: self.batch,
            channels: self.channels,
            sharded: self.sharded.as_deref(),
            duration: self.duration,
            id_prefix: self.id_prefix,
            log_level: self.log_level,
        };
        let publishers = Publishers::start(&load, &cluster, &folder)?;
        let plan = RunPlan {
            duration: self.duration,
            first_result_limit: self.first_result_limit,
            faults: std::mem::take(&mut self.faults),
        };
        let started = Started { publishers, workers, watch, cluster };
        let mut run = Run::new(plan, &before, started, console, requests);
        let published = run.drive();
        // Cleared before an error is shown, too.
        run.console.clear();
        match published? {
            Some(published) => self.judge(run, published, &folder).map(Some),
            None => {
                let Run { cluster, publishers, console, .. } = run;
                interrupted(console, cluster, Some(publishers), requests)
            }
        }
    }

    fn introduce(&self, console: &mut Console, cluster: &Cluster, workers: Option<&StreamWorkers>) -> Result<()> {
        let redis = cluster.server_description()?;
        let channels = match (&self.sharded, self.channels) {
            (Some(channels), _) => format!(", on {} sharded channels, one on each primary", channels.len()),
            (None, Some(channels)) => format!(", on {channels} channels"),
            (None, None) => String::new(),
        };
        let bursts = self.batch.map_or(String::new(), |batch| format!(", in bursts of {batch}"));
        let rate = format!("{} messages per second for {} s{bursts}{channels}", self.rate, self.duration.as_secs_f64());
        let names = |count: usize, node: fn(usize) -> Node| {
            (0..count).map(|number| node(number).to_string()).collect::<Vec<_>>().join(" ")
        };
        console.line("");
        for (what, detail) in [
            ("redis", redis),
            ("dispatchers", names(self.cluster.dispatchers, Node::Dispatcher)),
            match workers {
                None => ("consumers", names(self.cluster.consumers, Node::Consumer)),
                Some(workers) => {
                    let (names, key) = (workers.names().join(" "), workers.key());
                    ("workers", format!("{names}: any Streams client, here XREADGROUP and XACK on {key}"))
                }
            },
            ("publisher", rate),
        ] {
            console.line(&format!("  {}{detail}", console.paint(Tone::Faint, &format!("{what:<14}"))));
        }
        console.line("");
        Ok(())
    }

    /// Stops the nodes, so that nothing changes any more, and audits the results.
    fn judge(&self, run: Run<'_>, published: u64, folder: &PrivateFolder) -> Result<Findings> {
        let elapsed = run.elapsed();
        let Run { mut cluster, injector, mut timeline, workers, publishers, .. } = run;
        // A node that was started again at the end may not handle signals yet.
        cluster.wait_for(READY_LIMIT, "every node to be ready", |cluster, _| cluster.is_ready().then_some(()))?;
        timeline.sample_memory(&mut cluster);
        for node in cluster.running() {
            cluster.stop_node(node, STOP_LIMIT)?;
        }
        let common = CommonConfig {
            redis: cluster.server(),
            keys: workers.as_ref().map_or(cluster.keys(), |workers| cluster.keys().with_stream(workers.key())),
            lane: None,
            log_level: self.log_level,
            metrics: None,
            scheduling: Scheduling::Normal,
        };
        let ids = Some(publishers.ids(folder)?);
        let id_field = "message_id".to_owned();
        let audit = audit(&AuditConfig { common, expect: None, ids, json: false, id_field, patience: PATIENCE })?;
        let redis = cluster.server_version()?;
        let read = workers.as_ref().map(StreamWorkers::read);
        if let Some(ReadEntries { entries, .. }) = read.filter(|read| read.entries != audit.entries) {
            return Err(Error::Failed(format!("the workers have read {entries} of {} entries", audit.entries)));
        }
        drop(workers);
        cluster.stop_server()?;
        Ok(Findings { published, elapsed, faults: injector.injected(), timeline, audit, read, redis })
    }
}

/// Waits until the cluster is ready; `false` if asked to stop.
fn wait_until_ready(cluster: &mut Cluster, watch: &mut GroupWatch, requests: &ShutdownRequests) -> Result<bool> {
    wait_until(READY_LIMIT, "a leader of each lane that is connected to all consumers", || {
        if requests.receiver().try_recv().is_ok() {
            return Ok(Some(false));
        }
        cluster.must_run()?;
        // The server may not answer yet.
        let whole = watch.read(None).is_ok_and(|seen| seen.is_whole(cluster));
        Ok((whole && cluster.is_ready()).then_some(true))
    })
}

fn interrupted(
    console: &mut Console,
    cluster: Cluster,
    publishers: Option<Publishers>,
    requests: &ShutdownRequests,
) -> Result<Option<Findings>> {
    console.line("  interrupted: stopping");
    stop(cluster, publishers, requests)?;
    console.line("  every process has ended; the results were not audited");
    Ok(None)
}

/// Stops everything in order, or at once after another request to stop.
fn stop(mut cluster: Cluster, publishers: Option<Publishers>, requests: &ShutdownRequests) -> Result<()> {
    let at_once = || requests.receiver().try_recv().is_ok();
    if let Some(mut publishers) = publishers {
        publishers.stop(STOP_LIMIT)?;
    }
    for node in cluster.running() {
        if at_once() {
            // Dropping the cluster kills what is left.
            return Ok(());
        }
        cluster.stop_node(node, STOP_LIMIT)?;
    }
    cluster.stop_server()
}
