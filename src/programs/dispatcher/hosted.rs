//! The lanes of this process, for the threads that only observe them.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::{Mutex, RwLock};

use super::board::Board;
use crate::base::id::DispatcherId;
use crate::base::pulse::Pulse;
use crate::base::text::Quoted;
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
    unheard: Mutex<Option<String>>,
    /// A lane has heard that a sharded channel, or the lane itself, may be on another node now.
    moved: (Sender<()>, Receiver<()>),
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
        Host {
            id,
            open_metrics,
            main: Pulse::default(),
            lanes: RwLock::default(),
            unheard: Mutex::default(),
            moved: bounded(1),
        }
    }

    /// The lanes that run now, the lowest first. There may be none: before the nodes of a cluster are known.
    pub(super) fn lanes(&self) -> Arc<[Arc<HostedLane>]> {
        self.lanes.read().clone()
    }

    /// From now on these run.
    pub(super) fn note_lanes(&self, lanes: impl Iterator<Item = Arc<HostedLane>>) {
        *self.lanes.write() = lanes.collect();
    }

    /// Where lanes say that slots have moved.
    pub(super) fn moved(&self) -> &Sender<()> {
        &self.moved.0
    }

    /// Where that comes, to one receiver.
    pub(super) fn moves(&self) -> &Receiver<()> {
        &self.moved.1
    }

    /// The nodes of a Redis Cluster on which messages are sent that no lane hears, for people.
    pub(super) fn unheard(&self) -> Option<String> {
        self.unheard.lock().clone()
    }

    /// From now on these are not heard. Logged when it changes.
    pub(super) fn note_unheard(&self, nodes: Option<String>) {
        let mut unheard = self.unheard.lock();
        if *unheard == nodes {
            return;
        }
        match &nodes {
            Some(problem) => log::warn!("event=unheard problem={}", Quoted(problem)),
            None => log::info!("event=heard note=\"all nodes with messages have a lane again\""),
        }
        *unheard = nodes;
    }
}
