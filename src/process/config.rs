//! Settings: flags, their environment variables and secret files, checked once at start.
//!
//! Each setting `--some-name` may also be given as `ONCECAST_SOME_NAME`; a secret also as the path of a file in
//! `ONCECAST_SOME_NAME_FILE`. A flag wins over the variable, the variable over the file. A value that can't be used
//! stops the program before it does anything, with a [`ConfigError`] that names the setting, what it got and what it
//! takes.
//!
//! What is odd but no reason to stop is in [`warnings`]: variables that no program knows, and secret files that everybody can
//! read. A variable means the same to all programs, so one file of them may serve all. A URL with a password is shown
//! nowhere, and only a secret setting takes one.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Arg, ArgMatches, Command};

use crate::base::address::mistake_in_host_port;
use crate::base::mask::is_url_with_login;
use crate::base::setting::{ConfigError, PREFIX, variable_of};

mod bench;
mod channel;
mod environment;
mod programs;
mod suggestion;
mod tables;

pub use self::bench::parts::{BenchPart, LoadCommand, LoadConfig, ReaderConfig, RelayConfig, SlowConfig, WorkerConfig};
pub use self::bench::{BenchConfig, BenchParts};
pub use self::environment::warnings;
pub use self::programs::{
    AuditConfig, ChaosConfig, CommonConfig, ConsumerConfig, DemoConfig, DispatcherConfig, HealthcheckConfig, Parsed,
    PublisherConfig, StatusConfig, ToolConfig, WitnessConfig, consumer, dispatcher, publisher, tool,
};

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
            return accepted(setting, given.clone()).map(Some);
        }
        let variable = variable_of(name);
        // An empty variable counts as not given: that is how Compose and systemd files leave one out.
        if let Some(given) = (self.environment)(&variable).filter(|given| !given.is_empty()) {
            let given = given.into_string().map_err(|_| ConfigError::new(name, "bytes that are not UTF-8", "text"))?;
            return accepted(setting, given).map(Some);
        }
        let file = (self.environment)(&format!("{variable}_FILE")).filter(|path| setting.secret && !path.is_empty());
        if let Some(path) = file {
            return environment::read_secret(Path::new(&path)).map(Some).map_err(|problem| {
                let got = match path.to_string_lossy() {
                    // Read as a path, and shown by the system's error, it would be no secret any more.
                    value if value.contains("://") => format!("a URL in {variable}_FILE"),
                    path => format!("{variable}_FILE={path}: {problem}"),
                };
                ConfigError::new(name, got, "the path of a file with one line that can be read")
            });
        }
        match setting.default {
            Default::Text(text) => Ok(Some(text.to_owned())),
            Default::Required | Default::Found(_) => Ok(None),
        }
    }

    /// Whether somebody has given it, so that it may be to blame.
    fn is_given(&self, name: &'static str) -> bool {
        let variable = variable_of(name);
        let set = |variable: &str| (self.environment)(variable).is_some_and(|value| !value.is_empty());
        self.matches.contains_id(name) || set(&variable) || set(&format!("{variable}_FILE"))
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

    /// The path of a file or folder, or of a program.
    fn path(&self, name: &'static str) -> Result<Option<PathBuf>, ConfigError> {
        match self.text(name)? {
            Some(text) if text.is_empty() => Err(ConfigError::new(name, "nothing", "a path")),
            path => Ok(path.map(PathBuf::from)),
        }
    }

    /// A duration such as `30s`, `500ms`, `2m`; a bare number means seconds.
    fn duration(&self, name: &'static str) -> Result<Option<Duration>, ConfigError> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let takes = "a duration above zero such as 500ms, 30s or 2m, at most 8760h";
        let duration = crate::base::duration::parse(&text).filter(|duration| *duration <= MAX_DURATION);
        duration.map(Some).ok_or_else(|| ConfigError::new(name, quoted(&text), takes))
    }
}

/// A value as it was given, if it may be repeated.
fn accepted(setting: &Setting, given: String) -> Result<String, ConfigError> {
    if setting.secret || !is_url_with_login(&given) {
        return Ok(given);
    }
    let takes = "no URL with a login, which would be shown; that of Redis is --redis-url / ONCECAST_REDIS_URL_FILE";
    Err(ConfigError::new(setting.name, "a URL with a user or password (not repeated here)", takes))
}

/// The longest duration that a setting takes: a year. Sums of a few of them don't overflow.
const MAX_DURATION: Duration = Duration::from_secs(8_760 * 3_600);

/// The most bytes of a value that an error repeats.
const MAX_QUOTED_BYTES: usize = 100;

fn quoted(text: &str) -> String {
    let shown = &text[..text.floor_char_boundary(MAX_QUOTED_BYTES)];
    if shown.len() < text.len() { format!("{shown:?}… ({} bytes)", text.len()) } else { format!("{text:?}") }
}

/// Adds settings to a command, in order.
fn with_settings(command: Command, settings: &[Setting]) -> Command {
    settings.iter().fold(command, |command, setting| command.arg(setting.arg()))
}

/// A name that may stand in a lease or a marker: no spaces, no control characters.
fn is_plain_name(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-:[]@".contains(&b))
}

/// A [`ConfigError`] if the setting `name` got something that is no `host:port`.
fn check_host_port(name: &'static str, text: &str, takes: &str) -> Result<(), ConfigError> {
    if text.contains('@') {
        // It may be a password.
        return Err(ConfigError::new(name, "an address with a user or password (not repeated here)", takes));
    }
    mistake_in_host_port(text)
        .map_or(Ok(()), |mistake| Err(ConfigError::new(name, format_args!("{} ({mistake})", quoted(text)), takes)))
}

#[cfg(test)]
mod tests;
