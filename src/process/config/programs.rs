//! The settings of each program as validated structs.

use std::ffi::OsString;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use clap::Command;
use log::LevelFilter;

use super::bench::parts::{self, BenchPart};
use super::bench::{self, BenchConfig};
use super::channel;
use super::suggestion;
use super::tables::{self, AUDIT, CHAOS, CONSUMER, DEMO, DISPATCHER, HEALTHCHECK, PUBLISHER, STATUS, WITNESS};
use super::{ConfigError, Environment, Values, check_host_port, is_plain_name, quoted};
use crate::base::id::DispatcherId;
use crate::lab::experiment::plan::{Fault, Plan, Target};
use crate::lane::retry_policy::RetryPolicy;
use crate::ledger::{GROUP_FORM, Keys, Server, is_group};
use crate::process::metrics::healthcheck::Question;
use crate::wire;

/// What a command line asks for.
#[derive(Debug)]
pub enum Parsed<T> {
    /// Run with these settings.
    Run(T),
    /// Ask a program that runs how it is: `healthcheck`.
    Healthcheck(HealthcheckConfig),
    /// Print this and end: `--help` or `--version`.
    Print(String),
}

/// What every program takes.
#[derive(Clone, Debug)]
pub struct CommonConfig {
    /// The Redis server.
    pub redis: Server,
    /// The group's keys.
    pub keys: Keys,
    /// What is logged.
    pub log_level: LevelFilter,
    /// Where metrics are served, if they are.
    pub metrics_addr: Option<String>,
}

/// The settings of a dispatcher.
#[derive(Clone, Debug)]
pub struct DispatcherConfig {
    /// What every program takes.
    pub common: CommonConfig,
    /// The channel that users publish on.
    pub channel: String,
    /// The consumers' addresses, `host:port`, at least one, all different.
    pub consumers: Vec<String>,
    /// The name part of the dispatcher's id.
    pub name: String,
    /// How long the lease lasts.
    pub lease_ttl: Duration,
    /// How long a link may be silent.
    pub link_timeout: Duration,
    /// How many failed deliveries make a dead letter.
    pub max_deliveries: u32,
    /// How long a message that failed waits for its next delivery.
    pub retry: RetryPolicy,
    /// The ring's limit.
    pub ring_bytes: usize,
    /// The limit of the messages waiting for a consumer.
    pub ready_bytes: usize,
}

/// The settings of a consumer.
#[derive(Clone, Debug)]
pub struct ConsumerConfig {
    /// What every program takes.
    pub common: CommonConfig,
    /// Where it listens, `host:port`.
    pub listen: String,
    /// Its name.
    pub consumer_id: String,
    /// Handlers at the same time.
    pub concurrency: usize,
    /// The most messages in hand.
    pub prefetch: u32,
    /// The built-in handler's name.
    pub handler: String,
    /// When a handler is given up; `None`: never.
    pub handler_timeout: Option<Duration>,
    /// About how many results are kept; 0: all.
    pub result_maxlen: u64,
}

/// The settings of the publisher.
#[derive(Clone, Debug)]
pub struct PublisherConfig {
    /// What every program takes.
    pub common: CommonConfig,
    /// Where it publishes.
    pub channel: String,
    /// Stop after so many messages.
    pub count: Option<u64>,
    /// Stop after so long.
    pub duration: Option<Duration>,
    /// Messages per second.
    pub rate: Option<u64>,
    /// Messages in a burst.
    pub batch: Option<u64>,
    /// What each id starts with.
    pub id_prefix: String,
    /// Where the ids of received messages are written, if they are.
    pub ids_file: Option<PathBuf>,
}

/// The settings of `oncecast audit`.
#[derive(Clone, Debug)]
pub struct AuditConfig {
    /// What every program takes.
    pub common: CommonConfig,
    /// How many distinct messages there must be.
    pub expect: Option<u64>,
    /// A file with the ids there must be.
    pub ids: Option<PathBuf>,
    /// The result's field with the id.
    pub id_field: String,
}

/// The settings of `oncecast demo`.
#[derive(Clone, Debug)]
pub struct DemoConfig {
    /// The Redis server program, if it was named.
    pub redis_server: Option<PathBuf>,
    /// Messages per second.
    pub rate: u64,
    /// How long to publish.
    pub duration: Duration,
    /// What is logged.
    pub log_level: LevelFilter,
}

/// The settings of the subcommand `healthcheck`.
#[derive(Clone, Debug)]
pub struct HealthcheckConfig {
    /// Where the program that is asked serves its metrics.
    pub address: String,
    /// What it is asked.
    pub question: Question,
}

