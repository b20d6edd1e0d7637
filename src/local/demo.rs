//! `oncecast demo`: a whole cluster at work, for the eye.
//!
//! Starts a private Redis, 2 dispatchers, 3 consumers and a publisher; kills the leader once with SIGKILL, measures the
//! take-over, starts the killed dispatcher again; waits until all is processed, and has the results audited. All in the
//! caller's thread; `Watch::run` is the main loop. Every process is stopped whatever happens: in order after the run
//! and on Ctrl-C, with SIGKILL after an error, at a second Ctrl-C, or when one does not end in time.

use std::time::Duration;

use self::screen::{Screen, Tone};
use self::verdict::Verdict;
use self::watch::Watch;
use super::{ChildProcess, Cluster, ClusterOptions, Member, Programs, RedisOptions};
use crate::audit::audit;
use crate::config::{AuditConfig, CommonConfig, DemoConfig};
use crate::error::Result;
use crate::shutdown::{ShutdownRequests, shutdown_channel};

mod rates;
pub mod screen;
pub mod takeover;
mod verdict;
mod watch;

const DISPATCHERS: usize = 2;
const CONSUMERS: usize = 3;
const ID_PREFIX: &str = "demo-";

/// How long the cluster may take until it can work.
const READY_LIMIT: Duration = Duration::from_secs(20);
/// How long a process may take to end after SIGTERM.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// How a demonstration ended, if nothing failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every message has one result.
    Clean,
    /// Something was lost or recorded twice.
    Damaged,
    /// It was asked to stop before there was anything to judge.
    Interrupted,
}

impl Outcome {
    /// The program's exit code.
    pub fn exit_code(self) -> u8 {
        if self == Outcome::Damaged { 3 } else { 0 }
    }
}

/// Runs the demonstration on the screen, with the programs beside this one.
pub fn run(config: &DemoConfig) -> Result<Outcome> {
    let (handle, requests) = shutdown_channel();
    handle.on_signals()?;
    let mut screen = Screen::stdout();
    let mut options = ClusterOptions {
        redis: RedisOptions { program: config.redis_server.clone(), ..RedisOptions::default() },
        dispatchers: DISPATCHERS,
        consumers: CONSUMERS,
        ..ClusterOptions::new(Programs::beside_this_one()?)
    };
    let level = ["--log-level".to_owned(), config.log_level.as_str().to_ascii_lowercase()];
    options.dispatcher_args.extend(level.clone());
    options.consumer_args.extend(level);
    screen.line("");
    screen.line(&format!(
        "  {}  one command, one machine, nothing else running",
        screen.paint(Tone::Strong, "oncecast demo")
    ));
    let mut cluster = Cluster::start(options)?;
    if !ready(&mut cluster, &requests)? {
        return interrupted(screen, cluster, None, &requests);
    }
    introduce(&mut screen, &mut cluster, config)?;
    let publisher = publisher(&cluster, config)?;
    let mut watch = Watch::new(config, cluster, publisher, screen, requests);
    let published = watch.run();
    // Before an error is shown, too.
    watch.screen.wipe();
    match published? {
        Some(published) => judge(watch, published),
        None => interrupted(watch.screen, watch.cluster, Some(watch.publisher), &watch.requests),
    }
}

/// Waits until the cluster can work; `false` if it was asked to stop.
fn ready(cluster: &mut Cluster, requests: &ShutdownRequests) -> Result<bool> {
    cluster.wait_for(READY_LIMIT, "a leader that is connected to all consumers", |cluster, snapshot| {
        let ready = cluster.leader(snapshot).is_some() && snapshot.consumers.len() == CONSUMERS;
        if requests.receiver().try_recv().is_ok() { Some(false) } else { ready.then_some(true) }
    })
}

fn introduce(screen: &mut Screen, cluster: &mut Cluster, config: &DemoConfig) -> Result<()> {
    let redis = format!("{} on 127.0.0.1:{}, private", cluster.redis().version()?, cluster.redis().port());
    let rate = format!("{} messages a second for {} s", config.rate, config.duration.as_secs_f64());
    let names = |count: usize, member: fn(usize) -> Member| {
        (0..count).map(|number| member(number).to_string()).collect::<Vec<_>>().join(" ")
    };
    screen.line("");
    for (what, detail) in [
        ("redis", redis),
        ("dispatchers", names(DISPATCHERS, Member::Dispatcher)),
        ("consumers", names(CONSUMERS, Member::Consumer)),
        ("publisher", rate),
    ] {
        screen.line(&format!("  {}{detail}", screen.paint(Tone::Faint, &format!("{what:<14}"))));
    }
    screen.line("");
    Ok(())
}

fn publisher(cluster: &Cluster, config: &DemoConfig) -> Result<ChildProcess> {
    let mut command = cluster.command("oncecast-publisher")?;
    let duration = format!("{}ms", config.duration.as_millis().max(1));
    command.args(["--rate", &config.rate.to_string(), "--duration", &duration, "--id-prefix", ID_PREFIX]);
    command.args(["--log-level", &config.log_level.as_str().to_ascii_lowercase()]);
    ChildProcess::spawn("publisher", command)
}

fn interrupted(
    mut screen: Screen,
    cluster: Cluster,
    publisher: Option<ChildProcess>,
    requests: &ShutdownRequests,
) -> Result<Outcome> {
    screen.line("  stopping, as asked");
    stop(cluster, publisher, requests)?;
    screen.line("  every process has ended; the results were not audited");
    Ok(Outcome::Interrupted)
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

/// Stops the members, so that nothing changes any more, has the results audited, and shows the verdict.
fn judge(watch: Watch, published: u64) -> Result<Outcome> {
    let took = watch.took();
    let Watch { mut cluster, mut screen, config, .. } = watch;
    for member in cluster.running() {
        cluster.stop_member(member, STOP_LIMIT)?;
    }
    let common = CommonConfig {
        redis: cluster.redis().server(),
        keys: cluster.keys(),
        log_level: config.log_level,
        metrics_addr: None,
    };
    let id_field = "message_id".to_owned();
    let report = audit(&AuditConfig { common, expect: Some(published), ids: None, id_field })?;
    cluster.redis().stop()?;
    let verdict = Verdict { published, took, report: &report };
    verdict.lines(&screen).iter().for_each(|line| screen.line(line));
    Ok(if report.is_clean() { Outcome::Clean } else { Outcome::Damaged })
}
