//! The group in Redis, for a consumer that records its results there itself. Does nothing for any other consumer.
//!
//! It writes only to a group on trial: one that has no key but its epoch, or one whose name begins with `conform`; and
//! never while a dispatcher holds the lease. At the end it removes what it has written.

use std::sync::Arc;
use std::time::Duration;

use crate::base::error::{Error, Result};
use crate::base::id::{Epoch, MessageId};
use crate::ledger::reading::{EntryStream, ReadPosition};
use crate::ledger::{Keys, Ledger, Server};

/// How long to wait for a reply.
const REPLY_TIME: Duration = Duration::from_secs(5);
/// How the name of a group begins that may be written to in any case.
const TRIAL: &str = "conform";

/// See the module's text.
pub(super) struct Group {
    ledger: Ledger,
    /// Set once the group may be written to: the value of its epoch before.
    before: Option<Option<Vec<u8>>>,
}

impl Group {
    pub(super) fn new(redis: Server, keys: Keys) -> Group {
        Group { ledger: Ledger::new(redis, Arc::new(keys), REPLY_TIME), before: None }
    }

    /// Whether the consumer records its results here.
    pub(super) fn is_used(&self) -> bool {
        self.before.is_some()
    }

    /// Begins to write, if the group is on trial.
    pub(super) fn begin(&mut self) -> Result<()> {
        let state = self.ledger.trial_state()?;
        let (group, place) = (self.ledger.keys().group.clone(), self.ledger.place());
        if state.led {
            return Err(Error::Failed(format!(
                "{place}: a dispatcher leads the group {group}: stop it, or use a trial \
                                              group for --group and the consumer"
            )));
        }
        let named = group.trim_start_matches('{').starts_with(TRIAL);
        if !named && !state.keys.is_empty() {
            let keys = state.keys.join(", ");
            return Err(Error::Failed(format!(
                "{place}: the group {group} is in use, it has the keys {keys}: give the \
                                              consumer a trial group whose name begins with {TRIAL}, and name it \
                                              with --group"
            )));
        }
        let before = state.epoch.filter(|_| !named);
        self.ledger.trial_clear(before.as_deref())?;
        self.before = Some(before);
        Ok(())
    }

    /// Makes this the newest epoch, or removes the key.
    pub(super) fn elect(&mut self, epoch: Option<u64>) -> Result<()> {
        if self.is_used() { self.ledger.trial_elect(epoch.map(Epoch)) } else { Ok(()) }
    }

    /// Makes a message pending.
    pub(super) fn pend(&mut self, id: u64, payload: &[u8], delivery: u16) -> Result<()> {
        if self.is_used() { self.ledger.trial_pend(MessageId(id), payload, delivery) } else { Ok(()) }
    }

    /// Whether a message is pending, and whether its deliveries are counted.
    pub(super) fn is_pending(&mut self, id: u64) -> Result<(bool, bool)> {
        self.ledger.trial_is_pending(MessageId(id))
    }

    /// How many results have a field `message_id` with this value.
    pub(super) fn results_of(&mut self, unique: &str) -> Result<usize> {
        let (mut count, mut position) = (0, ReadPosition::default());
        while let Some(page) = self.ledger.read_stream(EntryStream::Processed, &mut position)? {
            let is_of = |fields: &&Vec<(Vec<u8>, Vec<u8>)>| {
                fields.iter().any(|(name, value)| name == b"message_id" && value == unique.as_bytes())
            };
            count += page.iter().filter(is_of).count();
        }
        Ok(count)
    }

    /// Removes what was written.
    pub(super) fn end(&mut self) -> Result<()> {
        match self.before.take() {
            Some(before) => self.ledger.trial_clear(before.as_deref()),
            None => Ok(()),
        }
    }
}
