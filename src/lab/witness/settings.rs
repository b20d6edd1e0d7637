//! The settings of a consumer that keeps a journal.

use std::path::PathBuf;

use clap::{ArgMatches, Command};

use crate::base::setting::ConfigError;
use crate::process::config::Default::Required;
use crate::process::config::{self, Environment, Setting, Values};
use crate::programs::consumer::settings::{ConsumerConfig, consumer_and, read_values};

/// The settings of a consumer that keeps a journal.
#[derive(Clone, Debug)]
pub struct WitnessConfig {
    /// What every consumer takes.
    pub consumer: ConsumerConfig,
    /// The folder with the journals; this consumer's has its id as its name.
    pub journals: PathBuf,
}

/// All of them, as `--help` lists them.
pub const SETTINGS: &[Setting] =
    &consumer_and(Setting::new("journals", "DIR", Required, "The folder for the journals of handler runs"));

/// The definition of the subcommand.
pub fn command() -> Command {
    config::command(
        "witness",
        "A consumer that keeps a journal of its handler's runs. Trials start it; there is no other use for it.",
        "The settings are those of oncecast-consumer.",
        SETTINGS,
    )
}

/// Reads and checks the settings.
pub fn read(matches: &ArgMatches, environment: Environment<'_>) -> Result<WitnessConfig, ConfigError> {
    let values = &Values::new(matches, SETTINGS, environment);
    let journals = PathBuf::from(values.required("journals", "a folder")?);
    Ok(WitnessConfig { consumer: read_values(values)?, journals })
}
