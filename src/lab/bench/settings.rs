//! The settings of `oncecast bench`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgMatches, Command};
use log::LevelFilter;

use super::contender::Contender;
use super::processes::{PAYLOAD_BYTES, USUAL_BYTES};
use crate::base::setting::ConfigError;
use crate::lab::settings::REDIS_SERVER;
use crate::process::config::Default::{Found, Text};
use crate::process::config::{self, Environment, Setting, Values, quoted};
use crate::process::log::settings::{LOG_LEVEL, log_level};

/// The settings of `oncecast bench`.
#[derive(Clone, Debug)]
pub struct BenchConfig {
    /// What to measure.
    pub measured: Measurements,
    /// Whether to measure only briefly.
    pub quick: bool,
    /// What to compare.
    pub kinds: Vec<Contender>,
    /// On how many channels messages are published for the kind `patterns`.
    pub channels: u64,
    /// How often the throughput of each kind is measured.
    pub rounds: usize,
    /// Messages in a round.
    pub messages: u64,
    /// The size of a message in bytes, unless it varies.
    pub payload: usize,
    /// How far the publisher may be ahead of the results.
    pub window: u64,
    /// The most messages in a batch of a worker of the Streams group.
    pub worker_batch: u64,
    /// Messages per second at which latency is measured.
    pub rates: Vec<u64>,
    /// How long each latency, each point of a sweep, and the idle CPU time is measured.
    pub time: Duration,
    /// Whether Redis keeps an append-only file.
    pub append_only: bool,
    /// The file for the figures as JSON.
    pub json: Option<PathBuf>,
    /// The file for the chart.
    pub svg: Option<PathBuf>,
    /// The Redis server program, if it was named.
    pub redis_server: Option<PathBuf>,
    /// What is logged.
    pub log_level: LevelFilter,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measurements {
    /// Messages per second, CPU and memory.
    pub throughput: bool,
    /// The time from when a message was due until its result.
    pub latency: bool,
    /// Throughput by number of dispatchers and consumers, message size, backlog and handler time.
    pub sweep: bool,
}

/// All settings, in the order in which `--help` lists them.
pub const SETTINGS: &[Setting] = &[
    Setting::switch("latency", "Measure the time from publishing to the recorded result, instead of throughput"),
    Setting::switch(
        "sweep",
        "Measure throughput for several numbers of dispatchers and consumers, message sizes, backlogs and handler \
         times, instead",
    ),
    Setting::switch("quick", "Measure all three briefly, to check that everything works"),
    Setting::new("rounds", "N", Found("3, with --quick 1"), "How often the throughput of each kind is measured"),
    Setting::new("messages", "N", Found("2000000, with --quick 20000"), "Messages in a round"),
    Setting::new("payload", "BYTES", Text("53"), "The size of a message, from 16 bytes; latency needs 53 for the time"),
    Setting::new(
        "window",
        "N",
        Text("50000"),
        "How many messages the publisher may be ahead of the results. Then it waits, so that all kinds keep up while \
         they are measured",
    ),
    Setting::new(
        "worker-batch",
        "N",
        Text("256"),
        "The most messages that a worker of the Streams group reads at once",
    ),
    Setting::new("rates", "LIST", Found("1000,10000,50000, with --quick 1000"), "Messages per second for --latency"),
    Setting::new(
        "time",
        "TIME",
        Found("10s, with --quick 1s"),
        "How long to measure each latency, each point of a sweep, and the idle CPU time",
    ),
    Setting::new(
        "kinds",
        "LIST",
        Text("oncecast,bridge,streams,relay"),
        "What to compare. Not measured by default are patterns, which is oncecast with messages on many channels, \
         ordered, which is that in order by channel, replicated, which is oncecast with a replica of Redis, and \
         confirmed, which is that with --wait-replicas 1",
    ),
    Setting::new(
        "channels",
        "N",
        Text("1000"),
        "How many channels the kinds patterns and ordered have; one pattern matches them all",
    ),
    Setting::switch("append-only", "Make Redis keep an append-only file, synced every second"),
    Setting::new("json-file", "FILE", Found("none"), "Write the figures to this file as JSON"),
    Setting::new("svg-file", "FILE", Found("none"), "Write a chart to this file"),
    REDIS_SERVER,
    LOG_LEVEL,
];

/// The definition of the subcommand.
pub fn command() -> Command {
    config::command(
        "bench",
        "\
Compares Oncecast with a native Redis Streams group and a bare relay, each with a private Redis.

oncecast: 2 dispatchers and 3 consumers. bridge: 2 dispatchers that add each message to a stream, without workers.
streams: 3 workers of a consumer group. They acknowledge a message and record its result in one transaction, which
guarantees one result as Oncecast does; in their favour, entries are never trimmed or claimed. relay: a subscriber
that records results and guarantees nothing, the lower bound of cost. All of them get their messages from the same
program, which calls XADD for streams and PUBLISH for the others. After each run the results are compared with the
messages sent. If a result is missing or recorded twice, the bench exits with code 3.",
        "\
Examples:
  oncecast bench --json-file bench.json --svg-file bench.svg
  oncecast bench --latency --rates 1000,10000
  oncecast bench --kinds oncecast,patterns --channels 1000
  oncecast bench --sweep --kinds oncecast,streams --time 5s

The figures are only meaningful on an otherwise idle machine.
Exit codes: 0 measured, or interrupted, 3 a result was missing or recorded twice, 1 something could not be started or
does not work, 2 invalid settings.",
        SETTINGS,
    )
}

/// Reads and checks the settings.
pub fn read(matches: &ArgMatches, environment: Environment<'_>) -> Result<BenchConfig, ConfigError> {
    let values = &Values::new(matches, SETTINGS, environment);
    let quick = values.is_on("quick")?;
    let (latency, sweep) = (values.is_on("latency")?, values.is_on("sweep")?);
    let throughput = quick || !(latency || sweep);
    let measured = Measurements { throughput, latency: latency || quick, sweep: sweep || quick };
    let payload = values.number("payload", *PAYLOAD_BYTES.start(), *PAYLOAD_BYTES.end())? as usize;
    if measured.latency && payload < USUAL_BYTES {
        let takes = format!("at least {USUAL_BYTES} bytes for latency: a message carries its time");
        return Err(ConfigError::new("payload", payload, takes));
    }
    let time = values.duration("time")?.unwrap_or(Duration::from_secs(if quick { 1 } else { 10 }));
    Ok(BenchConfig {
        measured,
        quick,
        kinds: kinds(values)?,
        channels: values.number("channels", 1, 100_000)?,
        rounds: values.optional_number("rounds", 1, 1_000)?.unwrap_or(if quick { 1 } else { 3 }) as usize,
        messages: values.optional_number("messages", 1, 100_000_000)?.unwrap_or(if quick { 20_000 } else { 2_000_000 }),
        payload,
        window: values.number("window", 2, 10_000_000)?,
        worker_batch: values.number("worker-batch", 1, 100_000)?,
        rates: rates(values, if quick { "1000" } else { "1000,10000,50000" })?,
        time,
        append_only: values.is_on("append-only")?,
        json: values.path("json-file")?,
        svg: values.path("svg-file")?,
        redis_server: values.path("redis-server")?,
        log_level: log_level(values)?,
    })
}

fn kinds(values: &Values<'_>) -> Result<Vec<Contender>, ConfigError> {
    let text = values.required("kinds", "what is measured")?;
    let names = Contender::ALL.map(Contender::name).join(", ");
    let kind = |word: &str| Contender::ALL.into_iter().find(|kind| kind.name() == word.trim());
    let kinds: Vec<Contender> = text
        .split(',')
        .map(|word| kind(word).ok_or_else(|| ConfigError::new("kinds", quoted(word), format_args!("some of {names}"))))
        .collect::<Result<_, _>>()?;
    let twice = kinds.iter().enumerate().find(|(number, kind)| kinds[..*number].contains(kind));
    match twice {
        Some((_, kind)) => Err(ConfigError::new("kinds", format_args!("{} twice", kind.name()), "each at most once")),
        None => Ok(kinds),
    }
}

fn rates(values: &Values<'_>, default: &str) -> Result<Vec<u64>, ConfigError> {
    let text = values.text("rates")?.unwrap_or_else(|| default.to_owned());
    let rate = |word: &str| word.trim().parse().ok().filter(|rate| (1..=1_000_000).contains(rate));
    let takes = "whole numbers from 1 to 1000000, separated by commas";
    text.split(',').map(|word| rate(word).ok_or_else(|| ConfigError::new("rates", quoted(word), takes))).collect()
}
