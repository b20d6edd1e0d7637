//! What a consumer counts. Any thread adds to it, and anyone may read it; numbers are not of one moment.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::handler::HandlerError;
use crate::base::pulse::Pulse;
use crate::process::metrics::Histogram;

/// A number that only rises.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// The number so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, count: usize) {
        self.0.fetch_add(count as u64, Ordering::Relaxed);
    }
}

/// What a consumer has done since its start, and how it is now.
#[derive(Debug, Default)]
pub struct ConsumerStats {
    /// Messages accepted from dispatchers. One that was handed over twice while in hand counts once.
    pub received: Counter,
    /// Messages that this consumer recorded as done.
    pub recorded: Counter,
    /// Outcomes that were not recorded because the message was no longer pending: somebody else was first.
    pub dropped: Counter,
    /// Of these, the ones that were delivered for the first time and that no other consumer should have had.
    pub not_pending: Counter,
    /// Of those recorded, the ones that went through the script and not in a transaction.
    pub scripted: Counter,
    /// Transactions that removed something else than their batch. Results may be there twice.
    pub breaches: Counter,
    /// Messages that failed and are to be delivered again.
    pub retried: Counter,
    /// Messages that the handler rejected.
    pub rejected: Counter,
    /// Messages handed back because this consumer could not work; no handler had begun on them.
    pub handed_back: Counter,
    /// Handlers that panicked; these count as retried, too.
    pub panicked: Counter,
    /// Handlers that ran longer than the handler timeout.
    pub timed_out: Counter,
    /// Sockets closed because of bytes that are no frames, frames that have no place, or no LEAD in time.
    pub bad_frames: Counter,
    /// Connections refused or ended because their dispatcher's epoch is over, or not the one that Redis names.
    pub stale: Counter,
    /// Connections refused because Redis did not confirm their dispatcher's epoch, or could not be asked.
    pub unconfirmed: Counter,
    /// Sockets that ended before a dispatcher had introduced itself: no handshake, gone again, too many at once.
    pub strangers: Counter,
    /// Times that Redis could not record results, retries included.
    pub redis_errors: Counter,

    /// How long handlers ran, also those that failed.
    pub handler_duration: Histogram,

    /// The main thread looks at the committer.
    pub(super) main: Pulse,
    /// The committer's loop turns.
    pub(super) committer: Pulse,

    held: AtomicU64,
    epoch: AtomicU64,
    redis_up: AtomicBool,
    stopping: AtomicBool,
    reconnects: AtomicU64,
    unable: Mutex<Option<String>>,
    last_failure: Mutex<Option<String>>,
}

impl ConsumerStats {
    /// Messages in hand: waiting for a handler, with one, or waiting for Redis.
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// The epoch of the dispatcher whose messages are accepted; 0 if none is connected.
    pub fn ruling_epoch(&self) -> u64 {
        self.epoch.load(Ordering::Relaxed)
    }

    /// Whether Redis answered when it was last asked; at first it has not been.
    pub fn redis_is_up(&self) -> bool {
        self.redis_up.load(Ordering::Relaxed)
    }

    /// Times that the connection to Redis was made anew.
    pub fn redis_reconnects(&self) -> u64 {
        self.reconnects.load(Ordering::Relaxed)
    }

    /// Whether it can do its job: run handlers and record results. The error says what is missing.
    pub fn ready(&self) -> Result<(), String> {
        if self.stopping.load(Ordering::Relaxed) {
            Err("it is stopping".to_owned())
        } else if self.committer_hangs() {
            Err("the committer hangs".to_owned())
        } else if !self.redis_is_up() {
            Err("Redis does not take results (--redis-url); see the log".to_owned())
        } else {
            self.unable.lock().clone().map_or(Ok(()), Err)
        }
    }

    /// Whether it accepts no messages, because it could not begin on them or not record what comes of it.
    pub fn is_unable(&self) -> bool {
        self.unable.lock().is_some()
    }

    /// Messages that are off this consumer's hands in one way or another.
    pub fn processed(&self) -> u64 {
        self.recorded.get() + self.dropped.get() + self.retried.get() + self.rejected.get()
    }

    pub(super) fn set_held(&self, held: usize) {
        self.held.store(held as u64, Ordering::Relaxed);
    }

    pub(super) fn set_unable(&self, reason: Option<String>) {
        *self.unable.lock() = reason;
    }

    pub(super) fn set_ruling_epoch(&self, epoch: u64) {
        self.epoch.store(epoch, Ordering::Relaxed);
    }

    pub(super) fn set_redis_up(&self, up: bool) {
        self.redis_up.store(up, Ordering::Relaxed);
    }

    /// Whether its loop does not turn, and not because the whole process stood still.
    pub(super) fn committer_hangs(&self) -> bool {
        self.committer.is_late() && !self.main.is_late()
    }

    pub(super) fn set_redis_reconnects(&self, count: u64) {
        self.reconnects.store(count, Ordering::Relaxed);
    }

    pub(super) fn set_stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    pub(super) fn set_last_failure(&self, failure: &HandlerError) {
        // A sample for the log: whoever finds the place taken leaves it.
        if let Some(mut last) = self.last_failure.try_lock()
            && last.is_none()
        {
            *last = Some(failure.to_string());
        }
    }

    /// One of the reasons that handlers gave since this was last asked.
    pub(super) fn take_last_failure(&self) -> Option<String> {
        self.last_failure.lock().take()
    }
}
