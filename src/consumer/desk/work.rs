//! The path of a message through the consumer: accepted, begun, failed or recorded, and answered.
//!
//! Readers wait here while the consumer holds too many bytes; handler threads wait here while no message is queued that
//! may be begun. They take messages from the lanes in turn.

use std::time::Instant;

use super::absence::NOT_BEGUN;
use super::held::{FailureEffect, RunNumber};
use super::lane_state::Ruler;
use super::state::{Desk, Desks, DesksState, Turn};
use crate::base::id::MessageId;
use crate::consumer::handler::{HandlerError, Next};
use crate::consumer::peer::{CloseReason, LinkId};
use crate::ledger::{Body, LaneNumber};
use crate::wire::{ErrorCode, Frame, NackDelay};

/// The most payload bytes held, over all lanes, before the rulers' sockets are no longer read. A lane's socket is read
/// in any case while the lane holds less than its even share of these. Prefetch limits only the number of messages.
pub(super) const MAX_HELD_BYTES: usize = 64 << 20;

impl Desk {
    /// Accepts the messages in the PROCESS and DELIVER frames of one WebSocket message, and queues them for the
    /// handlers. Returns whether the connection may deliver more at once; otherwise it must
    /// [wait](Desk::wait_for_room).
    pub(in crate::consumer) fn accept(
        &self,
        link: LinkId,
        messages: Vec<(MessageId, u16, Body)>,
        now: Instant,
    ) -> Result<bool, CloseReason> {
        let desks = &*self.desks;
        let mut state = desks.state.lock();
        let (lane, common) = state.lane(self.lane).ok_or_else(|| self.gone())?;
        if lane.dismissed == Some(link) {
            return Ok(true);
        }
        let &Ruler { epoch, sent_drain, .. } = lane.check_rule(link)?;
        if sent_drain {
            desks.return_late(lane, common, messages.into_iter().map(|(id, ..)| id));
            return Ok(true);
        }
        let mut taken = 0;
        for (id, number, body) in messages {
            let Some((lane, _)) = state.lane(self.lane) else { return Err(self.gone()) };
            lane.highest = lane.highest.max(id);
            if lane.held.has(id) {
                continue;
            }
            let is_full = lane.held.places() >= desks.terms.prefetch as usize;
            if is_full && !self.make_place(&mut state, now) {
                // All or nothing: the connection closes, and its dispatcher takes all of these back.
                if let Some((lane, _)) = state.lane(self.lane) {
                    lane.held.take_back(taken);
                }
                let text = format!("more messages than the prefetch of {}", desks.terms.prefetch);
                return Err(CloseReason::new(ErrorCode::OverPrefetch, text));
            }
            let Some((lane, _)) = state.lane(self.lane) else { return Err(self.gone()) };
            lane.held.insert(id, number, body, epoch, link);
            taken += 1;
        }
        state.enqueue(self.lane);
        desks.stats.received.add(taken);
        if let Some((lane, common)) = state.lane(self.lane) {
            lane.stats.received.add(taken);
            desks.after_a_change_of(lane, common);
        }
        desks.check_drained(&state);
        for _ in 0..taken {
            if !desks.work.notify_one() {
                break;
            }
        }
        Ok(!state.must_wait(self.lane, link))
    }

    /// Gives up slow handlers to make a place in the prefetch. Returns whether there is one.
    fn make_place(&self, state: &mut DesksState, now: Instant) -> bool {
        self.desks.give_up_slow_handlers(state, now);
        state.lane(self.lane).is_some_and(|(lane, _)| lane.held.places() < self.desks.terms.prefetch as usize)
    }

    /// Waits while the consumer holds too many bytes, as long as the connection rules and may deliver.
    pub(in crate::consumer) fn wait_for_room(&self, link: LinkId) {
        let mut state = self.desks.state.lock();
        while state.must_wait(self.lane, link) {
            self.desks.room.wait(&mut state);
        }
    }

    /// A handler failed: the NACK goes to the ruler, or waits for one.
    pub(in crate::consumer) fn fail(&self, id: MessageId, run: RunNumber, error: HandlerError) {
        let desks = &*self.desks;
        let mut state = desks.state.lock();
        let Some((lane, common)) = state.lane(self.lane) else { return };
        let counter = if error.is_reject() { &desks.stats.rejected } else { &desks.stats.retried };
        match (lane.held.fail(id, run, error, lane.ruler.is_some()), &lane.ruler) {
            (FailureEffect::Void, _) => return,
            (FailureEffect::Send(error), Some(ruler)) => ruler.outbox.put(&error.nack(id)),
            _ => {}
        }
        counter.add(1);
        desks.after_a_change_of(lane, common);
        desks.check_drained(&state);
    }

