//! The lanes of this process, for the threads that only observe them.

use std::sync::Arc;

use super::board::Board;
use crate::base::id::DispatcherId;
use crate::base::pulse::Pulse;
use crate::lane;

/// The process and its lanes.
pub(super) struct Host {
    /// The process's id.
    pub(super) id: DispatcherId,
    /// Where other machines may read its metrics and the status page without a token; empty if nowhere.
    pub(super) open_metrics: String,
    /// The pulse of the main thread, which monitors the other threads.
    pub(super) main: Pulse,
    /// At least one lane. A lane has no name only if there is one.
    pub(super) lanes: Vec<HostedLane>,
}

/// One lane, and the group's status as last seen.
pub(super) struct HostedLane {
    pub(super) lane: Arc<lane::Shared>,
    pub(super) board: Arc<Board>,
}
