//! What a consumer keeps for one lane, that is for one group: who rules, what is held, and the ways to its Redis.
//!
//! A consumer has one lane today. All that depends on the group is in here, so that one consumer can serve several: the
//! server finds a connection's lane by the group that its LEAD names, and the handler threads take from all of them.

use std::sync::Arc;

use crossbeam_channel::Receiver;

use super::commit::{Committer, Finished, REPLY_TIMEOUT};
use super::desk::{Desk, Terms};
use super::epochs::Epochs;
use super::error::Result;
use super::stats::ConsumerStats;
use crate::base::id::Epoch;
use crate::base::log_context::Context;
use crate::ledger::{Keys, Ledger, Server};

/// See the module's text. Its committer is beside it: that thread has an owner, while all threads share the rest.
pub(super) struct Lane {
    pub(super) desk: Arc<Desk>,
    pub(super) epochs: Epochs,
    /// What the log lines of the lane's threads show. Each of these threads enters it.
    pub(super) context: Context,
    redis: Server,
    keys: Arc<Keys>,
}

impl Lane {
    /// Opens nothing yet.
    pub(super) fn new(redis: Server, keys: Keys, terms: Terms, stats: Arc<ConsumerStats>) -> Lane {
        let keys = Arc::new(keys);
        let epochs = Epochs::new(redis.clone(), keys.clone(), stats.clone());
        Lane { desk: Arc::new(Desk::new(terms, stats)), epochs, context: Context::new("consumer"), redis, keys }
    }

    /// Starts to record what comes over this channel.
    pub(super) fn start_committer(&self, result_maxlen: u64, commits: Receiver<Finished>) -> Result<Committer> {
        let ledger = Ledger::new(self.redis.clone(), self.keys.clone(), REPLY_TIMEOUT);
        Committer::start(ledger, result_maxlen, self.desk.clone(), &self.context, commits)
    }

    /// The leader of this epoch rules from now on; the log lines of the lane's threads show it.
    pub(super) fn note_ruler(&self, epoch: Epoch) {
        self.context.set("consumer", epoch);
    }
}
