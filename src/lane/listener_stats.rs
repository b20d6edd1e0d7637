//! What the listener receives, for the election and the metrics. Plain atomics, except for what [`Hearing`] holds.

use std::sync::atomic::{AtomicU64, Ordering};

use super::hearing::Hearing;
use crate::base::pulse::Pulse;

/// See the module's text.
#[derive(Debug, Default)]
pub struct ListenerStats {
    /// How often the subscription was established.
    pub subscriptions: AtomicU64,
    /// The highest epoch seen on the control channel.
    pub highest_epoch: AtomicU64,
    /// Markers that were ignored, because no dispatcher can have published them.
    pub markers_ignored: AtomicU64,
    /// Copies of messages that did not count because another interest owns the message.
    pub overlaps: AtomicU64,
    /// Messages that were ignored because their channel's name is longer than is read.
    pub on_long_channels: AtomicU64,
    /// Hash of the interests of the last dispatcher with other interests that has joined.
    pub joined_with: AtomicU64,
    /// Beats in each iteration of its loop.
    pub pulse: Pulse,
    /// Detects whether leaders' markers arrive.
    pub hearing: Hearing,
    /// The number of the subscription to replace.
    unwanted: AtomicU64,
}

impl ListenerStats {
    /// Makes the listener replace subscription `number`, if that is still the present one.
    pub fn renew_subscription(&self, number: u64) {
        self.unwanted.store(number, Ordering::Release);
    }

    /// Whether the present subscription is to be replaced.
    pub(super) fn is_unwanted(&self) -> bool {
        self.unwanted.load(Ordering::Acquire) == self.subscriptions.load(Ordering::Relaxed)
    }
}
