//! The lanes that a consumer serves: lane 0, which is the group itself, and those of which a genuine leader has come.
//!
//! A dispatcher names the lane in LEAD by its group's name (`ledger::lane_name`). A lane that is not known is made once
//! Redis has confirmed the leader's epoch in that lane's own key, so a client that invents lanes costs one question
//! each (`asking`) and nothing that stays. A lane goes when it has had neither a connection nor a message for
//! [`IDLE_LIMIT`].
//!
//! Reading threads look lanes up and make them; the main loop removes idle ones and joins the committers.
//!
//! Guarantees: at most [`MAX_LANES`] lanes. Nothing that is known of one lane (highest epoch, ruler, held messages) has
//! an effect in another, and a node of Redis that does not answer delays no lane of another node.
//!
//! Limitation: when lanes go, their highest epochs are forgotten, as by a consumer that starts anew.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use log::info;
use parking_lot::Mutex;

use super::asking::Asking;
use super::commit::Committer;
use super::desk::Desks;
use super::epochs::Epochs;
use super::error::Result;
use super::inlet::Permits;
use super::lane::ConsumerLane;
use super::outlet::{Outlet, Unrecorded};
use super::peer::CloseReason;
use super::refusals::PeerText;
use super::stats::ConsumerStats;
use crate::base::id::Epoch;
use crate::base::log_context::{self, LogContext};
use crate::ledger::{Keys, LaneNumber, Server, lane_number};
use crate::wire::ErrorCode;

/// The most lanes that are served at a time.
pub(super) const MAX_LANES: usize = 256;
/// How long a lane may have neither a connection nor a message before it goes.
const IDLE_LIMIT: Duration = Duration::from_secs(300);

/// Where the lanes' keys and results are.
pub(super) struct Place {
    pub(super) redis: Server,
    /// Those of lane 0.
    pub(super) keys: Keys,
    pub(super) result_maxlen: Option<NonZeroU64>,
}

/// See the module's text.
pub(super) struct Lanes {
    place: Place,
    desks: Arc<Desks>,
    stats: Arc<ConsumerStats>,
    unrecorded: Unrecorded,
    known: Mutex<Known>,
    asking: Asking,
}

#[derive(Default)]
struct Known {
    lanes: BTreeMap<LaneNumber, KnownLane>,
    /// Committers of lanes that have gone.
    retired: Vec<Committer>,
    /// The consumer stops: no lane is made any more.
    closed: bool,
}

struct KnownLane {
    lane: Arc<ConsumerLane>,
    /// `None` once the consumer has stopped working.
    committer: Option<Committer>,
}

impl Lanes {
    /// Starts lane 0, whose threads log in the calling thread's context.
    pub(super) fn start(place: Place, desks: Arc<Desks>, stats: Arc<ConsumerStats>) -> Result<Lanes> {
        let (unrecorded, known, asking) = (Unrecorded::default(), Mutex::default(), Asking::default());
        let lanes = Lanes { place, desks, stats, unrecorded, known, asking };
        let keys = Arc::new(lanes.place.keys.clone());
        let made = lanes.make(0, &keys, lanes.epochs(&keys), log_context::current())?;
        lanes.known.lock().lanes.insert(0, made);
        Ok(lanes)
    }

    /// The group that this consumer works for.
    pub(super) fn group(&self) -> &str {
        &self.place.keys.group
    }

    pub(super) fn stats(&self) -> &ConsumerStats {
        &self.stats
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.known.lock().lanes.len()
    }

    /// The lane that LEAD names. One that is not known is made if Redis confirms the leader's epoch until `deadline`.
    /// Also returns whether it has done so.
    pub(super) fn find(
        &self,
        epoch: Epoch,
        group: &str,
        deadline: Instant,
    ) -> Result<(Arc<ConsumerLane>, bool), CloseReason> {
        let keys = lane_number(self.group(), group).and_then(|number| Some((number, self.place.keys.lane(number)?)));
        let Some((number, keys)) = keys else {
            let text = format!("this consumer works for group {}, not {}", PeerText(self.group()), PeerText(group));
            return Err(CloseReason::new(ErrorCode::Group, text));
        };
        {
            let known = self.known.lock();
            if let Some(known) = known.lanes.get(&number) {
                return Ok((known.lane.clone(), false));
            }
            // So that a stop need not wait for Redis.
            if known.closed {
                return Err(not_served(number, "this consumer stops"));
            }
        }
        let keys = Arc::new(keys);
        let epochs = self.confirmed(number, &keys, epoch, deadline)?;
        let mut known = self.known.lock();
        // Another connection of the same leader may have been faster.
        if let Some(known) = known.lanes.get(&number) {
            return Ok((known.lane.clone(), true));
        }
        if known.lanes.len() >= MAX_LANES {
            self.remove_idle(&mut known, true, Instant::now());
        }
        if known.closed || known.lanes.len() >= MAX_LANES {
            let why = if known.closed { "this consumer stops" } else { "this consumer serves too many lanes" };
            return Err(not_served(number, why));
        }
        let context = LogContext::with_lane("consumer", Some(number.to_string()));
        let made = self.make(number, &keys, epochs, context);
        let made = made.map_err(|error| not_served(number, &error.to_string()))?;
        let lane = made.lane.clone();
        known.lanes.insert(number, made);
        info!("event=lane-opened number={number} lanes={}", known.lanes.len());
        Ok((lane, true))
    }

