//! The settings of `oncecast doctor`.

use clap::{ArgMatches, Command};

use crate::base::setting::ConfigError;
use crate::lane::roster::ConsumerSource;
use crate::ledger::Interests;
use crate::ledger::doctor::Program;
use crate::process::config::Default::{Found, Text};
use crate::process::config::{self, Environment, Setting, Values, quoted};
use crate::process::log::settings::LOG_LEVEL;
use crate::programs::common::{CommonConfig, GROUP, REDIS_CA, REDIS_CERT, REDIS_KEY, REDIS_URL};
use crate::programs::consumer_sources;
use crate::programs::interests::{CHANNEL, KEYEVENT, KEYSPACE_DB, PATTERN, SHARDED_CHANNEL, interests};

/// The settings of `oncecast doctor`.
#[derive(Clone, Debug)]
pub struct DoctorConfig {
    /// The settings that every program has.
    pub common: CommonConfig,
    /// What the group listens to.
    pub interests: Interests,
    /// The programs to examine the server for.
    pub programs: Vec<Program>,
    /// How many replicas the dispatchers wait for.
    pub wait_replicas: u32,
    /// The consumers to look for; none if there is nothing to look for.
    pub consumers: Vec<ConsumerSource>,
    /// As JSON.
    pub json: bool,
}

/// All settings, in the order in which `--help` lists them.
pub const SETTINGS: &[Setting] = &[
    REDIS_URL,
    REDIS_CA,
    REDIS_CERT,
    REDIS_KEY,
    GROUP,
    Setting::new(
        "program",
        "NAME,…",
        Found("all that the group needs"),
        "The programs to try the server for: dispatcher, consumer, publisher, status, audit. Each usually has a user \
         of its own, so name the one whose --redis-url this is. May be repeated",
    )
    .list(),
    CHANNEL,
    SHARDED_CHANNEL,
    PATTERN,
    KEYEVENT,
    KEYSPACE_DB,
    Setting::new(
        "deliver",
        "WHERE",
        Text("consumers"),
        "consumers, or stream: where the group's dispatchers put messages. With stream no consumer is needed",
    ),
    Setting::new("stream", "KEY", Found("<group>:messages"), "The stream of --deliver stream"),
    Setting::new(
        "wait-replicas",
        "N",
        Text("0"),
        "The dispatchers' --wait-replicas: also try whether so many replicas confirm what is stored",
    ),
    Setting::new(
        "consumers",
        "HOST:PORT,…",
        Found("none"),
        "Also try these entries of the dispatchers' --consumers: look names up, read files, connect to each address",
    ),
    Setting::switch("json", "Print JSON, one line"),
    LOG_LEVEL,
];

/// As for dispatchers.
const MOST_REPLICAS: u64 = 100;
const PROGRAMS: &str = "dispatcher, consumer, publisher, status or audit";
const DELIVER: &str = "consumers or stream";
const STREAM_FORM: &str = "a key that the group does not use itself, with --deliver stream";

/// The definition of the subcommand.
pub fn command() -> Command {
    config::command(
        "doctor",
        "\
Tries everything that each program needs of Redis, and says what is missing and what to type.

Each command is tried in a form that changes nothing, and then the programs' own steps on keys of a trial, which are
removed: <group>:put-back:doctor-…. A group that runs is not disturbed.
With a URL of Sentinels or of a Redis Cluster each of them is asked, and each server that may take the present one's
place is tried with the same user.
A program works, works slower or in part, for a reason that is given, or does not work. Then the line that helps is
shown, such as ACL SETUSER … or CONFIG SET …, for an administrator of the server to type.",
        "\
Examples:
  oncecast doctor --redis-url redis://10.0.0.1:6379
  ONCECAST_REDIS_URL_FILE=/etc/oncecast/consumer-redis-url oncecast doctor --program consumer
  oncecast doctor --program dispatcher --consumers dns:consumers.internal:6969
  oncecast doctor --redis-url redis+sentinel://10.0.0.1,10.0.0.2,10.0.0.3/orders --wait-replicas 1
  oncecast doctor --deliver stream --pattern 'orders.*' --program dispatcher --json

Exit codes: 0 every program works, if need be slower, 1 Redis can't be reached or refuses the login, 2 invalid settings,
3 a program does not work, would not after a failover, a node that the URL names refuses, or a consumer of --consumers
can't be reached.",
        SETTINGS,
    )
}

/// Reads and checks the settings.
pub fn read(matches: &ArgMatches, environment: Environment<'_>) -> Result<DoctorConfig, ConfigError> {
    let values = &Values::new(matches, SETTINGS, environment);
    let mut common = CommonConfig::read(values)?;
    let deliver = values.required("deliver", DELIVER)?;
    let to_stream = match deliver.as_str() {
        "consumers" => false,
        "stream" => true,
        other => return Err(ConfigError::new("deliver", quoted(other), DELIVER)),
    };
    let stream = values.text("stream")?;
    if let Some(key) = stream.as_ref()
        && (key.is_empty() || common.keys.is_own(key.as_bytes()) || !to_stream && !values.is_given("deliver"))
    {
        return Err(ConfigError::new("stream", quoted(key), STREAM_FORM));
    }
    if to_stream {
        let key = stream.unwrap_or_else(|| format!("{}:messages", common.keys.group));
        common = common.with_stream("stream", &key)?;
    }
    Ok(DoctorConfig {
        interests: interests(values, &common.keys, common.redis.database())?,
        programs: programs(values, to_stream)?,
        consumers: match values.text("consumers")? {
            Some(text) => consumer_sources::parse(&text)?,
            None => Vec::new(),
        },
        wait_replicas: values.number("wait-replicas", 0, MOST_REPLICAS)? as u32,
        json: values.is_on("json")?,
        common,
    })
}

fn programs(values: &Values<'_>, to_stream: bool) -> Result<Vec<Program>, ConfigError> {
    let dispatcher = if to_stream { Program::StreamDispatcher } else { Program::Dispatcher };
    let mut programs = Vec::new();
    for text in values.texts("program")? {
        for name in text.split(',').map(str::trim) {
            let program = match name {
                "dispatcher" => dispatcher,
                "consumer" => Program::Consumer,
                "publisher" => Program::Publisher,
                "status" => Program::Status,
                "audit" => Program::Audit,
                other => return Err(ConfigError::new("program", quoted(other), PROGRAMS)),
            };
            if !programs.contains(&program) {
                programs.push(program);
            }
        }
    }
    if programs.is_empty() {
        programs = vec![dispatcher, Program::Consumer, Program::Publisher, Program::Status, Program::Audit];
        programs.retain(|program| !to_stream || *program != Program::Consumer);
    }
    Ok(programs)
}
