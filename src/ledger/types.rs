//! What the ledger's operations take and give.

use std::sync::Arc;

use super::command::Words;
use super::cursor::Cursor;
use super::lease::Lease;
use super::member::Payload;
use crate::base::error::Error;
use crate::base::id::{DispatcherId, Epoch, MessageId};

/// What came of an attempt to take the lease, and what was seen by the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The answer.
    pub answer: Acquire,
    /// Whether this server counts a subscriber of the caller's own alive channel.
    pub counted: bool,
    /// The server's clock, in milliseconds since 1970.
    pub redis_ms: u64,
    /// Keys, and what they hold that no dispatcher can have written.
    pub foreign: Vec<(String, String)>,
}

/// The answer to an attempt to take the lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acquire {
    /// It is ours now.
    Acquired {
        /// The lease, with the epoch that begins.
        lease: Lease,
        /// How far earlier leaders came.
        cursor: Option<Cursor>,
        /// The highest id of a message that is pending.
        newest: Option<MessageId>,
        /// The epoch before, if its key said one.
        before: Option<Epoch>,
    },
    /// It is free, but the caller only looked.
    Vacant {
        /// How far earlier leaders came.
        cursor: Option<Cursor>,
    },
    /// Another dispatcher leads.
    Held {
        /// Who leads, and in which epoch.
        lease: Lease,
        /// How far it has come.
        cursor: Option<Cursor>,
    },
}

/// What a leader promises: each message above `up_to` that it delivers has one holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recall {
    /// The leader's epoch.
    pub epoch: Epoch,
    /// The start of Redis in which that began: its run id. After another start Redis may have forgotten what was
    /// promised.
    pub server: String,
    /// The highest id of a message that more than one consumer may hold.
    pub up_to: MessageId,
}

/// The answer to an intake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IntakeAnswer {
    /// The batch is in the sorted set, and the cursor is this one.
    Taken(Cursor),
    /// The cursor is not the one expected; nothing was changed.
    Moved(Option<Cursor>),
    /// The members were refused, for this reason, in a transaction that moved the cursor, which has been moved back.
    /// That cursor must not be written again, nor its ids used: a copy of the last step may arrive late.
    Rewound(String),
}

/// A message that is taken in.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Its id.
    pub id: MessageId,
    /// Its payload, or of one too large to be delivered its first bytes.
    pub payload: Payload,
    /// Why it goes to the dead letters at once; `None` for a message that can be delivered.
    pub refused: Option<String>,
}

/// A pending message as read back from Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Its id.
    pub id: MessageId,
    /// The number its next delivery has.
    pub delivery: u16,
    /// Its payload.
    pub payload: Payload,
}

/// A stretch of the backlog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The place it ends; `None` if the range that was asked for holds nothing.
    pub read_up_to: Option<MessageId>,
    /// The messages, oldest first. Foreign members are skipped.
    pub messages: Vec<Pending>,
}

/// A result to record. No fields: the message is removed and nothing stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The message.
    pub id: MessageId,
    /// Names and values in turn, in order.
    pub fields: Words,
}

impl Commit {
    /// The bytes that its names and values take in a command.
    pub fn bytes(&self) -> usize {
        self.fields.bytes().len()
    }
}

/// To what a script that records results raises the recall.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Raise {
    /// It leaves it alone.
    #[default]
    Nothing,
    /// To this: the highest id of a transaction of which it is not known whether it took place.
    To(MessageId),
    /// To the highest message that it records: its sender may not have been the leader, and another consumer may
    /// hold it from the leader.
    Recorded,
}

/// What came of a script.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// How many results were recorded.
    pub recorded: usize,
    /// Messages that were not pending: nothing was stored for them.
    pub gone: Vec<MessageId>,
}

/// What came of a transaction.
#[derive(Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Messages that were removed. Anything but the size of the batch is a breach of what the recall promises.
    pub removed: usize,
    /// Messages that were removed and whose results were not stored, with Redis's reason.
    pub unstored: Option<(Vec<MessageId>, String)>,
}

/// What became of a delivery that brought no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It failed and counts.
    Failed,
    /// The link was lost. It may still be worked on, so it counts only when the message goes out again.
    Lost,
    /// It was handed back unused and does not count.
    Unused,
    /// The handler wants it dead-lettered.
    Rejected,
}

/// Whether the consumer that a message came back from may still work on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// It has released the message, as with a NACK.
    Released,
    /// It may still hold the message, and come back with a result.
    Held,
}

/// The number of a delivery, as far as the leader knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeliveryNumber {
    /// This leader made the delivery, with this number.
    Known(u16),
    /// The consumer reported the message in HELD. Only Redis knows the number; see [`Ledger::deliveries`].
    ///
    /// [`Ledger::deliveries`]: super::Ledger::deliveries
    Adopted,
}

/// A message that came back without a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Returned {
    /// The message.
    pub id: MessageId,
    /// What became of its delivery.
    pub verdict: Verdict,
    /// The number its delivery had.
    pub delivery: DeliveryNumber,
    /// Whether the consumer that had it may still come back with a result.
    pub hold: Hold,
    /// The consumer that had it.
    pub consumer: Arc<str>,
    /// Why it came back.
    pub reason: Arc<str>,
}

impl Returned {
    /// How many words one has in the command that settles it.
    pub const WORDS: usize = 6;
}

/// What came of settling a batch.
#[derive(Debug)]
pub struct Settlement {
    /// For each message, in order.
    pub settled: Vec<Settled>,
    /// Why a dead letter was refused, if one was.
    pub refused: Option<Error>,
}

/// What is to be done with a message that came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It was no longer pending: its result was recorded.
    Gone,
    /// It is in the dead letters now.
    DeadLettered,
    /// It should be in the dead letters, but Redis refused that; it is still pending.
    Refused,
    /// It goes out again, as delivery number so and so.
    Again(u16),
}

/// A stretch of the channel that may have been missed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Why.
    pub reason: &'static str,
    /// The dispatcher that found it.
    pub dispatcher: DispatcherId,
    /// The place after which something may be missing.
    pub begin: String,
    /// The place from which everything is there again.
    pub end: String,
    /// How many messages, where it is known exactly.
    pub count: Option<u64>,
}
