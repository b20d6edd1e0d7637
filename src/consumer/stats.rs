//! A consumer's counters. Any thread may add to them and read them; they are not a snapshot of one moment.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use super::handler::HandlerError;
use crate::base::histogram::{Distribution, LatencyHistogram};
use crate::base::pulse::Pulse;
use crate::ledger::LaneNumber;

/// A number that only rises.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, count: usize) {
        self.0.fetch_add(count as u64, Ordering::Relaxed);
    }
}

/// What a consumer has done since its start, and its present state.
///
/// Returned by [`Consumer::stats`](crate::Consumer::stats). Any thread may read it, while the consumer runs and
/// afterwards. Counts are of messages unless they say otherwise.
#[derive(Debug, Default)]
pub struct ConsumerStats {
    pub(super) received: Counter,
    pub(super) recorded: Counter,
    pub(super) dropped: Counter,
    pub(super) not_pending: Counter,
    pub(super) scripted: Counter,
    pub(super) breaches: Counter,
    pub(super) retried: Counter,
    pub(super) rejected: Counter,
    pub(super) returned: Counter,
    pub(super) panicked: Counter,
    pub(super) timed_out: Counter,
    pub(super) bad_frames: Counter,
    pub(super) stale: Counter,
    pub(super) unauthenticated: Counter,
    pub(super) unconfirmed: Counter,
    pub(super) strangers: Counter,
    pub(super) redis_errors: Counter,
    pub(super) handler_duration: LatencyHistogram,

    /// The main loop, which monitors the committer.
    pub(super) main: Pulse,
    lanes: RwLock<BTreeMap<LaneNumber, Arc<LaneStats>>>,
    held: AtomicU64,
    stopping: AtomicBool,
    reconnects: AtomicU64,
    unable: Mutex<Option<String>>,
    last_failure: Mutex<Option<HandlerError>>,
}

/// What a consumer has done for one lane since it began to serve it, and the lane's present state.
#[derive(Debug, Default)]
pub struct LaneStats {
    pub(super) received: Counter,
    pub(super) recorded: Counter,
    /// The committer's loop.
    pub(super) committer: Pulse,
    held: AtomicU64,
    epoch: AtomicU64,
    redis_up: AtomicBool,
}

impl LaneStats {
    /// See [`ConsumerStats::received`].
    pub fn received(&self) -> u64 {
        self.received.get()
    }

    /// See [`ConsumerStats::recorded`].
    pub fn recorded(&self) -> u64 {
        self.recorded.get()
    }

    /// See [`ConsumerStats::held`].
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// The epoch of the dispatcher whose messages are accepted; 0 if none is connected.
    pub fn ruling_epoch(&self) -> u64 {
        self.epoch.load(Ordering::Relaxed)
    }

    /// Whether Redis answered the last request; `false` before the first one.
    pub fn redis_is_up(&self) -> bool {
        self.redis_up.load(Ordering::Relaxed)
    }

    pub(super) fn set_held(&self, held: usize) {
        self.held.store(held as u64, Ordering::Relaxed);
    }

    pub(super) fn set_ruling_epoch(&self, epoch: u64) {
        self.epoch.store(epoch, Ordering::Relaxed);
    }

    pub(super) fn set_redis_up(&self, up: bool) {
        self.redis_up.store(up, Ordering::Relaxed);
    }
}

impl ConsumerStats {
    /// Accepted from dispatchers. A message that is delivered again while it is held counts once.
    pub fn received(&self) -> u64 {
        self.received.get()
    }

    /// Recorded as done by this consumer.
    pub fn recorded(&self) -> u64 {
        self.recorded.get()
    }

    /// Handled, but not recorded because the message was no longer pending.
    pub fn dropped(&self) -> u64 {
        self.dropped.get()
    }

    /// Failed, to be delivered again.
    pub fn retried(&self) -> u64 {
        self.retried.get()
    }

    /// Rejected by the handler, so moved to the dead letters.
    pub fn rejected(&self) -> u64 {
        self.rejected.get()
    }

    /// Handlers that panicked. Their messages count as retried, too.
    pub fn panicked(&self) -> u64 {
        self.panicked.get()
    }

    /// Handlers that ran longer than the handler timeout.
    pub fn timed_out(&self) -> u64 {
        self.timed_out.get()
    }

    /// Requests to Redis that failed. Recording a result is retried.
    pub fn redis_errors(&self) -> u64 {
        self.redis_errors.get()
    }

    /// Held now: waiting for a handler, being handled, or waiting for Redis.
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Whether the consumer can run handlers and record results. If not, the error gives the reason.
    ///
    /// A consumer without a dispatcher is ready, too.
    pub fn ready(&self) -> Result<(), String> {
        if self.stopping.load(Ordering::Relaxed) {
            Err("it is stopping".to_owned())
        } else if self.committer_hangs() {
            Err("the committer hangs".to_owned())
        } else if !self.redis_is_up() {
            Err("Redis does not store results; see the log".to_owned())
        } else {
            self.unable.lock().clone().map_or(Ok(()), Err)
        }
    }
}

