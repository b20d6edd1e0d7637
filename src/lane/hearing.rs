//! Detects that the command connection and the subscription reach different servers.
//!
//! A proxy, a virtual address or a failover can lead the two connections to different servers. So reachability is
//! tested, not assumed. A leader publishes markers over its command connection, and they must arrive over its
//! subscription. A standby that sees the cursor move must receive the markers of the leader that moves it.
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
    /// The number of the newest probe that is to be sent. Beside the state: the listener reads it in every iteration.
    probe: AtomicU64,
}

#[derive(Debug, Default)]
struct Heard {
    /// What Redis's clock said, in milliseconds since 1970, and when.
    redis: Option<(u64, Instant)>,
    /// When a leader's marker was heard last.
    marker: Option<Instant>,
    /// A marker of our own that has not been heard, nor a later one: the oldest of them.
    awaited: Option<Awaited>,
    standby: CursorWatch,
    /// The newest probe whose pong has come.
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
    /// When it moved for the first time since a marker was heard, and the probe that was sent later.
    moved: Option<(Instant, Option<u64>)>,
}

impl Hearing {
    /// Redis's clock says so many milliseconds since 1970.
    pub fn note_redis_clock(&self, now_ms: u64) {
        self.state.lock().redis = Some((now_ms, Instant::now()));
    }

    /// Whether Redis can have given out this epoch.
    pub fn is_plausible(&self, epoch: Epoch) -> bool {
        let redis = self.state.lock().redis;
        let now_ms = redis.map_or_else(|| wall_clock_us() / 1_000, |(ms, at)| ms + at.elapsed().as_millis() as u64);
        epoch.is_plausible(now_ms)
    }

    /// A leader's marker was heard.
    pub fn note_marker(&self, epoch: Epoch, number: u64) {
        let mut state = self.state.lock();
        state.marker = Some(Instant::now());
        state.standby.moved = None;
        state.awaited.take_if(|awaited| awaited.epoch == epoch && awaited.number <= number);
    }

    /// The leader of this epoch, we, is going to publish a marker.
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

    /// It is not known whether that marker was published.
    pub fn forget_marker(&self, epoch: Epoch, number: u64) {
        self.state.lock().awaited.take_if(|awaited| (awaited.epoch, awaited.number) == (epoch, number));
    }

    /// Whether a marker of this leader of ours was published so long ago, and neither it nor a later one will come
    /// back.
    pub fn is_deaf_leader(&self, epoch: Epoch, limit: Duration) -> bool {
        let Heard { awaited, answered, .. } = &mut *self.state.lock();
        let awaited = awaited.as_mut().filter(|awaited| awaited.epoch == epoch && awaited.is_published);
        awaited.is_some_and(|awaited| self.is_in_vain(awaited.since, &mut awaited.probe, *answered, limit))
    }

    /// Whether the cursor, which now says this, has moved so long ago without a leader's marker being heard since,
    /// although all that was published meanwhile has come.
    pub fn is_deaf_standby(&self, cursor: String, limit: Duration) -> bool {
        let Heard { standby, answered, .. } = &mut *self.state.lock();
        if standby.cursor != cursor {
            // The first look shows no move.
            let moved = !std::mem::replace(&mut standby.cursor, cursor).is_empty();
            standby.moved = standby.moved.or(moved.then(|| (Instant::now(), None)));
        }
        let moved = standby.moved.as_mut();
        moved.is_some_and(|(since, probe)| self.is_in_vain(*since, probe, *answered, limit))
    }

    /// Whether something has been waited for so long, and in vain, as the probe shows: that is sent after half that
    /// time, so that none is where markers come soon.
    fn is_in_vain(&self, since: Instant, probe: &mut Option<u64>, answered: u64, limit: Duration) -> bool {
        let waited = since.elapsed();
        if waited < limit / 2 {
            return false;
        }
        let probe = *probe.get_or_insert_with(|| self.probe.fetch_add(1, Ordering::Release) + 1);
        answered >= probe && waited >= limit
    }

    /// The number of the newest probe that is to be sent. A ping that is sent from now on serves for it and all before.
    pub fn probe(&self) -> u64 {
        self.probe.load(Ordering::Acquire)
    }

    /// The pong of this probe has come, and what came before it has been noted.
    pub fn note_answer(&self, probe: u64) {
        let answered = &mut self.state.lock().answered;
        *answered = probe.max(*answered);
    }

