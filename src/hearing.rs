//! Whether a dispatcher hears what is published where it sends its commands.
//!
//! Commands and subscription are two connections, and a proxy, a virtual address or a failover may lead them to two servers.
//! So reachability is heard, not assumed: a leader's markers go out over its command connection and must come back over its
//! subscription, and a standby that sees the cursor move must hear the markers of whoever moves it.
//!
//! The listener notes what it hears, ingest what it publishes, and the election judges. One mutex, held for a few
//! instructions. Limitation: a leader that publishes nothing because Redis does not answer is not called deaf; it loses
//! its lease.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::id::{Epoch, wall_clock_us};

/// An epoch further ahead of Redis's clock than this was not given out by it.
const MOST_AHEAD_MS: u64 = 24 * 3600 * 1000;

/// See the module's text.
#[derive(Debug, Default)]
pub struct Hearing(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// What Redis's clock said, in milliseconds since 1970, and when.
    redis: Option<(u64, Instant)>,
    /// When a leader's marker was heard last.
    marker: Option<Instant>,
    /// A marker of our own that was published and has not been heard, nor a later one: the oldest of them.
    awaited: Option<(Epoch, u64, Instant)>,
    standby: Standby,
}

/// What a standby saw of the cursor.
#[derive(Debug, Default)]
struct Standby {
    cursor: String,
    /// When it moved for the first time since a marker was heard.
    moved: Option<Instant>,
}

impl Hearing {
    /// Redis's clock says so many milliseconds since 1970.
    pub fn note_redis_clock(&self, now_ms: u64) {
        self.0.lock().redis = Some((now_ms, Instant::now()));
    }

    /// Whether Redis can have given out this epoch.
    pub fn is_plausible(&self, epoch: Epoch) -> bool {
        let redis = self.0.lock().redis;
        let now_ms = redis.map_or_else(|| wall_clock_us() / 1_000, |(ms, at)| ms + at.elapsed().as_millis() as u64);
        epoch.0 <= now_ms.saturating_add(MOST_AHEAD_MS)
    }

    /// A leader's marker was heard.
    pub fn note_marker(&self, epoch: Epoch, number: u64) {
        let mut state = self.0.lock();
        state.marker = Some(Instant::now());
        state.standby.moved = None;
        state.awaited.take_if(|(own, awaited, _)| *own == epoch && *awaited <= number);
    }

    /// The leader of this epoch, we, publishes a marker.
    pub fn expect_marker(&self, epoch: Epoch, number: u64) {
        let mut state = self.0.lock();
        if state.awaited.is_none_or(|(awaited, ..)| awaited != epoch) {
            state.awaited = Some((epoch, number, Instant::now()));
        }
    }

    /// It is not known whether that marker was published.
    pub fn forget_marker(&self, epoch: Epoch, number: u64) {
        self.0.lock().awaited.take_if(|(own, awaited, _)| (*own, *awaited) == (epoch, number));
    }

    /// Whether a marker of this leader of ours was published so long ago, and neither it nor a later one came back.
    pub fn is_deaf_leader(&self, epoch: Epoch, limit: Duration) -> bool {
        self.0.lock().awaited.is_some_and(|(own, _, since)| own == epoch && since.elapsed() >= limit)
    }

    /// Whether the cursor, which now says this, has moved so long ago without a leader's marker being heard since.
    pub fn is_deaf_standby(&self, cursor: String, limit: Duration) -> bool {
        let mut state = self.0.lock();
        let standby = &mut state.standby;
        if standby.cursor != cursor {
            // The first look shows no move.
            let moved = !std::mem::replace(&mut standby.cursor, cursor).is_empty();
            standby.moved = standby.moved.or(moved.then(Instant::now));
        }
        standby.moved.is_some_and(|since| since.elapsed() >= limit)
    }

    /// The subscription is made anew, or we led meanwhile: nothing is known.
    pub fn begin_anew(&self) {
        let mut state = self.0.lock();
        state.awaited = None;
        state.standby = Standby::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::ZERO;
    const LATE: Duration = Duration::from_secs(3600);

    #[test]
    fn a_leader_is_deaf_whose_own_markers_do_not_come_back() {
        let hearing = Hearing::default();
        assert!(!hearing.is_deaf_leader(Epoch(7), SOON), "nothing was published");
        hearing.expect_marker(Epoch(7), 1);
        hearing.expect_marker(Epoch(7), 2);
        assert!(hearing.is_deaf_leader(Epoch(7), SOON) && !hearing.is_deaf_leader(Epoch(7), LATE));
        hearing.note_marker(Epoch(6), 9);
        assert!(hearing.is_deaf_leader(Epoch(7), SOON), "that was somebody else's");
        hearing.note_marker(Epoch(7), 2);
        assert!(!hearing.is_deaf_leader(Epoch(7), SOON));
        hearing.expect_marker(Epoch(7), 3);
        hearing.forget_marker(Epoch(7), 3);
        assert!(!hearing.is_deaf_leader(Epoch(7), SOON), "it may not have been published");
        hearing.expect_marker(Epoch(7), 4);
        hearing.expect_marker(Epoch(8), 0);
        assert!(hearing.is_deaf_leader(Epoch(8), SOON), "another term begins afresh");
    }

    #[test]
    fn a_standby_is_deaf_that_sees_the_cursor_move_and_hears_no_marker() {
        let hearing = Hearing::default();
        let deaf = |cursor: &str, limit| hearing.is_deaf_standby(cursor.to_owned(), limit);
        assert!(!deaf("m 1 1", SOON), "the first look shows no move");
        assert!(!deaf("m 1 1", SOON));
        assert!(!deaf("m 2 2", LATE) && deaf("m 2 2", SOON));
        hearing.note_marker(Epoch(7), 1);
        assert!(!deaf("m 2 2", SOON));
        assert!(deaf("m 3 3", SOON));
        hearing.begin_anew();
        assert!(!deaf("m 4 4", SOON));
    }

    #[test]
    fn an_epoch_far_ahead_of_redis_is_made_up() {
        let hearing = Hearing::default();
        hearing.note_redis_clock(1_000_000_000_000);
        assert!(hearing.is_plausible(Epoch(1_000_000_000_000 + MOST_AHEAD_MS / 2)));
        assert!(!hearing.is_plausible(Epoch(1_000_000_000_000 + 2 * MOST_AHEAD_MS)));
        assert!(!hearing.is_plausible(Epoch(u64::MAX)) && !Hearing::default().is_plausible(Epoch(u64::MAX)));
    }
}
