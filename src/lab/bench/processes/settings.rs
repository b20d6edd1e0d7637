//! The settings of the processes that `oncecast bench` starts and that are not programs of ours.

use std::time::Duration;

use clap::{ArgMatches, Command};

use super::message::PAYLOAD_BYTES;
use crate::base::setting::ConfigError;
use crate::process::config::Default::{Found, Required, Text};
use crate::process::config::{self, Environment, Setting, Values, quoted};
use crate::process::scheduling::{SCHEDULING, Scheduling};
use crate::programs::consumer::settings::{ConsumerConfig, consumer_and, read_values};

/// A process of a comparison.
#[derive(Clone, Debug)]
pub enum BenchProcess {
    /// Sends the messages.
    Load(LoadConfig),
    /// Is a consumer of a Streams group.
    Worker(WorkerConfig),
    /// Writes results and guarantees nothing.
    Relay(RelayConfig),
    /// Measures latency.
    Reader(ReaderConfig),
    /// Is a consumer with a slow handler.
    Slow(Box<SlowConfig>),
}

/// How the load sends a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadCommand {
    /// To a channel.
    Publish,
    /// To a sharded channel.
    Spublish,
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
    /// Over how many channels `key.0`, `key.1`, … the messages are spread; `None`: all go to `key`.
    pub channels: Option<u64>,
    /// The command that returns how many messages are done, such as `XLEN messages:processed`.
    pub progress: String,
    /// The number of the first message, which is how many were sent before.
    pub first: u64,
    /// The most messages to send.
    pub count: u64,
    /// When to stop sending.
    pub duration: Option<Duration>,
    /// Messages per second; `None`: as fast as possible.
    pub rate: Option<u64>,
    /// How many messages the load may be ahead of those that are done.
    pub window: u64,
    /// Bytes of a message.
    pub payload: usize,
    /// How its threads are scheduled.
    pub scheduling: Scheduling,
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
    /// Whether it deletes entries and claims those of dead workers.
    pub tidy: bool,
    /// How its threads are scheduled.
    pub scheduling: Scheduling,
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
    /// Its id in the results.
    pub name: String,
    /// How its threads are scheduled.
    pub scheduling: Scheduling,
}

/// The settings of the process that measures latency.
#[derive(Clone, Debug)]
pub struct ReaderConfig {
    /// The server's port on 127.0.0.1.
    pub port: u16,
    /// The stream with the results.
    pub results: String,
    /// How many results to expect.
    pub count: u64,
    /// How many of the first results are not measured.
    pub skip: u64,
}

/// The settings of a consumer with a slow handler.
#[derive(Clone, Debug)]
pub struct SlowConfig {
    /// The settings that every consumer has.
    pub consumer: ConsumerConfig,
    /// How long the handler takes for a message.
    pub handler_takes: Duration,
}

const PORT: Setting = Setting::new("port", "PORT", Required, "The Redis server's port on 127.0.0.1");
const RESULTS: Setting = Setting::new("results", "KEY", Required, "The stream for the results");
const NAME: Setting = Setting::new("name", "NAME", Required, "The name in the results");
const STREAM: Setting = Setting::new("stream", "KEY", Required, "The stream with the messages");
const GROUP: Setting = Setting::new("stream-group", "NAME", Required, "The stream's consumer group");

const LOAD: &[Setting] = &[
    PORT,
    Setting::new("command", "NAME", Required, "publish, spublish or xadd"),
    Setting::new("key", "KEY", Required, "The channel or the stream"),
    Setting::new("channels", "N", Found("off"), "Spread the messages over N channels, KEY.0 to KEY.N-1"),
    Setting::new("progress", "WORDS", Required, "The command that counts the messages processed or stored"),
    Setting::new("first", "N", Text("0"), "The number of the first message"),
    Setting::new("count", "N", Found("no limit"), "The most messages"),
    Setting::new("duration", "TIME", Found("no limit"), "When to stop sending"),
    Setting::new("rate", "N", Found("as fast as possible"), "Messages per second"),
    Setting::new("window", "N", Text("50000"), "The most messages ahead of that count"),
    Setting::new("payload", "BYTES", Text("53"), "The size of a message"),
    SCHEDULING,
];
const WORKER: &[Setting] = &[
    PORT,
    STREAM,
    GROUP,
    RESULTS,
    NAME,
    Setting::new("worker-batch", "N", Text("256"), "The most messages in a batch"),
    Setting::switch("tidy", "Delete entries, and claim those of dead workers"),
    SCHEDULING,
];
const RELAY: &[Setting] =
    &[PORT, Setting::new("key", "KEY", Required, "The channel or the stream"), RESULTS, NAME, SCHEDULING];
const READER: &[Setting] = &[
    PORT,
    RESULTS,
    Setting::new("result-count", "N", Required, "How many results there will be"),
    Setting::new("skip", "N", Text("0"), "How many of the first are not measured"),
];
const SLOW: &[Setting] =
    &consumer_and(Setting::new("handler-takes-ms", "MS", Required, "How long the handler takes for a message"));

