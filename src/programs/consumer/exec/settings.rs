//! The settings of the handler.

use std::ffi::OsString;
use std::fs;

use clap::{Arg, Command};

use super::{group, program};
use crate::base::setting::ConfigError;
use crate::process::config::Default::Found;
use crate::process::config::{Setting, Values, quoted};

/// What the handler runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecConfig {
    /// The program and its arguments: at least one word.
    pub words: Vec<OsString>,
    /// Whether each message has a process of its own.
    pub per_message: bool,
}

impl ExecConfig {
    /// The arguments of a consumer with this handler; nothing may follow them.
    pub fn arguments(&self) -> Vec<OsString> {
        let flags = ["--handler", "exec", "--exec-per-message"];
        let flags = if self.per_message { &flags[..] } else { &flags[..2] };
        flags.iter().chain(&["--"]).map(OsString::from).chain(self.words.iter().cloned()).collect()
    }
}

/// The program, for an environment file: a command line has it at its end.
pub const EXEC: Setting = Setting::new(
    "exec",
    "COMMAND",
    Found("none"),
    "With --handler exec: the program and its arguments, split at white space; quotes have no meaning. To give words \
     as they are, write them at the end of the command line instead, after --",
);

/// Whether each message has a process of its own.
pub const EXEC_PER_MESSAGE: Setting = Setting::switch(
    "exec-per-message",
    "With --handler exec: start the program for each message, with the payload on its standard input and the rest in \
     variables ONCECAST_*, instead of children that live long",
);

/// The words after `--`.
const WORDS: &str = "command";

/// Adds the words after `--` to a command line.
pub fn with_words(command: Command) -> Command {
    let words = Arg::new(WORDS)
        .value_name("COMMAND")
        .help("With --handler exec: the program and its arguments")
        .value_parser(clap::value_parser!(OsString))
        .num_args(1..)
        .last(true);
    command.arg(words)
}

/// What `--handler exec` runs.
pub fn read(values: &Values<'_>) -> Result<ExecConfig, ConfigError> {
    const TAKES: &str = "a program and its arguments, which may also be at the end, after --";
    let words = match values.words(WORDS) {
        words if words.is_empty() => {
            let text = values.required(EXEC.name, TAKES)?;
            text.split_whitespace().map(OsString::from).collect()
        }
        words => words,
    };
    let Some(program) = words.first().filter(|program| !program.is_empty()) else {
        return Err(ConfigError::new(EXEC.name, "no program", TAKES));
    };
    if let Some(obstacle) = program::obstacle(program) {
        let got = format!("{} ({obstacle})", quoted(&program.to_string_lossy()));
        return Err(ConfigError::new(EXEC.name, got, "a program that can be started"));
    }
    if group::ignores_endings(&fs::read_to_string("/proc/self/status").unwrap_or_default()) {
        let got = "a program, but this process ignores the end of its children (SIGCHLD), as what started it did";
        return Err(ConfigError::new(EXEC.name, got, "a start that does not ignore SIGCHLD"));
    }
    Ok(ExecConfig { words, per_message: values.is_on(EXEC_PER_MESSAGE.name)? })
}

/// An error if one of the settings of this handler is on the command line for another one. Variables may be set for
/// several programs, and are ignored.
pub fn check_unused(values: &Values<'_>) -> Result<(), ConfigError> {
    values.text(EXEC.name)?;
    values.is_on(EXEC_PER_MESSAGE.name)?;
    let name = match () {
        () if !values.words(WORDS).is_empty() || values.is_flag_given(EXEC.name) => EXEC.name,
        () if values.is_flag_given(EXEC_PER_MESSAGE.name) => EXEC_PER_MESSAGE.name,
        () => return Ok(()),
    };
    Err(ConfigError::new(name, "a value without --handler exec", "a value only with --handler exec"))
}
