//! The `main` of every program: reads the command line, runs the program, and returns the exit code. It runs on the
//! main thread.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{ArgMatches, Command};

use crate::base::error::Result;
use crate::base::setting::ConfigError;
use crate::process::config::{self, Environment, Setting};
use crate::process::metrics::healthcheck::{self, Question};
use crate::process::{log, output};

/// The command line of a program whose settings are a `T`. Each has the subcommand `healthcheck`.
#[derive(Debug)]
pub struct CommandLine<T> {
    /// Its definition, from which `--help` and the manual pages are made.
    pub command: fn() -> Command,
    /// Reads and checks the settings.
    pub read: fn(&ArgMatches, Environment<'_>) -> std::result::Result<T, ConfigError>,
}

/// What a command line asks for.
#[derive(Debug)]
pub enum Parsed<T> {
    /// Run with these settings.
    Run(T),
    /// Ask a running program for its health: `healthcheck`.
    Healthcheck(Question),
    /// Print this and exit: `--help` or `--version`.
    Print(String),
}

impl<T> CommandLine<T> {
    /// Parses a command line and checks the values; `--help` and `--version` are no errors.
    pub fn parse(
        &self,
        arguments: impl IntoIterator<Item = OsString>,
        environment: Environment<'_>,
    ) -> std::result::Result<Parsed<T>, clap::Error> {
        let arguments: Vec<OsString> = arguments.into_iter().collect();
        let mut command = (self.command)();
        let matches = match command.try_get_matches_from_mut(&arguments) {
            Ok(matches) => matches,
            Err(error) if !error.use_stderr() => return Ok(Parsed::Print(error.to_string())),
            Err(error) => return Err(config::completed(error, &command, &arguments)),
        };
        let parsed = match matches.subcommand() {
            // It needs none of the program's own settings.
            Some((healthcheck::NAME, matches)) => healthcheck::read(matches, environment).map(Parsed::Healthcheck),
            _ => (self.read)(&matches, environment).map(Parsed::Run),
        };
        parsed.map_err(|error| {
            // The usage shown is that of the subcommand to which the setting belongs.
            let command = match matches.subcommand_name() {
                Some(name) => command.find_subcommand_mut(name).expect("clap has found it"),
                None => &mut command,
            };
            command.error(ErrorKind::ValueValidation, error)
        })
    }
}

/// A command with what each service's command line has: its version and the subcommand `healthcheck`.
pub fn service(name: &'static str, about: &'static str, after: &'static str, settings: &[Setting]) -> Command {
    config::command(name, about, after, settings)
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand(healthcheck::command())
        .disable_help_subcommand(true)
        // Otherwise settings before the subcommand would be accepted and ignored.
        .args_conflicts_with_subcommands(true)
}

/// Parses the process's command line and runs what it asks for; the result of `run` is the exit code.
///
/// `known` are the settings of all programs: other variables that look like ours cause a warning.
pub fn main<T>(
    line: &CommandLine<T>,
    known: impl IntoIterator<Item = &'static Setting>,
    run: impl FnOnce(T) -> Result<u8>,
) -> ExitCode {
    let outcome = match line.parse(std::env::args_os(), &config::environment) {
        Ok(Parsed::Run(settings)) => {
            let given: Vec<(OsString, OsString)> = std::env::vars_os().collect();
            config::warnings(&given, known).into_iter().for_each(log::hold_back);
            run(settings)
        }
        Ok(Parsed::Healthcheck(question)) => healthcheck::run(&question),
        Ok(Parsed::Print(text)) => output::print(text).map(|_| 0),
        Err(error) => error.exit(),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            log::fail((line.command)().get_name(), &error);
            ExitCode::from(error.exit_code())
        }
    }
}
