//! What a subscription brings: messages and markers, in the order in which Redis sent them.

use crate::base::id::Epoch;
use crate::ledger::cursor::Marker;
use crate::ledger::member::Payload;

/// A message as it was published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Published {
    /// One that can be delivered.
    Message(Payload),
    /// One over the size limit: its first bytes and its length.
    Oversize {
        /// The first bytes.
        excerpt: Payload,
        /// The length of the whole.
        length: u64,
    },
}

/// Something the listener saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A message on the user's channel.
    Published(Published),
    /// A marker on the control channel.
    Marker(Marker),
    /// A marker of a dispatcher that listens to another channel: it names no place here, but says who joined.
    Elsewhere(Marker),
}

/// What one read brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Messages and markers, in order.
    pub seen: Vec<Seen>,
    /// The epoch whose leader has given the lease back, if one said so.
    pub released: Option<Epoch>,
    /// What the last ping said that was answered, if one was.
    pub answered: Option<u64>,
}
