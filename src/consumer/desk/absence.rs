//! What the desk does while the consumer can't work: it accepts no messages, begins none, and returns those that no
//! handler has begun.
//!
//! The protocol has no frame for "I can work again". So the consumer closes the connection, the dispatcher reconnects
//! within a second, and READY asks for the full prefetch. When a connection closes after a DRAIN, the dispatcher
//! immediately delivers the messages that the consumer still holds to other consumers. So the consumer finishes its
//! messages before it closes, for at most [`RETURN_LIMIT`].

use std::time::{Duration, Instant};

use log::{info, warn};

use super::ability::Change;
use super::held::Job;
use super::state::{Desk, DeskState};
use crate::base::id::MessageId;
use crate::base::text::Quoted;
use crate::ledger::Body;
use crate::wire::{Frame, NackDelay};

/// How long a consumer that can work again finishes held messages before it asks for more. Messages that take longer
/// may then be processed by others as well. Without a limit, one handler that never returns would keep all others idle.
const RETURN_LIMIT: Duration = Duration::from_secs(10);
/// The reason of a NACK for a message that no handler has begun: the dispatcher does not count that delivery. No failed
/// handler gives this reason.
pub(super) const NOT_BEGUN: &str = "";

impl Desk {
    /// Checks what changes with time: handlers that run for too long, and whether the consumer can work. `ready` is the
    /// handler's answer to the question whether it is ready, asked at `asked`.
    pub(in crate::consumer) fn check(&self, ready: Result<(), String>, asked: Instant, now: Instant) {
        let mut state = self.state.lock();
        state.ability.handler_says(ready, asked);
        self.check_locked(&mut state, now);
    }

    /// A handler was not ready and has not begun this message, so it goes back to the front of the queue. From there it
    /// is returned, now or to the next ruler, or begun once the handler is ready.
    pub(in crate::consumer) fn put_back(&self, thread: usize, job: Job, reason: String, now: Instant) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        state.held.end(thread);
        state.held.put_back(job);
        state.ability.handler_says(Err(reason), now);
        self.judge(state, now);
        self.after_a_change(state);
    }

    /// A request of the committer to Redis failed; `since` is when it was first made.
    pub(in crate::consumer) fn redis_fails(&self, since: Instant, now: Instant) {
        let mut state = self.state.lock();
        state.ability.redis_fails(since);
        self.judge(&mut state, now);
    }

    /// Redis answers the committer again.
    pub(in crate::consumer) fn redis_answers(&self, now: Instant) {
        let mut state = self.state.lock();
        state.ability.redis_answers();
        self.judge(&mut state, now);
    }

    pub(super) fn check_locked(&self, state: &mut DeskState, now: Instant) {
        self.give_up_slow_handlers(state, now);
        self.judge(state, now);
        self.after_a_change(state);
    }

    pub(super) fn give_up_slow_handlers(&self, state: &mut DeskState, now: Instant) {
        if let Some(timeout) = self.terms.handler_timeout {
            self.stats.timed_out.add(state.held.give_up(timeout, now));
        }
    }

    /// Checks whether the consumer can work, and acts on it.
    pub(super) fn judge(&self, state: &mut DeskState, now: Instant) {
        match state.ability.judge(state.held.is_stuck(), now) {
            Some(Change::Begun(reason)) => {
                let (held, reason) = (state.held.len(), reason.reason(self.terms.setting_name));
                warn!(
                    "event=unable held={held} reason={} note=\"accepts no messages, and returns those that no handler \
                     has begun\"",
                    Quoted(&reason)
                );
                self.stats.set_unable(Some(reason));
            }
            Some(Change::Ended(reason, after)) => {
                self.stats.set_unable(None);
                state.able_since = Some(now);
                self.work.notify_all();
                let reason = reason.reason(self.terms.setting_name);
                info!("event=able-again after_ms={} reason={}", after.as_millis(), Quoted(reason));
            }
            None => {}
        }
        if state.ability.is_unable() {
            self.return_queued(state);
        } else if state.held.places() == 0
            || state.able_since.is_some_and(|since| now.saturating_duration_since(since) >= RETURN_LIMIT)
        {
            self.dismiss(state);
        }
    }

    /// Returns the messages that no handler has begun, if a dispatcher is connected.
    fn return_queued(&self, state: &mut DeskState) {
        let Some(ruler) = &mut state.ruler else { return };
        ruler.send_drain();
        let queued = state.held.take_queued();
        queued.iter().for_each(|id| ruler.outbox.put(&not_begun(*id)));
        if !queued.is_empty() {
            self.stats.returned.add(queued.len());
            self.after_a_change(state);
        }
    }

    /// Closes the ruling connection if DRAIN was sent on it and the consumer can work again.
    pub(super) fn dismiss(&self, state: &mut DeskState) {
        if !state.draining
            && !state.ability.is_unable()
            && let Some(ruler) = state.ruler.take_if(|ruler| ruler.sent_drain)
        {
            ruler.outbox.close(None);
            state.dismissed = Some(ruler.link);
            self.stats.set_ruling_epoch(0);
        }
    }

    /// Returns messages that were sent before our DRAIN was read. A stopping consumer leaves them unanswered: the
    /// dispatcher takes them back when the connection closes. A consumer that can't work returns them at once, because
    /// it may keep its connection for a long time.
    pub(super) fn return_late(&self, state: &mut DeskState, messages: Vec<(MessageId, u16, Body)>) {
        let Some(ruler) = state.ruler.as_ref().filter(|_| !state.draining) else { return };
        for (id, ..) in messages {
            if !state.held.has(id) {
                ruler.outbox.put(&not_begun(id));
                self.stats.returned.add(1);
            }
        }
    }
}

fn not_begun(id: MessageId) -> Frame<'static> {
    Frame::Nack { id, delay: NackDelay::ByBackoff, reason: NOT_BEGUN }
}
