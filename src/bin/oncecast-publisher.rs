//! Publishes messages at a rate or in bursts, and says how many nobody received.

use std::process::ExitCode;

use oncecast::base::error::Result;
use oncecast::base::shutdown::shutdown_channel;
use oncecast::process::config::{self, PublisherConfig};
use oncecast::process::{log, output, program};
use oncecast::programs::publisher;

fn main() -> ExitCode {
    program::main("oncecast-publisher", config::publisher, run)
}

fn run(config: PublisherConfig) -> Result<u8> {
    let _log = log::init(config.common.log_level, "publisher", "publisher")?;
    let (handle, requests) = shutdown_channel();
    handle.on_signals()?;
    let summary = publisher::run(config, &requests)?;
    let printed = output::print(format_args!("{summary}\n"));
    if let Some(failure) = &summary.failure {
        log::fail("oncecast-publisher", failure);
    }
    printed.map(|_| summary.exit_code())
}