    fn epochs(&self, keys: &Arc<Keys>) -> Epochs {
        Epochs::new(self.place.redis.clone(), keys.clone(), self.stats.clone())
    }

    /// Asks Redis about the leader of a lane that is not known.
    fn confirmed(
        &self,
        number: LaneNumber,
        keys: &Arc<Keys>,
        epoch: Epoch,
        deadline: Instant,
    ) -> Result<Epochs, CloseReason> {
        let unavailable = |why: &dyn fmt::Display| {
            self.stats.unconfirmed.add(1);
            CloseReason::new(ErrorCode::Unavailable, format!("lane {number} can't be looked up: {why}"))
        };
        let left = deadline.saturating_duration_since(Instant::now());
        let node = self.place.redis.for_key(&keys.epoch).node(left).transpose();
        let node = node.map_err(|error| unavailable(&error))?;
        let question = self.asking.begin(node.as_ref(), deadline);
        let _question = question.ok_or_else(|| unavailable(&"questions about other lanes keep it waiting"))?;
        let epochs = self.epochs(keys);
        epochs.confirm_of_new_lane(epoch, deadline).map(|()| epochs)
    }

    fn make(&self, number: LaneNumber, keys: &Arc<Keys>, epochs: Epochs, context: LogContext) -> Result<KnownLane> {
        let (outlet, commits) = Outlet::new(&self.unrecorded, context.clone());
        let desk = self.desks.open(number, outlet);
        let lane = ConsumerLane { number, desk, epochs, context, permits: Permits::new() };
        let Place { redis, result_maxlen, .. } = &self.place;
        // Otherwise the desk would count as a lane until it has been idle for long.
        let committer = lane.start_committer(redis, keys, *result_maxlen, commits);
        let committer = committer.inspect_err(|_| self.desks.remove(number))?;
        Ok(KnownLane { lane: Arc::new(lane), committer: Some(committer) })
    }

    /// Removes lanes that have been idle for long. Called about once a second.
    pub(super) fn tidy(&self, now: Instant) {
        let mut known = self.known.lock();
        self.remove_idle(&mut known, false, now);
        let ended: Vec<_> = known.retired.extract_if(.., |committer| committer.has_ended()).collect();
        drop(known);
        Committer::join(ended, Duration::ZERO);
    }

    fn remove_idle(&self, known: &mut Known, room: bool, now: Instant) {
        for number in self.desks.remove_idle(IDLE_LIMIT, room, now) {
            let gone = known.lanes.remove(&number);
            info!("event=lane-closed number={number} lanes={}", known.lanes.len());
            known.retired.extend(gone.and_then(|gone| gone.committer));
        }
    }

    /// Disconnected once the committer of lane 0 has ended.
    pub(super) fn ended(&self) -> Receiver<()> {
        let known = self.known.lock();
        let committer = known.lanes.get(&0).and_then(|known| known.committer.as_ref());
        committer.map_or_else(crossbeam_channel::never, |committer| committer.ended().clone())
    }

    /// Whether the committer of a lane has ended.
    pub(super) fn has_ended(&self) -> bool {
        let known = self.known.lock();
        known.lanes.values().filter_map(|known| known.committer.as_ref()).any(Committer::has_ended)
    }

    /// Makes no further lane.
    pub(super) fn close(&self) {
        self.known.lock().closed = true;
    }

    /// Lets the committers finish for at most `limit`, then makes them give up what is not recorded. Returns whether
    /// all could be joined.
    pub(super) fn join(&self, limit: Duration) -> bool {
        self.close();
        let mut known = self.known.lock();
        let retired = std::mem::take(&mut known.retired);
        let committers = known.lanes.values_mut().filter_map(|known| known.committer.take());
        let committers = committers.chain(retired).collect();
        drop(known);
        Committer::join(committers, limit) == 0
    }

    /// The log context of lane 0, which stands for the consumer as a whole.
    pub(super) fn context(&self) -> LogContext {
        self.known.lock().lanes.get(&0).map_or_else(log_context::current, |known| known.lane.context.clone())
    }
}

fn not_served(number: LaneNumber, why: &str) -> CloseReason {
    CloseReason::new(ErrorCode::Unavailable, format!("lane {number} is not served: {why}"))
}
