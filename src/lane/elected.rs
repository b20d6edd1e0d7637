//! What the election passes to the term that it begins.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::group_settings::KnownSettings;
use super::precedence::Right;
use crate::base::id::{Epoch, MessageId};
use crate::ledger::{Cursor, ServerChange};

/// Pending messages have vanished: the reason of a gap.
pub(super) const PENDING_LOST: &str = "pending-lost";

/// Whether enough replicas have what earlier leaders stored (`--wait-replicas`). Until then a failover may undo it, so
/// it is not delivered. Set by the election, read by the courier.
#[derive(Clone, Debug, Default)]
pub(super) struct Replicated(Arc<AtomicBool>);

impl Replicated {
    pub(super) fn note(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub(super) fn is_known(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// A term that begins.
pub(super) struct Elected {
    pub(super) epoch: Epoch,
    /// The reason of a gap, if keys have vanished or held foreign values.
    pub(super) lost: Option<&'static str>,
    /// A message that this dispatcher stored in its last term and that no consumer received, if no other has led since.
    pub(super) undelivered: Option<MessageId>,
    /// How far earlier leaders have stored the channel.
    pub(super) cursor: Option<Cursor>,
    /// The highest id of earlier leaders and of pending messages.
    pub(super) last_id: MessageId,
    /// Whether enough replicas have that.
    pub(super) replicated: Replicated,
    /// The group's settings.
    pub(super) settings: Box<KnownSettings>,
    /// Which messages the term may store.
    pub(super) right: Right,
    /// The segment of the ring that was live when this dispatcher was found eligible.
    pub(super) segment: u64,
    /// Whether the last term began on another server.
    pub(super) servers: Option<Box<ServerChange>>,
}
