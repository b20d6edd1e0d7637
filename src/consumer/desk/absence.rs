//! What the desk does while the consumer can't work: it takes nothing, and hands back what no handler has begun.
//!
//! The protocol has no word for "I can work again": the connection is closed, the dispatcher makes it anew within a
//! second, and READY asks for the full prefetch. What is still in hand at the end of a connection that was told DRAIN
//! goes to others at once, so the end of it is waited for, at most for [`RETURN_LIMIT`].

use std::time::{Duration, Instant};

use log::{info, warn};

use super::ability::Change;
use super::state::{Desk, DeskState};
use crate::base::id::MessageId;
use crate::base::text::Quoted;
use crate::ledger::Payload;
use crate::wire::{Frame, NackDelay};

/// How long a consumer that can work again waits for what it has in hand before it asks for more. Longer work may then
/// be done by others as well; without a limit one handler that never returns would keep all others idle.
const RETURN_LIMIT: Duration = Duration::from_secs(10);
/// The reason of a NACK for a message that no handler has begun: the dispatcher counts no delivery. No failure has it.
pub(super) const NOT_BEGUN: &str = "";

impl Desk {
    /// Looks what has changed with time.
    pub(in crate::consumer) fn look(&self, now: Instant) {
        self.look_at(&mut self.state.lock(), now);
    }

    /// Redis did not take something from the committer; `since` is when it last did.
    pub(in crate::consumer) fn redis_fails(&self, since: Instant, now: Instant) {
        let mut state = self.state.lock();
        state.ability.redis_fails(since);
        self.judge(&mut state, now);
    }

    /// Redis takes what the committer offers, again.
    pub(in crate::consumer) fn redis_answers(&self, now: Instant) {
        let mut state = self.state.lock();
        state.ability.redis_answers();
        self.judge(&mut state, now);
    }

    pub(super) fn look_at(&self, state: &mut DeskState, now: Instant) {
        self.give_up_the_slow(state, now);
        self.judge(state, now);
        self.after_a_change(state);
    }

    pub(super) fn give_up_the_slow(&self, state: &mut DeskState, now: Instant) {
        if let Some(timeout) = self.terms.handler_timeout {
            self.stats.timed_out.add(state.hand.give_up(timeout, now));
        }
    }

    /// Looks whether the consumer can work, and acts on it.
    pub(super) fn judge(&self, state: &mut DeskState, now: Instant) {
        match state.ability.judge(state.hand.is_stuck(), now) {
            Some(Change::Begun(reason)) => {
                self.stats.set_unable(Some(reason.to_string()));
                let held = state.hand.len();
                warn!(
                    "event=unable held={held} reason={} note=\"accepts no messages, and returns those that no handler \
                     has begun\"",
                    Quoted(reason)
                );
            }
            Some(Change::Ended(reason, after)) => {
                self.stats.set_unable(None);
                state.able_since = Some(now);
                info!("event=able-again after_ms={} reason={}", after.as_millis(), Quoted(reason));
            }
            None => {}
        }
        if state.ability.is_unable() {
            self.hand_back(state);
        } else if state.hand.places() == 0
            || state.able_since.is_some_and(|since| now.saturating_duration_since(since) >= RETURN_LIMIT)
        {
            self.dismiss(state);
        }
    }

    /// Hands back what no handler has begun, if anybody is there to take it.
    fn hand_back(&self, state: &mut DeskState) {
        let Some(ruler) = &mut state.ruler else { return };
        ruler.tell_drain();
        let queued = state.hand.take_queued();
        queued.iter().for_each(|id| ruler.outbox.put(&not_begun(*id)));
        if !queued.is_empty() {
            self.stats.handed_back.add(queued.len());
            self.after_a_change(state);
        }
    }

    /// Closes the ruling connection if it was told DRAIN by a consumer that can work again.
    pub(super) fn dismiss(&self, state: &mut DeskState) {
        if !state.draining
            && !state.ability.is_unable()
            && let Some(ruler) = state.ruler.take_if(|ruler| ruler.told)
        {
            ruler.outbox.close(None);
            state.dismissed = Some(ruler.link);
            self.stats.set_ruling_epoch(0);
        }
    }

    /// Messages that were sent before our DRAIN was read. A consumer that stops leaves them unanswered: they go back,
    /// unused, when the connection closes. One that can't work keeps its connection, perhaps for long.
    pub(super) fn pass_back(&self, state: &mut DeskState, messages: Vec<(MessageId, u16, Payload)>) {
        let Some(ruler) = state.ruler.as_ref().filter(|_| !state.draining) else { return };
        for (id, ..) in messages {
            if !state.hand.has(id) {
                ruler.outbox.put(&not_begun(id));
                self.stats.handed_back.add(1);
            }
        }
    }
}

fn not_begun(id: MessageId) -> Frame<'static> {
    Frame::Nack { id, delay: NackDelay::ByBackoff, reason: NOT_BEGUN }
}
