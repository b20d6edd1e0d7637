//! What the desks do while the consumer can't work: they accept no messages, begin none, and return those that no
//! handler has begun. If only the Redis of one lane stores no results, only that lane's desk does so.
//!
//! The protocol has no frame for "I can work again". So the consumer closes the connection, the dispatcher reconnects
//! within a second, and READY asks for the full prefetch. When a connection closes after a DRAIN, the dispatcher
//! immediately delivers the messages that the consumer still holds to other consumers. So the consumer finishes its
//! messages before it closes, for at most [`RETURN_LIMIT`].

use std::time::{Duration, Instant};

use log::{info, warn};

use super::ability::{Change, SilenceChange};
use super::held::Job;
use super::lane_state::LaneState;
use super::state::{CommonState, Desk, Desks, DesksState};
use crate::base::id::MessageId;
use crate::base::log_context;
use crate::base::text::Quoted;
use crate::ledger::LaneNumber;
use crate::wire::{Frame, NackDelay};

/// How long a consumer that can work again finishes held messages before it asks for more. Messages that take longer
/// may then be processed by others as well. Without a limit, one handler that never returns would keep all others idle.
const RETURN_LIMIT: Duration = Duration::from_secs(10);
/// The reason of a NACK for a message that no handler has begun: the dispatcher does not count that delivery. No failed
/// handler gives this reason.
pub(super) const NOT_BEGUN: &str = "";

impl Desks {
    /// Checks what changes with time: handlers that run for too long, and whether the consumer can work. `ready` is the
    /// handler's answer to the question whether it is ready, asked at `asked`.
    pub(in crate::consumer) fn check(&self, ready: Result<(), String>, asked: Instant, now: Instant) {
        let mut state = self.state.lock();
        state.common.ability.handler_says(ready, asked);
        self.check_locked(&mut state, now);
    }

    pub(super) fn check_locked(&self, state: &mut DesksState, now: Instant) {
        self.give_up_slow_handlers(state, now);
        self.judge(state, now);
        self.after_a_change(state);
    }

    pub(super) fn give_up_slow_handlers(&self, state: &mut DesksState, now: Instant) {
        if let Some(timeout) = self.terms.handler_timeout {
            self.stats.timed_out.add(state.common.hands.give_up(timeout, now, &mut state.lanes));
        }
    }

    /// Checks whether the consumer can work, and acts on it.
    pub(super) fn judge(&self, state: &mut DesksState, now: Instant) {
        let DesksState { lanes, common } = state;
        let several = lanes.len() > 1;
        for (number, lane) in lanes.iter_mut() {
            let change = lane.silence.judge(now);
            if let Some(SilenceChange::Ended(_)) = change {
                lane.able_since = Some(now);
                self.work.notify_all();
            }
            if let Some(change) = change.filter(|_| several) {
                lane.log(|held| log_silence(*number, change, held));
            }
        }
        let silent = !lanes.is_empty() && lanes.values().all(|lane| lane.silence.is_unable());
        match common.ability.judge(common.hands.is_stuck(), silent, now) {
            Some(Change::Begun(reason)) => {
                let (held, reason) = (common.held, reason.reason(self.terms.setting_name));
                warn!(
                    "event=unable held={held} reason={} note=\"accepts no messages, and returns those that no handler \
                     has begun\"",
                    Quoted(&reason)
                );
                self.stats.set_unable(Some(reason));
            }
            Some(Change::Ended(reason, after)) => {
                self.stats.set_unable(None);
                lanes.values_mut().for_each(|lane| lane.able_since = Some(now));
                self.work.notify_all();
                let reason = reason.reason(self.terms.setting_name);
                info!("event=able-again after_ms={} reason={}", after.as_millis(), Quoted(reason));
            }
            None => {}
        }
        for lane in lanes.values_mut() {
            let since = lane.able_since.map(|since| now.saturating_duration_since(since));
            if common.is_unable(lane) {
                self.return_queued(lane, common);
            } else if lane.held.places() == 0 || since.is_some_and(|since| since >= RETURN_LIMIT) {
                self.dismiss(lane, common);
            }
        }
    }

