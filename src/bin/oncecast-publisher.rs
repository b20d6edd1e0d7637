//! `oncecast-publisher`: publishes messages at a rate or in bursts, and counts those that no subscriber received.

use std::process::ExitCode;

use oncecast::cli;
use oncecast::programs::publisher;

fn main() -> ExitCode {
    cli::main(&cli::PUBLISHER, publisher::run)
}