/// The settings of `oncecast status`.
#[derive(Clone, Debug)]
pub struct StatusConfig {
    /// What every program takes.
    pub common: CommonConfig,
    /// Look again and again.
    pub watch: bool,
    /// As JSON.
    pub json: bool,
    /// How long a message may be pending before that needs attention.
    pub max_age: Duration,
}

/// The settings of `oncecast chaos`.
#[derive(Clone, Debug)]
pub struct ChaosConfig {
    /// The Redis server program, if it was named.
    pub redis_server: Option<PathBuf>,
    /// How many dispatchers.
    pub dispatchers: usize,
    /// How many consumers.
    pub consumers: usize,
    /// Messages per second.
    pub rate: u64,
    /// Messages in a burst; `None`: evenly spread.
    pub batch: Option<u64>,
    /// What happens, and for how long.
    pub plan: Plan,
    /// The folder for the report, if there is to be one.
    pub report: Option<PathBuf>,
    /// What is logged.
    pub log_level: LevelFilter,
}

/// The settings of a consumer that keeps a journal.
#[derive(Clone, Debug)]
pub struct WitnessConfig {
    /// What every consumer takes.
    pub consumer: ConsumerConfig,
    /// The folder with the journals; this consumer's has its id as its name.
    pub journals: PathBuf,
}

/// What `oncecast` is to do.
#[derive(Clone, Debug)]
pub enum ToolConfig {
    /// Count the results.
    Audit(Box<AuditConfig>),
    /// Show how a group stands.
    Status(Box<StatusConfig>),
    /// Show a whole cluster at work.
    Demo(DemoConfig),
    /// Try a whole cluster with faults.
    Chaos(Box<ChaosConfig>),
    /// Be a consumer of a trial.
    Witness(Box<WitnessConfig>),
    /// Measure.
    Bench(Box<BenchConfig>),
    /// Be a process of a comparison.
    BenchPart(Box<BenchPart>),
}

/// Reads the dispatcher's command line.
pub fn dispatcher(
    arguments: impl IntoIterator<Item = OsString>,
    environment: Environment<'_>,
) -> Result<Parsed<DispatcherConfig>, clap::Error> {
    read(tables::dispatcher(), arguments, environment, |matches| {
        let values = Values { matches, settings: DISPATCHER, environment };
        let common = common(&values)?;
        let lease_ttl = values.millis("lease-ttl-ms", 100, 600_000)?;
        Ok(DispatcherConfig {
            channel: channel(&values, &common.keys)?,
            consumers: consumer_addresses(&values)?,
            name: match values.text("dispatcher-id")? {
                Some(name) if is_plain_name(&name) && DispatcherId::may_be_named(&name) => name,
                Some(name) => return Err(ConfigError::new("dispatcher-id", quoted(&name), DISPATCHER_NAME)),
                None => default_name(),
            },
            lease_ttl,
            link_timeout: values.millis("link-timeout-ms", 100, 600_000)?,
            max_deliveries: values.number("max-deliveries", 1, 10_000)? as u32,
            retry: retry_policy(&values)?,
            // Each must hold a few of the largest messages.
            ring_bytes: values.number("ring-bytes", 4 * wire::MAX_BODY_BYTES as u64, 1 << 40)? as usize,
            ready_bytes: values.number("ready-bytes", 2 * wire::MAX_BODY_BYTES as u64, 1 << 40)? as usize,
            common,
        })
    })
}

/// Reads the consumer's command line.
pub fn consumer(
    arguments: impl IntoIterator<Item = OsString>,
    environment: Environment<'_>,
) -> Result<Parsed<ConsumerConfig>, clap::Error> {
    read(tables::consumer(), arguments, environment, |matches| {
        consumer_of(&Values { matches, settings: CONSUMER, environment })
    })
}