/// For the programs and the tests of this package.
#[doc(hidden)]
impl ConsumerStats {
    /// The messages among `dropped` that were delivered for the first time and whose absence has no explanation.
    pub fn not_pending(&self) -> u64 {
        self.not_pending.get()
    }

    /// The messages among `recorded` that were recorded by the script and not in a transaction.
    pub fn scripted(&self) -> u64 {
        self.scripted.get()
    }

    /// Transactions that did not remove exactly their batch. Results may be stored twice.
    pub fn breaches(&self) -> u64 {
        self.breaches.get()
    }

    /// Returned because this consumer could not work; no handler had begun on them.
    pub fn returned(&self) -> u64 {
        self.returned.get()
    }

    /// Connections closed because of malformed frames, unexpected frames, or no LEAD in time.
    pub fn bad_frames(&self) -> u64 {
        self.bad_frames.get()
    }

    /// Connections refused or ended because their dispatcher's epoch is over, or not the one that Redis names.
    pub fn stale(&self) -> u64 {
        self.stale.get()
    }

    /// Connections refused because their dispatcher did not prove the link secret.
    pub fn unauthenticated(&self) -> u64 {
        self.unauthenticated.get()
    }

    /// Connections refused because Redis did not confirm their dispatcher's epoch, or could not be asked.
    pub fn unconfirmed(&self) -> u64 {
        self.unconfirmed.get()
    }

    /// Connections that ended before a LEAD: no handshake, closed by the client, or too many at once.
    pub fn strangers(&self) -> u64 {
        self.strangers.get()
    }

    /// How long handlers ran, those that failed included.
    pub fn handler_duration(&self) -> Distribution {
        self.handler_duration.read()
    }

    /// The lanes served now, by number.
    pub fn lanes(&self) -> Vec<(LaneNumber, Arc<LaneStats>)> {
        self.lanes.read().iter().map(|(number, lane)| (*number, lane.clone())).collect()
    }

    /// The epoch of the dispatcher whose messages are accepted, of the first lane that has one; 0 if none is connected.
    pub fn ruling_epoch(&self) -> u64 {
        self.lanes.read().values().map(|lane| lane.ruling_epoch()).find(|epoch| *epoch > 0).unwrap_or(0)
    }

    /// Whether the Redis of a lane answered the last request; `false` before the first one.
    pub fn redis_is_up(&self) -> bool {
        self.lanes.read().values().any(|lane| lane.redis_is_up())
    }

    /// How often the connection to Redis was reopened.
    pub fn redis_reconnects(&self) -> u64 {
        self.reconnects.load(Ordering::Relaxed)
    }

    /// Whether the consumer accepts no messages because it can't run handlers or can't record results.
    pub fn is_unable(&self) -> bool {
        self.unable.lock().is_some()
    }

    /// Whether the loop of a committer is late, and not because the whole process was paused.
    pub fn committer_hangs(&self) -> bool {
        self.lanes.read().values().any(|lane| lane.committer.is_late()) && !self.main.is_late()
    }

    /// Messages that were recorded, dropped, retried or rejected.
    pub fn processed(&self) -> u64 {
        self.recorded.get() + self.dropped.get() + self.retried.get() + self.rejected.get()
    }
}

impl ConsumerStats {
    pub(super) fn set_held(&self, held: usize) {
        self.held.store(held as u64, Ordering::Relaxed);
    }

    pub(super) fn set_unable(&self, reason: Option<String>) {
        *self.unable.lock() = reason;
    }

    /// The counters of a lane, which is served from now on.
    pub(super) fn open_lane(&self, lane: LaneNumber) -> Arc<LaneStats> {
        self.lanes.write().entry(lane).or_default().clone()
    }

    /// The lane is served no more.
    pub(super) fn close_lane(&self, lane: LaneNumber) {
        self.lanes.write().remove(&lane);
    }

    /// The lanes' connections count together where they go to the same server.
    pub(super) fn set_redis_reconnects(&self, count: u64) {
        self.reconnects.fetch_max(count, Ordering::Relaxed);
    }

    pub(super) fn set_stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    pub(super) fn set_last_failure(&self, failure: &HandlerError) {
        // A sample for the log: if another thread is setting one, that one is enough.
        if let Some(mut last) = self.last_failure.try_lock()
            && last.is_none()
        {
            *last = Some(failure.clone());
        }
    }

    /// One of the failures of handlers since the last call.
    pub(super) fn take_last_failure(&self) -> Option<HandlerError> {
        self.last_failure.lock().take()
    }
}
