//! The settings of a dispatcher.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgMatches, Command};

use super::shadow::unused::refuse_unused;
use crate::base::delivery_rate::DeliveryRate;
use crate::base::id::DispatcherId;
use crate::base::retry_policy::RetryPolicy;
use crate::base::setting::ConfigError;
use crate::lane::order_key::OrderKey;
use crate::lane::roster::ConsumerSource;
use crate::ledger::{Destination, Interests, Keys, MOST_IN_FLIGHT};
use crate::net::ClientTls;
use crate::process::config::Default::{Found, Required, Text};
use crate::process::config::{Environment, Setting, Values, is_plain_name, quoted};
use crate::process::log::settings::LOG_LEVEL;
use crate::process::metrics::settings::{METRICS_ADDR, METRICS_HOST, METRICS_TOKEN_FILE};
use crate::process::program::{self, CommandLine};
use crate::process::scheduling::SCHEDULING;
use crate::programs::common::{
    CommonConfig, GROUP, LINK_SECRET_FILE, REDIS_CA, REDIS_CERT, REDIS_KEY, REDIS_URL, TLS_CA, TLS_CERT, TLS_KEY,
    host_name, link_tls,
};
use crate::programs::consumer_sources::{consumer_sources, may_be_secure};
use crate::programs::interests::{CHANNEL, KEYEVENT, KEYSPACE_DB, PATTERN, SHARDED_CHANNEL, interests};
use crate::wire;

/// The settings of a dispatcher.
#[derive(Clone, Debug)]
pub struct DispatcherConfig {
    /// The settings that every program has.
    pub common: CommonConfig,
    /// What it listens to.
    pub interests: Interests,
    /// Whether it takes part in nothing, and only compares.
    pub shadow: bool,
    /// Where messages are stored.
    pub destination: Destination,
    /// Where the consumers are, or where their addresses are found, all different; none with a stream and of a shadow.
    pub consumers: Vec<ConsumerSource>,
    /// TLS to the consumers that have it.
    pub link_tls: Option<ClientTls>,
    /// The file with the secret of the group's links, if there is one and there are any.
    pub link_secret_file: Option<PathBuf>,
    /// The name part of the dispatcher's id.
    pub name: String,
    /// How long the lease lasts.
    pub lease_ttl: Duration,
    /// The shortest time between two lanes that are handed over.
    pub hand_over_every: Duration,
    /// How long a link may be silent.
    pub link_timeout: Duration,
    /// After this many failed deliveries a message becomes a dead letter.
    pub max_deliveries: u32,
    /// How long a failed message waits for its next delivery.
    pub retry: RetryPolicy,
    /// The most messages that consumers hold together, unless the group has a setting of its own.
    pub max_in_flight: Option<u64>,
    /// The most deliveries in a time, unless the group has a setting of its own.
    pub max_rate: Option<DeliveryRate>,
    /// The key of messages that are kept in order, if they are.
    pub order_key: Option<OrderKey>,
    /// How many replicas must have a message before it counts as stored.
    pub wait_replicas: u32,
    /// Whether messages that arrive together may be stored in bundles.
    pub bundles: bool,
    /// The ring's limit.
    pub ring_bytes: usize,
    /// The limit of the messages waiting for a consumer.
    pub ready_bytes: usize,
}

impl DispatcherConfig {
    /// Whether it uses files that are renewed while it runs: then SIGHUP, which may tell of that, does not end it.
    pub fn has_renewed_files(&self) -> bool {
        self.link_tls.is_some() || self.link_secret_file.is_some() || self.common.has_renewed_files()
    }
}

