//! What the handler threads are running. Pure; a part of the desks' state.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::held::{Job, RunNumber};
use super::lane_state::LaneState;
use crate::base::id::MessageId;
use crate::ledger::LaneNumber;

/// How long a handler thread stays with a lane before it goes to the next. Messages of one lane that are processed
/// together are recorded together, and cost less than those of many lanes in turn.
pub(super) const TURN: Duration = Duration::from_millis(1);

/// See the module's text.
pub(super) struct Hands {
    threads: Vec<Option<Work>>,
    /// The lane with which each thread stays, since when.
    turns: Vec<Option<(LaneNumber, Instant)>>,
    /// How many of `threads` are running a handler that was given up.
    stuck: usize,
}

/// A handler at work.
struct Work {
    lane: LaneNumber,
    id: MessageId,
    run: RunNumber,
    since: Instant,
    given_up: bool,
}

impl Hands {
    /// This number of idle handler threads.
    pub(super) fn new(threads: usize) -> Hands {
        Hands { threads: (0..threads).map(|_| None).collect(), turns: vec![None; threads], stuck: 0 }
    }

    /// Whether every handler thread runs a handler that was given up.
    pub(super) fn is_stuck(&self) -> bool {
        !self.threads.is_empty() && self.stuck == self.threads.len()
    }

    /// A handler thread goes to this lane.
    pub(super) fn begin_turn(&mut self, thread: usize, lane: LaneNumber, now: Instant) {
        self.turns[thread] = Some((lane, now));
    }

    /// The lane with which a handler thread stays; `None` if it goes to the next.
    pub(super) fn lane_of(&self, thread: usize, now: Instant) -> Option<LaneNumber> {
        let (lane, since) = self.turns[thread]?;
        (now.saturating_duration_since(since) < TURN).then_some(lane)
    }

    /// A handler thread begins a message of this lane.
    pub(super) fn begin(&mut self, thread: usize, lane: LaneNumber, job: &Job, now: Instant) {
        self.threads[thread] = Some(Work { lane, id: job.id, run: job.run, since: now, given_up: false });
    }

    /// A handler has returned.
    pub(super) fn end(&mut self, thread: usize) {
        if self.threads[thread].take().is_some_and(|work| work.given_up) {
            self.stuck -= 1;
        }
    }

    /// Gives up the handlers that have run for `limit`. Returns their number.
    pub(super) fn give_up(
        &mut self,
        limit: Duration,
        now: Instant,
        lanes: &mut BTreeMap<LaneNumber, LaneState>,
    ) -> usize {
        let before = self.stuck;
        for work in self.threads.iter_mut().flatten() {
            if work.given_up || now.saturating_duration_since(work.since) < limit {
                continue;
            }
            work.given_up = true;
            self.stuck += 1;
            if let Some(lane) = lanes.get_mut(&work.lane) {
                lane.held.give_up(work.id, work.run);
            }
        }
        self.stuck - before
    }
}