pub(super) fn consumer_of(values: &Values<'_>) -> Result<ConsumerConfig, ConfigError> {
    let listen = values.required("listen", "an address, host:port")?;
    // Port 0 takes any free one.
    let any_port = listen.strip_suffix(":0").map(|host| format!("{host}:1"));
    check_host_port("listen", any_port.as_deref().unwrap_or(&listen), "an address, host:port")?;
    let cores = || thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    Ok(ConsumerConfig {
        common: common(values)?,
        consumer_id: match values.text("consumer-id")? {
            Some(id) if is_plain_name(&id) => id,
            Some(id) => return Err(ConfigError::new("consumer-id", quoted(&id), PLAIN_NAME)),
            None => listen.clone(),
        },
        listen,
        concurrency: values.optional_number("concurrency", 1, 4_096)?.unwrap_or_else(cores) as usize,
        prefetch: values.number("prefetch", 1, wire::MAX_IDS as u64)? as u32,
        handler: match values.required("handler", "stamp")? {
            handler if handler == "stamp" => handler,
            other => return Err(ConfigError::new("handler", quoted(&other), "stamp")),
        },
        handler_timeout: Some(values.millis("handler-timeout-ms", 0, 86_400_000)?).filter(|limit| !limit.is_zero()),
        result_maxlen: values.number("result-maxlen", 0, u64::MAX >> 11)?,
    })
}

/// Reads the publisher's command line.
pub fn publisher(
    arguments: impl IntoIterator<Item = OsString>,
    environment: Environment<'_>,
) -> Result<Parsed<PublisherConfig>, clap::Error> {
    read(tables::publisher(), arguments, environment, |matches| {
        let values = Values { matches, settings: PUBLISHER, environment };
        let common = common(&values)?;
        let random_prefix = || format!("{:08x}-", fastrand::u32(..));
        Ok(PublisherConfig {
            channel: channel(&values, &common.keys)?,
            count: values.optional_number("count", 1, u64::MAX >> 1)?,
            duration: values.duration("duration")?,
            rate: values.optional_number("rate", 1, 100_000_000)?,
            batch: values.optional_number("batch", 1, 1_000_000)?,
            id_prefix: match values.text("id-prefix")? {
                // A line break would split the line in a file of ids.
                Some(prefix) if prefix.len() <= 256 && !prefix.contains(char::is_control) => prefix,
                Some(prefix) => {
                    let takes = "at most 256 bytes without control characters";
                    return Err(ConfigError::new("id-prefix", quoted(&prefix), takes));
                }
                None => random_prefix(),
            },
            ids_file: values.path("ids-file")?,
            common,
        })
    })
}

/// Reads the command line of the operator's tool.
pub fn tool(
    arguments: impl IntoIterator<Item = OsString>,
    environment: Environment<'_>,
) -> Result<Parsed<ToolConfig>, clap::Error> {
    read(tables::tool(), arguments, environment, |matches| match matches.subcommand() {
        Some(("audit", matches)) => {
            let values = Values { matches, settings: AUDIT, environment };
            Ok(ToolConfig::Audit(Box::new(AuditConfig {
                common: common(&values)?,
                expect: values.optional_number("expect", 0, u64::MAX >> 1)?,
                ids: values.path("ids")?,
                id_field: values.required("id-field", "a field's name")?,
            })))
        }
        Some(("demo", matches)) => {
            let values = Values { matches, settings: DEMO, environment };
            Ok(ToolConfig::Demo(DemoConfig {
                redis_server: values.path("redis-server")?,
                rate: values.number("rate", 1, 1_000_000)?,
                duration: values.duration("duration")?.expect("the setting has a default"),
                log_level: log_level(&values)?,
            }))
        }
        Some(("status", matches)) => {
            let values = Values { matches, settings: STATUS, environment };
            Ok(ToolConfig::Status(Box::new(StatusConfig {
                common: common(&values)?,
                watch: values.is_on("watch")?,
                json: values.is_on("json")?,
                max_age: values.duration("max-age")?.expect("the setting has a default"),
            })))
        }
        Some(("chaos", matches)) => {
            chaos(&Values { matches, settings: CHAOS, environment }).map(|config| ToolConfig::Chaos(Box::new(config)))
        }
        Some(("witness", matches)) => {
            let values = Values { matches, settings: WITNESS, environment };
            let journals = PathBuf::from(values.required("journals", "a folder")?);
            Ok(ToolConfig::Witness(Box::new(WitnessConfig { consumer: consumer_of(&values)?, journals })))
        }
        Some(("bench", matches)) => {
            bench::bench(matches, environment).map(|config| ToolConfig::Bench(Box::new(config)))
        }
        Some((name, matches)) => {
            let part = parts::part(name, matches, environment)?;
            Ok(ToolConfig::BenchPart(Box::new(part.expect("clap lets no other subcommand pass"))))
        }
        None => unreachable!("clap demands a subcommand"),
    })
}

