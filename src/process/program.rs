//! What every `main` does: reads the command line, runs, says how it ended. On the main thread.

use std::ffi::OsString;
use std::process::ExitCode;

use crate::base::error::Result;
use crate::process::config::{self, Environment, Parsed};
use crate::process::metrics::healthcheck;
use crate::process::{log, output};

/// Reads the process's command line with `read`, and does what it asks for: what `run` does gives the exit code.
pub fn main<T>(
    name: &str,
    read: impl FnOnce(std::env::ArgsOs, Environment<'_>) -> std::result::Result<Parsed<T>, clap::Error>,
    run: impl FnOnce(T) -> Result<u8>,
) -> ExitCode {
    let outcome = match read(std::env::args_os(), &config::environment) {
        Ok(Parsed::Run(config)) => {
            let given: Vec<(OsString, OsString)> = std::env::vars_os().collect();
            config::warnings(&given).into_iter().for_each(log::hold_back);
            run(config)
        }
        Ok(Parsed::Healthcheck(config)) => healthcheck::run(&config),
        Ok(Parsed::Print(text)) => output::print(text).map(|_| 0),
        Err(error) => error.exit(),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            log::fail(name, &error);
            ExitCode::from(error.exit_code())
        }
    }
}