    /// Returns the messages that no handler has begun, if a dispatcher is connected.
    fn return_queued(&self, lane: &mut LaneState, common: &mut CommonState) {
        let Some(ruler) = &mut lane.ruler else { return };
        ruler.send_drain();
        let queued = lane.held.take_queued();
        queued.iter().for_each(|id| ruler.outbox.put(&not_begun(*id)));
        if !queued.is_empty() {
            self.stats.returned.add(queued.len());
            self.after_a_change_of(lane, common);
        }
    }

    /// Closes the ruling connection of a lane if DRAIN was sent on it and the consumer can work again.
    pub(super) fn dismiss(&self, lane: &mut LaneState, common: &CommonState) {
        if !common.draining
            && !common.is_unable(lane)
            && let Some(ruler) = lane.ruler.take_if(|ruler| ruler.sent_drain)
        {
            ruler.outbox.close(None);
            lane.dismissed = Some(ruler.link);
            lane.stats.set_ruling_epoch(0);
        }
    }

    /// Returns messages that were sent before our DRAIN was read. A stopping consumer leaves them unanswered: the
    /// dispatcher takes them back when the connection closes. A consumer that can't work returns them at once, because
    /// it may keep its connection for a long time.
    pub(super) fn return_late(
        &self,
        lane: &LaneState,
        common: &CommonState,
        messages: impl Iterator<Item = MessageId>,
    ) {
        let Some(ruler) = lane.ruler.as_ref().filter(|_| !common.draining) else { return };
        for id in messages {
            if !lane.held.has(id) {
                ruler.outbox.put(&not_begun(id));
                self.stats.returned.add(1);
            }
        }
    }
}

impl Desk {
    /// A handler was not ready and has not begun this message, so it goes back to the front of the queue. From there it
    /// is returned, now or to the next ruler, or begun once the handler is ready.
    pub(in crate::consumer) fn put_back(&self, thread: usize, job: Job, reason: String, now: Instant) {
        let mut state = self.desks.state.lock();
        state.common.hands.end(thread);
        if let Some(lane) = state.lanes.get_mut(&self.lane) {
            lane.held.put_back(job);
        }
        state.enqueue(self.lane);
        state.common.ability.handler_says(Err(reason), now);
        self.desks.judge(&mut state, now);
        self.desks.after_a_change(&mut state);
    }

    /// A request of the committer to Redis failed; `since` is when it was first made.
    pub(in crate::consumer) fn redis_fails(&self, since: Instant, now: Instant) {
        let mut state = self.desks.state.lock();
        if let Some(lane) = state.lanes.get_mut(&self.lane) {
            lane.silence.redis_fails(since);
        }
        self.desks.judge(&mut state, now);
    }

    /// Redis answers the committer again.
    pub(in crate::consumer) fn redis_answers(&self, now: Instant) {
        let mut state = self.desks.state.lock();
        if let Some(lane) = state.lanes.get_mut(&self.lane) {
            lane.silence.redis_answers();
        }
        self.desks.judge(&mut state, now);
    }
}

impl LaneState {
    /// Logs something about the lane in its own context.
    fn log(&self, line: impl FnOnce(usize)) {
        let context = self.outlet.as_ref().map_or_else(log_context::current, |outlet| outlet.context.clone());
        log_context::within(&context, || line(self.held.len()));
    }
}

/// With several lanes, the one whose Redis stores no results is named.
fn log_silence(lane: LaneNumber, change: SilenceChange, held: usize) {
    match change {
        SilenceChange::Begun => warn!(
            "event=lane-unable number={lane} held={held} reason=\"its Redis does not store results\" note=\"accepts no \
             messages of this lane, and returns those that no handler has begun\""
        ),
        SilenceChange::Ended(after) => info!("event=lane-able-again number={lane} after_ms={}", after.as_millis()),
    }
}

fn not_begun(id: MessageId) -> Frame<'static> {
    Frame::Nack { id, delay: NackDelay::ByBackoff, reason: NOT_BEGUN }
}