fn chaos(values: &Values<'_>) -> Result<ChaosConfig, ConfigError> {
    let names = |all: &[&str]| all.join(", ");
    let faults = values.required("faults", "faults separated by commas")?;
    let fault = |word: &str| Fault::ALL.into_iter().find(|fault| fault.name() == word.trim());
    let faults = faults.split(',').map(|word| {
        let takes = || format!("some of {}, separated by commas", names(&Fault::ALL.map(Fault::name)));
        fault(word).ok_or_else(|| ConfigError::new("faults", quoted(word), takes()))
    });
    let target = values.required("target", "whom to strike")?;
    let target = Target::ALL
        .into_iter()
        .find(|known| known.name() == target)
        .ok_or_else(|| ConfigError::new("target", quoted(&target), names(&Target::ALL.map(Target::name))))?;
    let duration = |name| Ok(values.duration(name)?.expect("the setting has a default"));
    /// From here on bursts of the usual size come at least twice a second.
    const BURSTS_FROM: u64 = 20_000;
    const BURST: u64 = 10_000;
    let rate = values.number("rate", 1, 1_000_000)?;
    let batch = values.optional_number("batch", 0, 1_000_000)?.unwrap_or(if rate < BURSTS_FROM { 0 } else { BURST });
    let plan = Plan {
        seed: values.optional_number("seed", 0, u64::MAX)?.unwrap_or_else(|| fastrand::u64(..1 << 32)),
        every: duration("every")?,
        duration: duration("duration")?,
        faults: faults.collect::<Result<_, _>>()?,
        target,
        least_outage: duration("least-outage")?,
        outage: duration("outage")?,
    };
    check_times(&plan, values)?;
    Ok(ChaosConfig {
        redis_server: values.path("redis-server")?,
        dispatchers: values.number("dispatcher-count", 2, 64)? as usize,
        consumers: values.number("consumer-count", 1, 64)? as usize,
        rate,
        batch: Some(batch).filter(|batch| *batch > 0),
        plan,
        report: values.path("report")?,
        log_level: log_level(values)?,
    })
}

/// The faults must fit into the run, at least one and not too many. Of the two times the one that was given is to blame.
fn check_times(plan: &Plan, values: &Values<'_>) -> Result<(), ConfigError> {
    /// They are drawn before it begins.
    const MOST_STRIKES: u128 = 1_000_000;
    let Plan { every, duration, .. } = plan;
    let blame_every = values.is_given("every");
    let (too_many, too_few) = match blame_every {
        true => (
            format!("at least a millionth of --duration ({duration:?})"),
            format!("at most two thirds of --duration ({duration:?}), so that something happens"),
        ),
        false => (
            format!("at most a million times --every ({every:?})"),
            format!("at least one and a half times --every ({every:?}), so that something happens"),
        ),
    };
    let takes = match duration.as_nanos() / every.as_nanos() {
        faults if faults > MOST_STRIKES => too_many,
        _ if *every + *every / 2 > *duration => too_few,
        _ => return Ok(()),
    };
    let (name, got) = if blame_every { ("every", every) } else { ("duration", duration) };
    Err(ConfigError::new(name, format_args!("{got:?}"), takes))
}

const DISPATCHER_NAME: &str = "1 to 64 letters, digits or any of . _ - : [ ] @, not beginning with alive:";
const PLAIN_NAME: &str = "1 to 64 letters, digits or any of . _ - : [ ] @";

/// Parses a command line and checks the values; `--help` and `--version` are no errors.
fn read<T>(
    mut command: Command,
    arguments: impl IntoIterator<Item = OsString>,
    environment: Environment<'_>,
    check: impl FnOnce(&clap::ArgMatches) -> Result<T, ConfigError>,
) -> Result<Parsed<T>, clap::Error> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    match command.try_get_matches_from_mut(&arguments) {
        Ok(matches) => match parsed(&matches, environment, check) {
            Ok(parsed) => Ok(parsed),
            Err(error) => {
                // The usage shown is that of the subcommand whose setting it is.
                let of = match matches.subcommand_name() {
                    Some(name) => command.find_subcommand_mut(name).expect("clap has found it"),
                    None => &mut command,
                };
                Err(of.error(clap::error::ErrorKind::ValueValidation, error))
            }
        },
        Err(error) if !error.use_stderr() => Ok(Parsed::Print(error.to_string())),
        Err(error) => Err(suggestion::completed(error, &command, &arguments)),
    }
}