/// All settings, in the order in which `--help` lists them.
pub const SETTINGS: &[Setting] = &[
    Setting::new(
        "consumers",
        "HOST:PORT,…",
        Required,
        "The addresses of the consumers, separated by commas, those with TLS as wss://host:port. dns:name:port (or \
         dns:wss://name:port) means each address of a name, file:PATH each line of a file; both are followed while the \
         program runs. Not with --deliver stream or --shadow",
    ),
    TLS_CA,
    TLS_CERT,
    TLS_KEY,
    LINK_SECRET_FILE,
    REDIS_URL,
    REDIS_CA,
    REDIS_CERT,
    REDIS_KEY,
    GROUP,
    CHANNEL,
    SHARDED_CHANNEL,
    PATTERN,
    KEYEVENT,
    KEYSPACE_DB,
    Setting::new(
        "deliver",
        "WHERE",
        Text("consumers"),
        "consumers, or stream: add each message to a Redis Stream instead, exactly once, for workers that read it with \
         XREADGROUP",
    ),
    Setting::new(
        "stream",
        "KEY",
        Found("<group>:messages"),
        "The stream of --deliver stream. In Redis Cluster it must be in the group's slot",
    ),
    Setting::new(
        "stream-maxlen",
        "N",
        Text("0"),
        "About how many entries that stream keeps; older ones are deleted, read or not. 0 keeps all",
    ),
    Setting::switch(
        "shadow",
        "Take part in nothing: measure what is published, and compare it with what the group stores, if it runs. \
         oncecast status shows the result. Flags about consumers and leading are refused, and such variables ignored",
    ),
    Setting::new(
        "lane",
        "N",
        Found("0"),
        "With --shadow: which lane it follows of a group that has several, as with sharded channels in a Redis Cluster",
    ),
    Setting::new(
        "dispatcher-id",
        "NAME",
        Found("host name and pid"),
        "Name part of this dispatcher's id; each start adds a random suffix",
    ),
    Setting::new(
        "lease-ttl-ms",
        "MS",
        Text("2000"),
        "How long the lease on leadership lasts without renewal; a hung leader is replaced after this time",
    ),
    Setting::new(
        "hand-over-every-ms",
        "MS",
        Text("10000"),
        "The shortest time between two lanes that are handed over to a dispatcher that leads fewer, if the group has \
         several lanes; each lane stands still for a moment",
    ),
    Setting::new(
        "link-timeout-ms",
        "MS",
        Text("3000"),
        "A consumer that sends nothing for this long is disconnected, and its messages go to other consumers",
    ),
    Setting::new(
        "max-deliveries",
        "N",
        Text("8"),
        "A message that has failed this many times goes to the dead letters",
    ),
    Setting::new(
        "retry",
        "POLICY",
        Text("exponential:200ms..5m*4"),
        "How long a failed message waits for its next delivery, unless its handler chose a delay: \
         exponential:FIRST..MOST*FACTOR, fixed:WAIT, or none. With the default, 8 deliveries span about ten minutes",
    ),
    Setting::new(
        "max-in-flight",
        "N",
        Found("no limit"),
        "The most messages that all consumers hold together; oncecast set --max-in-flight comes first",
    ),
    Setting::new(
        "rate",
        "N/s",
        Found("no limit"),
        "The most deliveries per second (N/s), minute (N/m) or hour (N/h), redeliveries included; oncecast set \
         --rate comes first",
    ),
    Setting::new(
        "order-key",
        "KEY",
        Text("none"),
        "Deliver messages with one key one after the other, each once the one before it is done or dead: channel, \
         json:POINTER such as json:/customer/id, prefix:SEPARATOR such as prefix:: for what precedes a colon, or none. \
         The same for all dispatchers of the group",
    ),
    Setting::new(
        "wait-replicas",
        "N",
        Text("0"),
        "A message counts as stored, and is delivered, only when so many replicas of Redis have it, so that no \
         failover to one of them loses it; meanwhile it stays in memory",
    ),
    Setting::new(
        "bundles",
        "on|off",
        Text("on"),
        "on: small messages that arrive by the hundred are stored 16 together, which costs Redis less time and memory. \
         off, before going back to a release that does not know bundles: none are made",
    ),
    Setting::new(
        "ring-bytes",
        "BYTES",
        Text("67108864"),
        "Memory for messages received, until 3 s after they are known to be stored in Redis",
    ),
    Setting::new(
        "ready-bytes",
        "BYTES",
        Text("33554432"),
        "Memory for messages waiting for a free consumer; further messages wait in Redis only",
    ),
    SCHEDULING,
    LOG_LEVEL,
    METRICS_ADDR,
    METRICS_HOST,
    METRICS_TOKEN_FILE,
];

const MAX_STREAM_BYTES: usize = 1_024;
const MOST_ENTRIES: u64 = 1 << 53;
const MOST_REPLICAS: u64 = 100;
const DELIVER: &str = "consumers or stream";
const STREAM_FORM: &str = "a key of 1 to 1024 bytes that the group does not use itself";
const DISPATCHER_NAME: &str = "1 to 64 letters, digits or any of . _ - : [ ] @, not beginning with alive:";

