//! `oncecast bench` and the processes that it starts: what they take, and what they are.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgMatches, Command};
use log::LevelFilter;

use super::Default::{Found, Required, Text};
use super::programs::{ConsumerConfig, consumer_of, log_level};
use super::tables::{self, LOG_LEVEL, REDIS_SERVER};
use super::{ConfigError, Environment, Setting, Values, quoted};
use crate::local::bench::{Kind, PAYLOAD_BYTES, USUAL_BYTES};

/// The settings of `oncecast bench`.
#[derive(Clone, Debug)]
pub struct BenchConfig {
    /// What is measured.
    pub parts: BenchParts,
    /// Whether all of it is to be short.
    pub quick: bool,
    /// What is compared.
    pub kinds: Vec<Kind>,
    /// How often the throughput of each kind is measured.
    pub rounds: usize,
    /// Messages of a round.
    pub messages: u64,
    /// Bytes of a message, unless they are what is varied.
    pub payload: usize,
    /// How far the publisher may be ahead of the results.
    pub window: u64,
    /// Messages per second at which latency is measured.
    pub rates: Vec<u64>,
    /// How long each latency and each point of a sweep is measured.
    pub time: Duration,
    /// Whether Redis keeps an append-only file.
    pub append_only: bool,
    /// Where the numbers go, and the picture.
    pub json: Option<PathBuf>,
    /// The picture's file.
    pub svg: Option<PathBuf>,
    /// The Redis server program, if it was named.
    pub redis_server: Option<PathBuf>,
    /// What is logged.
    pub log_level: LevelFilter,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BenchParts {
    /// Messages per second, CPU and memory.
    pub throughput: bool,
    /// From the time a message was to be sent to its result.
    pub latency: bool,
    /// Throughput over consumers, sizes, backlogs and times of the handler.
    pub sweep: bool,
}

/// A process of a comparison.
#[derive(Clone, Debug)]
pub enum BenchPart {
    /// Sends the messages.
    Load(LoadConfig),
    /// Is a consumer of a Streams group.
    Worker(WorkerConfig),
    /// Writes results without a promise.
    Relay(RelayConfig),
    /// Measures latency.
    Reader(ReaderConfig),
    /// Is a consumer with a handler that takes its time.
    Slow(Box<SlowConfig>),
}

/// How the load sends a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadCommand {
    /// To a channel.
    Publish,
    /// To a stream.
    Xadd,
}

/// The settings of the load.
#[derive(Clone, Debug)]
pub struct LoadConfig {
    /// The server's port on 127.0.0.1.
    pub port: u16,
    /// How a message is sent.
    pub command: LoadCommand,
    /// To which channel or stream.
    pub key: String,
    /// The command that says how many messages are done with, such as `XLEN messages:processed`.
    pub progress: String,
    /// The number of the first message: so many were sent before.
    pub first: u64,
    /// The most messages to send.
    pub count: u64,
    /// When to stop sending.
    pub duration: Option<Duration>,
    /// Messages per second; `None`: as fast as it goes.
    pub rate: Option<u64>,
    /// How far it may be ahead of what is done with.
    pub window: u64,
    /// Bytes of a message.
    pub payload: usize,
}

/// The settings of a consumer of a Streams group.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// The server's port on 127.0.0.1.
    pub port: u16,
    /// The stream with the messages, and its group.
    pub stream: String,
    /// The group.
    pub group: String,
    /// The stream for the results.
    pub results: String,
    /// The consumer's name.
    pub name: String,
    /// The most messages of a batch.
    pub batch: u64,
}

/// The settings of the relay.
#[derive(Clone, Debug)]
pub struct RelayConfig {
    /// The server's port on 127.0.0.1.
    pub port: u16,
    /// The channel with the messages.
    pub channel: String,
    /// The stream for the results.
    pub results: String,
    /// What it calls itself in the results.
    pub name: String,
}

/// The settings of the process that measures latency.
#[derive(Clone, Debug)]
pub struct ReaderConfig {
    /// The server's port on 127.0.0.1.
    pub port: u16,
    /// The stream with the results.
    pub results: String,
    /// How many there will be.
    pub count: u64,
}

/// The settings of a consumer with a handler that takes its time.
#[derive(Clone, Debug)]
pub struct SlowConfig {
    /// What every consumer takes.
    pub consumer: ConsumerConfig,
    /// How long the handler takes for a message.
    pub handler_takes: Duration,
}

