//! Detects that the command connection and the subscription reach different servers.
//!
//! A proxy, a virtual address or a failover can lead the two connections to different servers. So reachability is
//! tested, not assumed. A leader publishes markers over its command connection, and they must arrive over its
//! subscription. A standby that sees the cursor move must receive the markers of the leader that moves it. One move
//! proves nothing, since a leader that then can't store messages publishes no markers either.
//!
//! A missing marker may only be late: under load a subscription can lag by many seconds, and replacing it loses what
//! Redis has buffered for it. A *probe* tells a late marker from a lost one. It is a ping over the subscription, sent
//! after the marker was published. Redis answers in order on one connection, so if the pong arrives first, the marker
//! is lost.
//!
//! The listener records what arrives and sends the probes, ingest records what it publishes, and the election judges.
//! They share one mutex, held for a few instructions. Limitation: a leader that publishes nothing because Redis does
//! not answer is not reported here; it loses its lease.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::base::id::{Epoch, wall_clock_us};

/// See the module's text.
#[derive(Debug, Default)]
pub struct Hearing {
    state: Mutex<Heard>,
    /// The number of the newest probe to send. Not under the mutex, because the listener reads it in every iteration.
    probe: AtomicU64,
}

#[derive(Debug, Default)]
struct Heard {
    /// The last reading of Redis's clock, in milliseconds since 1970, and when it was read.
    redis: Option<(u64, Instant)>,
    /// When a leader's marker last arrived.
    marker: Option<Instant>,
    /// The oldest of our own markers that has not arrived, if no later one has.
    awaited: Option<Awaited>,
    standby: CursorWatch,
    /// The newest probe whose pong has arrived.
    answered: u64,
}

#[derive(Debug)]
struct Awaited {
    epoch: Epoch,
    number: u64,
    since: Instant,
    /// Whether Redis has confirmed it.
    is_published: bool,
    probe: Option<u64>,
}

/// What a standby saw of the cursor.
#[derive(Debug, Default)]
struct CursorWatch {
    cursor: String,
    /// When it was last read.
    read: Option<Instant>,
    /// Its moves since the last marker arrived.
    moved: Option<Moves>,
}

#[derive(Debug)]
struct Moves {
    /// When the first one was seen.
    first: Instant,
    /// Whether it has moved again, so much later that its leader must have published a marker meanwhile.
    again: bool,
    /// The probe that was sent later.
    probe: Option<u64>,
}

impl Hearing {
    /// Notes the time on Redis's clock, in milliseconds since 1970.
    pub fn note_redis_clock(&self, now_ms: u64) {
        self.state.lock().redis = Some((now_ms, Instant::now()));
    }

    /// Whether Redis can have given out this epoch.
    pub fn is_plausible(&self, epoch: Epoch) -> bool {
        let redis = self.state.lock().redis;
        let now_ms = redis.map_or_else(|| wall_clock_us() / 1_000, |(ms, at)| ms + at.elapsed().as_millis() as u64);
        epoch.is_plausible(now_ms)
    }

    /// A leader's marker has arrived.
    pub fn note_marker(&self, epoch: Epoch, number: u64) {
        let mut state = self.state.lock();
        state.marker = Some(Instant::now());
        state.standby.moved = None;
        state.awaited.take_if(|awaited| awaited.epoch == epoch && awaited.number <= number);
    }

    /// This dispatcher, the leader of `epoch`, is about to publish a marker.
    pub fn expect_marker(&self, epoch: Epoch, number: u64) {
        let awaited = &mut self.state.lock().awaited;
        if awaited.as_ref().is_none_or(|awaited| awaited.epoch != epoch) {
            *awaited = Some(Awaited { epoch, number, since: Instant::now(), is_published: false, probe: None });
        }
    }

    /// That marker was published.
    pub fn confirm_marker(&self, epoch: Epoch, number: u64) {
        if let Some(awaited) = &mut self.state.lock().awaited {
            awaited.is_published |= (awaited.epoch, awaited.number) == (epoch, number);
        }
    }

    /// It is unknown whether that marker was published, so it is not waited for.
    pub fn forget_marker(&self, epoch: Epoch, number: u64) {
        self.state.lock().awaited.take_if(|awaited| (awaited.epoch, awaited.number) == (epoch, number));
    }

