//! The time from a fault until results resume. Pure: it evaluates one snapshot after another.
//!
//! Results of messages that were in flight at the fault do not count. So three things must be seen in this order: a
//! newer epoch, if the leader was hit; then a change of the cursor, which shows that messages were stored; then more
//! results than at that change. If a leader was only paused, any result after it resumed counts as well.
//!
//! Limitations: the measured time is too long by up to the time between two snapshots. If few messages are published,
//! or if they are published in bursts, it also includes the wait for the next message.

use std::time::{Duration, Instant};

use crate::ledger::Cursor;
use crate::ledger::Lease;
use crate::ledger::overview::Snapshot;

/// See the module's text.
#[derive(Debug)]
pub struct Recovery {
    fault_at: Instant,
    stage: Stage,
    /// Set when a paused process has resumed: with more results than this, results have resumed.
    baseline: Option<u64>,
}

#[derive(Debug)]
enum Stage {
    /// The lease is still the old leader's.
    Leaderless(Lease),
    /// There is a leader; this was the cursor when that was first seen.
    Led(Option<Cursor>),
    /// Messages have been stored; this was the number of results when that was first seen.
    Storing(u64),
}

impl Recovery {
    /// For a fault that hit the leader, which held this lease.
    pub fn of_leader(old: Lease, fault_at: Instant) -> Recovery {
        Recovery { fault_at, stage: Stage::Leaderless(old), baseline: None }
    }

    /// For any other fault, injected when this was the group's state.
    pub fn of_other(snapshot: &Snapshot, fault_at: Instant) -> Recovery {
        Recovery { fault_at, stage: Stage::Led(snapshot.cursor.clone()), baseline: None }
    }

    /// Notes that the paused process resumed, and how many results there were then.
    pub fn resumed(&mut self, processed: u64) {
        self.baseline.get_or_insert(processed);
    }

    /// Evaluates a snapshot. Returns the time since the fault once results have resumed.
    pub fn observe(&mut self, now: Instant, snapshot: &Snapshot) -> Option<Duration> {
        let grown = self.baseline.is_some_and(|baseline| snapshot.processed > baseline);
        (grown || self.is_over(snapshot)).then(|| now.saturating_duration_since(self.fault_at))
    }

    fn is_over(&mut self, snapshot: &Snapshot) -> bool {
        match &self.stage {
            Stage::Leaderless(old) if snapshot.lease.as_ref().is_some_and(|lease| lease.epoch > old.epoch) => {
                self.stage = Stage::Led(snapshot.cursor.clone());
            }
            Stage::Led(cursor) if *cursor != snapshot.cursor => {
                self.stage = Stage::Storing(snapshot.processed);
            }
            Stage::Storing(processed) => return snapshot.processed > *processed,
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
    fn only_a_result_of_a_message_that_the_new_leader_stored_ends_a_take_over() {
        let killed_at = Instant::now();
        let at = |ms| killed_at + Duration::from_millis(ms);
        let mut recovery =
            Recovery::of_leader(Lease { holder: "d0-a".into(), epoch: Epoch(7), by_time: false }, killed_at);
        // Consumers still finish the messages that the killed leader had delivered.
        assert_eq!(recovery.observe(at(1), &snapshot("d0-a", 7, "7.3 5 10", 15)), None);
        assert_eq!(recovery.observe(at(2), &Snapshot { lease: None, ..snapshot("", 0, "", 16) }), None);
        assert_eq!(recovery.observe(at(40), &snapshot("d1-b", 8, "7.3 5 10", 17)), None);
        assert_eq!(recovery.observe(at(41), &snapshot("d1-b", 8, "7.3 5 10", 20)), None);
        assert_eq!(recovery.observe(at(50), &snapshot("d1-b", 8, "8.0 2 20", 20)), None);
        let took = Some(Duration::from_millis(53));
        assert_eq!(recovery.observe(at(53), &snapshot("d1-b", 8, "8.0 9 30", 21)), took);
    }

    #[test]
    fn a_paused_leader_that_resumes_needs_no_successor() {
        let paused_at = Instant::now();
        let at = |ms| paused_at + Duration::from_millis(ms);
        let mut recovery =
            Recovery::of_leader(Lease { holder: "d0-a".into(), epoch: Epoch(7), by_time: false }, paused_at);
        assert_eq!(recovery.observe(at(5), &snapshot("d0-a", 7, "7.3 5 10", 15)), None);
        recovery.resumed(15);
        assert_eq!(recovery.observe(at(500), &snapshot("d0-a", 7, "7.3 5 10", 15)), None);
        assert_eq!(recovery.observe(at(501), &snapshot("d0-a", 7, "7.4 1 12", 16)), Some(Duration::from_millis(501)));
    }

    #[test]
    fn after_any_other_fault_a_result_of_a_message_in_flight_does_not_count() {
        let fault_at = Instant::now();
        let mut recovery = Recovery::of_other(&snapshot("d0-a", 7, "7.3 5 10", 15), fault_at);
        assert_eq!(recovery.observe(fault_at, &snapshot("d0-a", 7, "7.3 5 10", 16)), None);
        assert_eq!(recovery.observe(fault_at, &snapshot("d0-a", 7, "7.3 6 11", 17)), None);
        assert_eq!(recovery.observe(fault_at, &snapshot("d0-a", 7, "7.3 6 11", 18)), Some(Duration::ZERO));
    }
}