/// The program's command line.
pub const COMMAND_LINE: CommandLine<DispatcherConfig> = CommandLine { command, read };

/// Its definition.
pub fn command() -> Command {
    let about = "\
Stores the messages published on Redis channels, and delivers each to one consumer, or adds each to a Redis Stream once.

Start two or more with the same group, channels and consumers: one leads, the others listen as well and take over
within milliseconds when it dies. If Redis or a consumer can't be reached, it keeps trying.";
    let after = "\
Examples:
  oncecast-dispatcher --redis-url redis://10.0.0.1:6379 --consumers 10.0.0.11:6969,10.0.0.12:6969
  oncecast-dispatcher --redis-url redis://10.0.0.1:6379 --consumers dns:consumers.internal:6969
  oncecast-dispatcher --redis-url redis://10.0.0.1:6379 --deliver stream --pattern 'orders.*'

  oncecast-dispatcher --redis-url redis://10.0.0.1:6379 --pattern 'orders.*' --shadow

On SIGTERM or SIGINT it stores what has arrived, releases leadership and exits.
Exit codes: 0 success, 1 failure while running, 2 invalid settings.";
    program::service("oncecast-dispatcher", about, after, SETTINGS).override_usage(
        "oncecast-dispatcher --consumers <HOST:PORT,…> [OPTIONS]\n       \
         oncecast-dispatcher --deliver stream [OPTIONS]\n       oncecast-dispatcher --shadow [OPTIONS]\n       \
         oncecast-dispatcher healthcheck [OPTIONS]",
    )
}

/// Reads and checks the settings.
pub fn read(matches: &ArgMatches, environment: Environment<'_>) -> Result<DispatcherConfig, ConfigError> {
    let values = &Values::new(matches, SETTINGS, environment);
    let mut common = CommonConfig::read(values)?;
    let shadow = values.is_on("shadow")?;
    match common.lane {
        Some(lane) if lane != 0 && !shadow => {
            return Err(ConfigError::new("lane", lane, "a lane only with --shadow: others work for all lanes"));
        }
        _ if shadow => refuse_unused(values)?,
        _ => {}
    }
    let destination = destination(values, &common.keys)?;
    let order_key = order_key(values, &destination)?;
    let consumers = match &destination {
        Destination::Pending if shadow => Vec::new(),
        Destination::Pending => consumer_sources(values)?,
        Destination::Stream { key, .. } => {
            common = common.with_stream("stream", key)?;
            Vec::new()
        }
    };
    let link_tls = link_tls(values, may_be_secure(values, &consumers))?;
    let link_secret_file = values.path(LINK_SECRET_FILE.name)?.filter(|_| !consumers.is_empty());
    let interests = interests(values, &common.keys, common.redis.database())?;
    let delivers = destination == Destination::Pending;
    if !delivers {
        refuse_limits(values)?;
    }
    Ok(DispatcherConfig {
        interests: match &destination {
            Destination::Pending => interests,
            Destination::Stream { key, .. } => interests.beside_stream(key),
        },
        shadow,
        destination,
        consumers,
        link_tls,
        link_secret_file,
        name: match values.text("dispatcher-id")? {
            Some(name) if is_plain_name(&name) && DispatcherId::may_be_named(&name) => name,
            Some(name) => return Err(ConfigError::new("dispatcher-id", quoted(&name), DISPATCHER_NAME)),
            None => default_name(),
        },
        lease_ttl: values.millis("lease-ttl-ms", 100, 600_000)?,
        // The status from which the next lane is chosen is up to a second old.
        hand_over_every: values.millis("hand-over-every-ms", 2_000, 86_400_000)?,
        link_timeout: values.millis("link-timeout-ms", 100, 600_000)?,
        max_deliveries: values.number("max-deliveries", 1, 10_000)? as u32,
        retry: retry_policy(values)?,
        max_in_flight: values.optional_number("max-in-flight", 1, MOST_IN_FLIGHT)?.filter(|_| delivers),
        max_rate: max_rate(values)?.filter(|_| delivers),
        order_key,
        wait_replicas: values.number("wait-replicas", 0, MOST_REPLICAS)? as u32,
        bundles: bundles(values)?,
        // Each must hold a few of the largest messages.
        ring_bytes: values.number("ring-bytes", 4 * wire::MAX_BODY_BYTES as u64, 1 << 40)? as usize,
        ready_bytes: values.number("ready-bytes", 2 * wire::MAX_BODY_BYTES as u64, 1 << 40)? as usize,
        common,
    })
}