    /// Whether this dispatcher, as the leader of `epoch`, published a marker more than `limit` ago, and neither that
    /// marker nor a later one can still arrive.
    pub fn leader_misses_its_markers(&self, epoch: Epoch, limit: Duration) -> bool {
        let Heard { awaited, answered, .. } = &mut *self.state.lock();
        let awaited = awaited.as_mut().filter(|awaited| awaited.epoch == epoch && awaited.is_published);
        awaited.is_some_and(|awaited| self.is_lost(awaited.since, &mut awaited.probe, *answered, limit))
    }

    /// Whether the cursor, now `cursor`, first moved more than `limit` ago, has moved again after a quarter of that
    /// time, and no leader's marker has arrived since, although everything published meanwhile has.
    pub fn standby_misses_markers(&self, cursor: String, limit: Duration) -> bool {
        let now = Instant::now();
        let Heard { standby, answered, .. } = &mut *self.state.lock();
        let read_before = standby.read.replace(now);
        if standby.cursor != cursor {
            // The first cursor seen shows no move.
            let is_move = !std::mem::replace(&mut standby.cursor, cursor).is_empty();
            match &mut standby.moved {
                // It moved at some time after it was read before.
                Some(moved) => moved.again |= read_before.is_some_and(|read| read >= moved.first + limit / 4),
                moved @ None => *moved = is_move.then_some(Moves { first: now, again: false, probe: None }),
            }
        }
        let moved = standby.moved.as_mut().filter(|moved| moved.again);
        moved.is_some_and(|Moves { first, probe, .. }| self.is_lost(*first, probe, *answered, limit))
    }

    /// Whether a marker has been missing for `limit` and its probe shows that it is lost. The probe is sent after half
    /// the limit, so none is sent while markers arrive soon.
    fn is_lost(&self, since: Instant, probe: &mut Option<u64>, answered: u64, limit: Duration) -> bool {
        let waited = since.elapsed();
        if waited < limit / 2 {
            return false;
        }
        let probe = *probe.get_or_insert_with(|| self.probe.fetch_add(1, Ordering::Release) + 1);
        answered >= probe && waited >= limit
    }

    /// The number of the newest probe to send. A ping sent from now on serves it and all earlier ones.
    pub fn probe(&self) -> u64 {
        self.probe.load(Ordering::Acquire)
    }

    /// The pong of this probe has arrived, and everything before it has been noted.
    pub fn note_answer(&self, probe: u64) {
        let answered = &mut self.state.lock().answered;
        *answered = probe.max(*answered);
    }

