//! Settings: flags, their environment variables and secret files, checked once at start.
//!
//! Each setting `--some-name` may also be given as `ONCECAST_SOME_NAME`; a secret also as the path of a file in
//! `ONCECAST_SOME_NAME_FILE`. A flag wins over the variable, the variable over the file. A value that can't be used
//! stops the program before it does anything, with a [`ConfigError`] that names the setting, what it got and what it
//! takes.

use std::ffi::OsString;
use std::fmt;
use std::time::Duration;

use clap::{Arg, ArgMatches, Command};

mod bench;
mod programs;
mod tables;

pub use self::bench::parts::{BenchPart, LoadCommand, LoadConfig, ReaderConfig, RelayConfig, SlowConfig, WorkerConfig};
pub use self::bench::{BenchConfig, BenchParts};
pub use self::programs::{
    AuditConfig, ChaosConfig, CommonConfig, ConsumerConfig, DemoConfig, DispatcherConfig, HealthcheckConfig, Parsed,
    PublisherConfig, StatusConfig, ToolConfig, WitnessConfig, consumer, dispatcher, publisher, tool,
};

/// A setting that is missing or has a value that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("--{name} ({variable}): {problem}", variable = variable_of(name))]
pub struct ConfigError {
    name: &'static str,
    problem: String,
}

impl ConfigError {
    /// The setting `name` got something it can't use.
    pub fn new(name: &'static str, got: impl fmt::Display, takes: impl fmt::Display) -> ConfigError {
        ConfigError { name, problem: format!("got {got}, takes {takes}") }
    }

    /// The setting `name` must be given.
    pub fn missing(name: &'static str, takes: impl fmt::Display) -> ConfigError {
        ConfigError { name, problem: format!("is required, takes {takes}") }
    }
}

/// The command lines of all programs, subcommands included, for the manual pages.
pub fn command_lines() -> [Command; 4] {
    [tables::dispatcher(), tables::consumer(), tables::publisher(), tables::tool()]
}

/// One setting, as `--help` shows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    name: &'static str,
    value: &'static str,
    default: Default,
    help: &'static str,
    secret: bool,
    /// Given or not, without a value.
    switch: bool,
}

/// What a setting is if it is not given.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Default {
    /// It has to be given.
    Required,
    /// This text.
    Text(&'static str),
    /// Nothing; the program finds it out, as described.
    Found(&'static str),
}

impl Setting {
    pub(crate) const fn new(name: &'static str, value: &'static str, default: Default, help: &'static str) -> Setting {
        Setting { name, value, default, help, secret: false, switch: false }
    }

    /// One that is given or not.
    pub(crate) const fn switch(name: &'static str, help: &'static str) -> Setting {
        Setting { name, value: "", default: Default::Found("no"), help, secret: false, switch: true }
    }

    const fn secret(mut self) -> Setting {
        self.secret = true;
        self
    }

    fn arg(&self) -> Arg {
        let variable = variable_of(self.name);
        let default = match self.default {
            Default::Required => "required".to_owned(),
            Default::Text(text) => format!("default: {text}"),
            Default::Found(how) => format!("default: {how}"),
        };
        let file =
            if self.secret { format!(", or the path of a file with it in {variable}_FILE") } else { String::new() };
        // The variable is read by us, not by clap: --help must not show its value.
        let arg =
            Arg::new(self.name).long(self.name).help(format!("{}\n[{default}] [env: {variable}{file}]", self.help));
        match self.switch {
            // Nothing after it is taken for its value.
            true => arg
                .action(clap::ArgAction::Set)
                .num_args(0)
                .value_parser(clap::value_parser!(String))
                .default_missing_value("yes"),
            false => arg.value_name(self.value).allow_hyphen_values(true),
        }
    }
}

fn variable_of(name: &str) -> String {
    format!("ONCECAST_{}", name.to_uppercase().replace('-', "_"))
}

/// Where variables come from: the environment, or a test's table.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// The process's environment.
pub fn environment(variable: &str) -> Option<OsString> {
    std::env::var_os(variable)
}

/// The values given, by setting.
pub(crate) struct Values<'a> {
    matches: &'a ArgMatches,
    settings: &'a [Setting],
    environment: Environment<'a>,
}

