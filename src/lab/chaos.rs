//! `oncecast chaos`: an [experiment](crate::lab::experiment) with faults drawn from a seed. Its consumers keep a
//! [journal](crate::lab::journal), so that handler runs are counted across every kill; those that run or are a program
//! of the user's keep none. With `--deliver stream` [workers](crate::lab::stream_workers) take the place of consumers.

use self::report::ChaosReport;
use self::settings::{ChaosConfig, Worker};
use super::cluster::{ClusterOptions, ConsumerProgram};
use super::console::{Console, Tone};
use super::experiment::{Experiment, FIRST_RESULT_LIMIT};
use super::folder::PrivateFolder;
use super::journal;
use super::lanes::channels_of_nodes;
use super::programs::Programs;
use super::redis::RedisOptions;
use super::settings::Deliver;
use crate::base::error::Result;
use crate::base::shutdown::shutdown_channel;
use crate::process::log;

mod chart;
pub mod consumer;
mod page;
mod report;
pub mod settings;

/// Runs the experiment with the programs in the running program's folder. Returns the exit code.
pub fn run(config: &ChaosConfig) -> Result<u8> {
    let _log = log::init(config.log_level, "oncecast", "chaos")?;
    let (handle, requests) = shutdown_channel();
    handle.on_signals()?;
    let mut console = Console::stdout(handle);
    let name = console.paint(Tone::Strong, "oncecast chaos");
    console.line("");
    console.line(&format!("  {name}  seed {}", config.plan.seed));
    if let Some(folder) = &config.report {
        // Before the run, so that a folder that can't be used is noticed at once.
        page::make_folder(folder)?;
    }
    let journals = PrivateFolder::create("journals")?;
    let folder = journals.path().display().to_string();
    let mut experiment = Experiment {
        cluster: ClusterOptions {
            redis: RedisOptions { program: config.redis_server.clone(), ..RedisOptions::default() },
            dispatchers: config.dispatchers,
            consumers: config.consumers,
            consumer_program: match &config.worker {
                Worker::Stamp => ConsumerProgram::Ours {
                    name: "oncecast".to_owned(),
                    arguments: ["chaos-consumer", "--journals", &folder].map(str::to_owned).to_vec(),
                },
                Worker::Exec(_) => ConsumerProgram::default(),
                Worker::Commands(commands) => ConsumerProgram::Commands(commands.clone()),
            },
            handler_args: match &config.worker {
                Worker::Exec(handler) => handler.arguments(),
                Worker::Stamp | Worker::Commands(_) => Vec::new(),
            },
            ..ClusterOptions::new(Programs::beside_this_one()?)
        },
        rate: config.rate,
        batch: config.batch,
        channels: config.channels,
        sharded: None,
        workers: (config.deliver == Deliver::Stream).then_some(config.consumers),
        duration: config.plan.duration,
        first_result_limit: FIRST_RESULT_LIMIT,
        faults: config.plan.draw(),
        id_prefix: "chaos-",
        log_level: config.log_level,
    };
    if config.cluster {
        experiment.cluster.on_redis_cluster();
    }
    if let (true, Some(redis)) = (config.sharded, &experiment.cluster.redis_cluster) {
        experiment.sharded = Some(channels_of_nodes("messages.", redis.primaries));
    }
    let planned = experiment.faults.len();
    let Some(findings) = experiment.run(&mut console, &requests)? else { return console.finish(0) };
    let runs = match config.worker {
        Worker::Stamp => Some(journal::count(journals.path())?),
        Worker::Exec(_) | Worker::Commands(_) => None,
    };
    let report = ChaosReport { config, planned, runs, findings: &findings };
    report.lines(&console).iter().for_each(|line| console.line(line));
    if let Some(folder) = &config.report {
        let written = page::write(folder, &report)?;
        console.line(&format!("  {}", written.display()));
        console.line("");
    }
    console.finish(findings.audit.exit_code())
}
