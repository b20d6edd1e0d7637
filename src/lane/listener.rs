//! The listener: one thread in every dispatcher, leader or standby, that reads the subscription into the ring.
//!
//! It does little else, so that it keeps up with Redis, which disconnects a subscriber that reads too slowly: it sends
//! the probes of `hearing` and notes their answers, drops implausible markers, and tells the election of a released
//! lease. If nothing arrives, it sends a ping. Without a pong it replaces the connection, which begins a new segment of
//! the ring.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use parking_lot::{Condvar, Mutex};

use crate::base::backoff::Backoff;
use crate::base::error::{Error, Result};
use crate::base::id::Epoch;
use crate::base::pulse::OPEN_WITHIN;
use crate::base::text::Quoted;
use crate::base::trouble::Troubles;
use crate::lane::listener_stats::ListenerStats;
use crate::lane::ring::Ring;
use crate::lane::shared::Shared;
use crate::ledger::Marker;
use crate::ledger::subscription::{Channels, Seen, Subscription};

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

/// The longest that one iteration takes.
const READ_WITHIN: Duration = Duration::from_secs(5);

/// A notice that a leader has released its lease, which the election should know at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Released(pub Epoch);

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
    /// Starts listening into the lane's ring. A leader's release of its lease is announced on `released`.
    pub(super) fn start(
        shared: &Arc<Shared>,
        channels: Channels,
        released: Sender<Released>,
    ) -> Result<ListenerHandle> {
        let stop = Arc::new(Stop::default());
        let (ring, stats, troubles) = (shared.ring.clone(), shared.listener.clone(), shared.troubles.clone());
        let listening = ListenLoop { channels, ring, stats, troubles, released, stop: stop.clone() };
        let thread = shared.spawn("listener", move || listening.run())?;
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

/// Ends the ring's segment with the subscription, even after a panic: later messages don't belong to it.
struct SegmentEnd<'a>(&'a Ring);

impl Drop for SegmentEnd<'_> {
    fn drop(&mut self) {
        self.0.end_segment();
    }
}

struct ListenLoop {
    channels: Channels,
    ring: Arc<Ring>,
    stats: Arc<ListenerStats>,
    troubles: Arc<Troubles>,
    released: Sender<Released>,
    stop: Arc<Stop>,
}

impl ListenLoop {
    fn run(self) {
        let mut backoff = Backoff::for_leadership();
        while !self.stopped() {
            self.stats.pulse.beat(OPEN_WITHIN);
            let number = self.stats.subscriptions.load(Ordering::Relaxed) + 1;
            let join = Marker::of_join(&self.channels.dispatcher, number);
            let outcome = Subscription::open(&self.channels, &join, PATIENCE).and_then(|subscription| {
                self.stats.subscriptions.store(number, Ordering::Relaxed);
                self.ring.begin_segment();
                let _segment = SegmentEnd(&self.ring);
                self.listen(subscription, &join, &mut backoff)
            });
            if let Err(error) = outcome {
                self.troubles.report("listener", "subscription-down", &error, &mut backoff);
                self.pause(backoff.next_wait());
            }
        }
        self.stats.pulse.rest();
    }

    /// Reads until the subscription fails or the lane stops.
    fn listen(&self, mut subscription: Subscription, join: &Marker, backoff: &mut Backoff) -> Result<()> {
        let mut joined = false;
        let mut heard = Instant::now();
        let mut asked: Option<Instant> = None;
        let hearing = &self.stats.hearing;
        hearing.start_over();
        let mut probe = hearing.probe();
        while !self.stopped() {
            self.stats.pulse.beat(READ_WITHIN);
            if self.stats.is_unwanted() {
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
                    if let Some(probe) = batch.answered {
                        hearing.note_answer(probe);
                    }
                    if !joined && batch.seen.iter().any(|seen| matches!(seen, Seen::Marker(marker) if marker == join)) {
                        joined = true;
                        backoff.reset();
                        log::info!(
                            "event=subscribed channel={} marker={join}",
                            Quoted(self.channels.interests.summary())
                        );
                    }
                    if !batch.seen.is_empty() {
                        let ignored = self.ring.append(batch.seen);
                        self.note_ignored(ignored);
                    }
                    if let Some(epoch) = batch.released {
                        // A full channel already holds a notice.
                        let _ = self.released.try_send(Released(epoch));
                    }
                }
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

    /// Drops implausible markers, because any client may publish on the control channel. Epochs follow Redis's clock.
    /// An epoch far ahead of it is false, and would make every real one look old.
    fn judge_markers(&self, seen: &mut Vec<Seen>) {
        let before = seen.len();
        let hearing = &self.stats.hearing;
        seen.retain(|seen| {
            let (Seen::Marker(marker) | Seen::Elsewhere(marker, _)) = seen else { return true };
            let Some((epoch, number)) = marker.leader_place() else { return true };
            let plausible = hearing.is_plausible(epoch);
            if plausible {
                self.stats.highest_epoch.fetch_max(epoch.0, Ordering::Relaxed);
                hearing.note_marker(epoch, number);
            }
            plausible
        });
        self.note_ignored(before - seen.len());
    }

    fn note_ignored(&self, markers: usize) {
        let before = self.stats.markers_ignored.fetch_add(markers as u64, Ordering::Relaxed);
        if markers > 0 && before == 0 {
            log::warn!(
                "event=marker-ignored markers={markers} problem=\"a marker was published on {} that no leader can have \
                 published, or one that is known\"",
                self.channels.keys.control
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
