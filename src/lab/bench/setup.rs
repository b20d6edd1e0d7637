//! The parameters of a run. Plain values.

use std::time::Duration;

use super::contender::Contender;
use super::settings::BenchConfig;
use crate::process::scheduling::Scheduling;

/// What is started, and the size of its messages.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setup {
    pub(super) contender: Contender,
    /// Only for Oncecast.
    pub(super) dispatchers: usize,
    pub(super) consumers: usize,
    pub(super) payload: usize,
    /// On how many channels messages are published, heard through one pattern. Otherwise on one, heard by its name.
    pub(super) channels: Option<u64>,
    /// How long a handler takes, and how many run at the same time in each consumer. Only for Oncecast.
    pub(super) handler: Option<(Duration, usize)>,
    /// The most messages in a worker's batch. Only for the Streams group.
    pub(super) worker_batch: u64,
    /// Of all processes but Redis and the one that measures latency.
    pub(super) scheduling: Scheduling,
}

impl Setup {
    /// As in production: a standby and three consumers.
    pub(super) fn usual(contender: Contender, config: &BenchConfig) -> Setup {
        Setup {
            contender,
            dispatchers: 2,
            consumers: 3,
            payload: config.payload,
            channels: contender.has_channels().then_some(config.channels),
            handler: None,
            worker_batch: config.worker_batch,
            scheduling: config.scheduling,
        }
    }
}
