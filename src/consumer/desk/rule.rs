//! Which connection rules: LEAD, the end of a connection, and draining.

use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::Receiver;

use super::state::{Desk, DeskState, Ruler, RulerStanding};
use crate::base::id::Epoch;
use crate::consumer::outbox::Outbox;
use crate::consumer::peer::{CloseReason, LinkId};
use crate::wire::{Frame, ReadyFlags};

impl Desk {
    /// Handles LEAD with a confirmed epoch: this connection rules from now on, or is refused. Returns the number of
    /// messages listed in HELD.
    pub(in crate::consumer) fn lead(
        &self,
        link: LinkId,
        outbox: &Arc<Outbox>,
        epoch: Epoch,
        group: &str,
        now: Instant,
    ) -> Result<usize, CloseReason> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        self.check_lead(state, epoch, group)?;
        state.epochs.insert(link, epoch);
        let newer = state.ruler.as_ref().is_some_and(|ruler| epoch == ruler.epoch && ruler.link > link);
        if newer {
            state.check_rule(link)?;
        }
        state.check_rival(epoch)?;
        if Some(epoch) > state.epoch {
            // Redis has confirmed it a moment ago.
            state.ability.redis_was_heard(now);
        }
        state.epoch = Some(epoch);
        // Nothing that follows may go to the previous ruler.
        if let Some(replaced) = state.ruler.take() {
            self.close_replaced(state, &replaced);
        }
        self.check_locked(state, now);
        outbox.put(&Frame::Ready {
            prefetch: self.terms.prefetch,
            flags: ReadyFlags::COMMITS.and(ReadyFlags::CHANNELS),
            consumer: &self.terms.consumer_id,
        });
        let held = state.held.ids();
        let count = held.len();
        outbox.put(&Frame::Held(held));
        let (outbox, standing) = (outbox.clone(), RulerStanding::New);
        let ruler = state.ruler.insert(Ruler { link, epoch, outbox, sent_drain: false, standing });
        self.stats.set_ruling_epoch(epoch.0);
        let takes_nothing = state.draining || state.ability.is_unable();
        if takes_nothing {
            // Sent first, so that messages returned below are not delivered here again.
            ruler.send_drain();
        }
        for (id, error) in state.held.take_failed() {
            ruler.outbox.put(&error.nack(id));
        }
        self.judge(state, now);
        self.after_a_change(state);
        Ok(count)
    }

    /// Reports the held messages to this connection, if it rules. The connection is refused if another one has replaced
    /// it.
    pub(in crate::consumer) fn report(&self, link: LinkId, now: Instant) -> Result<(), CloseReason> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        self.check_locked(state, now);
        if state.dismissed == Some(link) {
            return Ok(());
        }
        let ruler = state.check_rule(link)?;
        let held = state.held.ids();
        if !held.is_empty() {
            ruler.outbox.put(&Frame::Progress(held));
        }
        Ok(())
    }

    /// The connection has ended. Returns whether it ruled.
    pub(in crate::consumer) fn leave(&self, link: LinkId) -> bool {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let ruled = state.ruler.take_if(|ruler| ruler.link == link).is_some();
        state.dismissed.take_if(|dismissed| *dismissed == link);
        state.epochs.remove(&link);
        if ruled {
            self.stats.set_ruling_epoch(0);
        }
        self.after_a_change(state);
        ruled
    }

    /// Accepts nothing from now on, and sends DRAIN to the ruler. The receiver gets a message when there is nothing
    /// left to wait for.
    pub(in crate::consumer) fn drain(&self) -> Receiver<()> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        state.draining = true;
        if let Some(ruler) = &mut state.ruler {
            ruler.send_drain();
        }
        self.after_a_change(state);
        self.drained.1.clone()
    }

    pub(super) fn after_a_change(&self, state: &mut DeskState) {
        self.stats.set_held(state.held.len());
        self.room.notify_all();
        if state.held.places() == 0 {
            self.dismiss(state);
        }
        // NACKs that can't be sent because no connection rules must not delay the stop, because these messages are
        // delivered again anyway.
        if state.draining && state.held.is_drained(!state.ability.is_unable()) {
            // If it is full, this was reported before.
            let _ = self.drained.0.try_send(());
        }
    }
}