    /// The subscription is made anew, or we led meanwhile: nothing is known.
    pub fn begin_anew(&self) {
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

    /// Publishes a marker of ours.
    fn publish(hearing: &Hearing, epoch: u64, number: u64) {
        hearing.expect_marker(Epoch(epoch), number);
        hearing.confirm_marker(Epoch(epoch), number);
    }

    /// Everything that was published so far has come.
    fn catch_up(hearing: &Hearing) {
        hearing.note_answer(hearing.probe());
    }

    /// Looks, has all come that was published, and looks again.
    fn is_deaf(hearing: &Hearing, epoch: u64) -> bool {
        let before = hearing.is_deaf_leader(Epoch(epoch), SOON);
        catch_up(hearing);
        assert!(!before || hearing.is_deaf_leader(Epoch(epoch), SOON));
        hearing.is_deaf_leader(Epoch(epoch), SOON)
    }

    #[test]
    fn a_leader_is_deaf_whose_own_markers_do_not_come_back() {
        let hearing = Hearing::default();
        assert!(!is_deaf(&hearing, 7), "nothing was published");
        publish(&hearing, 7, 1);
        publish(&hearing, 7, 2);
        assert!(is_deaf(&hearing, 7) && !hearing.is_deaf_leader(Epoch(7), LATE));
        hearing.note_marker(Epoch(6), 9);
        assert!(is_deaf(&hearing, 7), "that was somebody else's");
        hearing.note_marker(Epoch(7), 2);
        assert!(!is_deaf(&hearing, 7));
        hearing.expect_marker(Epoch(7), 3);
        assert!(!is_deaf(&hearing, 7), "it may be still under way to Redis");
        hearing.forget_marker(Epoch(7), 3);
        assert!(!is_deaf(&hearing, 7), "it may not have been published");
        publish(&hearing, 7, 4);
        publish(&hearing, 8, 0);
        assert!(is_deaf(&hearing, 8), "another term begins afresh");
    }

    #[test]
    fn a_leader_whose_subscription_is_behind_is_not_deaf() {
        let hearing = Hearing::default();
        publish(&hearing, 7, 1);
        assert!(!hearing.is_deaf_leader(Epoch(7), LATE));
        assert_eq!(hearing.probe(), 0, "where markers come soon none is sent");
        for _ in 0..3 {
            assert!(!hearing.is_deaf_leader(Epoch(7), SOON), "the pong has not come");
        }
        assert_eq!(hearing.probe(), 1, "one is enough");
        hearing.note_marker(Epoch(7), 1);
        hearing.note_answer(1);
        publish(&hearing, 7, 2);
        assert!(!hearing.is_deaf_leader(Epoch(7), SOON), "that pong says nothing of a later marker");
        assert_eq!(hearing.probe(), 2);
    }

    #[test]
    fn a_standby_is_deaf_that_sees_the_cursor_move_and_hears_no_marker() {
        let hearing = Hearing::default();
        let deaf = |cursor: &str, limit| hearing.is_deaf_standby(cursor.to_owned(), limit);
        assert!(!deaf("m 1 1", SOON), "the first look shows no move");
        catch_up(&hearing);
        assert!(!deaf("m 1 1", SOON));
        assert!(!deaf("m 2 2", LATE));
        catch_up(&hearing);
        assert!(!deaf("m 2 2", SOON), "it may be behind");
        assert!(!deaf("m 3 3", SOON));
        catch_up(&hearing);
        assert!(deaf("m 3 3", SOON) && !deaf("m 3 3", LATE));
        hearing.note_marker(Epoch(7), 1);
        assert!(!deaf("m 3 3", SOON));
        assert!(!deaf("m 4 4", SOON), "that needs a probe of its own");
        catch_up(&hearing);
        assert!(deaf("m 5 5", SOON));
        hearing.begin_anew();
        catch_up(&hearing);
        assert!(!deaf("m 6 6", SOON));
    }

    #[test]
    fn an_epoch_far_ahead_of_redis_is_made_up() {
        let hearing = Hearing::default();
        hearing.note_redis_clock(1_000_000_000_000);
        const DAY_MS: u64 = 24 * 3600 * 1000;
        assert!(hearing.is_plausible(Epoch(1_000_000_000_000 + DAY_MS / 2)));
        assert!(!hearing.is_plausible(Epoch(1_000_000_000_000 + 2 * DAY_MS)));
        assert!(!hearing.is_plausible(Epoch(u64::MAX)) && !Hearing::default().is_plausible(Epoch(u64::MAX)));
    }
}
