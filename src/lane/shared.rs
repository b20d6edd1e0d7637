//! The state that all parts of a lane share, and that its process may read.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;

use super::bundling::Bundling;
use super::group_settings::SettingsNews;
use super::leading::Leading;
use super::listener_stats::ListenerStats;
use super::pulses::Pulses;
use super::questions::Questions;
use super::replays::Replays;
use super::ring::{Resolution, Ring};
use super::roster::Roster;
use super::settings::Settings;
use super::stats::LaneStats;
use super::threads;
use crate::base::error::Result;
use crate::base::id::{DispatcherId, Epoch, MessageId, wall_clock_us};
use crate::base::log_context::LogContext;
use crate::base::trouble::Troubles;
use crate::ledger::{Cursor, Destination, Interests, Ledger, identity_hash};

/// What a process gives to each of its lanes.
#[derive(Clone, Debug)]
pub struct ProcessHandles {
    /// The process's id in the group.
    pub id: DispatcherId,
    /// What the lane's log lines show. Not shared with another lane.
    pub log: LogContext,
    /// How many lanes the process leads.
    pub leading: Leading,
    /// Where a lane says that a sharded channel is on another node now. Nothing more is sent while it is full.
    pub moved: Sender<()>,
}

/// See the module's text.
pub struct Shared {
    /// The settings.
    pub settings: Settings,
    /// The process that runs it.
    pub id: DispatcherId,
    /// What was seen on the channel.
    pub ring: Arc<Ring>,
    /// The consumers.
    pub roster: Arc<Roster>,
    /// Figures of the subscription.
    pub listener: Arc<ListenerStats>,
    /// All other figures.
    pub stats: LaneStats,
    /// The pulses of its threads.
    pub pulses: Pulses,
    /// Whether messages are stored in bundles now.
    pub(super) bundling: Bundling,
    /// What its log lines show.
    pub log: LogContext,
    /// Problems with the connections to Redis.
    pub troubles: Arc<Troubles>,
    /// Messages that were replayed from the dead letters.
    pub(super) replays: Arc<Replays>,
    /// Whether the group's settings have changed.
    pub(super) settings_news: Arc<SettingsNews>,
    /// Where operators ask that messages are.
    pub(super) questions: Arc<Questions>,
    /// The highest message id that this lane knows of.
    highest_id: AtomicU64,
    /// The epoch of the last term, and a message that it stored and that no consumer received. Redis must have it.
    pub(super) undelivered: Mutex<Option<(Epoch, MessageId)>>,
    /// The role or the links have changed.
    changed: (Sender<()>, Receiver<()>),
    /// How many lanes the process leads.
    pub(super) leading: Leading,
    /// A sharded channel is on another node now.
    pub(super) moved: Sender<()>,
    /// Requests to end the term, so that another dispatcher leads.
    handing_over: (Sender<()>, Receiver<()>),
}

impl Shared {
    /// Whether this lane listens to anything. One that drains does not.
    pub(super) fn listens(&self) -> bool {
        !self.settings.interests.is_none()
    }

    /// Finds a cursor in the ring. `None`: there is no subscription, or its first marker has not come yet.
    pub(super) fn resolve(&self, cursor: Option<&Cursor>) -> Option<Resolution> {
        if self.listens() { self.ring.resolve(cursor) } else { self.ring.resolve_without_interests(cursor) }
    }

    /// The state of a lane that has not started yet.
    pub fn new(settings: Settings, process: ProcessHandles) -> Arc<Shared> {
        let ring = Arc::new(Ring::new(settings.ring_bytes));
        Shared::with_ring(settings, process, ring)
    }

    /// The same after a lane that has ended, in the same process and with the same keys. What that one had heard is not
    /// lost: it is followed by a break in the ring, as if only the subscription had been replaced.
    pub fn after(before: &Shared, settings: Settings, process: ProcessHandles) -> Arc<Shared> {
        let shared = Shared::with_ring(settings, process, before.ring.clone());
        shared.note_id(before.highest_id());
        *shared.undelivered.lock() = before.undelivered.lock().take();
        shared.listener.highest_epoch.store(before.listener.highest_epoch.load(Ordering::Relaxed), Ordering::Relaxed);
        shared.continue_after(before.subscriptions());
        shared
    }

    fn with_ring(settings: Settings, process: ProcessHandles, ring: Arc<Ring>) -> Arc<Shared> {
        Arc::new(Shared {
            bundling: Bundling::new(settings.bundles && settings.order_key.is_none()),
            roster: Roster::new(&settings.consumers),
            settings,
            id: process.id,
            ring,
            listener: Arc::default(),
            stats: LaneStats::default(),
            pulses: Pulses::default(),
            log: process.log,
            troubles: Arc::default(),
            replays: Arc::default(),
            settings_news: Arc::default(),
            questions: Arc::default(),
            highest_id: AtomicU64::new(0),
            undelivered: Mutex::default(),
            changed: bounded(1),
            leading: process.leading,
            moved: process.moved,
            handing_over: bounded(1),
        })
    }

