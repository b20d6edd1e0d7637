//! The settings of `oncecast status`.

use std::time::Duration;

use clap::{ArgMatches, Command};

use crate::base::setting::ConfigError;
use crate::process::config::Default::Text;
use crate::process::config::{self, Environment, Setting, Values};
use crate::process::log::settings::LOG_LEVEL;
use crate::programs::common::{CommonConfig, GROUP, REDIS_URL};

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

/// All of them, as `--help` lists them.
pub const SETTINGS: &[Setting] = &[
    REDIS_URL,
    GROUP,
    Setting::switch("watch", "Look again every second, until interrupted"),
    Setting::switch("json", "Print JSON, one line for each look"),
    Setting::new("max-age", "TIME", Text("60s"), "A message that is pending for longer needs attention"),
    LOG_LEVEL,
];

/// The definition of the subcommand.
pub fn command() -> Command {
    config::command(
        "status",
        "\
Shows how a group stands: who leads, what is connected, what is pending, and what may have been missed.

A gap is a stretch of the channel that no dispatcher may have heard; the newest are shown, all are in <group>:gaps.
What needs attention now is called a problem: no leader, a leader that can't take in, no consumer, a message that is
pending for longer than --max-age, ten dead letters or more within ten minutes. Notes are worth knowing: no
standby in sync, recent gaps, dead letters. Settings of Redis that endanger what is promised are shown beside them.",
        "\
Examples:
  oncecast status --group orders
  oncecast status --watch
  oncecast status --json | jq .pending

Exit codes: 0 all is well, 1 Redis can't be read, 2 wrong settings, 3 something needs attention.",
        SETTINGS,
    )
}

/// Reads and checks the settings.
pub fn read(matches: &ArgMatches, environment: Environment<'_>) -> Result<StatusConfig, ConfigError> {
    let values = &Values::new(matches, SETTINGS, environment);
    Ok(StatusConfig {
        common: CommonConfig::read(values)?,
        watch: values.is_on("watch")?,
        json: values.is_on("json")?,
        max_age: values.duration("max-age")?.expect("the setting has a default"),
    })
}
