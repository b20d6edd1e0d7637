//! `oncecast-dispatcher`: takes in published messages and delivers each to one consumer.

use std::process::ExitCode;

use oncecast::cli;
use oncecast::programs::dispatcher;

fn main() -> ExitCode {
    cli::main(&cli::DISPATCHER, dispatcher::run)
}