    /// The group's keys on a connection of its own, not opened yet.
    pub(super) fn ledger(&self, reply_limit: Duration) -> Ledger {
        Ledger::new(self.settings.redis.clone(), Arc::new(self.settings.keys.clone()), reply_limit)
            .storing_in(self.settings.destination.clone())
            .confirmed_by(self.settings.wait_replicas)
    }

    /// Starts a thread of this lane; what it logs shows the lane's role. The name is for people only.
    pub(super) fn spawn<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<T>> {
        self.spawn_with(thread::Builder::new(), name, work)
    }

    /// The same with a stack of its own size.
    pub(super) fn spawn_with<T: Send + 'static>(
        &self,
        thread: thread::Builder,
        name: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<T>> {
        threads::spawn(thread, &self.thread_name(name), &self.log, work)
    }

    /// With the lane's name, if the process has several.
    pub(super) fn thread_name(&self, name: &str) -> String {
        match &self.settings.name {
            Some(lane) => format!("{name}-{lane}"),
            None => name.to_owned(),
        }
    }

    /// The role or the links have changed, so the reporter should report now.
    pub(super) fn note_change(&self) {
        // A full channel already holds a notice.
        let _ = self.changed.0.try_send(());
    }

    /// Where changes of the role or of the links are announced, to one receiver.
    pub fn changes(&self) -> &Receiver<()> {
        &self.changed.1
    }

    /// As leader it is to end its term soon, so that another dispatcher leads.
    pub fn hand_over(&self) {
        // A full channel already holds a request.
        let _ = self.handing_over.0.try_send(());
    }

    /// Where requests to hand the lane over come, to the election.
    pub(super) fn requests_to_hand_over(&self) -> &Receiver<()> {
        &self.handing_over.1
    }

    /// How often it has subscribed.
    pub fn subscriptions(&self) -> u64 {
        self.listener.subscriptions.load(Ordering::Relaxed)
    }

    /// Whether a dispatcher that listens to `interests`, other ones than this lane's, has joined last.
    pub fn was_joined_with(&self, interests: &Interests) -> bool {
        let Settings { redis, keys, destination, .. } = &self.settings;
        let interests = match (destination, &keys.stream) {
            (Destination::Stream { .. }, Some(stream)) => interests.clone().beside_stream(stream),
            _ => interests.clone(),
        };
        let identity = redis.for_key(&keys.control).marked(interests.identity());
        self.listener.joined_with.load(Ordering::Relaxed) == identity_hash(&identity)
    }

    /// Before the start: this process ran the lane before, and subscribed so often. No join marker may be used twice.
    pub fn continue_after(&self, subscriptions: u64) {
        self.listener.subscriptions.store(subscriptions, Ordering::Relaxed);
    }

    /// This id has been assigned.
    pub(super) fn note_id(&self, id: MessageId) {
        self.highest_id.fetch_max(id.0, Ordering::Relaxed);
    }

    /// The highest id that was assigned, as far as this lane knows.
    pub(super) fn highest_id(&self) -> MessageId {
        MessageId(self.highest_id.load(Ordering::Relaxed))
    }

    /// The id after which a term's ids begin, if `known` is the last id in Redis.
    ///
    /// If Redis has lost data, or this clock is behind another dispatcher's, higher ids may have been assigned and be
    /// at a consumer. Then a range of ids is skipped, so that none is used twice.
    pub(super) fn last_id_before(&self, known: Option<MessageId>) -> MessageId {
        last_id_before(known, self.highest_id(), wall_clock_us())
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("id", &self.id).field("settings", &self.settings).finish_non_exhaustive()
    }
}

fn last_id_before(known: Option<MessageId>, heard_of: MessageId, now_us: u64) -> MessageId {
    /// More ids than a leader assigns between two checks, by a clock that is not too far ahead.
    const LEFT_OUT: u64 = 10_000_000;
    let known = known.unwrap_or(MessageId::ZERO);
    if heard_of <= known && known.0 < now_us {
        return known;
    }
    MessageId(known.max(heard_of).0.max(now_us) + LEFT_OUT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_continue_after_the_last_known_one() {
        assert_eq!(last_id_before(None, MessageId::ZERO, 5), MessageId::ZERO);
        assert_eq!(last_id_before(Some(MessageId(1_000)), MessageId(1_000), 2_000), MessageId(1_000));
    }

    #[test]
    fn no_id_is_reused_after_a_loss_or_with_a_slow_clock() {
        let second = 1_000_000;
        assert!(last_id_before(Some(MessageId(1_000)), MessageId::ZERO, 900).0 > 5 * second, "a clock that is behind");
        assert!(
            last_id_before(Some(MessageId(1_000)), MessageId(3_000), 5_000).0 > 5 * second,
            "a cursor that went back"
        );
        assert!(last_id_before(None, MessageId(3_000), 5_000).0 > 5 * second, "a cursor that is gone");
    }
}
