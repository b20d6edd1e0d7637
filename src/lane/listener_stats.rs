//! What the listener receives, for the election and the metrics. Plain atomics, except for what [`Hearing`] holds.

use std::sync::atomic::{AtomicU64, Ordering};

use super::hearing::Hearing;
use crate::base::pulse::Pulse;

/// See the module's text.
#[derive(Debug, Default)]
pub struct ListenerStats {
    /// How often the subscription was made.
    pub subscriptions: AtomicU64,
    /// The highest epoch heard of on the control channel.
    pub highest_epoch: AtomicU64,
    /// Markers that were ignored: no dispatcher can have published them here and now.
    pub markers_ignored: AtomicU64,
    /// Beats in each iteration of its loop.
    pub pulse: Pulse,
    /// Whether leaders' markers come through.
    pub hearing: Hearing,
    /// The subscription that is to be made anew, by its number.
    unwanted: AtomicU64,
}

impl ListenerStats {
    /// Has subscription number so and so made anew, if it is still the present one.
    pub fn renew_subscription(&self, number: u64) {
        self.unwanted.store(number, Ordering::Release);
    }

    /// Whether the present subscription is to be made anew.
    pub(super) fn is_unwanted(&self) -> bool {
        self.unwanted.load(Ordering::Acquire) == self.subscriptions.load(Ordering::Relaxed)
    }
}