/// The settings of all of them.
pub const TABLES: [&[Setting]; 5] = [LOAD, WORKER, RELAY, READER, SLOW];

const LOAD_NAME: &str = "bench-load";
const WORKER_NAME: &str = "bench-worker";
const RELAY_NAME: &str = "bench-relay";
const READER_NAME: &str = "bench-reader";
const SLOW_NAME: &str = "bench-consumer";

/// Their subcommands, which are hidden.
pub fn commands() -> [Command; 5] {
    let hidden = |name, about, settings| {
        config::command(name, about, "For internal use: oncecast bench starts it.", settings).hide(true)
    };
    [
        hidden(LOAD_NAME, "Sends the messages of a comparison.", LOAD),
        hidden(WORKER_NAME, "A consumer of a Streams group in a comparison.", WORKER),
        hidden(RELAY_NAME, "A relay without guarantees in a comparison.", RELAY),
        hidden(READER_NAME, "Measures latency in a comparison.", READER),
        hidden(SLOW_NAME, "A consumer with a slow handler. Its other settings are those of oncecast-consumer.", SLOW),
    ]
}

/// Reads the settings of a process of a comparison; `None` for any other subcommand.
pub fn read(
    name: &str,
    matches: &ArgMatches,
    environment: Environment<'_>,
) -> Result<Option<BenchProcess>, ConfigError> {
    let values = |settings| Values::new(matches, settings, environment);
    let part = match name {
        LOAD_NAME => BenchProcess::Load(load(&values(LOAD))?),
        WORKER_NAME => {
            let values = values(WORKER);
            BenchProcess::Worker(WorkerConfig {
                port: port(&values)?,
                stream: values.required("stream", "a key")?,
                group: values.required("stream-group", "a name")?,
                results: values.required("results", "a key")?,
                name: values.required("name", "a name")?,
                batch: values.number("worker-batch", 1, 100_000)?,
                tidy: values.is_on("tidy")?,
                scheduling: Scheduling::read(&values)?,
            })
        }
        RELAY_NAME => {
            let values = values(RELAY);
            BenchProcess::Relay(RelayConfig {
                port: port(&values)?,
                channel: values.required("key", "a channel")?,
                results: values.required("results", "a key")?,
                name: values.required("name", "a name")?,
                scheduling: Scheduling::read(&values)?,
            })
        }
        READER_NAME => {
            let values = values(READER);
            let results = values.required("results", "a key")?;
            let count = values.optional_number("result-count", 1, u64::MAX >> 1)?;
            let count = count.ok_or_else(|| ConfigError::missing("result-count", "a number"))?;
            let skip = values.number("skip", 0, count - 1)?;
            BenchProcess::Reader(ReaderConfig { port: port(&values)?, results, count, skip })
        }
        SLOW_NAME => {
            let values = values(SLOW);
            let takes = values.optional_number("handler-takes-ms", 0, 60_000)?;
            let takes = takes.ok_or_else(|| ConfigError::missing("handler-takes-ms", "milliseconds"))?;
            let consumer = read_values(&values)?;
            BenchProcess::Slow(Box::new(SlowConfig { consumer, handler_takes: Duration::from_millis(takes) }))
        }
        _ => return Ok(None),
    };
    Ok(Some(part))
}

fn load(values: &Values<'_>) -> Result<LoadConfig, ConfigError> {
    let command = match values.required("command", "publish, spublish or xadd")?.as_str() {
        "publish" => LoadCommand::Publish,
        "spublish" => LoadCommand::Spublish,
        "xadd" => LoadCommand::Xadd,
        other => return Err(ConfigError::new("command", quoted(other), "publish, spublish or xadd")),
    };
    let config = LoadConfig {
        port: port(values)?,
        command,
        key: values.required("key", "a channel or a stream")?,
        channels: values.optional_number("channels", 1, 100_000)?,
        progress: values.required("progress", "a command")?,
        first: values.number("first", 0, u64::MAX >> 1)?,
        count: values.optional_number("count", 1, u64::MAX >> 1)?.unwrap_or(u64::MAX >> 1),
        duration: values.duration("duration")?,
        rate: values.optional_number("rate", 1, 1_000_000)?,
        window: values.number("window", 2, u64::MAX >> 2)?,
        payload: values.number("payload", *PAYLOAD_BYTES.start(), *PAYLOAD_BYTES.end())? as usize,
        scheduling: Scheduling::read(values)?,
    };
    Ok(config)
}

fn port(values: &Values<'_>) -> Result<u16, ConfigError> {
    let port = values.optional_number("port", 1, u16::MAX.into())?;
    port.map(|port| port as u16).ok_or_else(|| ConfigError::missing("port", "a port"))
}