    /// Starts over: the subscription was replaced, or this dispatcher led meanwhile.
    pub fn start_over(&self) {
        let mut state = self.state.lock();
        state.awaited = None;
        state.standby = CursorWatch::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::ZERO;
    const LATE: Duration = Duration::from_secs(3600);

    /// Publishes one of our own markers.
    fn publish(hearing: &Hearing, epoch: u64, number: u64) {
        hearing.expect_marker(Epoch(epoch), number);
        hearing.confirm_marker(Epoch(epoch), number);
    }

    /// Everything published so far has arrived.
    fn catch_up(hearing: &Hearing) {
        hearing.note_answer(hearing.probe());
    }

    /// Judges before and after everything published has arrived.
    fn misses_its_markers(hearing: &Hearing, epoch: u64) -> bool {
        let before = hearing.leader_misses_its_markers(Epoch(epoch), SOON);
        catch_up(hearing);
        assert!(!before || hearing.leader_misses_its_markers(Epoch(epoch), SOON));
        hearing.leader_misses_its_markers(Epoch(epoch), SOON)
    }

    #[test]
    fn a_leader_whose_own_markers_do_not_come_back_is_not_receiving() {
        let hearing = Hearing::default();
        assert!(!misses_its_markers(&hearing, 7), "nothing was published");
        publish(&hearing, 7, 1);
        publish(&hearing, 7, 2);
        assert!(misses_its_markers(&hearing, 7) && !hearing.leader_misses_its_markers(Epoch(7), LATE));
        hearing.note_marker(Epoch(6), 9);
        assert!(misses_its_markers(&hearing, 7), "that marker was another leader's");
        hearing.note_marker(Epoch(7), 2);
        assert!(!misses_its_markers(&hearing, 7));
        hearing.expect_marker(Epoch(7), 3);
        assert!(!misses_its_markers(&hearing, 7), "it may still be on its way to Redis");
        hearing.forget_marker(Epoch(7), 3);
        assert!(!misses_its_markers(&hearing, 7), "it may not have been published");
        publish(&hearing, 7, 4);
        publish(&hearing, 8, 0);
        assert!(misses_its_markers(&hearing, 8), "another term starts over");
    }

    #[test]
    fn a_leader_whose_subscription_is_behind_is_receiving() {
        let hearing = Hearing::default();
        publish(&hearing, 7, 1);
        assert!(!hearing.leader_misses_its_markers(Epoch(7), LATE));
        assert_eq!(hearing.probe(), 0, "no probe is sent while markers arrive soon");
        for _ in 0..3 {
            assert!(!hearing.leader_misses_its_markers(Epoch(7), SOON), "the pong has not arrived");
        }
        assert_eq!(hearing.probe(), 1, "one is enough");
        hearing.note_marker(Epoch(7), 1);
        hearing.note_answer(1);
        publish(&hearing, 7, 2);
        assert!(!hearing.leader_misses_its_markers(Epoch(7), SOON), "that pong proves nothing about a later marker");
        assert_eq!(hearing.probe(), 2);
    }

    #[test]
    fn a_standby_that_sees_the_cursor_move_and_no_marker_is_not_receiving() {
        let hearing = Hearing::default();
        let misses = |cursor: &str, limit| hearing.standby_misses_markers(cursor.to_owned(), limit);
        assert!(!misses("m 1 1", SOON), "the first cursor seen shows no move");
        catch_up(&hearing);
        assert!(!misses("m 1 1", SOON));
        assert!(!misses("m 2 2", LATE));
        catch_up(&hearing);
        assert!(!misses("m 2 2", SOON), "it may be behind");
        assert!(!misses("m 3 3", SOON));
        catch_up(&hearing);
        assert!(misses("m 3 3", SOON) && !misses("m 3 3", LATE));
        hearing.note_marker(Epoch(7), 1);
        assert!(!misses("m 3 3", SOON));
        assert!(!misses("m 4 4", SOON));
        assert!(!misses("m 5 5", SOON), "that needs a probe of its own");
        catch_up(&hearing);
        assert!(misses("m 5 5", SOON));
        hearing.start_over();
        catch_up(&hearing);
        assert!(!misses("m 6 6", SOON));
    }

    /// The leader stores a batch after its last marker, and then can't store anything, for lack of memory for instance.
    #[test]
    fn a_standby_whose_leader_stores_nothing_is_receiving() {
        let hearing = Hearing::default();
        let misses = |cursor: &str, limit| hearing.standby_misses_markers(cursor.to_owned(), limit);
        assert!(!misses("m 1 1", SOON));
        hearing.note_marker(Epoch(7), 1);
        assert!(!misses("m 2 2", SOON));
        for _ in 0..3 {
            catch_up(&hearing);
            assert!(!misses("m 2 2", SOON));
        }
        // This move may have followed the first one at once.
        assert!(!misses("m 3 3", LATE));
        catch_up(&hearing);
        assert!(!misses("m 3 3", SOON));
        catch_up(&hearing);
        assert!(!misses("m 4 4", SOON), "that needs a probe of its own");
        catch_up(&hearing);
        assert!(misses("m 4 4", SOON));
    }

    #[test]
    fn an_epoch_far_ahead_of_redis_is_implausible() {
        let hearing = Hearing::default();
        hearing.note_redis_clock(1_000_000_000_000);
        const DAY_MS: u64 = 24 * 3600 * 1000;
        assert!(hearing.is_plausible(Epoch(1_000_000_000_000 + DAY_MS / 2)));
        assert!(!hearing.is_plausible(Epoch(1_000_000_000_000 + 2 * DAY_MS)));
        assert!(!hearing.is_plausible(Epoch(u64::MAX)) && !Hearing::default().is_plausible(Epoch(u64::MAX)));
    }
}
