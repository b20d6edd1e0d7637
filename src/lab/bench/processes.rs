//! The processes of a comparison that are not programs of ours. Each is a hidden subcommand of `oncecast`.

use crate::base::error::Result;
use crate::process::config::BenchPart;

mod load;
mod message;
mod raw_connection;
mod reader;
mod relay;
mod slow_consumer;
mod streams_worker;
mod summary;

pub(super) use self::message::read as read_id;
pub(crate) use self::message::{PAYLOAD_BYTES, USUAL_BYTES};
pub(super) use self::raw_connection::RawConnection;
pub(super) use self::summary::Summary;

/// Runs one of them to its end.
pub fn run(part: BenchPart) -> Result<()> {
    match part {
        BenchPart::Load(config) => load::run(config),
        BenchPart::Worker(config) => streams_worker::run(&config),
        BenchPart::Relay(config) => relay::run(&config),
        BenchPart::Reader(config) => reader::run(&config),
        BenchPart::Slow(config) => slow_consumer::run(*config),
    }
}
