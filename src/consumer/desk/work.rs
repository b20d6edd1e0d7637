//! The path of a message through the consumer: accepted, begun, failed or recorded, and answered.
//!
//! Readers wait here while the consumer holds too many bytes; handler threads wait here while no message is queued.

use std::time::Instant;

use super::absence::NOT_BEGUN;
use super::held::{FailureEffect, Job, RunNumber};
use super::state::{Desk, DeskState, Ruler};
use crate::base::id::MessageId;
use crate::consumer::handler::{HandlerError, Next};
use crate::consumer::peer::{CloseReason, LinkId};
use crate::ledger::Body;
use crate::wire::{ErrorCode, Frame, NackDelay};

/// The most payload bytes held before the ruler's socket is no longer read. Prefetch limits only their number.
pub(super) const MAX_HELD_BYTES: usize = 64 << 20;

impl Desk {
    /// Accepts the messages in the PROCESS and DELIVER frames of one WebSocket message, and queues them for the
    /// handlers.
    pub(in crate::consumer) fn accept(
        &self,
        link: LinkId,
        messages: Vec<(MessageId, u16, Body)>,
        now: Instant,
    ) -> Result<(), CloseReason> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if state.dismissed == Some(link) {
            return Ok(());
        }
        let &Ruler { epoch, sent_drain, .. } = state.check_rule(link)?;
        if sent_drain {
            self.return_late(state, messages);
            return Ok(());
        }
        let mut taken = 0;
        for (id, number, body) in messages {
            state.highest = state.highest.max(id);
            if state.held.has(id) {
                continue;
            }
            if state.held.places() >= self.terms.prefetch as usize {
                self.give_up_slow_handlers(state, now);
            }
            if state.held.places() >= self.terms.prefetch as usize {
                // All or nothing: the connection closes, and its dispatcher takes all of these back.
                state.held.take_back(taken);
                let text = format!("more messages than the prefetch of {}", self.terms.prefetch);
                return Err(CloseReason::new(ErrorCode::OverPrefetch, text));
            }
            state.held.insert(id, number, body, epoch, link);
            taken += 1;
        }
        self.stats.received.add(taken);
        self.after_a_change(state);
        for _ in 0..taken {
            if !self.work.notify_one() {
                break;
            }
        }
        Ok(())
    }

    /// Waits while the consumer holds too many bytes, as long as the connection rules and may deliver.
    pub(in crate::consumer) fn wait_for_room(&self, link: LinkId) {
        let mut state = self.state.lock();
        let may_deliver =
            |state: &DeskState| matches!(&state.ruler, Some(ruler) if ruler.link == link && !ruler.sent_drain);
        while state.held.bytes() > MAX_HELD_BYTES && may_deliver(&state) {
            self.room.wait(&mut state);
        }
    }

    /// Waits for a message for a handler thread. `None`: the desk is closed. While the consumer can't work, no message
    /// is begun: those that can't be returned because no connection rules wait.
    pub(in crate::consumer) fn next(&self, thread: usize) -> Option<Job> {
        let mut state = self.state.lock();
        while !state.closed {
            let able = !state.ability.is_unable();
            if let Some(job) = able.then(|| state.held.begin(thread, Instant::now())).flatten() {
                return Some(job);
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
        let mut guard = self.state.lock();
        guard.held.end(thread);
        if guard.ability.is_unable() {
            self.judge(&mut guard, now);
        }
    }

    /// From now on handlers begin no other message.
    pub(in crate::consumer) fn close(&self) {
        self.state.lock().closed = true;
        self.work.notify_all();
    }

    /// A handler failed: the NACK goes to the ruler, or waits for one.
    pub(in crate::consumer) fn fail(&self, id: MessageId, run: RunNumber, error: HandlerError) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let counter = if error.is_reject() { &self.stats.rejected } else { &self.stats.retried };
        match (state.held.fail(id, run, error, state.ruler.is_some()), &state.ruler) {
            (FailureEffect::Void, _) => return,
            (FailureEffect::Send(error), Some(ruler)) => ruler.outbox.put(&error.nack(id)),
            _ => {}
        }
        counter.add(1);
        self.after_a_change(state);
    }

    /// Fails a message whose result can't be recorded, whichever run the result came from.
    pub(in crate::consumer) fn refuse(&self, id: MessageId, error: HandlerError) {
        let run = self.state.lock().held.run_of(id);
        if let Some(run) = run {
            self.fail(id, run, error);
        }
    }

    /// Removes messages that are recorded, by this consumer or earlier by another one. The ACK goes to the ruler, if
    /// there is one.
    pub(in crate::consumer) fn ack(&self, ids: impl Iterator<Item = MessageId>) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let done: Vec<_> = ids.filter(|id| state.held.remove(*id)).collect();
        if let Some(ruler) = state.ruler.as_ref().filter(|_| !done.is_empty()) {
            ruler.outbox.put(&Frame::Ack(done));
        }
        self.after_a_change(state);
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
