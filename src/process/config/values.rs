//! The values given for settings: flag, environment variable, secret file or default, each read and checked.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ArgMatches;

use super::secret::read_secret;
use super::setting::{Default, Setting};
use crate::base::address::mistake_in_host_port;
use crate::base::duration;
use crate::base::mask::is_url_with_login;
use crate::base::setting::{ConfigError, variable_of};
use crate::base::text::beginning;

/// Where variables come from: the environment, or a test's table.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// The process's environment.
pub fn environment(variable: &str) -> Option<OsString> {
    std::env::var_os(variable)
}

/// The values given, by setting.
pub struct Values<'a> {
    matches: &'a ArgMatches,
    settings: &'a [Setting],
    environment: Environment<'a>,
}

impl<'a> Values<'a> {
    /// The values of `settings`: flags from `matches`, the rest from `environment`.
    pub fn new(matches: &'a ArgMatches, settings: &'a [Setting], environment: Environment<'a>) -> Values<'a> {
        Values { matches, settings, environment }
    }

    /// Whether the present command has this setting.
    pub fn has(&self, setting: &Setting) -> bool {
        self.settings.iter().any(|own| own.name == setting.name)
    }

    fn declared(&self, name: &str) -> &'a Setting {
        self.settings.iter().find(|setting| setting.name == name).expect("only declared settings are read")
    }

