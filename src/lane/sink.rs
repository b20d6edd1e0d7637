//! Where the listener puts what it receives.

use crate::ledger::subscription::Seen;

/// See the module's text. In each segment nothing is missing; between two of them something may be.
pub trait Sink: Send + Sync {
    /// There is a new subscription.
    fn begin_segment(&self);

    /// Everything is subscribed to.
    fn note_joined(&self) {}

    /// The subscription dropped.
    fn end_segment(&self);

    /// Adds what was received, in order. Returns the number of markers that it ignored.
    fn append(&self, seen: Vec<Seen>) -> usize;
}
