//! How long a take-over takes: from the kill of the leader to the first result that only its successor can have brought.
//!
//! Pure: it is shown one snapshot after another. Three things must be seen in turn: another dispatcher holds the lease;
//! the cursor has moved since, which only the new leader can do; and the results have grown since that. So results of
//! messages that the old leader had handed out are not taken for the new one's. What is measured is a little more than the
//! truth, by the time between two looks, and by the wait for the next message where few are published.

use std::time::{Duration, Instant};

use crate::ledger::Cursor;
use crate::local::{Lease, Snapshot};

/// See the module's text.
#[derive(Debug)]
pub struct TakeOver {
    killed_at: Instant,
    old: Lease,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// The lease is still the killed leader's.
    Leaderless,
    /// Somebody else has it; the cursor was here when that was first seen.
    Elected(Option<Cursor>),
    /// The new leader has taken messages in; there were this many results when that was first seen.
    TakingIn(u64),
    /// A result of the new leader's time is there.
    Over(Duration),
}

impl TakeOver {
    /// The leader with the lease `old` was killed at `killed_at`.
    pub fn new(old: Lease, killed_at: Instant) -> TakeOver {
        TakeOver { killed_at, old, stage: Stage::Leaderless }
    }

    /// Takes a snapshot into account; gives the time that the take-over took when it is first known.
    pub fn observe(&mut self, now: Instant, snapshot: &Snapshot) -> Option<Duration> {
        match &self.stage {
            Stage::Leaderless if snapshot.lease.as_ref().is_some_and(|lease| lease.epoch > self.old.epoch) => {
                self.stage = Stage::Elected(snapshot.cursor.clone());
            }
            Stage::Elected(cursor) if *cursor != snapshot.cursor => {
                self.stage = Stage::TakingIn(snapshot.processed);
            }
            Stage::TakingIn(processed) if snapshot.processed > *processed => {
                let took = now.saturating_duration_since(self.killed_at);
                self.stage = Stage::Over(took);
                return Some(took);
            }
            Stage::Leaderless | Stage::Elected(_) | Stage::TakingIn(_) | Stage::Over(_) => {}
        }
        None
    }

    /// The time that the take-over took, if it is over.
    pub fn took(&self) -> Option<Duration> {
        if let Stage::Over(took) = self.stage { Some(took) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Epoch;

    fn snapshot(holder: &str, epoch: u64, cursor: &str, processed: u64) -> Snapshot {
        let lease = Some(Lease { holder: holder.to_owned(), epoch: Epoch(epoch) });
        Snapshot { lease, cursor: cursor.parse().ok(), processed, ..Snapshot::default() }
    }

    #[test]
    fn only_a_result_of_the_new_leaders_intake_ends_it() {
        let killed_at = Instant::now();
        let at = |ms| killed_at + Duration::from_millis(ms);
        let mut takeover = TakeOver::new(Lease { holder: "d0-a".into(), epoch: Epoch(7) }, killed_at);
        // Consumers still finish what the killed leader had handed out.
        assert_eq!(takeover.observe(at(1), &snapshot("d0-a", 7, "7.3 5 10", 15)), None);
        assert_eq!(takeover.observe(at(2), &Snapshot { lease: None, ..snapshot("", 0, "", 16) }), None);
        assert_eq!(takeover.observe(at(40), &snapshot("d1-b", 8, "7.3 5 10", 17)), None);
        assert_eq!(takeover.observe(at(41), &snapshot("d1-b", 8, "7.3 5 10", 20)), None);
        assert_eq!(takeover.observe(at(50), &snapshot("d1-b", 8, "8.0 2 20", 20)), None);
        assert_eq!(takeover.took(), None);
        let took = Some(Duration::from_millis(53));
        assert_eq!(takeover.observe(at(53), &snapshot("d1-b", 8, "8.0 9 30", 21)), took);
        assert_eq!(takeover.observe(at(54), &snapshot("d1-b", 8, "8.0 9 30", 22)), None);
        assert_eq!(takeover.took(), took);
    }
}
