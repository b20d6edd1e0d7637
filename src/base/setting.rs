//! The names of settings, and the error for a value that can't be used.
//!
//! A setting `some-name` is the flag `--some-name` and the variable `ONCECAST_SOME_NAME`.

use std::fmt;

use crate::base::mask::masked;

/// What the names of all variables begin with.
pub const PREFIX: &str = "ONCECAST_";

/// The environment variable of the setting `name`.
pub fn variable_of(name: &str) -> String {
    format!("{PREFIX}{}", name.to_uppercase().replace('-', "_"))
}

/// A setting that is missing or has a value that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("--{name} ({variable}): {problem}", variable = variable_of(name))]
pub struct ConfigError {
    name: &'static str,
    problem: String,
}

impl ConfigError {
    /// The setting `name` got a value that it does not accept. A URL's password in `got` is not repeated.
    pub fn new(name: &'static str, got: impl fmt::Display, takes: impl fmt::Display) -> ConfigError {
        ConfigError { name, problem: format!("got {}, takes {takes}", masked(&got.to_string())) }
    }

    /// The setting `name` must be given.
    pub fn missing(name: &'static str, takes: impl fmt::Display) -> ConfigError {
        ConfigError { name, problem: format!("is required, takes {takes}") }
    }
}
