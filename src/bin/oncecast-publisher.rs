//! Publishes messages at a rate or in bursts, and says how many nobody received.

use std::io::{self, Write};
use std::process::ExitCode;

use oncecast::config::{self, Parsed, PublisherConfig};
use oncecast::error::Result;
use oncecast::metrics::healthcheck;
use oncecast::publisher::{self, Summary};
use oncecast::shutdown::shutdown_channel;

fn main() -> ExitCode {
    let config = match config::publisher(std::env::args_os(), &config::environment) {
        Ok(Parsed::Run(config)) => config,
        Ok(Parsed::Healthcheck(config)) => return ExitCode::from(healthcheck::run(&config)),
        Ok(Parsed::Print(text)) => {
            // A reader that is gone misses nothing.
            let _ = write!(io::stdout(), "{text}");
            return ExitCode::SUCCESS;
        }
        Err(error) => error.exit(),
    };
    let code = match run(config) {
        Ok(summary) => {
            let _ = writeln!(io::stdout(), "{summary}");
            if let Some(failure) = &summary.failure {
                oncecast::log::fail("oncecast-publisher", failure);
            }
            summary.exit_code()
        }
        Err(error) => {
            oncecast::log::fail("oncecast-publisher", &error);
            error.exit_code()
        }
    };
    ExitCode::from(code)
}

fn run(config: PublisherConfig) -> Result<Summary> {
    let _log = oncecast::log::init(config.common.log_level, "publisher", "publisher")?;
    let (handle, requests) = shutdown_channel();
    handle.on_signals()?;
    publisher::run(config, &requests)
}
