//! What a run is made of. Plain values.

use std::time::Duration;

use super::kind::Kind;
use super::settings::BenchConfig;

/// What is to be started.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setup {
    pub(super) kind: Kind,
    /// Only ours.
    pub(super) dispatchers: usize,
    pub(super) consumers: usize,
    pub(super) payload: usize,
    /// Handlers that take so long, so many at the same time in each consumer; only ours.
    pub(super) handler: Option<(Duration, usize)>,
    /// The most messages of a worker's batch; only the Streams group's.
    pub(super) worker_batch: u64,
}

impl Setup {
    /// As in production: a standby, and three consumers.
    pub(super) fn usual(kind: Kind, config: &BenchConfig) -> Setup {
        Setup {
            kind,
            dispatchers: 2,
            consumers: 3,
            payload: config.payload,
            handler: None,
            worker_batch: config.worker_batch,
        }
    }
}