/// Every program has the subcommand `healthcheck`, which needs none of the program's own settings.
fn parsed<T>(
    matches: &clap::ArgMatches,
    environment: Environment<'_>,
    check: impl FnOnce(&clap::ArgMatches) -> Result<T, ConfigError>,
) -> Result<Parsed<T>, ConfigError> {
    let Some((tables::HEALTHCHECK_NAME, matches)) = matches.subcommand() else {
        return check(matches).map(Parsed::Run);
    };
    let values = Values { matches, settings: HEALTHCHECK, environment };
    let question = if matches.get_flag(tables::ALIVE) { Question::Alive } else { Question::Ready };
    match metrics_addr(&values)? {
        Some(address) => Ok(Parsed::Healthcheck(HealthcheckConfig { address, question })),
        None => Err(ConfigError::missing("metrics-addr", "the --metrics-addr of the program to ask, host:port")),
    }
}

fn common(values: &Values<'_>) -> Result<CommonConfig, ConfigError> {
    const URL: &str = "redis://[user:password@]host[:port][/db] or redis+unix:///path";
    let url = values.required("redis-url", URL)?;
    // The value is not repeated: it may hold a password.
    let mut redis = Server::parse(&url)
        .map_err(|problem| ConfigError::new("redis-url", format_args!("a URL that can't be used ({problem})"), URL))?;
    if !values.is_given("redis-url") {
        redis = redis.by_default();
    }
    let group = values.required("group", "a name")?;
    if !is_group(&group) {
        return Err(ConfigError::new("group", quoted(&group), GROUP_FORM));
    }
    let declared = values.settings.iter().any(|setting| setting.name == "metrics-addr");
    let metrics_addr = if declared { metrics_addr(values)? } else { None };
    let keys = Keys::in_database(&group, redis.database());
    Ok(CommonConfig { redis, keys, log_level: log_level(values)?, metrics_addr })
}

/// The channel that the setting names.
pub(super) fn channel_name(values: &Values<'_>) -> Result<String, ConfigError> {
    let text = values.required("channel", "a channel's name")?;
    channel::exact_name(&text).map_err(|takes| ConfigError::new("channel", quoted(&text), takes))
}

/// The channel that users publish on.
fn channel(values: &Values<'_>, keys: &Keys) -> Result<String, ConfigError> {
    let channel = channel_name(values)?;
    if channel == keys.control || channel.starts_with(&keys.alive_prefix) {
        return Err(ConfigError::new("channel", quoted(&channel), "a channel that the group does not use itself"));
    }
    Ok(channel)
}

fn metrics_addr(values: &Values<'_>) -> Result<Option<String>, ConfigError> {
    match values.text("metrics-addr")?.filter(|address| address != "off") {
        Some(address) => {
            check_host_port("metrics-addr", &address, "an address, host:port, or off").map(|()| Some(address))
        }
        None => Ok(None),
    }
}

pub(super) fn log_level(values: &Values<'_>) -> Result<LevelFilter, ConfigError> {
    const LEVELS: &str = "off, error, warn, info, debug or trace";
    let text = values.required("log-level", LEVELS)?;
    text.parse().map_err(|_| ConfigError::new("log-level", quoted(&text), LEVELS))
}

fn retry_policy(values: &Values<'_>) -> Result<RetryPolicy, ConfigError> {
    let text = values.required("retry", "none, to deliver again at once")?;
    text.parse().map_err(|takes| ConfigError::new("retry", quoted(&text), takes))
}

fn consumer_addresses(values: &Values<'_>) -> Result<Vec<String>, ConfigError> {
    const TAKES: &str = "addresses separated by commas, host:port,host:port";
    const MAX_CONSUMERS: usize = 1_024;
    let text = values.required("consumers", TAKES)?;
    let addresses: Vec<String> = text.split(',').map(|address| address.trim().to_owned()).collect();
    addresses.iter().try_for_each(|address| check_host_port("consumers", address, TAKES))?;
    if let Some(twice) = addresses.iter().enumerate().find(|(i, address)| addresses[..*i].contains(address)) {
        return Err(ConfigError::new("consumers", format_args!("{} twice", quoted(twice.1)), TAKES));
    }
    if addresses.len() > MAX_CONSUMERS {
        return Err(ConfigError::new(
            "consumers",
            format_args!("{} addresses", addresses.len()),
            format_args!("at most {MAX_CONSUMERS}"),
        ));
    }
    Ok(addresses)
}

/// The host's name and the process id.
fn default_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .or_else(|| std::env::var("HOSTNAME").ok())
        .unwrap_or_default();
    let mut host: String =
        host.trim().chars().filter(|c| c.is_ascii_alphanumeric() || *c == '.' || *c == '-').collect();
    host.truncate(40);
    if host.is_empty() {
        host.push_str("dispatcher");
    }
    format!("{host}-{}", std::process::id())
}
