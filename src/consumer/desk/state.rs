//! The state under the desks' mutex, and the settings. The rules are in the other files of this folder.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::{Condvar, Mutex};

use super::ability::{Ability, RedisSilence};
use super::hands::Hands;
use super::held::Job;
use super::lane_state::LaneState;
use crate::base::id::MessageId;
use crate::consumer::error::SettingName;
use crate::consumer::outlet::Outlet;
use crate::consumer::peer::CloseReason;
use crate::consumer::stats::{ConsumerStats, LaneStats};
use crate::ledger::LaneNumber;
use crate::wire::ErrorCode;

/// What the consumer sends in READY, and its limits.
#[derive(Clone, Debug)]
pub(in crate::consumer) struct Terms {
    pub(in crate::consumer) consumer_id: String,
    /// The most messages of one lane that are held at a time.
    pub(in crate::consumer) prefetch: u32,
    /// How many handler threads there are.
    pub(in crate::consumer) concurrency: usize,
    pub(in crate::consumer) handler_timeout: Option<Duration>,
    /// How long Redis may fail to store results before no more messages are accepted.
    pub(in crate::consumer) redis_limit: Duration,
    pub(in crate::consumer) setting_name: SettingName,
}

#[cfg(test)]
impl Terms {
    /// The terms of a consumer `c0`.
    pub(in crate::consumer) fn of_tests(concurrency: usize) -> Terms {
        Terms {
            consumer_id: "c0".to_owned(),
            prefetch: 1,
            concurrency,
            handler_timeout: None,
            redis_limit: Duration::from_secs(5),
            setting_name: str::to_owned,
        }
    }
}

/// The desks of all lanes. See the folder's text.
pub(in crate::consumer) struct Desks {
    pub(super) terms: Terms,
    pub(super) stats: Arc<ConsumerStats>,
    pub(super) state: Mutex<DesksState>,
    /// Readers wait on this until fewer bytes are held.
    pub(super) room: Condvar,
    /// Handler threads wait on this for a message.
    pub(super) work: Condvar,
    pub(super) drained: (Sender<()>, Receiver<()>),
}

/// The desk of one lane, which may have been removed since; then nothing it is told has an effect. Clones are the same
/// desk.
#[derive(Clone)]
pub(in crate::consumer) struct Desk {
    pub(in crate::consumer) desks: Arc<Desks>,
    pub(super) lane: LaneNumber,
}

pub(super) struct DesksState {
    pub(super) lanes: BTreeMap<LaneNumber, LaneState>,
    pub(super) common: CommonState,
}

/// What all lanes share.
pub(super) struct CommonState {
    pub(super) hands: Hands,
    /// The lanes with messages for the handlers, in the order in which they get the next handler thread.
    pub(super) line: VecDeque<LaneNumber>,
    /// A lane was passed over because its outlet had no room.
    pub(super) passed_over: bool,
    pub(super) ability: Ability,
    /// The messages held, and their bytes.
    pub(super) held: usize,
    pub(super) bytes: usize,
    pub(super) draining: bool,
    /// Handlers begin no other message.
    pub(super) closed: bool,
}

/// A message for a handler thread.
pub(in crate::consumer) struct Turn {
    pub(in crate::consumer) lane: LaneNumber,
    /// Where its result goes.
    pub(in crate::consumer) outlet: Arc<Outlet>,
    pub(in crate::consumer) job: Job,
}

impl Desks {
    pub(in crate::consumer) fn new(terms: Terms, stats: Arc<ConsumerStats>) -> Desks {
        let common = CommonState {
            hands: Hands::new(terms.concurrency),
            line: VecDeque::new(),
            passed_over: false,
            ability: Ability::default(),
            held: 0,
            bytes: 0,
            draining: false,
            closed: false,
        };
        let state = Mutex::new(DesksState { lanes: BTreeMap::new(), common });
        let (room, work) = (Condvar::new(), Condvar::new());
        Desks { terms, stats, state, room, work, drained: bounded(1) }
    }

    /// Opens the desk of a lane that has none.
    pub(in crate::consumer) fn open(self: &Arc<Self>, lane: LaneNumber, outlet: Outlet) -> Desk {
        let silence = RedisSilence::new(self.terms.redis_limit);
        let stats = self.stats.open_lane(lane);
        self.state.lock().lanes.insert(lane, LaneState::new(silence, outlet, stats));
        self.desk(lane)
    }

