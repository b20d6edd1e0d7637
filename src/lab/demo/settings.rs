//! The settings of `oncecast demo`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgMatches, Command};
use log::LevelFilter;

use crate::base::setting::ConfigError;
use crate::lab::settings::{CLUSTER, DELIVER, Deliver, HANDLER, REDIS_SERVER, program};
use crate::process::config::Default::Text;
use crate::process::config::{self, Environment, Setting, Values};
use crate::process::log::settings::{LOG_LEVEL, log_level};
use crate::programs::consumer::exec::settings::{self as exec, ExecConfig};

/// The settings of `oncecast demo`.
#[derive(Clone, Debug)]
pub struct DemoConfig {
    /// The Redis server program, if it was named.
    pub redis_server: Option<PathBuf>,
    /// Whether Redis is a Redis Cluster.
    pub cluster: bool,
    /// What the dispatchers deliver to.
    pub deliver: Deliver,
    /// The program that the consumers' handler runs; `None`: the handler `stamp`.
    pub handler: Option<ExecConfig>,
    /// Messages per second.
    pub rate: u64,
    /// How long to publish.
    pub duration: Duration,
    /// What is logged.
    pub log_level: LevelFilter,
}

/// All settings, in the order in which `--help` lists them.
pub const SETTINGS: &[Setting] = &[
    REDIS_SERVER,
    CLUSTER,
    DELIVER,
    HANDLER,
    exec::EXEC,
    exec::EXEC_PER_MESSAGE,
    Setting::new("rate", "N", Text("2000"), "Messages published per second"),
    Setting::new("duration", "TIME", Text("10s"), "How long to publish"),
    LOG_LEVEL,
];

/// The definition of the subcommand.
pub fn command() -> Command {
    let command = config::command(
        "demo",
        "\
Starts a private Redis, 2 dispatchers, 3 consumers and a publisher, kills the leader once, and audits the results. With
--deliver stream the dispatchers add the messages to a Redis Stream, which 3 workers read like any Streams client. With
--handler exec the consumers run a program of your own, whose results need the field message_id of the payload.

Needs only redis-server or valkey-server on this machine. Everything it starts or writes is removed at the end.",
        "\
Examples:
  oncecast demo --rate 20000 --duration 30s
  oncecast demo --deliver stream
  oncecast demo --cluster
  oncecast demo --handler exec -- python3 examples/worker.py

Exit codes: 0 nothing lost and nothing recorded twice, or interrupted, 3 otherwise, 1 something could not be started or
does not work, 2 invalid settings.",
        SETTINGS,
    );
    exec::with_words(command)
}

/// Reads and checks the settings.
pub fn read(matches: &ArgMatches, environment: Environment<'_>) -> Result<DemoConfig, ConfigError> {
    let values = &Values::new(matches, SETTINGS, environment);
    let deliver = Deliver::read(values)?;
    Ok(DemoConfig {
        redis_server: values.path("redis-server")?,
        cluster: values.is_on(CLUSTER.name)?,
        deliver,
        handler: program(values, deliver)?,
        rate: values.number("rate", 1, 1_000_000)?,
        duration: values.duration("duration")?.expect("the setting has a default"),
        log_level: log_level(values)?,
    })
}
