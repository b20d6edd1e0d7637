//! Where intake puts messages: the sorted set, from which consumers get them, or a stream, from which any program reads
//! them. Pure.
//!
//! Both go the same way: one step, fenced by the epoch and the cursor, adds a batch and moves the cursor. They differ
//! in how a message is written and in how a repeated attempt finds out what an earlier one did:
//!
//! - A member of the sorted set stays until a consumer's result removes it, and none is delivered before the step is
//!   known to have succeeded. So what is missing was not added, and may be added again.
//! - An entry of a stream is visible at once. A worker may have read and deleted it before the leader knows that it was
//!   added. So a missing entry proves nothing, and a step must never be half done: a stream is written by the script
//!   alone. A transaction is executed in part if a command is refused only at its execution.
//!
//! An entry's id is the message's: ids rise over all leaders, so Redis itself refuses an entry that arrives late. Only
//! where another program adds to the same stream all the time, Redis assigns ids.

use super::keys::Keys;
use super::member;
use super::script::ScriptCall;
use super::scripts::{IntakeCall, StreamIntakeCall};
use super::types::Arrival;
use crate::base::id::MessageId;

/// How often in a row a batch gets ids above the stream's last id. If that has passed them again, another program adds
/// entries all the time, ahead of this clock. Then Redis assigns the ids.
const RENUMBERED: u32 = 1;
/// Makes Redis assign the id of an entry.
const ID_BY_REDIS: &str = "*";

/// How the messages of a batch are written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    /// How many arguments each has.
    pub(super) width: u64,
    /// Whether an entry has the message's id.
    own_ids: bool,
}

/// See the module's text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Destination {
    /// The sorted set of pending messages.
    #[default]
    Pending,
    /// A stream.
    Stream {
        /// Its key.
        key: String,
        /// About how many entries it keeps, 0 for all.
        maxlen: u64,
    },
}

impl Destination {
    /// Whether a transaction may add messages here, and be undone if a part of it is refused.
    pub(super) fn allows_transactions(&self) -> bool {
        *self == Destination::Pending
    }

    /// The script that adds messages here, without its messages.
    pub(super) fn intake_call(&self, call: &IntakeCall<'_>, keys: &Keys) -> ScriptCall {
        let IntakeCall { my_epoch, expected, next_cursor, doubts, width, .. } = *call;
        match self {
            Destination::Pending => call.on(keys).key(&keys.pending),
            Destination::Stream { key, maxlen } => {
                let maxlen = *maxlen;
                StreamIntakeCall { my_epoch, expected, next_cursor, doubts, maxlen, width }.on(keys).key(key)
            }
        }
    }

    /// How the messages of a batch are written, after it was refused `behind` times in a row because the stream's last
    /// id had passed its ids.
    pub(super) fn form(&self, batch: &[Arrival], behind: u32) -> Form {
        let with_channels = batch.iter().any(|arrival| arrival.body.channel().is_some());
        let is_stream = matches!(self, Destination::Stream { .. });
        Form { width: if is_stream && with_channels { 3 } else { 2 }, own_ids: behind <= RENUMBERED }
    }

    /// Adds a message to the script's arguments. `buffer` is overwritten.
    pub(super) fn push(&self, call: &mut ScriptCall, arrival: &Arrival, form: Form, buffer: &mut Vec<u8>) {
        let Arrival { id, body, .. } = arrival;
        match self {
            Destination::Pending => call.push((id, member::encode(*id, body, buffer))),
            Destination::Stream { .. } => {
                call.push(if form.own_ids { entry_id(*id) } else { ID_BY_REDIS.to_owned() }.as_str());
                if form.width == 3 {
                    call.push(body.channel().unwrap_or_default());
                }
                call.push(body.payload());
            }
        }
    }
}

/// The id of a message's entry. Message ids are microseconds, so it looks and sorts like an id that Redis makes itself.
pub(super) fn entry_id(id: MessageId) -> String {
    format!("{}-{}", id.0 / 1_000, id.0 % 1_000)
}

/// The highest message id whose entry is not above this entry; `None` if it is no entry's id.
pub(super) fn message_id(entry: &str) -> Option<MessageId> {
    let (ms, number) = entry.split_once('-')?;
    let (ms, number): (u64, u64) = (ms.parse().ok()?, number.parse().ok()?);
    Some(MessageId(ms.saturating_mul(1_000).saturating_add(number.min(999))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_sort_like_messages() {
        for id in [7, 999, 1_000, 1_790_000_000_000_123] {
            assert_eq!(message_id(&entry_id(MessageId(id))), Some(MessageId(id)));
        }
        assert_eq!(entry_id(MessageId(1_790_000_000_000_003)), "1790000000000-3");
    }

    #[test]
    fn ids_continue_above_what_others_have_added() {
        let next = |entry: &str| entry_id(MessageId(message_id(entry).expect("an id").0 + 1));
        assert_eq!(next("1790000000000-0"), "1790000000000-1");
        assert_eq!(next("1790000000000-999"), "1790000000001-0");
        assert_eq!(next("1790000000000-5000"), "1790000000001-0");
        assert_eq!(message_id("18446744073709551615-18446744073709551615"), Some(MessageId(u64::MAX)));
        for no_id in ["", "5", "a-b", "1-2-3", "-1"] {
            assert_eq!(message_id(no_id), None, "{no_id}");
        }
    }
}
