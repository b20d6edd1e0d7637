//! `oncecast-consumer`: works on messages with a built-in handler. All it does is in `oncecast::consumer`.

use std::process::ExitCode;

use oncecast::config::{self, ConsumerConfig, Parsed};
use oncecast::consumer::ConsumerBuilder;
use oncecast::error::Result;
use oncecast::metrics::healthcheck;

fn main() -> ExitCode {
    let config = match config::consumer(std::env::args_os(), &config::environment) {
        Ok(Parsed::Run(config)) => config,
        Ok(Parsed::Healthcheck(config)) => return ExitCode::from(healthcheck::run(&config)),
        Ok(Parsed::Print(text)) => {
            print!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(error) => error.exit(),
    };
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            oncecast::log::fail("oncecast-consumer", &error);
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(config: ConsumerConfig) -> Result<()> {
    let log_level = config.common.log_level;
    let consumer = ConsumerBuilder::from(config).systemd_service(true).bind()?;
    let _log = oncecast::log::init(log_level, consumer.consumer_id(), "consumer")?;
    consumer.shutdown_handle().on_signals()?;
    consumer.run()
}
