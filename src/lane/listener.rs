//! The listener: one thread in every dispatcher, leader or standby, that reads the subscription into the ring. A shadow
//! has one, too, which reads into a tally.
//!
//! It does little else, so that it keeps up with Redis, which disconnects a subscriber that reads too slowly: it sends
//! the probes of `hearing` and notes their answers, drops implausible markers, and tells the election of a released
//! lease. If nothing arrives, it sends a ping. Without a pong it replaces the connection, which begins a new segment.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use parking_lot::{Condvar, Mutex};

use crate::base::backoff::Backoff;
use crate::base::error::{Error, Result};
use crate::base::id::Epoch;
use crate::base::log_context::LogContext;
use crate::base::pulse::OPEN_WITHIN;
use crate::base::text::Quoted;
use crate::base::trouble::Troubles;
use crate::lane::group_settings::SettingsNews;
use crate::lane::listener_stats::ListenerStats;
use crate::lane::questions::Questions;
use crate::lane::replays::Replays;
use crate::lane::sink::Sink;
use crate::lane::threads;
use crate::ledger::Marker;
use crate::ledger::subscription::{Batch, Channels, Seen, Subscription};

/// How long one read waits, so also how late a stop may be noticed.
const PATIENCE: Duration = Duration::from_millis(100);
/// After this long without any data, a ping is sent.
const PING_AFTER: Duration = Duration::from_secs(1);
/// If the pong has not arrived after this time, the connection is dead.
const DEAD_AFTER: Duration = Duration::from_millis(1_700);
/// How soon a dead connection must be detected. Each of the two times is noticed up to one [`PATIENCE`] late.
const SEEN_WITHIN: Duration = Duration::from_secs(3);
const _: () = assert!(
    PING_AFTER.as_millis() + DEAD_AFTER.as_millis() + 2 * PATIENCE.as_millis() <= SEEN_WITHIN.as_millis(),
    "a dead subscription would be seen too late"
);

/// The number of the ping that ends a subscription whose server is elsewhere now. Probes have lower ones.
const LEAVE: u64 = u64::MAX;
/// How long a server that is to be left may take to say that it has sent everything. It may be dead. In a Redis
/// Cluster more depends on it: what a dispatcher still receives on one node must not be received on another.
const LEAVE_WITHIN: Duration = Duration::from_millis(300);
const LEAVE_NODE_WITHIN: Duration = Duration::from_secs(1);

/// The longest that one iteration takes.
const READ_WITHIN: Duration = Duration::from_secs(5);

/// A notice that a leader has released its lease, which the election should know at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Released(pub Epoch);

/// What a listener works with.
pub(super) struct Listening {
    /// What it subscribes to.
    pub(super) channels: Channels,
    /// Where it puts what it receives.
    pub(super) sink: Arc<dyn Sink>,
    pub(super) stats: Arc<ListenerStats>,
    pub(super) troubles: Arc<Troubles>,
    /// What it tells the other threads of its lane, if it has one.
    pub(super) notices: Option<Notices>,
}

/// Where a lane's listener passes on what the notices on the control channel say.
pub(super) struct Notices {
    /// A leader's release of its lease.
    pub(super) released: Sender<Released>,
    /// Messages that were replayed.
    pub(super) replays: Arc<Replays>,
    /// That the group's settings have changed.
    pub(super) settings: Arc<SettingsNews>,
    /// That a sharded channel, or the lane itself, may be on another node now.
    pub(super) moved: Sender<()>,
    /// Questions of operators' tools.
    pub(super) questions: Arc<Questions>,
}

impl Notices {
    /// Tells the other threads of the lane what the notices say.
    fn pass_on(&self, batch: Batch) {
        if let Some(epoch) = batch.released {
            // A full channel already holds a notice.
            let _ = self.released.try_send(Released(epoch));
        }
        if !batch.returned.is_empty() {
            self.replays.note(batch.returned);
        }
        if batch.moved {
            // A full channel already holds a notice.
            let _ = self.moved.try_send(());
        }
        if batch.settings {
            self.settings.note();
        }
        if !batch.asked.is_empty() {
            self.questions.note(batch.asked);
        }
    }
}

