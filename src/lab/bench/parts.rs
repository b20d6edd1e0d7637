//! The processes of a comparison that are none of our programs. Each is a hidden subcommand of `oncecast`.

use crate::base::error::Result;

use self::settings::BenchPart;

mod link;
mod load;
mod message;
mod reader;
mod relay;
pub mod settings;
mod slow;
mod summary;
mod worker;

pub(super) use self::link::Link;
pub(super) use self::message::read as read_id;
pub(super) use self::message::{PAYLOAD_BYTES, USUAL_BYTES};
pub(super) use self::summary::Summary;

/// Runs one of them to its end.
pub fn run(part: BenchPart) -> Result<()> {
    match part {
        BenchPart::Load(config) => load::run(config),
        BenchPart::Worker(config) => worker::run(&config),
        BenchPart::Relay(config) => relay::run(&config),
        BenchPart::Reader(config) => reader::run(&config),
        BenchPart::Slow(config) => slow::run(*config),
    }
}
