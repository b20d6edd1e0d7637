//! What a subscription receives: messages and markers, in the order in which Redis sent them.

use crate::base::id::{Epoch, MessageId};
use crate::ledger::cursor::Marker;
use crate::ledger::member::Body;
use crate::ledger::question::Question;

/// A message as it was published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Published {
    /// One that can be delivered.
    Message(Body),
    /// One over a size limit, of which only the beginning is kept.
    Oversize {
        /// The channel, if it is recorded, and the payload's first bytes.
        excerpt: Body,
        /// What is too long.
        length: Length,
    },
}

/// The length of what is over its limit, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// The channel's name.
    Channel(u64),
    /// The payload.
    Payload(u64),
}

/// Something the listener saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A message that the group listens to.
    Published(Published),
    /// A marker on the control channel.
    Marker(Marker),
    /// A marker of a dispatcher with other interests. It names the place where it is, but no place after it, because
    /// its dispatcher counts other messages.
    OtherInterests(Marker, u64),
}

/// The messages and markers of one read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Messages and markers, in order.
    pub seen: Vec<Seen>,
    /// The epoch whose leader has released the lease, if one did.
    pub released: Option<Epoch>,
    /// Messages that were replayed from the dead letters.
    pub returned: Vec<MessageId>,
    /// Whether the group's settings have changed.
    pub settings: bool,
    /// Whether a sharded channel's slot has moved to another node.
    pub moved: bool,
    /// Questions of operators' tools, which the leader answers.
    pub asked: Vec<Question>,
    /// The number of the last ping that was answered, if any.
    pub answered: Option<u64>,
    /// Copies of messages that did not count because another interest owns the message.
    pub overlaps: u64,
    /// Messages that were ignored because their channel's name is longer than is read.
    pub on_long_channels: u64,
}
