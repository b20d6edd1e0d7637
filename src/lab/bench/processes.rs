//! The processes of a comparison that are not programs of ours. Each is a hidden subcommand of `oncecast`.

use self::settings::BenchProcess;
use crate::base::error::Result;

mod load;
mod message;
mod reader;
mod relay;
mod replies;
pub mod settings;
mod slow_consumer;
mod streams_worker;
mod summary;

pub(super) use self::message::{PAYLOAD_BYTES, USUAL_BYTES};
pub(super) use self::replies::Replies;
pub(super) use self::summary::Summary;

/// Runs one of them to its end.
pub fn run(part: BenchProcess) -> Result<()> {
    match part {
        BenchProcess::Load(config) => {
            config.scheduling.apply();
            load::run(config)
        }
        BenchProcess::Worker(config) => {
            config.scheduling.apply();
            streams_worker::run(&config)
        }
        BenchProcess::Relay(config) => {
            config.scheduling.apply();
            relay::run(&config)
        }
        BenchProcess::Reader(config) => reader::run(&config),
        BenchProcess::Slow(config) => slow_consumer::run(*config),
    }
}