    /// Removes the desks of lanes that have had neither a connection nor a message for `limit`; lane 0 stays. If `room`
    /// is wanted, one that has none now is removed in any case. Returns which were removed.
    pub(in crate::consumer) fn remove_idle(&self, limit: Duration, room: bool, now: Instant) -> Vec<LaneNumber> {
        let mut state = self.state.lock();
        let (mut idle, mut gone) = (Vec::new(), Vec::new());
        for (number, lane) in state.lanes.iter_mut().filter(|(number, _)| **number > 0) {
            if !lane.is_idle() {
                lane.idle_since = None;
                continue;
            }
            let since = *lane.idle_since.get_or_insert(now);
            if now.saturating_duration_since(since) >= limit { &mut gone } else { &mut idle }.push((since, *number));
        }
        if room && gone.is_empty() {
            gone.extend(idle.into_iter().min());
        }
        let gone: Vec<_> = gone.into_iter().map(|(_, number)| number).collect();
        gone.iter().for_each(|number| self.remove_locked(&mut state, *number));
        gone
    }

    /// Removes the desk of a lane that could not be started.
    pub(in crate::consumer) fn remove(&self, lane: LaneNumber) {
        self.remove_locked(&mut self.state.lock(), lane);
    }

    fn remove_locked(&self, state: &mut DesksState, lane: LaneNumber) {
        state.lanes.remove(&lane);
        state.common.line.retain(|waiting| *waiting != lane);
        self.stats.close_lane(lane);
    }

    /// The desk of a lane.
    pub(in crate::consumer) fn desk(self: &Arc<Self>, lane: LaneNumber) -> Desk {
        Desk { desks: self.clone(), lane }
    }

    pub(in crate::consumer) fn stats(&self) -> &ConsumerStats {
        &self.stats
    }
}

impl Desk {
    pub(in crate::consumer) fn stats(&self) -> &ConsumerStats {
        &self.desks.stats
    }

    /// The counters of the lane alone.
    pub(in crate::consumer) fn lane_stats(&self) -> Arc<LaneStats> {
        self.desks.stats.open_lane(self.lane)
    }

    /// The highest id received.
    pub(in crate::consumer) fn highest_id(&self) -> MessageId {
        self.desks.state.lock().lanes.get(&self.lane).map_or(MessageId::default(), |lane| lane.highest)
    }

    /// The refusal of a connection whose lane was removed a moment ago.
    pub(super) fn gone(&self) -> CloseReason {
        let text = format!("lane {} was closed a moment ago because it was idle; connect again", self.lane);
        CloseReason::new(ErrorCode::Unavailable, text)
    }
}

impl DesksState {
    /// A lane, and what all share.
    pub(super) fn lane(&mut self, lane: LaneNumber) -> Option<(&mut LaneState, &mut CommonState)> {
        Some((self.lanes.get_mut(&lane)?, &mut self.common))
    }

    /// The next message for a handler thread. It stays with a lane for a [`TURN`](super::hands::TURN), then takes the
    /// first in the line, whatever each lane has waiting.
    pub(super) fn next_turn(&mut self, thread: usize, now: Instant) -> Option<Turn> {
        if self.common.ability.is_unable() {
            return None;
        }
        let stays = self.common.hands.lane_of(thread, now).and_then(|number| self.begin(thread, number, now));
        if stays.is_some() {
            return stays;
        }
        for _ in 0..self.common.line.len() {
            let number = self.common.line.pop_front()?;
            let turn = self.begin(thread, number, now);
            let Some((lane, common)) = self.lane(number) else { continue };
            lane.in_line = lane.outlet.is_some() && lane.held.has_queued();
            common.line.extend(lane.in_line.then_some(number));
            if turn.is_some() {
                common.hands.begin_turn(thread, number, now);
                return turn;
            }
        }
        None
    }

    /// A message of this lane; `None` if it has none, or its results have no room.
    fn begin(&mut self, thread: usize, number: LaneNumber, now: Instant) -> Option<Turn> {
        let count = self.lanes.len();
        let (lane, common) = self.lane(number)?;
        let outlet = lane.outlet.as_ref().filter(|_| lane.held.has_queued())?.clone();
        let has_room = outlet.has_room(count);
        common.passed_over |= !has_room;
        let job = (has_room && !lane.silence.is_unable()).then(|| lane.held.begin()).flatten()?;
        common.hands.begin(thread, number, &job, now);
        Some(Turn { lane: number, outlet, job })
    }

    /// Puts a lane into the line if it has messages for the handlers.
    pub(super) fn enqueue(&mut self, number: LaneNumber) {
        if let Some((lane, common)) = self.lane(number)
            && lane.held.has_queued()
            && !std::mem::replace(&mut lane.in_line, true)
        {
            common.line.push_back(number);
        }
    }
}

impl CommonState {
    /// Whether no message of this lane may be begun or accepted.
    pub(super) fn is_unable(&self, lane: &LaneState) -> bool {
        self.ability.is_unable() || lane.silence.is_unable()
    }

    /// Brings the sums over all lanes up to date.
    pub(super) fn count(&mut self, lane: &mut LaneState) {
        let (held, bytes) = std::mem::replace(&mut lane.counted, (lane.held.len(), lane.held.bytes()));
        self.held = self.held + lane.held.len() - held;
        self.bytes = self.bytes + lane.held.bytes() - bytes;
    }
}