const BENCH: &[Setting] = &[
    Setting::switch("latency", "Measure how long it takes from publishing to the recorded result, instead of throughput"),
    Setting::switch(
        "sweep",
        "Measure throughput over the number of consumers, the size of messages, the backlog and the time a handler takes, \
         instead",
    ),
    Setting::switch("quick", "Measure all three for a moment each, to see that it works"),
    Setting::new("rounds", "N", Found("3, with --quick 1"), "How often the throughput of each kind is measured, in turn"),
    Setting::new("messages", "N", Found("2000000, with --quick 20000"), "Messages of a round"),
    Setting::new("payload", "BYTES", Text("53"), "The size of a message, from 16 bytes; latency needs 53 for the time"),
    Setting::new(
        "window",
        "N",
        Text("50000"),
        "How many messages the publisher may be ahead of the results: it is held back, so that all kinds are measured \
         while they keep up",
    ),
    Setting::new("rates", "LIST", Found("1000,10000,50000, with --quick 1000"), "Messages per second for --latency"),
    Setting::new("time", "TIME", Found("10s, with --quick 1s"), "How long each latency and each point of a sweep takes"),
    Setting::new("kinds", "LIST", Text("oncecast,streams,relay"), "What is measured"),
    Setting::switch("append-only", "Have Redis keep an append-only file, written out every second"),
    Setting::new("json", "FILE", Found("none"), "Write the numbers to this file"),
    Setting::new("svg", "FILE", Found("none"), "Write a picture to this file"),
    REDIS_SERVER,
    LOG_LEVEL,
];

const PORT: Setting = Setting::new("port", "PORT", Required, "The Redis server's port on 127.0.0.1");
const RESULTS: Setting = Setting::new("results", "KEY", Required, "The stream for the results");
const NAME: Setting = Setting::new("name", "NAME", Required, "The name in the results");
const STREAM: Setting = Setting::new("stream", "KEY", Required, "The stream with the messages");
const GROUP: Setting = Setting::new("stream-group", "NAME", Required, "The stream's consumer group");

const LOAD: &[Setting] = &[
    PORT,
    Setting::new("command", "NAME", Required, "publish or xadd"),
    Setting::new("key", "KEY", Required, "The channel or the stream"),
    Setting::new("progress", "WORDS", Required, "The command that says how many messages are done with"),
    Setting::new("first", "N", Text("0"), "The number of the first message"),
    Setting::new("count", "N", Found("no limit"), "The most messages"),
    Setting::new("duration", "TIME", Found("no limit"), "When to stop sending"),
    Setting::new("rate", "N", Found("as fast as it goes"), "Messages per second"),
    Setting::new("window", "N", Text("50000"), "How far to be ahead of what is done with"),
    Setting::new("payload", "BYTES", Text("53"), "The size of a message"),
];
const WORKER: &[Setting] =
    &[PORT, STREAM, GROUP, RESULTS, NAME, Setting::new("batch", "N", Text("256"), "The most messages of a batch")];
const RELAY: &[Setting] =
    &[PORT, Setting::new("channel", "NAME", Required, "The channel with the messages"), RESULTS, NAME];
const READER: &[Setting] = &[PORT, RESULTS, Setting::new("count", "N", Required, "How many results there will be")];
const SLOW: &[Setting] = &tables::consumer_and(Setting::new(
    "handler-takes-ms",
    "MS",
    Required,
    "How long the handler takes for a message",
));

const LOAD_NAME: &str = "bench-load";
const WORKER_NAME: &str = "bench-worker";
const RELAY_NAME: &str = "bench-relay";
const READER_NAME: &str = "bench-reader";
const SLOW_NAME: &str = "bench-consumer";

/// The command line of `oncecast bench`.
pub(super) fn command() -> Command {
    tables::command(
        "bench",
        "\
Measures Oncecast beside a native Redis Streams group and a bare relay, in one run, each with processes and a Redis of its own.

oncecast: 2 dispatchers and 3 consumers. streams: 3 workers of a consumer group, which acknowledge a message and record its
result in one transaction, as strong a promise for the result; in their favour nothing is ever trimmed or claimed. relay: a
subscriber that records results and promises nothing, the floor of cost. All of them get their messages from the same
program, which for streams calls XADD where it calls PUBLISH for the others. After each run the results are compared with
what was sent: if one is missing or there twice, that is the end.",
        "\
Examples:
  oncecast bench --json bench.json --svg bench.svg
  oncecast bench --latency --rates 1000,10000
  oncecast bench --sweep --kinds oncecast,streams --time 5s

Times say something only on a machine that does nothing else.
Exit codes: 0 measured, or interrupted, 3 a result was missing or recorded twice, 1 something could not be started, 2 wrong
settings.",
        BENCH,
    )
}

/// The command lines of the processes it starts.
pub(super) fn hidden_commands() -> [Command; 5] {
    let hidden = |name, about, settings| {
        tables::command(name, about, "oncecast bench starts it; there is no other use for it.", settings).hide(true)
    };
    [
        hidden(LOAD_NAME, "Sends the messages of a comparison.", LOAD),
        hidden(WORKER_NAME, "A consumer of a Streams group in a comparison.", WORKER),
        hidden(RELAY_NAME, "A relay without a promise in a comparison.", RELAY),
        hidden(READER_NAME, "Measures latency in a comparison.", READER),
        hidden(SLOW_NAME, "A consumer with a handler that takes its time. Other settings are oncecast-consumer's.", SLOW),
    ]
}