impl Values<'_> {
    /// The text given for a setting, or its default.
    fn text(&self, name: &'static str) -> Result<Option<String>, ConfigError> {
        let setting =
            self.settings.iter().find(|setting| setting.name == name).expect("only declared settings are read");
        if let Some(given) = self.matches.get_one::<String>(name) {
            return Ok(Some(given.clone()));
        }
        let variable = variable_of(name);
        // An empty variable counts as not given: that is how Compose and systemd files leave one out.
        if let Some(given) = (self.environment)(&variable).filter(|given| !given.is_empty()) {
            let given = given.into_string().map_err(|_| ConfigError::new(name, "bytes that are not UTF-8", "text"))?;
            return Ok(Some(given));
        }
        let file = (self.environment)(&format!("{variable}_FILE")).filter(|path| setting.secret && !path.is_empty());
        if let Some(path) = file {
            let content = std::fs::read_to_string(&path).map_err(|error| {
                let got = format!("{variable}_FILE={}: {error}", path.display());
                ConfigError::new(name, got, "a file that can be read")
            })?;
            return Ok(Some(content.trim_end_matches(['\r', '\n']).to_owned()));
        }
        match setting.default {
            Default::Text(text) => Ok(Some(text.to_owned())),
            Default::Required | Default::Found(_) => Ok(None),
        }
    }

    fn required(&self, name: &'static str, takes: &str) -> Result<String, ConfigError> {
        match self.text(name)? {
            Some(text) if text.is_empty() => Err(ConfigError::new(name, "nothing", takes)),
            Some(text) => Ok(text),
            None => Err(ConfigError::missing(name, takes)),
        }
    }

    fn number(&self, name: &'static str, least: u64, most: u64) -> Result<u64, ConfigError> {
        Ok(self.optional_number(name, least, most)?.expect("the setting has a default"))
    }

    fn optional_number(&self, name: &'static str, least: u64, most: u64) -> Result<Option<u64>, ConfigError> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        match text.parse() {
            Ok(number) if (least..=most).contains(&number) => Ok(Some(number)),
            _ => Err(ConfigError::new(name, quoted(&text), format_args!("a whole number from {least} to {most}"))),
        }
    }

    fn millis(&self, name: &'static str, least: u64, most: u64) -> Result<Duration, ConfigError> {
        self.number(name, least, most).map(Duration::from_millis)
    }

    fn is_on(&self, name: &'static str) -> Result<bool, ConfigError> {
        match self.text(name)?.as_deref() {
            None | Some("no" | "false" | "0") => Ok(false),
            Some("yes" | "true" | "1") => Ok(true),
            Some(other) => Err(ConfigError::new(name, quoted(other), "yes or no")),
        }
    }

    /// A duration such as `30s`, `500ms`, `2m`; a bare number means seconds.
    fn duration(&self, name: &'static str) -> Result<Option<Duration>, ConfigError> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let takes = "a duration above zero such as 500ms, 30s or 2m";
        crate::duration::parse(&text).map(Some).ok_or_else(|| ConfigError::new(name, quoted(&text), takes))
    }
}

fn quoted(text: &str) -> String {
    format!("{text:?}")
}

/// Adds settings to a command, in order.
fn with_settings(command: Command, settings: &[Setting]) -> Command {
    settings.iter().fold(command, |command, setting| command.arg(setting.arg()))
}

/// A name that may stand in a lease or a marker: no spaces, no control characters.
fn is_plain_name(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-:[]@".contains(&b))
}

/// `host:port`; the host may be a name, an IPv4 address or an IPv6 address in brackets.
fn is_host_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let bracketed = host.starts_with('[') && host.ends_with(']');
    let good_host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)),
    };
    let good_port = port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0);
    good_host && good_port && (bracketed || !host.contains(':'))
}

#[cfg(test)]
mod tests;