    /// Fails a message whose result can't be recorded, whichever run the result came from.
    pub(in crate::consumer) fn refuse(&self, id: MessageId, error: HandlerError) {
        let run = self.desks.state.lock().lane(self.lane).and_then(|(lane, _)| lane.held.run_of(id));
        if let Some(run) = run {
            self.fail(id, run, error);
        }
    }

    /// Removes messages that are recorded, by this consumer or earlier by another one. The ACK goes to the ruler, if
    /// there is one.
    pub(in crate::consumer) fn ack(&self, ids: impl Iterator<Item = MessageId>) {
        let mut state = self.desks.state.lock();
        let Some((lane, common)) = state.lane(self.lane) else { return };
        // Then the dispatcher may be waiting for a place, or for this consumer to have drained.
        let is_urgent = 2 * lane.held.places() >= self.desks.terms.prefetch as usize || common.draining;
        let done: Vec<_> = ids.filter(|id| lane.held.remove(*id)).collect();
        match lane.ruler.as_ref().filter(|_| !done.is_empty()) {
            Some(ruler) if is_urgent => ruler.outbox.put(&Frame::Ack(done)),
            Some(ruler) => ruler.outbox.put_lazily(&Frame::Ack(done)),
            None => {}
        }
        self.desks.after_a_change_of(lane, common);
        self.desks.check_drained(&state);
    }
}

impl DesksState {
    /// Whether this connection of a lane must not be read: it may deliver, and the consumer holds too many bytes.
    fn must_wait(&mut self, lane: LaneNumber, link: LinkId) -> bool {
        let lanes = self.lanes.len();
        let Some((lane, common)) = self.lane(lane) else { return false };
        let is_full = common.bytes > MAX_HELD_BYTES && lane.held.bytes() > MAX_HELD_BYTES / lanes;
        is_full && matches!(&lane.ruler, Some(ruler) if ruler.link == link && !ruler.sent_drain)
    }
}

impl Desks {
    /// Waits for a message for a handler thread. `None`: the desks are closed. While the consumer can't work, no
    /// message is begun: those that can't be returned because no connection rules wait.
    pub(in crate::consumer) fn next(&self, thread: usize) -> Option<Turn> {
        let mut state = self.state.lock();
        while !state.common.closed {
            if let Some(turn) = state.next_turn(thread, Instant::now()) {
                return Some(turn);
            }
            self.work.wait(&mut state);
        }
        None
    }

    /// Notes that a handler has returned. This matters only if there is a handler timeout.
    pub(in crate::consumer) fn returned(&self, thread: usize, now: Instant) {
        if self.terms.handler_timeout.is_none() {
            return;
        }
        let mut state = self.state.lock();
        state.common.hands.end(thread);
        if state.common.ability.is_unable() {
            self.judge(&mut state, now);
        }
    }

    /// Whether this is the only lane, and no message waits for a handler.
    pub(in crate::consumer) fn is_calm(&self) -> bool {
        let state = self.state.lock();
        state.lanes.len() == 1 && state.lanes.values().all(|lane| !lane.held.has_queued())
    }

    /// Results have left the memory: a lane that was passed over for them may be served again.
    pub(in crate::consumer) fn note_recorded(&self) {
        let passed_over = std::mem::take(&mut self.state.lock().common.passed_over);
        if passed_over {
            self.work.notify_all();
        }
    }

    /// From now on handlers begin no other message. The committers end once they have recorded what was begun.
    pub(in crate::consumer) fn close(&self) {
        let mut state = self.state.lock();
        state.common.closed = true;
        state.lanes.values_mut().for_each(|lane| lane.outlet = None);
        drop(state);
        self.work.notify_all();
    }
}

impl HandlerError {
    pub(super) fn nack(&self, id: MessageId) -> Frame<'_> {
        // A handler has begun this message, so the reason must not be the one that stands for messages that no handler
        // has begun.
        let reason = if self.reason == NOT_BEGUN { "the handler gave no reason" } else { &self.reason };
        let delay = match self.next {
            Next::Fail(delay) => delay,
            // The pool puts such a message back instead.
            Next::PutBack => NackDelay::ByBackoff,
        };
        Frame::Nack { id, delay, reason }
    }
}
