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
//! Redis assigns an entry's id. So an entry is above every other that the stream has ever had, whoever added that, and
//! no clock but Redis's matters.

use super::bundle;
use super::keys::Keys;
use super::script::ScriptCall;
use super::scripts::{IntakeCall, StreamIntakeCall};
use super::types::Arrival;

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

    /// How many arguments each message of a batch has.
    pub(super) fn width(&self, batch: &[Arrival]) -> u64 {
        let with_channels = || batch.iter().any(|arrival| arrival.body.channel().is_some());
        if *self == Destination::Pending || with_channels() { 2 } else { 1 }
    }

    /// Adds messages to the script's arguments: a bundle, or one of `width` arguments. `buffer` is overwritten.
    pub(super) fn push(&self, call: &mut ScriptCall, unit: &[Arrival], width: u64, buffer: &mut Vec<u8>) {
        match self {
            Destination::Pending => {
                let (score, member) = bundle::encode(unit, buffer);
                call.push((score.to_string().as_str(), member));
            }
            Destination::Stream { .. } => {
                for Arrival { body, .. } in unit {
                    if width == 2 {
                        call.push(body.channel().unwrap_or_default());
                    }
                    call.push(body.payload());
                }
            }
        }
    }
}
