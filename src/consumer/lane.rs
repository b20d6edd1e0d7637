//! The state of a consumer for one lane, which is one group: the ruling connection, the held messages, and the
//! connection on which epochs are confirmed. The committer's connection is its own.
//!
//! All threads of the consumer share the lane, which belongs to none of them. A consumer has exactly one lane.
//! Everything that depends on the group is part of the lane, so that a consumer could later serve several groups: the
//! server would find a connection's lane by the group in its LEAD, and the handler threads would take messages from all
//! lanes.

use std::num::NonZeroU64;
use std::sync::Arc;

use crossbeam_channel::Receiver;

use super::commit::{Committer, Finished, REPLY_TIMEOUT};
use super::desk::{Desk, Terms};
use super::epochs::Epochs;
use super::error::Result;
use super::stats::ConsumerStats;
use crate::base::id::Epoch;
use crate::base::log_context::{self, LogContext};
use crate::ledger::{Keys, Ledger, Server};

/// See the module's text. The committer is not part of it, because the committer has one owner, while all threads share
/// the lane.
pub(super) struct ConsumerLane {
    pub(super) desk: Arc<Desk>,
    pub(super) epochs: Epochs,
    /// The fields that the log lines of the lane's threads have in common. Each of these threads enters it.
    pub(super) context: LogContext,
    redis: Server,
    keys: Arc<Keys>,
}

impl ConsumerLane {
    /// Opens no connection yet.
    pub(super) fn new(redis: Server, keys: Keys, terms: Terms, stats: Arc<ConsumerStats>) -> ConsumerLane {
        let keys = Arc::new(keys);
        let epochs = Epochs::new(redis.clone(), keys.clone(), stats.clone());
        ConsumerLane { desk: Arc::new(Desk::new(terms, stats)), epochs, context: log_context::current(), redis, keys }
    }

    /// Starts the committer, which records the outcomes that it receives on this channel.
    pub(super) fn start_committer(
        &self,
        result_maxlen: Option<NonZeroU64>,
        commits: Receiver<Finished>,
    ) -> Result<Committer> {
        let ledger = Ledger::new(self.redis.clone(), self.keys.clone(), REPLY_TIMEOUT);
        Committer::start(ledger, result_maxlen, self.desk.clone(), &self.context, commits)
    }

    /// The leader of this epoch rules from now on; the log lines of the lane's threads show it.
    pub(super) fn note_ruler(&self, epoch: Epoch) {
        self.context.set("consumer", Some(epoch));
    }
}
