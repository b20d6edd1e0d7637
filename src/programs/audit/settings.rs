//! The settings of `oncecast audit`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgMatches, Command};

use crate::base::setting::ConfigError;
use crate::process::config::Default::{Found, Text};
use crate::process::config::{self, Environment, Setting, Values, quoted};
use crate::process::log::settings::LOG_LEVEL;
use crate::programs::common::{CommonConfig, GROUP, LANE, REDIS_CA, REDIS_CERT, REDIS_KEY, REDIS_URL};
use crate::programs::patience::PATIENCE;

/// The settings of `oncecast audit`.
#[derive(Clone, Debug)]
pub struct AuditConfig {
    /// The settings that every program has.
    pub common: CommonConfig,
    /// How many distinct messages are expected.
    pub expect: Option<u64>,
    /// A file with the expected ids.
    pub ids: Option<PathBuf>,
    /// The result's field with the id.
    pub id_field: String,
    /// As JSON.
    pub json: bool,
    /// How long Redis may be unreachable before the audit gives up. Not a setting of the program.
    pub patience: Duration,
}

/// All settings, in the order in which `--help` lists them.
pub const SETTINGS: &[Setting] = &[
    REDIS_URL,
    REDIS_CA,
    REDIS_CERT,
    REDIS_KEY,
    GROUP,
    LANE,
    Setting::new(
        "stream",
        "KEY",
        Found("the results"),
        "Audit the entries of this stream, for a group with --deliver stream",
    ),
    Setting::new("expect", "N", Found("unknown"), "How many distinct messages to expect"),
    Setting::new("ids", "FILE", Found("unknown"), "A file with the ids to expect, one per line"),
    Setting::switch("json", "Print JSON, one object on one line"),
    Setting::new("id-field", "NAME", Text("message_id"), "The field of each result that holds the message's id"),
    LOG_LEVEL,
];

/// The definition of the subcommand.
pub fn command() -> Command {
    config::command(
        "audit",
        "\
Counts the results: entries, distinct ids, and ids recorded more than once; with --expect or --ids also lost and \
foreign ids.

An id is lost if it was expected and is neither in the results nor in the dead letters nor pending. It is foreign if it
has a result and was not expected. In a group with several lanes the counts of each lane stand before those of all.",
        "\
Examples:
  oncecast audit --expect 1000000
  oncecast audit --group orders --ids ids.txt
  oncecast audit --expect 1000000 --json | jq .recorded_twice
  oncecast audit --group orders --stream orders:messages --ids ids.txt

Exit codes: 0 nothing lost or recorded twice, 1 Redis can't be read, 2 invalid settings, 3 something lost or recorded
twice, or some of several lanes can't be read.",
        SETTINGS,
    )
}

/// Reads and checks the settings.
pub fn read(matches: &ArgMatches, environment: Environment<'_>) -> Result<AuditConfig, ConfigError> {
    let values = &Values::new(matches, SETTINGS, environment);
    let mut common = CommonConfig::read(values)?;
    if let Some(stream) = values.text("stream")? {
        if stream.is_empty() {
            return Err(ConfigError::new("stream", quoted(&stream), "the key of a stream"));
        }
        common = common.with_stream("stream", &stream)?;
    }
    Ok(AuditConfig {
        common,
        expect: values.optional_number("expect", 0, u64::MAX >> 1)?,
        ids: values.path("ids")?,
        json: values.is_on("json")?,
        id_field: values.required("id-field", "a field's name")?,
        patience: PATIENCE,
    })
}