fn retry_policy(values: &Values<'_>) -> Result<RetryPolicy, ConfigError> {
    let text = values.required("retry", "none, to deliver again at once")?;
    text.parse().map_err(|takes| ConfigError::new("retry", quoted(&text), takes))
}

fn bundles(values: &Values<'_>) -> Result<bool, ConfigError> {
    const TAKES: &str = "on or off";
    match values.required("bundles", TAKES)?.as_str() {
        "on" => Ok(true),
        "off" => Ok(false),
        other => Err(ConfigError::new("bundles", quoted(other), TAKES)),
    }
}

fn max_rate(values: &Values<'_>) -> Result<Option<DeliveryRate>, ConfigError> {
    let text = values.text("rate")?;
    text.map(|text| text.parse().map_err(|takes| ConfigError::new("rate", quoted(&text), takes))).transpose()
}

/// Workers read a stream as fast as they like. As variables limits are no mistake: a file of variables may serve
/// dispatchers of several groups.
fn refuse_limits(values: &Values<'_>) -> Result<(), ConfigError> {
    const TAKES: &str = "no value with --deliver stream: workers read the stream themselves, at their own rate";
    match ["max-in-flight", "rate"].into_iter().find(|name| values.is_flag_given(name)) {
        Some(name) => Err(ConfigError::new(name, "a limit with --deliver stream", TAKES)),
        None => Ok(()),
    }
}

fn order_key(values: &Values<'_>, destination: &Destination) -> Result<Option<OrderKey>, ConfigError> {
    let text = values.required("order-key", "none, to deliver in no order")?;
    match text.as_str() {
        "none" => Ok(None),
        _ if *destination != Destination::Pending => Err(ConfigError::new(
            "order-key",
            format_args!("{} with --deliver stream", quoted(&text)),
            "none with --deliver stream: a stream is in order anyway",
        )),
        key => {
            let problem = |takes| ConfigError::new("order-key", quoted(key), format_args!("{takes}, or none"));
            key.parse().map(Some).map_err(problem)
        }
    }
}

/// Where messages go. The settings of a stream may be given with an explicit `--deliver consumers`, as in a file with
/// all settings.
fn destination(values: &Values<'_>, keys: &Keys) -> Result<Destination, ConfigError> {
    let text = values.required("deliver", DELIVER)?;
    let key = stream_key(values, keys)?;
    let maxlen = values.number("stream-maxlen", 0, MOST_ENTRIES)?;
    match text.as_str() {
        "consumers" => match ["stream", "stream-maxlen"].into_iter().find(|name| values.is_given(name)) {
            Some(name) if !values.is_given("deliver") => {
                Err(ConfigError::new(name, "a value without --deliver stream", "a value only with --deliver stream"))
            }
            _ => Ok(Destination::Pending),
        },
        "stream" if values.is_given("consumers") => Err(ConfigError::new(
            "consumers",
            "addresses with --deliver stream",
            "no value with --deliver stream: workers read the stream themselves",
        )),
        "stream" => Ok(Destination::Stream { key, maxlen }),
        other => Err(ConfigError::new("deliver", quoted(other), DELIVER)),
    }
}

fn stream_key(values: &Values<'_>, keys: &Keys) -> Result<String, ConfigError> {
    let Some(key) = values.text("stream")? else { return Ok(format!("{}:messages", keys.group)) };
    let plain = (1..=MAX_STREAM_BYTES).contains(&key.len()) && !key.chars().any(char::is_control);
    if !plain || keys.is_own(key.as_bytes()) {
        return Err(ConfigError::new("stream", quoted(&key), STREAM_FORM));
    }
    Ok(key)
}

/// The host's name and the process id.
fn default_name() -> String {
    let host = host_name();
    let host = if host.is_empty() { "dispatcher" } else { &host };
    format!("{host}-{}", std::process::id())
}
