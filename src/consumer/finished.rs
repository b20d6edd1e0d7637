//! Results of messages on their way to the committer.

use super::peer::LinkId;
use crate::base::budget::Share;
use crate::base::id::Epoch;
use crate::ledger::{Body, Commit};

/// A result that waits to be recorded, with its share of the memory budgets.
pub(super) struct Finished {
    pub(super) commit: Commit,
    /// The message's payload, to put the message back if necessary.
    pub(super) body: Body,
    /// The number of its delivery, and the epoch and the connection of the leader that it came from.
    pub(super) number: u16,
    pub(super) epoch: Epoch,
    pub(super) link: LinkId,
    pub(super) _shares: [Share; 2],
}

/// Records a result on the thread that has it.
pub(super) trait RecordsNow: Send + Sync {
    /// Records this result if nothing speaks against doing so at once. Otherwise returns it, for the committer.
    fn record_now(&self, finished: Finished) -> Option<Finished>;
}

/// What the committer receives.
pub(super) enum Ready {
    One(Finished),
    /// The results of a whole bundle.
    Bundle(Vec<Finished>),
    /// Some results wait for the others of their bundle. It is to look again when they are due.
    Look,
}

impl Ready {
    pub(super) fn results(&self) -> &[Finished] {
        match self {
            Ready::One(finished) => std::slice::from_ref(finished),
            Ready::Bundle(results) => results,
            Ready::Look => &[],
        }
    }
}
