//! What an election hands to the term that it begins.

use super::precedence::Right;
use crate::base::id::{Epoch, MessageId};
use crate::ledger::Cursor;

/// Pending messages have vanished: the reason of a gap.
pub(super) const PENDING_LOST: &str = "pending-lost";

/// A term that begins.
pub(super) struct Elected {
    pub(super) epoch: Epoch,
    /// The reason of a gap, if keys have vanished or held what no dispatcher writes.
    pub(super) lost: Option<&'static str>,
    /// A message that this dispatcher stored when it led last and delivered to no consumer, if no other has led since.
    pub(super) witness: Option<MessageId>,
    /// How far earlier leaders came.
    pub(super) cursor: Option<Cursor>,
    /// No earlier leader gave out a higher id, and no message that is pending has one.
    pub(super) last_id: MessageId,
    /// Which messages the term may store.
    pub(super) right: Right,
    /// The segment of the ring that was live when it was seen that this one may lead.
    pub(super) segment: u64,
}
