//! What a subscription receives: messages and markers, in the order in which Redis sent them.

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
        /// The length of the whole message.
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
    /// A marker of a dispatcher with another channel. It names no place here, but shows which dispatcher joined.
    Elsewhere(Marker),
}

/// The messages and markers of one read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Messages and markers, in order.
    pub seen: Vec<Seen>,
    /// The epoch whose leader has released the lease, if one did.
    pub released: Option<Epoch>,
    /// The number of the last ping that was answered, if any.
    pub answered: Option<u64>,
}
