//! The settings of `oncecast conform`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, ArgMatches, Command};
use log::LevelFilter;

use crate::base::address::mistake_in_host_port;
use crate::base::setting::ConfigError;
use crate::lane::roster::SECURE_SCHEME;
use crate::ledger::{Keys, Server};
use crate::net::ClientTls;
use crate::process::config::Default::{Found, Text};
use crate::process::config::{self, Environment, Setting, Values};
use crate::process::log::settings::{LOG_LEVEL, log_level};
use crate::programs::common::{
    CommonConfig, GROUP, LINK_SECRET_FILE, REDIS_CA, REDIS_CERT, REDIS_KEY, REDIS_URL, TLS_CA, TLS_CERT, TLS_KEY,
    link_tls,
};

/// The settings of `oncecast conform`.
#[derive(Clone, Debug)]
pub struct ConformConfig {
    /// The consumer under test, `host:port`; `None` with `list`.
    pub address: Option<String>,
    /// TLS, if the consumer has it.
    pub tls: Option<ClientTls>,
    /// The file with the consumer's link secret, if it has one.
    pub link_secret_file: Option<PathBuf>,
    /// The consumer's Redis, in case it records its results itself.
    pub redis: Server,
    /// The consumer's group.
    pub keys: Keys,
    /// Whether the consumer runs the conformance handler.
    pub conformance_handler: bool,
    /// The consumer's process, to be stopped in the last case.
    pub pid: Option<i32>,
    /// The cases to run; empty: all.
    pub only: Vec<String>,
    /// List the cases instead.
    pub list: bool,
    /// As JSON.
    pub json: bool,
    /// How long the consumer may take for each thing that it must do.
    pub timeout: Duration,
    /// What is logged.
    pub log_level: LevelFilter,
}

/// The argument that names the consumer.
const ADDRESS: &str = "address";

/// All settings, in the order in which `--help` lists them.
pub const SETTINGS: &[Setting] = &[
    GROUP,
    REDIS_URL,
    REDIS_CA,
    REDIS_CERT,
    REDIS_KEY,
    TLS_CA,
    TLS_CERT,
    TLS_KEY,
    LINK_SECRET_FILE,
    Setting::switch("conformance-handler", "The consumer runs the handler of docs/CONFORMANCE.md: run its cases, too"),
    Setting::new("pid", "PID", Found("unknown"), "The consumer's process: the last case stops it with SIGTERM"),
    Setting::new("only", "NAME", Found("all"), "Run this case; may be repeated").list(),
    Setting::switch("list", "List the cases and run none"),
    Setting::switch("json", "Print JSON, one line"),
    Setting::new("timeout", "TIME", Text("5s"), "How long the consumer may take for each thing that it must do"),
    LOG_LEVEL,
];

/// The definition of the subcommand.
pub fn command() -> Command {
    let command = config::command(
        "conform",
        "\
Plays a dispatcher to a consumer and reports where it violates the protocol.

For authors of consumers in any language: each case tests a rule of docs/PROTOCOL.md, and a failure shows the frames
that led to it. The consumer must serve no dispatcher meanwhile. If it records its results in Redis itself, its group
there must be a trial group: one that no dispatcher has used, or one whose name begins with conform.
docs/CONFORMANCE.md says more.",
        "\
Examples:
  oncecast conform ws://127.0.0.1:6969
  oncecast conform 127.0.0.1:6969 --conformance-handler --pid 4711
  oncecast conform 127.0.0.1:6969 --redis-url redis://127.0.0.1:6379 --group conform
  oncecast conform 127.0.0.1:6969 --only same-id-again --json
  oncecast conform wss://10.0.0.11:6969 --tls-ca ca.pem
  oncecast conform 127.0.0.1:6969 --link-secret-file link-secret
  oncecast conform --list

Exit codes: 0 no case failed, 1 the consumer or its Redis can't be used, 2 invalid settings, 3 a case failed.",
        SETTINGS,
    );
    let address = Arg::new(ADDRESS)
        .value_name("ADDRESS")
        .help("The consumer: ws://host:port or host:port, or wss://host:port if it has TLS")
        .required_unless_present("list")
        .value_parser(host_and_port);
    command.arg(address)
}

/// Reads and checks the settings.
pub fn read(matches: &ArgMatches, environment: Environment<'_>) -> Result<ConformConfig, ConfigError> {
    let values = &Values::new(matches, SETTINGS, environment);
    let CommonConfig { redis, keys, .. } = CommonConfig::read(values)?;
    let address = matches.get_one::<String>(ADDRESS).cloned();
    Ok(ConformConfig {
        tls: link_tls(values, address.as_ref().is_some_and(|address| address.starts_with(SECURE_SCHEME)))?,
        address: address.map(|address| address.strip_prefix(SECURE_SCHEME).unwrap_or(&address).to_owned()),
        link_secret_file: values.path(LINK_SECRET_FILE.name)?,
        redis,
        keys,
        conformance_handler: values.is_on("conformance-handler")?,
        // 1 is init, 0 and below are groups of processes.
        pid: values.optional_number("pid", 2, i32::MAX as u64)?.map(|pid| pid as i32),
        only: values.texts("only")?,
        list: values.is_on("list")?,
        json: values.is_on("json")?,
        timeout: values.duration("timeout")?.expect("the setting has a default"),
        log_level: log_level(values)?,
    })
}

/// The address without what makes it a URL, except what asks for TLS.
fn host_and_port(text: &str) -> Result<String, String> {
    let (scheme, address) = match text.strip_prefix(SECURE_SCHEME) {
        Some(address) => (SECURE_SCHEME, address),
        None => ("", text.strip_prefix("ws://").unwrap_or(text)),
    };
    let address = address.strip_suffix('/').unwrap_or(address);
    mistake_in_host_port(address).map_or(Ok(format!("{scheme}{address}")), |mistake| Err(mistake.to_owned()))
}
