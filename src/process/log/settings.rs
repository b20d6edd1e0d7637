//! What is logged.

use log::LevelFilter;

use crate::base::setting::ConfigError;
use crate::process::config::Default::Text;
use crate::process::config::{Setting, Values, quoted};

const LEVELS: &str = "off, error, warn, info, debug or trace";

/// The level down to which events are logged.
pub const LOG_LEVEL: Setting = Setting::new("log-level", "LEVEL", Text("info"), LEVELS);

/// Reads the level.
pub fn log_level(values: &Values<'_>) -> Result<LevelFilter, ConfigError> {
    let text = values.required("log-level", LEVELS)?;
    text.parse().map_err(|_| ConfigError::new("log-level", quoted(&text), LEVELS))
}
