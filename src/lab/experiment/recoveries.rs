//! The recoveries of all lanes that a fault has hit. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::recovery::Recovery;
use super::watch::Seen;
use crate::ledger::{LaneNumber, Lease};

/// See the module's text.
pub(super) struct Recoveries {
    /// The lane that stands for the fault in what is shown.
    pub(super) lane: LaneNumber,
    fault_at: Instant,
    waiting: BTreeMap<LaneNumber, Recovery>,
    /// One of them suffices, or a lane that was not there before.
    any: bool,
}

impl Recoveries {
    /// A dispatcher that held these leases was hit. Results must come in each of these lanes.
    pub(super) fn of_leader(leases: BTreeMap<LaneNumber, Lease>, fault_at: Instant) -> Option<Recoveries> {
        let lane = *leases.keys().next()?;
        let waiting = leases.into_iter().map(|(lane, lease)| (lane, Recovery::of_leader(lease, fault_at))).collect();
        Some(Recoveries { lane, fault_at, waiting, any: false })
    }

    /// Something else was hit, which concerns all lanes.
    pub(super) fn of_all(seen: &Seen, lane: LaneNumber, fault_at: Instant) -> Recoveries {
        let of = |lane: &LaneNumber| Some((*lane, Recovery::of_other(seen.lanes.get(lane)?, fault_at)));
        Recoveries { lane, fault_at, waiting: seen.busy.iter().filter_map(of).collect(), any: false }
    }

    /// Something else was hit, which concerns one lane.
    pub(super) fn of_one(seen: &Seen, lane: LaneNumber, fault_at: Instant) -> Recoveries {
        let mut all = Recoveries::of_all(seen, lane, fault_at);
        all.waiting.retain(|other, _| *other == lane);
        all
    }

    /// A lane was moved. Its messages may be those of another lane from now on.
    pub(super) fn of_moved(seen: &Seen, lane: LaneNumber, fault_at: Instant) -> Recoveries {
        let others = seen.lanes.iter().filter(|(other, _)| !seen.busy.contains(other));
        let others = others.map(|(other, seen)| (*other, Recovery::of_other(seen, fault_at)));
        let mut one = Recoveries::of_one(seen, lane, fault_at);
        one.waiting.extend(others);
        Recoveries { any: true, ..one }
    }

    /// The paused process has resumed.
    pub(super) fn resumed(&mut self, seen: &Seen) {
        for (lane, recovery) in &mut self.waiting {
            recovery.resumed(seen.lanes.get(lane).map_or(0, |seen| seen.processed));
        }
    }

    /// Evaluates the lanes' state. Returns the time since the fault once results have resumed in all of them.
    pub(super) fn observe(&mut self, now: Instant, seen: &Seen) -> Option<Duration> {
        if self.any {
            let known = seen.lanes.iter().filter(|(lane, _)| !seen.busy.contains(lane));
            for (lane, snapshot) in known {
                self.waiting.entry(*lane).or_insert_with(|| Recovery::of_other(snapshot, self.fault_at));
            }
        }
        let mut last = None;
        self.waiting.retain(|lane, recovery| {
            let took = seen.lanes.get(lane).and_then(|snapshot| recovery.observe(now, snapshot));
            last = last.max(took);
            took.is_none()
        });
        last.filter(|_| self.any || self.waiting.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::base::id::Epoch;
    use crate::ledger::overview::Snapshot;

    fn snapshot(epoch: u64, cursor: &str, processed: u64) -> Snapshot {
        let lease = Some(Lease { holder: "d0-a".to_owned(), epoch: Epoch(epoch), by_time: false });
        Snapshot { lease, cursor: cursor.parse().ok(), processed, ..Snapshot::default() }
    }

    fn seen(lanes: &[(LaneNumber, Snapshot)], busy: &[LaneNumber]) -> Seen {
        let lanes = lanes.iter().cloned().collect();
        let busy: BTreeSet<LaneNumber> = busy.iter().copied().collect();
        Seen { sum: Snapshot::default(), lanes, busy, listening: 2 }
    }

    #[test]
    fn results_must_come_in_each_lane_of_the_leader_that_was_hit() {
        let now = Instant::now();
        let lease = |epoch| Lease { holder: "d0-a".to_owned(), epoch: Epoch(epoch), by_time: false };
        let mut recoveries = Recoveries::of_leader([(2, lease(7)), (5, lease(7))].into(), now).expect("two lanes");
        let stage = |two: Snapshot, five: Snapshot| seen(&[(2, two), (5, five)], &[2, 5]);
        let at = |ms| now + Duration::from_millis(ms);
        assert!(recoveries.observe(at(1), &stage(snapshot(8, "7.3 1 1", 1), snapshot(7, "7.3 1 1", 1))).is_none());
        assert!(recoveries.observe(at(2), &stage(snapshot(8, "8.0 1 2", 1), snapshot(8, "7.3 1 1", 1))).is_none());
        assert!(recoveries.observe(at(3), &stage(snapshot(8, "8.0 1 2", 2), snapshot(8, "8.0 1 2", 1))).is_none());
        let took = recoveries.observe(at(4), &stage(snapshot(8, "8.0 1 2", 3), snapshot(8, "8.0 1 2", 2)));
        assert_eq!(took, Some(Duration::from_millis(4)), "the last of them");
        assert!(Recoveries::of_leader(BTreeMap::new(), now).is_none());
    }

    #[test]
    fn after_a_move_the_results_of_a_new_lane_count() {
        let now = Instant::now();
        let before = seen(&[(0, snapshot(7, "7.1 1 1", 1)), (2, snapshot(7, "7.1 1 1", 1))], &[0, 2]);
        let mut recoveries = Recoveries::of_moved(&before, 2, now);
        let stage = |cursor: &str, processed| {
            let new = snapshot(9, cursor, processed);
            seen(&[(0, snapshot(7, "7.9 1 9", 9)), (2, snapshot(7, "7.1 1 1", 1)), (6, new)], &[0])
        };
        assert!(recoveries.observe(now, &stage("9.0 1 1", 0)).is_none());
        assert!(recoveries.observe(now, &stage("9.0 2 2", 0)).is_none());
        assert!(recoveries.observe(now, &stage("9.0 3 3", 1)).is_some());
    }
}
