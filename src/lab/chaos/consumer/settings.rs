//! The settings of a consumer for chaos experiments.

use std::path::PathBuf;

use clap::{ArgMatches, Command};

use crate::base::setting::ConfigError;
use crate::process::config::Default::Required;
use crate::process::config::{self, Environment, Setting, Values};
use crate::programs::consumer::settings::{ConsumerConfig, consumer_and, read_values};

/// The settings of a consumer for chaos experiments.
#[derive(Clone, Debug)]
pub struct ChaosConsumerConfig {
    /// The settings of every consumer.
    pub consumer: ConsumerConfig,
    /// The folder for journals. The file of this consumer has its id as its name.
    pub journals: PathBuf,
}

/// All settings, in the order in which `--help` lists them.
pub const SETTINGS: &[Setting] =
    &consumer_and(Setting::new("journals", "DIR", Required, "The folder for the journals of handler runs"));

/// The definition of the subcommand.
pub fn command() -> Command {
    config::command(
        "chaos-consumer",
        "A consumer that keeps a journal of its handler's runs. For internal use: oncecast chaos starts it.",
        "The other settings are those of oncecast-consumer.",
        SETTINGS,
    )
}

/// Reads and checks the settings.
pub fn read(matches: &ArgMatches, environment: Environment<'_>) -> Result<ChaosConsumerConfig, ConfigError> {
    let values = &Values::new(matches, SETTINGS, environment);
    let journals = PathBuf::from(values.required("journals", "a folder")?);
    Ok(ChaosConsumerConfig { consumer: read_values(values)?, journals })
}
