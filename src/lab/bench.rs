//! `oncecast bench`: how fast it is, beside a native Redis Streams group and a bare relay, in one run.
//!
//! Each run has a Redis and processes of its own, is fed by the same program, and ends with a comparison of the results
//! with what was sent. One thread, which starts processes and waits; so little that it does not count among them.
//!
//! Weak at: everything runs on one machine, so each process also takes from the others, and networks cost nothing. What
//! a quiet machine shows is the cost of a message, and which of the kinds is cheaper.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};

use self::settings::BenchConfig;
use super::trial::screen::{Screen, Tone, grouped};
use crate::base::error::{Error, Result};
use crate::base::shutdown::{ShutdownRequests, shutdown_channel};
use crate::process::log;

mod chart;
mod cpu;
mod histogram;
mod kind;
mod latency;
mod parts;
mod rig;
mod run;
pub mod settings;
mod setup;
mod sweep;
mod throughput;
mod verify;

pub use self::kind::Kind;
pub use self::parts::run as run_part;
pub use self::parts::settings as part_settings;

/// The exit code where a result is missing or there twice.
const BREACH: u8 = 3;

/// Why it ends before its time.
#[derive(Debug)]
enum Stop {
    /// A signal.
    Asked,
    /// A promise was not kept.
    Breach(String),
    /// Something did not work.
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Failed(error)
    }
}

/// What the parts need.
struct Bench<'a> {
    config: &'a BenchConfig,
    screen: Screen,
    requests: ShutdownRequests,
}

/// Measures, and prints what it finds. Gives the program's exit code.
pub fn run(config: &BenchConfig) -> Result<u8> {
    let _log = log::init(config.log_level, "oncecast", "bench")?;
    let (handle, requests) = shutdown_channel();
    handle.on_signals()?;
    // Now, and not when all has been measured.
    let files = [&config.json, &config.svg].map(|path| path.as_deref().map(create).transpose());
    let [json, svg] = files;
    let (json, svg) = (json?, svg?);
    let mut bench = Bench { config, screen: Screen::stdout(handle), requests };
    let code = match bench.run() {
        Ok(found) => {
            json.map(|file| file.write(&format!("{:#}\n", found.json()))).transpose()?;
            svg.map(|file| file.write(&chart::svg(&found.title, &found.groups()))).transpose()?;
            0
        }
        Err(Stop::Asked) => {
            bench.screen.line("  interrupted; every process has ended");
            0
        }
        Err(Stop::Breach(breach)) => {
            let breach = bench.screen.paint(Tone::Bad, &breach);
            bench.screen.line(&format!("  {breach}"));
            BREACH
        }
        Err(Stop::Failed(error)) => return Err(error),
    };
    bench.screen.ended(code)
}

/// All that was measured.
struct Found {
    title: String,
    machine: Value,
    throughput: Option<throughput::Throughput>,
    latency: Option<latency::Latency>,
    sweep: Option<sweep::Sweep>,
}

impl Found {
    fn json(&self) -> Value {
        json!({
            "machine": self.machine,
            "throughput": self.throughput.as_ref().map(throughput::Throughput::json),
            "latency": self.latency.as_ref().map(latency::Latency::json),
            "sweep": self.sweep.as_ref().map(sweep::Sweep::json),
        })
    }

    fn groups(&self) -> Vec<chart::Group> {
        let throughput = self.throughput.iter().flat_map(throughput::Throughput::groups);
        let latency = self.latency.iter().flat_map(latency::Latency::groups);
        let sweep = self.sweep.iter().flat_map(sweep::Sweep::groups);
        throughput.chain(latency).chain(sweep).collect()
    }
}

impl Bench<'_> {
    fn run(&mut self) -> std::result::Result<Found, Stop> {
        let BenchConfig { parts, payload, append_only, .. } = *self.config;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let redis = rig::redis_version(self.config)?;
        let file = if append_only { "with an append-only file" } else { "without an append-only file" };
        let title = format!("{redis} {file}, {cores} cores, messages of {} bytes", grouped(payload as u64));
        let name = self.screen.paint(Tone::Strong, "oncecast bench");
        self.line("");
        self.line(&format!("{name}  {title}"));
        self.line("");
        let machine = json!({
            "oncecast": env!("CARGO_PKG_VERSION"),
            "redis": redis,
            "append_only": append_only,
            "cores": cores,
            "debug_build": cfg!(debug_assertions),
            "settings": {
                "payload_bytes": payload,
                "rounds": self.config.rounds,
                "messages": self.config.messages,
                "window": self.config.window,
                "worker_batch": self.config.worker_batch,
                "time_s": self.config.time.as_secs_f64(),
            },
        });
        if cfg!(debug_assertions) {
            self.line("a debug build: the times mean nothing");
        }
        Ok(Found {
            title,
            machine,
            throughput: parts.throughput.then(|| throughput::measure(self)).transpose()?,
            latency: parts.latency.then(|| latency::measure(self)).transpose()?,
            sweep: parts.sweep.then(|| sweep::measure(self)).transpose()?,
        })
    }

    /// Writes a line, indented as everything.
    fn line(&mut self, text: &str) {
        let indented = if text.is_empty() { String::new() } else { format!("  {text}") };
        self.screen.line(&indented);
    }
}

/// A file to be written in the end.
struct Output<'a> {
    path: &'a Path,
    file: File,
}

fn create(path: &Path) -> Result<Output<'_>> {
    let file = File::create(path).map_err(Error::io(format!("creating {}", path.display())))?;
    Ok(Output { path, file })
}

impl Output<'_> {
    fn write(mut self, text: &str) -> Result<()> {
        self.file.write_all(text.as_bytes()).map_err(Error::io(format!("writing {}", self.path.display())))
    }
}

/// Rounded to three digits after the point, which is more than anything here is exact to.
fn rounded(number: f64) -> f64 {
    (number * 1e3).round() / 1e3
}

/// The middle one; of an even number the mean of the two in the middle. 0 if there are none.
fn median(numbers: impl IntoIterator<Item = f64>) -> f64 {
    let mut numbers: Vec<f64> = numbers.into_iter().collect();
    numbers.sort_by(f64::total_cmp);
    match numbers.len() {
        0 => 0.0,
        count if count % 2 == 1 => numbers[count / 2],
        count => f64::midpoint(numbers[count / 2 - 1], numbers[count / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_in_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median([]), 0.0);
    }
}
