//! The command lines of the four programs, put together: for `--help`, for the manual pages, and for their `main`.

mod tool;

use std::process::ExitCode;

use clap::Command;

use crate::base::error::Result;
use crate::lab::bench::{process_settings, settings as bench};
use crate::lab::chaos::consumer::settings as chaos_consumer;
use crate::lab::chaos::settings as chaos;
use crate::lab::demo::settings as demo;
use crate::process::config::Setting;
use crate::process::metrics::healthcheck;
use crate::process::program::{self, CommandLine};
use crate::programs::audit::settings as audit;
use crate::programs::conform::settings as conform;
use crate::programs::consumer::settings as consumer;
use crate::programs::dispatcher::settings as dispatcher;
use crate::programs::doctor::settings as doctor;
use crate::programs::publisher::settings as publisher;
use crate::programs::status::settings as status;

pub use self::tool::{TOOL, ToolConfig, run_tool};
pub use crate::process::program::Parsed;
pub use crate::programs::consumer::settings::COMMAND_LINE as CONSUMER;
pub use crate::programs::dispatcher::settings::COMMAND_LINE as DISPATCHER;
pub use crate::programs::publisher::settings::COMMAND_LINE as PUBLISHER;

/// A program's `main`: reads its command line, runs it, and returns the exit code.
pub fn main<T>(line: &CommandLine<T>, run: impl FnOnce(T) -> Result<u8>) -> ExitCode {
    program::main(line, tables().flatten(), run)
}

/// The command lines of all programs, subcommands included, for the manual pages.
pub fn command_lines() -> [Command; 4] {
    [dispatcher::command(), consumer::command(), publisher::command(), tool::command()]
}

/// The settings of all programs and subcommands. A name has the same meaning in all of them, since its variable may be
/// set for all programs at once.
fn tables() -> impl Iterator<Item = &'static [Setting]> {
    let own = [
        dispatcher::SETTINGS,
        consumer::SETTINGS,
        publisher::SETTINGS,
        audit::SETTINGS,
        status::SETTINGS,
        conform::SETTINGS,
        doctor::SETTINGS,
        demo::SETTINGS,
        chaos::SETTINGS,
        bench::SETTINGS,
        chaos_consumer::SETTINGS,
        healthcheck::SETTINGS,
    ];
    own.into_iter().chain(process_settings::TABLES)
}

#[cfg(test)]
mod tests;
