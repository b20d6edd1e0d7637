//! The lanes of this process, as the threads that only observe them see them.

use std::sync::Arc;

use super::board::Board;
use crate::base::id::DispatcherId;
use crate::base::pulse::Pulse;
use crate::lane;

/// The process and its lanes.
pub(super) struct Host {
    /// The process's id.
    pub(super) id: DispatcherId,
    /// The main thread watches the others.
    pub(super) main: Pulse,
    /// At least one. Only one that is alone has no name.
    pub(super) lanes: Vec<HostedLane>,
}

/// One lane, and the group's status as last seen.
pub(super) struct HostedLane {
    pub(super) lane: Arc<lane::Shared>,
    pub(super) board: Arc<Board>,
}
