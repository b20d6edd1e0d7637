//! The settings of `oncecast audit`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgMatches, Command};

use crate::base::setting::ConfigError;
use crate::process::config::Default::{Found, Text};
use crate::process::config::{self, Environment, Setting, Values};
use crate::process::log::settings::LOG_LEVEL;
use crate::programs::common::{CommonConfig, GROUP, REDIS_URL};

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
    /// How long Redis may be away before the audit gives up. Not a setting of the program.
    pub patience: Duration,
}

/// How long the program waits for Redis.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// All of them, as `--help` lists them.
pub const SETTINGS: &[Setting] = &[
    REDIS_URL,
    GROUP,
    Setting::new("expect", "N", Found("unknown"), "How many distinct messages there must be"),
    Setting::new("ids", "FILE", Found("unknown"), "A file with the ids there must be, one on each line"),
    Setting::new("id-field", "NAME", Text("message_id"), "The field of a result that holds the message's id"),
    LOG_LEVEL,
];

/// The definition of the subcommand.
pub fn command() -> Command {
    config::command(
        "audit",
        "\
Counts the results: entries, distinct ids, ids recorded more than once; with --expect or --ids also lost and \
foreign ones.

A message is lost if it is neither in the results nor in the dead letters nor still pending.",
        "\
Examples:
  oncecast audit --expect 1000000
  oncecast audit --group orders --ids ids.txt

Exit codes: 0 nothing lost and nothing recorded twice, 3 otherwise, 1 Redis can't be read, 2 wrong settings.",
        SETTINGS,
    )
}

/// Reads and checks the settings.
pub fn read(matches: &ArgMatches, environment: Environment<'_>) -> Result<AuditConfig, ConfigError> {
    let values = &Values::new(matches, SETTINGS, environment);
    Ok(AuditConfig {
        common: CommonConfig::read(values)?,
        expect: values.optional_number("expect", 0, u64::MAX >> 1)?,
        ids: values.path("ids")?,
        id_field: values.required("id-field", "a field's name")?,
        patience: PATIENCE,
    })
}
