//! The group in Redis, for a consumer that records its results there itself. Does nothing for any other consumer.
//!
//! It writes only to a group on trial: one that has no key but its epoch, or one that is named `conform` or
//! `conform-…`; and never once a dispatcher leads it or has led it. At the end it removes what it has written.

use std::sync::Arc;
use std::time::Duration;

use crate::base::error::{Error, Result};
use crate::base::id::MessageId;
use crate::ledger::reading::{EntryStream, ReadPosition};
use crate::ledger::trial::EpochNow;
use crate::ledger::{Keys, Ledger, Server};

/// How long to wait for a reply.
const REPLY_TIME: Duration = Duration::from_secs(5);
/// The name of a group that may be written to in any case, also with a hyphen and more.
const TRIAL: &str = "conform";

/// See the module's text.
pub(super) struct Group {
    ledger: Ledger,
    /// Set once the group may be written to.
    written: Option<Written>,
}

/// Values of the epoch's key.
#[derive(Default)]
struct Written {
    before: Option<Vec<u8>>,
    /// The one written last.
    now: Option<Vec<u8>>,
}

impl Group {
    pub(super) fn new(redis: Server, keys: Keys) -> Group {
        Group { ledger: Ledger::new(redis, Arc::new(keys), REPLY_TIME), written: None }
    }

    /// Whether the consumer records its results here.
    pub(super) fn is_used(&self) -> bool {
        self.written.is_some()
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
        let named = is_trial(&group);
        if !named && !state.keys.is_empty() {
            let keys = state.keys.join(", ");
            return Err(Error::Failed(format!(
                "{place}: the group {group} is in use, it has the keys {keys}: give the \
                                              consumer a trial group, {TRIAL} or {TRIAL}-…, and name it \
                                              with --group"
            )));
        }
        let now = if named { EpochNow::Any } else { EpochNow::Is(state.epoch.as_deref()) };
        let before = state.epoch.clone().filter(|_| !named);
        self.ledger.trial_clear(now, before.as_deref())?;
        self.written = Some(Written { now: before.clone(), before });
        Ok(())
    }

    /// Makes this the newest epoch, or removes the key.
    pub(super) fn elect(&mut self, epoch: Option<u64>) -> Result<()> {
        let Some(written) = &mut self.written else { return Ok(()) };
        let epoch = epoch.map(|epoch| epoch.to_string().into_bytes());
        self.ledger.trial_elect(EpochNow::Is(written.now.as_deref()), epoch.as_deref())?;
        written.now = epoch;
        Ok(())
    }

    /// Makes a message pending.
    pub(super) fn pend(&mut self, id: u64, payload: &[u8], delivery: u16) -> Result<()> {
        let Some(written) = &self.written else { return Ok(()) };
        self.ledger.trial_pend(written.now.as_deref(), MessageId(id), payload, delivery)
    }

    /// Whether a message is pending, and whether its deliveries are counted.
    pub(super) fn is_pending(&mut self, id: u64) -> Result<(bool, bool)> {
        self.ledger.trial_is_pending(MessageId(id))
    }

    /// How many results have a field `message_id` with this value.
    pub(super) fn results_of(&mut self, unique: &str) -> Result<usize> {
        let (mut count, mut position) = (0, ReadPosition::default());
        while let Some(page) = self.ledger.read_stream(EntryStream::Processed, &mut position)? {
            count += page.iter().filter(|entry| entry.field("message_id") == Some(unique.as_bytes())).count();
        }
        Ok(count)
    }

    /// Removes what was written, unless a dispatcher has come.
    pub(super) fn end(&mut self) -> Result<()> {
        match self.written.take() {
            Some(Written { before, now }) => self.ledger.trial_clear(EpochNow::Is(now.as_deref()), before.as_deref()),
            None => Ok(()),
        }
    }
}

fn is_trial(group: &str) -> bool {
    let name = group.trim_start_matches('{').trim_end_matches('}');
    name.strip_prefix(TRIAL).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_trial_group_may_be_written_to_in_any_case() {
        for (group, is) in [
            ("conform", true),
            ("{conform}", true),
            ("conform-python", true),
            ("{conform-1}", true),
            ("conformity-orders", false),
            ("conforms", false),
            ("orders", false),
            ("my-conform", false),
            ("", false),
        ] {
            assert_eq!(is_trial(group), is, "{group}");
        }
    }
}
