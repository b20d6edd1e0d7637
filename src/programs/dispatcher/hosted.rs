//! The lanes of this process, for the threads that only observe them.

use std::sync::Arc;

use parking_lot::RwLock;

use super::board::Board;
use crate::base::id::DispatcherId;
use crate::base::pulse::Pulse;
use crate::lane;
use crate::ledger::LaneNumber;

/// The process and its lanes.
pub(super) struct Host {
    /// The process's id.
    pub(super) id: DispatcherId,
    /// Where other machines may read its metrics and the status page without a token; empty if nowhere.
    pub(super) open_metrics: String,
    /// The pulse of the main thread, which monitors the other threads.
    pub(super) main: Pulse,
    lanes: RwLock<Arc<[Arc<HostedLane>]>>,
}

/// One lane, and the group's status as last seen.
pub(super) struct HostedLane {
    pub(super) number: LaneNumber,
    /// It has no name if the group can have no other lane.
    pub(super) lane: Arc<lane::Shared>,
    pub(super) board: Board,
}

impl Host {
    /// A process without lanes.
    pub(super) fn new(id: DispatcherId, open_metrics: String) -> Host {
        Host { id, open_metrics, main: Pulse::default(), lanes: RwLock::default() }
    }

    /// The lanes that run now, the lowest first. There may be none: before the nodes of a cluster are known.
    pub(super) fn lanes(&self) -> Arc<[Arc<HostedLane>]> {
        self.lanes.read().clone()
    }

    /// From now on these run.
    pub(super) fn note_lanes(&self, lanes: impl Iterator<Item = Arc<HostedLane>>) {
        *self.lanes.write() = lanes.collect();
    }
}
