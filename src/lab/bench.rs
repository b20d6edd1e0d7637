//! `oncecast bench`: compares Oncecast with a native Redis Streams group and a bare relay.
//!
//! Each run has a private Redis and processes of its own and gets its load from the same program. After each run the
//! results are compared with the messages sent. `measure` shows the order: throughput, latency, sweep, then lanes, each
//! in a file of its own; the first three start a `Rig` and measure one load on it with `run::measure`. One thread
//! starts the processes and waits; the CPU time that it uses is negligible.
//!
//! Limitations: everything runs on one machine, so all processes compete for its cores, and there is no network delay.
//! On an otherwise idle machine the figures show the cost of a message and the ratio between the contenders.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};

use self::context::{Abort, Context};
use self::settings::BenchConfig;
use super::console::{Console, Tone};
use super::numbers::grouped;
use crate::base::error::{Error, Result};
use crate::base::shutdown::shutdown_channel;
use crate::process::log;

mod chart;
mod contender;
mod context;
mod cpu;
mod histogram;
mod lanes;
mod latency;
mod processes;
mod rig;
mod run;
pub mod settings;
mod setup;
mod sweep;
mod throughput;
mod verify;

pub use self::processes::run as run_process;
pub use self::processes::settings as process_settings;

/// The exit code if a message was lost or a result is wrong.
const VIOLATION_EXIT_CODE: u8 = 3;

/// Measures, and prints and writes the figures. Returns the exit code.
pub fn run(config: &BenchConfig) -> Result<u8> {
    let _log = log::init(config.log_level, "oncecast", "bench")?;
    let (handle, requests) = shutdown_channel();
    handle.on_signals()?;
    // Created before the measurements, so that a path that can't be written is noticed at once.
    let json = config.json.as_deref().map(Output::create).transpose()?;
    let svg = config.svg.as_deref().map(Output::create).transpose()?;
    let mut context = Context { config, console: Console::stdout(handle), requests };
    let code = match measure(&mut context) {
        Ok(figures) => {
            json.map(|file| file.write(&format!("{:#}\n", figures.json()))).transpose()?;
            svg.map(|file| file.write(&chart::svg(&figures.title, &figures.charts()))).transpose()?;
            0
        }
        Err(Abort::Interrupted) => {
            context.line("interrupted; every process has ended");
            0
        }
        Err(Abort::Violation(violation)) => {
            let violation = context.console.paint(Tone::Bad, &violation);
            context.line(&violation);
            VIOLATION_EXIT_CODE
        }
        Err(Abort::Failed(error)) => return Err(error),
    };
    context.console.finish(code)
}

/// Everything that was measured.
struct Figures {
    title: String,
    machine: Value,
    throughput: Option<throughput::Throughput>,
    latency: Option<latency::Latency>,
    sweep: Option<sweep::Sweep>,
    lanes: Option<lanes::Lanes>,
}

impl Figures {
    fn json(&self) -> Value {
        json!({
            "machine": self.machine,
            "throughput": self.throughput.as_ref().map(throughput::Throughput::json),
            "latency": self.latency.as_ref().map(latency::Latency::json),
            "sweep": self.sweep.as_ref().map(sweep::Sweep::json),
            "lanes": self.lanes.as_ref().map(lanes::Lanes::json),
        })
    }

    fn charts(&self) -> Vec<chart::Group> {
        let throughput = self.throughput.iter().flat_map(throughput::Throughput::charts);
        let latency = self.latency.iter().flat_map(latency::Latency::charts);
        let sweep = self.sweep.iter().flat_map(sweep::Sweep::charts);
        let lanes = self.lanes.iter().flat_map(lanes::Lanes::charts);
        throughput.chain(latency).chain(sweep).chain(lanes).collect()
    }
}

fn measure(context: &mut Context<'_>) -> Result<Figures, Abort> {
    let config = context.config;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let redis = rig::redis_version(config)?;
    let file = if config.append_only { "with an append-only file" } else { "without an append-only file" };
    let threads = if config.io_threads > 1 { format!(" and {} I/O threads", config.io_threads) } else { String::new() };
    let title = format!("{redis} {file}{threads}, {cores} cores, messages of {} bytes", grouped(config.payload as u64));
    let name = context.console.paint(Tone::Strong, "oncecast bench");
    context.line("");
    context.line(&format!("{name}  {title}"));
    context.line("");
    if cfg!(debug_assertions) {
        context.line("This is a debug build: the figures are meaningless.");
    }
    Ok(Figures {
        title,
        machine: machine(config, &redis, cores),
        throughput: config.measured.throughput.then(|| throughput::measure(context)).transpose()?,
        latency: config.measured.latency.then(|| latency::measure(context)).transpose()?,
        sweep: config.measured.sweep.then(|| sweep::measure(context)).transpose()?,
        lanes: (!config.lanes.is_empty()).then(|| lanes::measure(context)).transpose()?,
    })
}

fn machine(config: &BenchConfig, redis: &str, cores: usize) -> Value {
    json!({
        "oncecast": env!("CARGO_PKG_VERSION"),
        "redis": redis,
        "append_only": config.append_only,
        "io_threads": config.io_threads,
        "scheduling": config.scheduling.name(),
        "cores": cores,
        "debug_build": cfg!(debug_assertions),
        "settings": {
            "payload_bytes": config.payload,
            "rounds": config.rounds,
            "messages": config.messages,
            "window": config.window,
            "worker_batch": config.worker_batch,
            "time_s": config.time.as_secs_f64(),
        },
    })
}

/// A file that is written at the end.
struct Output<'a> {
    path: &'a Path,
    file: File,
}

impl Output<'_> {
    fn create(path: &Path) -> Result<Output<'_>> {
        let file = File::create(path).map_err(Error::io(format!("creating {}", path.display())))?;
        Ok(Output { path, file })
    }

    fn write(mut self, text: &str) -> Result<()> {
        self.file.write_all(text.as_bytes()).map_err(Error::io(format!("writing {}", self.path.display())))
    }
}
