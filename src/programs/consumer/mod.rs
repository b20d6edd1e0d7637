//! `oncecast-consumer`: the consumer library with its built-in handler, as a service.

pub mod settings;

use log::LevelFilter;

use self::settings::ConsumerConfig;
use crate::base::error::Result;
use crate::consumer::ConsumerBuilder;
use crate::process::log;

/// Runs the consumer until it is asked to stop. Gives the exit code.
pub fn run(config: ConsumerConfig) -> Result<u8> {
    let level = config.common.log_level;
    serve(ConsumerBuilder::from(config).systemd_service(true), level).map(|()| 0)
}

/// Runs a consumer with the log and the signals of a program.
pub fn serve(builder: ConsumerBuilder, level: LevelFilter) -> Result<()> {
    let consumer = builder.bind()?;
    let _log = log::init(level, consumer.consumer_id(), "consumer")?;
    consumer.shutdown_handle().on_signals()?;
    consumer.run()
}
