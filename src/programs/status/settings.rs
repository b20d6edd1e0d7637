//! The settings of `oncecast status`.

use std::time::Duration;

use clap::{ArgMatches, Command};

use crate::base::setting::ConfigError;
use crate::process::config::Default::Text;
use crate::process::config::{self, Environment, Setting, Values};
use crate::process::log::settings::LOG_LEVEL;
use crate::programs::common::{CommonConfig, GROUP, LANE, REDIS_CA, REDIS_CERT, REDIS_KEY, REDIS_URL};

/// The settings of `oncecast status`.
#[derive(Clone, Debug)]
pub struct StatusConfig {
    /// The settings that every program has.
    pub common: CommonConfig,
    /// Check again every second.
    pub watch: bool,
    /// As JSON.
    pub json: bool,
    /// How long a message may be pending before that needs attention.
    pub max_age: Duration,
}

/// All settings, in the order in which `--help` lists them.
pub const SETTINGS: &[Setting] = &[
    REDIS_URL,
    REDIS_CA,
    REDIS_CERT,
    REDIS_KEY,
    GROUP,
    LANE,
    Setting::switch("watch", "Check again every second, until interrupted"),
    Setting::switch("json", "Print JSON, one line per check"),
    Setting::new("max-age", "TIME", Text("60s"), "A message pending for longer is a problem"),
    LOG_LEVEL,
];

/// The definition of the subcommand.
pub fn command() -> Command {
    config::command(
        "status",
        "\
Shows the state of a group: its leader, its dispatchers and consumers, pending messages, and gaps.

A gap is a period in which no dispatcher may have received what was published on the channel; the newest are shown, all
are in <group>:gaps. A problem needs attention now: no leader, a leader that can't store messages, no consumer, a
message pending for longer than --max-age, ten or more dead letters within ten minutes. Notes are for information: no
standby in sync, recent gaps, dead letters. Settings of Redis that endanger the guarantees are shown, too.",
        "\
Examples:
  oncecast status --group orders
  oncecast status --watch
  oncecast status --json | jq .pending

Exit codes: 0 no problem, 1 Redis can't be read, 2 invalid settings, 3 a problem, or some of several lanes can't be
read.",
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
