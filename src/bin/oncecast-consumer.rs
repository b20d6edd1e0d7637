//! `oncecast-consumer`: processes messages with a built-in handler.

use std::process::ExitCode;

use oncecast::cli;
use oncecast::programs::consumer;

fn main() -> ExitCode {
    cli::main(&cli::CONSUMER, consumer::run)
}