    /// The text given for a setting, or its default.
    pub fn text(&self, name: &'static str) -> Result<Option<String>, ConfigError> {
        let setting = self.declared(name);
        if let Some(given) = self.matches.get_one::<String>(name) {
            return accepted(setting, given.clone()).map(Some);
        }
        let variable = variable_of(name);
        // An empty variable counts as not given, because Compose and systemd files leave a variable out that way.
        if let Some(given) = (self.environment)(&variable).filter(|given| !given.is_empty()) {
            let given = given.into_string().map_err(|_| ConfigError::new(name, "bytes that are not UTF-8", "text"))?;
            return accepted(setting, given).map(Some);
        }
        let file = (self.environment)(&format!("{variable}_FILE")).filter(|path| setting.secret && !path.is_empty());
        if let Some(path) = file {
            return read_secret(Path::new(&path)).map(Some).map_err(|problem| {
                let got = match path.to_string_lossy() {
                    // This is probably the secret itself instead of a path, so it must not be shown.
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

    /// The texts given for a list: one for each time its flag was given, or the variable's, or its default.
    pub fn texts(&self, name: &'static str) -> Result<Vec<String>, ConfigError> {
        match self.matches.get_many::<String>(name) {
            Some(given) if given.len() > 1 => {
                let setting = self.declared(name);
                given.map(|text| accepted(setting, text.clone())).collect()
            }
            _ => Ok(self.text(name)?.into_iter().collect()),
        }
    }

    /// The words at the end of the command line, if this command has such.
    pub fn words(&self, name: &str) -> Vec<OsString> {
        let given = self.matches.try_get_many::<OsString>(name);
        given.ok().flatten().map(|words| words.cloned().collect()).unwrap_or_default()
    }

    /// Whether it was given by its flag.
    pub fn is_flag_given(&self, name: &str) -> bool {
        self.matches.contains_id(name)
    }

    /// Whether it was given, by flag, variable or file, so that an error may be caused by it.
    pub fn is_given(&self, name: &'static str) -> bool {
        let variable = variable_of(name);
        let set = |variable: &str| (self.environment)(variable).is_some_and(|value| !value.is_empty());
        self.matches.contains_id(name) || set(&variable) || set(&format!("{variable}_FILE"))
    }

    /// The text of a setting that must not be empty.
    pub fn required(&self, name: &'static str, takes: &str) -> Result<String, ConfigError> {
        match self.text(name)? {
            Some(text) if text.is_empty() => Err(ConfigError::new(name, "nothing", takes)),
            Some(text) => Ok(text),
            None => Err(ConfigError::missing(name, takes)),
        }
    }

    /// A whole number, for a setting with a default.
    pub fn number(&self, name: &'static str, least: u64, most: u64) -> Result<u64, ConfigError> {
        Ok(self.optional_number(name, least, most)?.expect("the setting has a default"))
    }

    /// A whole number, if one was given.
    pub fn optional_number(&self, name: &'static str, least: u64, most: u64) -> Result<Option<u64>, ConfigError> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        match text.parse() {
            Ok(number) if (least..=most).contains(&number) => Ok(Some(number)),
            _ => Err(ConfigError::new(name, quoted(&text), format_args!("a whole number from {least} to {most}"))),
        }
    }

    /// A number of milliseconds, for a setting with a default.
    pub fn millis(&self, name: &'static str, least: u64, most: u64) -> Result<Duration, ConfigError> {
        self.number(name, least, most).map(Duration::from_millis)
    }

    /// Whether a switch is on.
    pub fn is_on(&self, name: &'static str) -> Result<bool, ConfigError> {
        match self.text(name)?.as_deref() {
            None | Some("no" | "false" | "0") => Ok(false),
            Some("yes" | "true" | "1") => Ok(true),
            Some(other) => Err(ConfigError::new(name, quoted(other), "yes or no")),
        }
    }

    /// The path of a file or folder, or of a program.
    pub fn path(&self, name: &'static str) -> Result<Option<PathBuf>, ConfigError> {
        match self.text(name)? {
            Some(text) if text.is_empty() => Err(ConfigError::new(name, "nothing", "a path")),
            path => Ok(path.map(PathBuf::from)),
        }
    }

    /// A duration such as `30s`, `500ms`, `2m`; a bare number means seconds.
    pub fn duration(&self, name: &'static str) -> Result<Option<Duration>, ConfigError> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let takes = "a duration above zero such as 500ms, 30s or 2m, at most 8760h";
        let duration = duration::parse(&text).filter(|duration| *duration <= MAX_DURATION);
        duration.map(Some).ok_or_else(|| ConfigError::new(name, quoted(&text), takes))
    }
}

/// A value as it was given, if it may be shown.
fn accepted(setting: &Setting, given: String) -> Result<String, ConfigError> {
    if setting.secret || !is_url_with_login(&given) {
        return Ok(given);
    }
    let takes =
        "no URL with a login, which would be shown; the URL of Redis goes into --redis-url / ONCECAST_REDIS_URL_FILE";
    Err(ConfigError::new(setting.name, "a URL with a user or password (not repeated here)", takes))
}

/// The longest duration that a setting accepts: a year. Sums of a few of them don't overflow.
const MAX_DURATION: Duration = Duration::from_secs(8_760 * 3_600);

/// The most bytes of a value that an error shows.
const MAX_QUOTED_BYTES: usize = 100;

/// A value as an error shows it: in quotes, and truncated if it is long.
pub fn quoted(text: &str) -> String {
    let shown = beginning(text, MAX_QUOTED_BYTES);
    if shown.len() < text.len() { format!("{shown:?}… ({} bytes)", text.len()) } else { format!("{text:?}") }
}

/// What [`is_plain_name`] accepts, in words.
pub const PLAIN_NAME: &str = "1 to 64 letters, digits or any of . _ - : [ ] @";

/// Whether a name may be part of a lease or a marker: no spaces, no control characters.
pub fn is_plain_name(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-:[]@".contains(&b))
}

/// Checks that the text given for the setting `name` is an address `host:port`.
pub fn check_host_port(name: &'static str, text: &str, takes: &str) -> Result<(), ConfigError> {
    if text.contains('@') {
        // It may be a password.
        return Err(ConfigError::new(name, "an address with a user or password (not repeated here)", takes));
    }
    mistake_in_host_port(text)
        .map_or(Ok(()), |mistake| Err(ConfigError::new(name, format_args!("{} ({mistake})", quoted(text)), takes)))
}
