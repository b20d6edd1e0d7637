//! `oncecast demo`: shows a whole cluster at work. It is an [experiment](crate::lab::experiment) with one fault: the
//! leader is killed.

use std::time::Duration;

use self::settings::DemoConfig;
use super::cluster::ClusterOptions;
use super::console::{Console, Tone};
use super::experiment::plan::{Fault, PlannedFault, Target};
use super::experiment::{Experiment, FIRST_RESULT_LIMIT};
use super::programs::Programs;
use super::redis::RedisOptions;
use super::settings::Deliver;
use crate::base::error::Result;
use crate::base::shutdown::shutdown_channel;
use crate::process::log;
use crate::programs::consumer::exec::settings::ExecConfig;

pub mod settings;
mod summary;

/// The longest time until the killed leader is restarted.
const OUTAGE: Duration = Duration::from_secs(3);
/// The number of workers with `--deliver stream`.
const WORKERS: usize = 3;

/// Runs the demonstration with the programs in the running program's folder. Returns the exit code.
pub fn run(config: &DemoConfig) -> Result<u8> {
    let _log = log::init(config.log_level, "oncecast", "demo")?;
    let (handle, requests) = shutdown_channel();
    handle.on_signals()?;
    let mut console = Console::stdout(handle);
    let name = console.paint(Tone::Strong, "oncecast demo");
    console.line("");
    console.line(&format!("  {name}  a whole cluster on this machine"));
    let mut experiment = Experiment {
        cluster: ClusterOptions {
            redis: RedisOptions { program: config.redis_server.clone(), ..RedisOptions::default() },
            handler_args: config.handler.as_ref().map_or(Vec::new(), ExecConfig::arguments),
            ..ClusterOptions::new(Programs::beside_this_one()?)
        },
        rate: config.rate,
        batch: None,
        channels: None,
        sharded: None,
        workers: (config.deliver == Deliver::Stream).then_some(WORKERS),
        duration: config.duration,
        first_result_limit: FIRST_RESULT_LIMIT,
        faults: vec![PlannedFault {
            at: config.duration * 2 / 5,
            fault: Fault::Kill,
            target: Target::Leader,
            outage: (config.duration / 5).min(OUTAGE),
            pick: 0,
        }],
        id_prefix: "demo-",
        log_level: config.log_level,
    };
    if config.cluster {
        experiment.cluster.on_redis_cluster();
    }
    let Some(findings) = experiment.run(&mut console, &requests)? else { return console.finish(0) };
    summary::lines(&findings, &console).iter().for_each(|line| console.line(line));
    console.finish(findings.audit.exit_code())
}
