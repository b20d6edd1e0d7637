//! The way of results from the handler threads to a lane's committer.
//!
//! Any handler thread sends; the committer of the lane receives. Sending never waits, so that a lane whose Redis does
//! not store results holds up no other lane. Instead no message of a lane is begun while its outlet has no
//! [room](Outlet::has_room).
//!
//! Guarantee: the bytes that wait to be recorded, over all lanes, are at most twice [`MAX_UNRECORDED_BYTES`], and one
//! result more for each handler thread.

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::peer::LinkId;
use crate::base::budget::{Budget, Share};
use crate::base::id::Epoch;
use crate::base::log_context::LogContext;
use crate::ledger::{Body, Commit};

/// The most bytes of results that wait to be recorded. The prefetch limits only their number.
const MAX_UNRECORDED_BYTES: usize = 64 << 20;
/// About how many bytes a waiting result takes in addition to its names and values.
const RESULT_COST_BYTES: usize = 96;

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

/// The bytes of results that wait to be recorded, over all lanes. Clones are the same.
#[derive(Clone)]
pub(super) struct Unrecorded(Budget);

impl Default for Unrecorded {
    fn default() -> Unrecorded {
        Unrecorded(Budget::new(MAX_UNRECORDED_BYTES))
    }
}

/// See the module's text.
pub(super) struct Outlet {
    commits: Sender<Finished>,
    own: Budget,
    all: Unrecorded,
    /// What the lines of threads that work for this lane have in common.
    pub(super) context: LogContext,
}

impl Outlet {
    /// An outlet for a lane, and what its committer receives from.
    pub(super) fn new(all: &Unrecorded, context: LogContext) -> (Outlet, Receiver<Finished>) {
        let (commits, for_committer) = unbounded();
        (Outlet { commits, own: Budget::new(MAX_UNRECORDED_BYTES), all: all.clone(), context }, for_committer)
    }

    /// Whether one more message may be begun: results of all lanes take less than the whole budget, or those of this
    /// lane less than its even share.
    pub(super) fn has_room(&self, lanes: usize) -> bool {
        self.all.0.free_bytes() > 0 || self.own.used_bytes() < MAX_UNRECORDED_BYTES / lanes.max(1)
    }

    /// Passes a result on. If the committer has ended, the result is dropped: the message goes to another consumer.
    pub(super) fn send(&self, commit: Commit, body: Body, number: u16, epoch: Epoch, link: LinkId) {
        let bytes = commit.bytes() + RESULT_COST_BYTES;
        let _shares = [self.own.take(bytes), self.all.0.take(bytes)];
        // The committer's end is noticed elsewhere.
        let _ = self.commits.send(Finished { commit, body, number, epoch, link, _shares });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::MessageId;

    fn send(outlet: &Outlet, bytes: usize) {
        let fields = [vec![0; bytes], Vec::new()].into_iter().collect();
        outlet.send(Commit { id: MessageId(1), fields }, Body::copied(None, b""), 1, Epoch(1), 1);
    }

    #[test]
    fn a_lane_that_is_stuck_leaves_the_others_their_share() {
        let all = Unrecorded::default();
        let (stuck, stuck_results) = Outlet::new(&all, LogContext::of_process());
        let (other, results) = Outlet::new(&all, LogContext::of_process());
        assert!(stuck.has_room(2) && other.has_room(2));
        send(&stuck, MAX_UNRECORDED_BYTES);
        assert!(!stuck.has_room(2) && other.has_room(2));
        send(&other, MAX_UNRECORDED_BYTES / 2);
        assert!(!other.has_room(2), "it has its share as well");
        drop(results.try_recv().expect("it was sent"));
        assert!(other.has_room(2) && !stuck.has_room(2));
        drop(stuck_results.try_recv().expect("it was sent"));
        assert!(stuck.has_room(2));
    }

    #[test]
    fn a_result_is_dropped_when_the_committer_has_ended() {
        let (outlet, results) = Outlet::new(&Unrecorded::default(), LogContext::of_process());
        drop(results);
        send(&outlet, MAX_UNRECORDED_BYTES + 1);
        assert!(outlet.has_room(1));
    }
}