/// The handle: stops and joins the thread when dropped.
#[derive(Debug)]
pub(super) struct ListenerHandle {
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
}

/// The request to stop; a condition, so that a wait between attempts ends at once.
#[derive(Debug, Default)]
struct Stop {
    asked: AtomicBool,
    lock: Mutex<()>,
    changed: Condvar,
}

impl ListenerHandle {
    /// Starts listening on a thread with this name.
    pub(super) fn start(listening: Listening, name: &str, log: &LogContext) -> Result<ListenerHandle> {
        let stop = Arc::new(Stop::default());
        let listening = ListenLoop { parts: listening, stop: stop.clone() };
        let thread = threads::spawn(thread::Builder::new(), name, log, move || listening.run())?;
        Ok(ListenerHandle { stop, thread: Some(thread) })
    }
}

impl Drop for ListenerHandle {
    fn drop(&mut self) {
        self.stop.asked.store(true, Ordering::Release);
        drop(self.stop.lock.lock());
        self.stop.changed.notify_all();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("event=panic thread=listener");
        }
    }
}

/// Ends the segment with the subscription, even after a panic: later messages don't belong to it.
struct SegmentEnd<'a>(&'a dyn Sink);

impl Drop for SegmentEnd<'_> {
    fn drop(&mut self) {
        self.0.end_segment();
    }
}

struct ListenLoop {
    parts: Listening,
    stop: Arc<Stop>,
}

impl ListenLoop {
    fn run(self) {
        let Listening { channels, sink, stats, troubles, .. } = &self.parts;
        let mut backoff = Backoff::for_leadership();
        while !self.stopped() {
            stats.pulse.beat(OPEN_WITHIN);
            let number = stats.subscriptions.load(Ordering::Relaxed) + 1;
            let join = channels.subscriber.join_marker(number);
            let outcome = Subscription::open(channels, join.as_ref(), PATIENCE).and_then(|subscription| {
                stats.subscriptions.store(number, Ordering::Relaxed);
                sink.begin_segment();
                let _segment = SegmentEnd(sink.as_ref());
                self.listen(subscription, join.as_ref(), &mut backoff)
            });
            if let Err(error) = outcome {
                // If no server has failed, the lane may be on another node now. A full channel already holds a notice.
                if let (Some(notices), Error::Failed(_)) = (&self.parts.notices, &error) {
                    let _ = notices.moved.try_send(());
                }
                troubles.report("listener", "subscription-down", &error, &mut backoff);
                self.pause(backoff.next_wait());
            }
        }
        stats.pulse.rest();
    }

