//! What a consumer has for one lane: its desk, its committer, the connection on which epochs are confirmed, and the
//! context of its log lines.
//!
//! All threads of the consumer share the lane, which belongs to none of them; `lanes` has all of them.

use std::num::NonZeroU64;
use std::sync::Arc;

use super::commit::{Committer, REPLY_TIMEOUT};
use super::desk::Desk;
use super::epochs::Epochs;
use super::error::Result;
use super::inlet::Permits;
use super::outlet::Results;
use crate::base::id::Epoch;
use crate::base::log_context::LogContext;
use crate::ledger::{Keys, LaneNumber, Ledger, Server};

/// See the module's text. The committer is not part of it, because the committer has one owner, while all threads share
/// the lane.
pub(super) struct ConsumerLane {
    pub(super) number: LaneNumber,
    pub(super) desk: Desk,
    pub(super) epochs: Epochs,
    /// The fields that the log lines of the lane's threads have in common. Each of these threads enters it.
    pub(super) context: LogContext,
    /// For messages of its links that are large and not yet complete.
    pub(super) permits: Permits,
}

impl ConsumerLane {
    /// Starts the committer, which records the outcomes that it receives on this channel.
    pub(super) fn start_committer(
        &self,
        redis: &Server,
        keys: &Arc<Keys>,
        result_maxlen: Option<NonZeroU64>,
        results: Results,
    ) -> Result<Committer> {
        let ledger = Ledger::new(redis.clone(), keys.clone(), REPLY_TIMEOUT);
        Committer::start(ledger, result_maxlen, self.desk.clone(), &self.context, results)
    }

    /// The leader of this epoch rules from now on; the log lines of the lane's threads show it.
    pub(super) fn note_ruler(&self, epoch: Epoch) {
        self.context.set("consumer", Some(epoch));
    }
}
