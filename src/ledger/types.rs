//! The arguments and results of the ledger's operations.

use std::sync::Arc;
use std::time::Duration;

use super::command::Words;
use super::cursor::Cursor;
use super::group_settings::SettingsReading;
use super::lease::Lease;
use super::member::Body;
use crate::base::error::Error;
use crate::base::id::{DispatcherId, Epoch, MessageId};

/// The outcome of an attempt to acquire the lease, and what it showed besides.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    /// The answer.
    pub answer: Acquire,
    /// Whether this server counts a subscriber of the caller's own alive channel.
    pub counted: bool,
    /// The server's clock, in milliseconds since 1970.
    pub redis_ms: u64,
    /// Keys with values that no dispatcher can have written.
    pub foreign: Vec<(String, String)>,
}

/// The answer to an attempt to acquire the lease.
#[derive(Clone, Debug, PartialEq)]
pub enum Acquire {
    /// The caller holds the lease now.
    Acquired {
        /// The lease, with the epoch that begins.
        lease: Lease,
        /// How far earlier leaders have stored the channel.
        cursor: Option<Cursor>,
        /// The highest id of a message that is pending.
        newest: Option<MessageId>,
        /// The previous epoch, if its key held one.
        before: Option<Epoch>,
        /// The group's settings.
        settings: SettingsReading,
        /// Whether the last term began on another server, or before this one's start.
        servers: Option<Box<ServerChange>>,
    },
    /// The lease is free, but the caller only checked.
    Vacant {
        /// How far earlier leaders have stored the channel.
        cursor: Option<Cursor>,
    },
    /// Another dispatcher leads.
    Held {
        /// Who leads, and in which epoch.
        lease: Lease,
        /// How far it has stored the channel.
        cursor: Option<Cursor>,
    },
}

/// The run ids of two servers, or of one before and after a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerChange {
    /// Where the last term began.
    pub before: String,
    /// Where this one does.
    pub now: String,
}

impl ServerChange {
    /// What a gap says if both run ids are known and differ.
    pub(super) fn between(before: Option<&str>, now: Option<&str>) -> Option<Box<ServerChange>> {
        let known = |id: Option<&str>| id.filter(|id| *id != "unknown").map(str::to_owned);
        let (before, now) = (known(before)?, known(now)?);
        (before != now).then(|| Box::new(ServerChange { before, now }))
    }
}

/// What a leader promises: each message above `up_to` that it delivers has one holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recall {
    /// The leader's epoch.
    pub epoch: Epoch,
    /// The run id of Redis when the recall was written. After a restart Redis may have lost a later write of the
    /// recall.
    pub server: String,
    /// The highest id of a message that more than one consumer may hold.
    pub up_to: MessageId,
}

/// The answer to an intake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IntakeAnswer {
    /// The batch is stored, and the cursor is this one.
    Taken(Cursor),
    /// The cursor is not the one expected; nothing was changed.
    Moved(Option<Cursor>),
    /// A transaction moved the cursor, but its members were refused, for this reason. The cursor has been moved back.
    /// It must not be written again, nor its ids used, because a copy of the transaction may arrive late.
    Rewound(String),
}

/// A message to be stored.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Its id.
    pub id: MessageId,
    /// Its body; only the channel and the payload's first bytes if it is too large to be delivered.
    pub body: Body,
    /// Why it goes to the dead letters at once; `None` for a message that can be delivered.
    pub refused: Option<String>,
}

/// A pending message as read back from Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Its id.
    pub id: MessageId,
    /// The number of its next delivery.
    pub delivery: u16,
    /// Its body.
    pub body: Body,
}

/// Which messages of the backlog to read: those with `after < id <= up_to`, oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRequest {
    /// The id that the first must exceed.
    pub after: MessageId,
    /// The highest id.
    pub up_to: MessageId,
    /// How many messages at most, but whole bundles.
    pub messages: usize,
    /// How many bytes, about. The first message is read however large it is.
    pub bytes: usize,
}

/// A page of the backlog.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Where it ends; `None` if the requested range is empty.
    pub read_up_to: Option<MessageId>,
    /// The messages that may be delivered now, oldest first. Foreign members are skipped.
    pub messages: Vec<Pending>,
    /// Those that must wait for so long by Redis's clock.
    pub delayed: Vec<(Pending, Duration)>,
}

/// Messages that were read again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    /// How many ids were looked up, at least one.
    pub looked_at: usize,
    /// Those that are pending.
    pub messages: Vec<Pending>,
    /// Those of which Redis has that they must still wait for so long.
    pub delayed: Vec<(Pending, Duration)>,
}

/// A result to record. Without fields the message is removed and nothing is stored.
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

/// How a script that records results raises the recall.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Raise {
    /// Not at all.
    #[default]
    Nothing,
    /// To this id: the highest of a transaction with an unknown outcome.
    To(MessageId),
    /// To the highest message that it records: the sender may not have been the leader, and another consumer may hold
    /// the message from the leader.
    Recorded,
}

/// The outcome of a script.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// How many results were recorded.
    pub recorded: usize,
    /// Messages that were not pending: nothing was stored for them.
    pub gone: Vec<MessageId>,
}

/// The outcome of a transaction.
#[derive(Debug, PartialEq, Eq)]
pub struct Recorded {
    /// How many messages were removed. Any number other than the size of the batch breaks the promise of the recall.
    pub removed: usize,
    /// Messages that were removed and whose results were not stored, with Redis's reason.
    pub unstored: Option<(Vec<MessageId>, String)>,
}

/// What became of a delivery without a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It failed and counts.
    Failed,
    /// The link was lost. The message may still be worked on, so this counts only when it is delivered again.
    Lost,
    /// The consumer returned the message unused. The delivery does not count.
    Unused,
    /// The handler rejected the message.
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
    /// How many words a message takes in the command that settles it.
    pub const WORDS: usize = 7;
}

/// A message to be settled.
#[derive(Clone, Copy, Debug)]
pub struct Settling<'a> {
    /// How it came back.
    pub returned: &'a Returned,
    /// The number that its delivery had.
    pub delivery: u16,
    /// How long it must wait before the next delivery even if the leader changes. Redis keeps when that is over, by its
    /// own clock.
    pub wait: Duration,
}

/// The outcome of settling a batch.
#[derive(Debug)]
pub struct Settlement {
    /// For each message, in order.
    pub settled: Vec<Settled>,
    /// Why a dead letter was refused, if one was.
    pub refused: Option<Error>,
}

/// What became of a message that came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It was no longer pending: its result was recorded.
    Gone,
    /// It is in the dead letters now.
    DeadLettered,
    /// It should be in the dead letters, but Redis refused that; it is still pending.
    Refused,
    /// It must be delivered again, with this delivery number.
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
    /// The place from which nothing is missing.
    pub end: String,
    /// How many messages are missing, if that is known exactly.
    pub count: Option<u64>,
    /// Between which servers, if the term began on another one than the last term.
    pub servers: Option<Box<ServerChange>>,
}
