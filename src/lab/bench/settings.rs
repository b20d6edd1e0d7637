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
use crate::process::scheduling::{SCHEDULING, Scheduling};

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
    /// The numbers of lanes whose cost is measured; none: it is not.
    pub lanes: Vec<usize>,
    /// Messages per second at which latency is measured, and the cost of lanes.
    pub rates: Vec<u64>,
    /// How long each latency, each point of a sweep, lanes at each rate, and the idle CPU time are measured.
    pub time: Duration,
    /// How the threads of all processes but Redis and the one that measures latency are scheduled.
    pub scheduling: Scheduling,
    /// Whether Redis keeps an append-only file.
    pub append_only: bool,
    /// How many threads of Redis read and write sockets.
    pub io_threads: u64,
    /// The folder in which BullMQ is installed.
    pub bullmq_folder: PathBuf,
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

/// The most lanes, and so nodes of a Redis Cluster, that are started.
const MOST_LANES: usize = 48;
/// Where `make bench` installs BullMQ.
const BULLMQ_FOLDER: &str = "target/bullmq";

/// All settings, in the order in which `--help` lists them.
pub const SETTINGS: &[Setting] = &[
    Setting::switch("latency", "Measure the time from publishing to the recorded result, instead of throughput"),
    Setting::switch(
        "sweep",
        "Measure throughput for several numbers of dispatchers and consumers, message sizes, backlogs and handler \
         times, instead",
    ),
    Setting::new(
        "lanes",
        "LIST",
        Found("not measured"),
        "Measure the cost of a message and of an idle lane for each of these numbers of lanes, instead, on a Redis \
         Cluster with as many primaries as the highest number. Needs Redis 7.0 or newer",
    ),
    Setting::switch("quick", "Measure throughput, latency and sweep briefly, to check that everything works"),
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
    Setting::new(
        "rates",
        "LIST",
        Found("1000,10000,50000, with --lanes 1000, with --quick 1000"),
        "Messages per second for --latency, and in each lane for --lanes",
    ),
    Setting::new(
        "time",
        "TIME",
        Found("10s, with --quick 1s"),
        "How long to measure each latency, each point of a sweep, lanes at each rate, and the idle CPU time",
    ),
    Setting::new(
        "kinds",
        "LIST",
        Text("oncecast,bridge,streams,relay"),
        "What to compare. Not measured by default are tidy, which is streams as in production: entries are deleted \
         when they are acknowledged, and those of dead workers claimed; bullmq, which is workers of BullMQ in Node; \
         patterns, which is oncecast with messages on many channels; ordered, which is that in order by channel; \
         replicated, which is oncecast with a replica of Redis; and confirmed, which is that with --wait-replicas 1",
    ),
    Setting::new(
        "channels",
        "N",
        Text("1000"),
        "How many channels the kinds patterns and ordered have; one pattern matches them all",
    ),
    SCHEDULING,
    Setting::switch("append-only", "Make Redis keep an append-only file, synced every second"),
    Setting::new("io-threads", "N", Text("1"), "How many threads of Redis read and write sockets (its io-threads)"),
    Setting::new(
        "bullmq-folder",
        "PATH",
        Text(BULLMQ_FOLDER),
        "For the kind bullmq: the folder in which the packages bullmq and ioredis for Node are installed",
    ),
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
messages sent. If a result is missing or recorded twice, the bench exits with code 3.

With --lanes it measures no other kind: a group of 2 dispatchers and 2 consumers, with a sharded channel and a publisher
for each lane. At full load all lanes together get the same number of messages, whatever their number; at a rate of
--rates each lane gets as many.",
        "\
Examples:
  oncecast bench --json-file bench.json --svg-file bench.svg
  oncecast bench --latency --rates 1000,10000
  oncecast bench --kinds oncecast,patterns --channels 1000
  oncecast bench --sweep --kinds oncecast,streams --time 5s
  oncecast bench --lanes 1,3,6,12 --messages 1000000 --time 4s

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
    let lanes = lanes(values)?;
    let throughput = quick || !(latency || sweep || !lanes.is_empty());
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
        rates: match (quick, lanes.is_empty()) {
            (true, _) => rates(values, "1000")?,
            (false, true) => rates(values, "1000,10000,50000")?,
            (false, false) => rates(values, "1000")?,
        },
        lanes,
        time,
        scheduling: Scheduling::read(values)?,
        append_only: values.is_on("append-only")?,
        io_threads: values.number("io-threads", 1, 128)?,
        bullmq_folder: values.path("bullmq-folder")?.unwrap_or_else(|| PathBuf::from(BULLMQ_FOLDER)),
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

fn lanes(values: &Values<'_>) -> Result<Vec<usize>, ConfigError> {
    let Some(text) = values.text("lanes")? else { return Ok(Vec::new()) };
    let number = |word: &str| word.trim().parse().ok().filter(|number| (1..=MOST_LANES).contains(number));
    let takes = format_args!("whole numbers from 1 to {MOST_LANES}, separated by commas");
    text.split(',').map(|word| number(word).ok_or_else(|| ConfigError::new("lanes", quoted(word), takes))).collect()
}

fn rates(values: &Values<'_>, default: &str) -> Result<Vec<u64>, ConfigError> {
    let text = values.text("rates")?.unwrap_or_else(|| default.to_owned());
    let rate = |word: &str| word.trim().parse().ok().filter(|rate| (1..=1_000_000).contains(rate));
    let takes = "whole numbers from 1 to 1000000, separated by commas";
    text.split(',').map(|word| rate(word).ok_or_else(|| ConfigError::new("rates", quoted(word), takes))).collect()
}
