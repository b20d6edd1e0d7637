//! How long it takes after a strike until results flow again. Pure: it is shown one snapshot after another.
//!
//! Results of what was under way do not count. Three things must be seen in turn: if the leader is gone, a newer epoch has
//! begun; the cursor has moved since, so something was taken in; and the results have grown since that. When a leader is
//! only paused, what grows after it goes on counts as well.
//!
//! What is measured is a little more than the truth, by the time between two looks, and by the wait for the next
//! message where few are published or they come in bursts.

use std::time::{Duration, Instant};

use crate::lab::{Lease, Snapshot};
use crate::ledger::Cursor;

/// See the module's text.
#[derive(Debug)]
pub struct Recovery {
    struck_at: Instant,
    stage: Stage,
    /// More results than this are results that flow again.
    baseline: Option<u64>,
}

#[derive(Debug)]
enum Stage {
    /// The lease is still the old leader's.
    Leaderless(Lease),
    /// Somebody leads; the cursor was here when that was first seen.
    Led(Option<Cursor>),
    /// Messages have been taken in; there were this many results when that was first seen.
    TakingIn(u64),
}

impl Recovery {
    /// The leader, with this lease, is gone or stands still.
    pub fn of_leader(old: Lease, struck_at: Instant) -> Recovery {
        Recovery { struck_at, stage: Stage::Leaderless(old), baseline: None }
    }

    /// Something else was struck, when the group looked like this.
    pub fn of_another(snapshot: &Snapshot, struck_at: Instant) -> Recovery {
        Recovery { struck_at, stage: Stage::Led(snapshot.cursor.clone()), baseline: None }
    }

    /// What was struck goes on, with so many results there.
    pub fn goes_on(&mut self, processed: u64) {
        self.baseline.get_or_insert(processed);
    }

    /// Takes a snapshot into account; gives the time it took if results flow again.
    pub fn observe(&mut self, now: Instant, snapshot: &Snapshot) -> Option<Duration> {
        let grown = self.baseline.is_some_and(|baseline| snapshot.processed > baseline);
        (grown || self.is_over(snapshot)).then(|| now.saturating_duration_since(self.struck_at))
    }

    fn is_over(&mut self, snapshot: &Snapshot) -> bool {
        match &self.stage {
            Stage::Leaderless(old) if snapshot.lease.as_ref().is_some_and(|lease| lease.epoch > old.epoch) => {
                self.stage = Stage::Led(snapshot.cursor.clone());
            }
            Stage::Led(cursor) if *cursor != snapshot.cursor => {
                self.stage = Stage::TakingIn(snapshot.processed);
            }
            Stage::TakingIn(processed) => return snapshot.processed > *processed,
            Stage::Leaderless(_) | Stage::Led(_) => {}
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::Epoch;

    fn snapshot(holder: &str, epoch: u64, cursor: &str, processed: u64) -> Snapshot {
        let lease = Some(Lease { holder: holder.to_owned(), epoch: Epoch(epoch), by_time: false });
        Snapshot { lease, cursor: cursor.parse().ok(), processed, ..Snapshot::default() }
    }

    #[test]
    fn only_a_result_of_the_new_leaders_intake_ends_a_take_over() {
        let killed_at = Instant::now();
        let at = |ms| killed_at + Duration::from_millis(ms);
        let mut recovery =
            Recovery::of_leader(Lease { holder: "d0-a".into(), epoch: Epoch(7), by_time: false }, killed_at);
        // Consumers still finish what the killed leader had handed out.
        assert_eq!(recovery.observe(at(1), &snapshot("d0-a", 7, "7.3 5 10", 15)), None);
        assert_eq!(recovery.observe(at(2), &Snapshot { lease: None, ..snapshot("", 0, "", 16) }), None);
        assert_eq!(recovery.observe(at(40), &snapshot("d1-b", 8, "7.3 5 10", 17)), None);
        assert_eq!(recovery.observe(at(41), &snapshot("d1-b", 8, "7.3 5 10", 20)), None);
        assert_eq!(recovery.observe(at(50), &snapshot("d1-b", 8, "8.0 2 20", 20)), None);
        let took = Some(Duration::from_millis(53));
        assert_eq!(recovery.observe(at(53), &snapshot("d1-b", 8, "8.0 9 30", 21)), took);
    }

    #[test]
    fn a_paused_leader_that_goes_on_needs_no_successor() {
        let paused_at = Instant::now();
        let at = |ms| paused_at + Duration::from_millis(ms);
        let mut recovery =
            Recovery::of_leader(Lease { holder: "d0-a".into(), epoch: Epoch(7), by_time: false }, paused_at);
        assert_eq!(recovery.observe(at(5), &snapshot("d0-a", 7, "7.3 5 10", 15)), None);
        recovery.goes_on(15);
        assert_eq!(recovery.observe(at(500), &snapshot("d0-a", 7, "7.3 5 10", 15)), None);
        assert_eq!(recovery.observe(at(501), &snapshot("d0-a", 7, "7.4 1 12", 16)), Some(Duration::from_millis(501)));
    }

    #[test]
    fn after_any_other_strike_a_result_of_what_was_under_way_does_not_count() {
        let struck_at = Instant::now();
        let mut recovery = Recovery::of_another(&snapshot("d0-a", 7, "7.3 5 10", 15), struck_at);
        assert_eq!(recovery.observe(struck_at, &snapshot("d0-a", 7, "7.3 5 10", 16)), None);
        assert_eq!(recovery.observe(struck_at, &snapshot("d0-a", 7, "7.3 6 11", 17)), None);
        assert_eq!(recovery.observe(struck_at, &snapshot("d0-a", 7, "7.3 6 11", 18)), Some(Duration::ZERO));
    }
}