    /// Reads until the subscription fails or the listener is stopped.
    fn listen(&self, mut subscription: Subscription, join: Option<&Marker>, backoff: &mut Backoff) -> Result<()> {
        let Listening { sink, stats, .. } = &self.parts;
        let mut joined = false;
        let mut heard = Instant::now();
        let mut asked: Option<Instant> = None;
        let mut leaving: Option<Instant> = None;
        let leave_within = if subscription.is_in_cluster() { LEAVE_NODE_WITHIN } else { LEAVE_WITHIN };
        let hearing = &stats.hearing;
        hearing.start_over();
        let mut probe = hearing.probe();
        while !self.stopped() {
            stats.pulse.beat(READ_WITHIN);
            if leaving.is_none() && subscription.is_outdated() {
                subscription.leave(LEAVE)?;
                leaving = Some(Instant::now());
            }
            // One that is being left is not counted where the commands go now, and is left in order all the same.
            if leaving.is_none() && stats.is_unwanted() {
                return Err(Error::Failed("it is replaced, because it may lead to another server".to_owned()));
            }
            if hearing.probe() != probe {
                probe = hearing.probe();
                subscription.ping(probe)?;
            }
            match subscription.read()? {
                Some(mut batch) => {
                    heard = Instant::now();
                    asked = None;
                    self.judge_markers(&mut batch.seen);
                    let has_left = batch.answered == Some(LEAVE);
                    if let Some(probe) = batch.answered.filter(|_| !has_left) {
                        hearing.note_answer(probe);
                    }
                    if !joined && has_joined(&subscription, &batch, join) {
                        joined = true;
                        sink.note_joined();
                        backoff.reset();
                        self.log_subscribed(join);
                    }
                    stats.overlaps.fetch_add(batch.overlaps, Ordering::Relaxed);
                    stats.on_long_channels.fetch_add(batch.on_long_channels, Ordering::Relaxed);
                    if !batch.seen.is_empty() {
                        let ignored = sink.append(std::mem::take(&mut batch.seen));
                        self.note_ignored(ignored);
                    }
                    if let Some(notices) = &self.parts.notices {
                        notices.pass_on(batch);
                    }
                    if has_left {
                        return Err(replaced());
                    }
                }
                None if leaving.is_some_and(|since| since.elapsed() >= leave_within) => return Err(replaced()),
                // Checked only when a read found nothing, so that after a pause of this process, what arrived meanwhile
                // is read first.
                None if asked.is_some_and(|asked| asked.elapsed() >= DEAD_AFTER) => {
                    let silence = format!("nothing arrived for {} ms, not even a pong", heard.elapsed().as_millis());
                    return Err(Error::Failed(silence));
                }
                None if asked.is_none() && heard.elapsed() >= PING_AFTER => {
                    subscription.ping(probe)?;
                    asked = Some(Instant::now());
                }
                None => {}
            }
        }
        Ok(())
    }

    fn log_subscribed(&self, join: Option<&Marker>) {
        let channel = Quoted(self.parts.channels.interests.summary());
        match join {
            Some(join) => log::info!("event=subscribed channel={channel} marker={join}"),
            None => log::info!("event=subscribed channel={channel}"),
        }
    }

    /// Drops implausible markers, because any client may publish on the control channel. Epochs follow Redis's clock.
    /// An epoch far ahead of it is false, and would make every real one look old.
    fn judge_markers(&self, seen: &mut Vec<Seen>) {
        let before = seen.len();
        let hearing = &self.parts.stats.hearing;
        seen.retain(|seen| {
            if let Seen::OtherInterests(marker, interests) = seen
                && marker.joined().is_some()
            {
                self.parts.stats.joined_with.store(*interests, Ordering::Relaxed);
            }
            let (Seen::Marker(marker) | Seen::OtherInterests(marker, _)) = seen else { return true };
            let Some((epoch, number)) = marker.leader_place() else { return true };
            let plausible = hearing.is_plausible(epoch);
            if plausible {
                self.parts.stats.highest_epoch.fetch_max(epoch.0, Ordering::Relaxed);
                hearing.note_marker(epoch, number);
            }
            plausible
        });
        self.note_ignored(before - seen.len());
    }

    fn note_ignored(&self, markers: usize) {
        let before = self.parts.stats.markers_ignored.fetch_add(markers as u64, Ordering::Relaxed);
        if markers > 0 && before == 0 {
            log::warn!(
                "event=marker-ignored markers={markers} problem=\"a marker was published on {} that no leader can have \
                 published, or one that is known\"",
                self.parts.channels.keys.control
            );
        }
    }

    fn stopped(&self) -> bool {
        self.stop.asked.load(Ordering::Acquire)
    }

    fn pause(&self, wait: Duration) {
        let mut guard = self.stop.lock.lock();
        if !self.stopped() {
            self.stop.changed.wait_for(&mut guard, wait);
        }
    }
}

fn replaced() -> Error {
    Error::Failed("it is replaced, because the server is elsewhere now".to_owned())
}

/// Whether everything is subscribed to: the join marker has come back, or, without one, Redis has confirmed it.
fn has_joined(subscription: &Subscription, batch: &Batch, join: Option<&Marker>) -> bool {
    match join {
        Some(join) => batch.seen.iter().any(|seen| matches!(seen, Seen::Marker(marker) if marker == join)),
        None => subscription.is_established(),
    }
}

#[cfg(test)]
mod tests;