/// Reads the settings of `oncecast bench`.
pub(super) fn bench(matches: &ArgMatches, environment: Environment<'_>) -> Result<BenchConfig, ConfigError> {
    let values = &Values { matches, settings: BENCH, environment };
    let quick = values.is_on("quick")?;
    let (latency, sweep) = (values.is_on("latency")?, values.is_on("sweep")?);
    let throughput = quick || !(latency || sweep);
    let parts = BenchParts { throughput, latency: latency || quick, sweep: sweep || quick };
    let payload = values.number("payload", *PAYLOAD_BYTES.start(), *PAYLOAD_BYTES.end())? as usize;
    if parts.latency && payload < USUAL_BYTES {
        let takes = format!("at least {USUAL_BYTES} bytes for latency: a message carries its time");
        return Err(ConfigError::new("payload", payload, takes));
    }
    let time = values.duration("time")?.unwrap_or(Duration::from_secs(if quick { 1 } else { 10 }));
    Ok(BenchConfig {
        parts,
        quick,
        kinds: kinds(values)?,
        rounds: values.optional_number("rounds", 1, 1_000)?.unwrap_or(if quick { 1 } else { 3 }) as usize,
        messages: values.optional_number("messages", 1, 100_000_000)?.unwrap_or(if quick { 20_000 } else { 2_000_000 }),
        payload,
        window: values.number("window", 2, 10_000_000)?,
        rates: rates(values, if quick { "1000" } else { "1000,10000,50000" })?,
        time,
        append_only: values.is_on("append-only")?,
        json: values.text("json")?.map(PathBuf::from),
        svg: values.text("svg")?.map(PathBuf::from),
        redis_server: values.text("redis-server")?.map(PathBuf::from),
        log_level: log_level(values)?,
    })
}

fn kinds(values: &Values<'_>) -> Result<Vec<Kind>, ConfigError> {
    let text = values.required("kinds", "what is measured")?;
    let names = Kind::ALL.map(Kind::name).join(", ");
    let kind = |word: &str| Kind::ALL.into_iter().find(|kind| kind.name() == word.trim());
    let kinds: Vec<Kind> = text
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

/// Reads the settings of a process of a comparison; `None` for any other subcommand.
pub(super) fn part(
    name: &str,
    matches: &ArgMatches,
    environment: Environment<'_>,
) -> Result<Option<BenchPart>, ConfigError> {
    let values = |settings| Values { matches, settings, environment };
    let part = match name {
        LOAD_NAME => BenchPart::Load(load(&values(LOAD))?),
        WORKER_NAME => {
            let values = values(WORKER);
            BenchPart::Worker(WorkerConfig {
                port: port(&values)?,
                stream: values.required("stream", "a key")?,
                group: values.required("stream-group", "a name")?,
                results: values.required("results", "a key")?,
                name: values.required("name", "a name")?,
                batch: values.number("batch", 1, 100_000)?,
            })
        }
        RELAY_NAME => {
            let values = values(RELAY);
            BenchPart::Relay(RelayConfig {
                port: port(&values)?,
                channel: values.required("channel", "a channel")?,
                results: values.required("results", "a key")?,
                name: values.required("name", "a name")?,
            })
        }
        READER_NAME => {
            let values = values(READER);
            let results = values.required("results", "a key")?;
            let count = values.optional_number("count", 1, u64::MAX >> 1)?;
            let count = count.ok_or_else(|| ConfigError::missing("count", "a number"))?;
            BenchPart::Reader(ReaderConfig { port: port(&values)?, results, count })
        }
        SLOW_NAME => {
            let values = values(SLOW);
            let takes = values.optional_number("handler-takes-ms", 0, 60_000)?;
            let takes = takes.ok_or_else(|| ConfigError::missing("handler-takes-ms", "milliseconds"))?;
            let consumer = consumer_of(&values)?;
            BenchPart::Slow(Box::new(SlowConfig { consumer, handler_takes: Duration::from_millis(takes) }))
        }
        _ => return Ok(None),
    };
    Ok(Some(part))
}

fn load(values: &Values<'_>) -> Result<LoadConfig, ConfigError> {
    let command = match values.required("command", "publish or xadd")?.as_str() {
        "publish" => LoadCommand::Publish,
        "xadd" => LoadCommand::Xadd,
        other => return Err(ConfigError::new("command", quoted(other), "publish or xadd")),
    };
    let config = LoadConfig {
        port: port(values)?,
        command,
        key: values.required("key", "a channel or a stream")?,
        progress: values.required("progress", "a command")?,
        first: values.number("first", 0, u64::MAX >> 1)?,
        count: values.optional_number("count", 1, u64::MAX >> 1)?.unwrap_or(u64::MAX >> 1),
        duration: values.duration("duration")?,
        rate: values.optional_number("rate", 1, 1_000_000)?,
        window: values.number("window", 2, u64::MAX >> 2)?,
        payload: values.number("payload", *PAYLOAD_BYTES.start(), *PAYLOAD_BYTES.end())? as usize,
    };
    Ok(config)
}

fn port(values: &Values<'_>) -> Result<u16, ConfigError> {
    let port = values.optional_number("port", 1, u16::MAX.into())?;
    port.map(|port| port as u16).ok_or_else(|| ConfigError::missing("port", "a port"))
}
