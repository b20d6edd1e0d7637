//! `oncecast-consumer`: works on messages with a built-in handler. All it does is in `oncecast::consumer`.

use std::process::ExitCode;

use oncecast::base::error::Result;
use oncecast::consumer::ConsumerBuilder;
use oncecast::process::config::{self, ConsumerConfig};
use oncecast::process::program;

fn main() -> ExitCode {
    program::main("oncecast-consumer", config::consumer, run)
}

fn run(config: ConsumerConfig) -> Result<u8> {
    let log_level = config.common.log_level;
    let consumer = ConsumerBuilder::from(config).systemd_service(true).bind()?;
    let _log = oncecast::process::log::init(log_level, consumer.consumer_id(), "consumer")?;
    consumer.shutdown_handle().on_signals()?;
    consumer.run().map(|()| 0)
}
