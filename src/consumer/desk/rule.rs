//! Who rules: LEAD, the end of a connection, and the order to drain.

use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::Receiver;

use super::state::{Desk, DeskState, Ruler, Standing};
use crate::base::id::Epoch;
use crate::consumer::outbox::Outbox;
use crate::consumer::peer::{LinkId, Refusal};
use crate::wire::{Frame, ReadyFlags};

impl Desk {
    /// LEAD with an epoch that is true: this connection rules from now on, or is refused. Gives the number of messages
    /// in hand.
    pub(in crate::consumer) fn lead(
        &self,
        link: LinkId,
        outbox: &Arc<Outbox>,
        epoch: Epoch,
        group: &str,
        now: Instant,
    ) -> Result<usize, Refusal> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        self.check_lead(state, epoch, group)?;
        state.epochs.insert(link, epoch);
        let newer = state.ruler.as_ref().is_some_and(|ruler| epoch == state.epoch && ruler.link > link);
        if newer {
            state.check_rule(link)?;
        }
        state.check_rival(epoch)?;
        if epoch > state.epoch {
            // Redis has confirmed it a moment ago.
            state.ability.redis_was_heard(now);
        }
        state.epoch = epoch;
        // Nothing of what follows is for the one before.
        if let Some(replaced) = state.ruler.take() {
            self.close_replaced(state, &replaced);
        }
        self.look_at(state, now);
        outbox.put(&Frame::Ready {
            prefetch: self.terms.prefetch,
            flags: ReadyFlags::COMMITS,
            consumer: &self.terms.consumer_id,
        });
        let in_hand = state.hand.ids();
        let count = in_hand.len();
        outbox.put(&Frame::Held(in_hand));
        let ruler = state.ruler.insert(Ruler { link, outbox: outbox.clone(), told: false, standing: Standing::New });
        self.stats.set_ruling_epoch(epoch.0);
        let takes_nothing = state.draining || state.ability.is_unable();
        if takes_nothing {
            // First, so that nothing that is handed back below comes here again.
            ruler.tell_drain();
        }
        for (id, error) in state.hand.take_failed() {
            ruler.outbox.put(&error.nack(id));
        }
        self.judge(state, now);
        self.after_a_change(state);
        Ok(count)
    }

    /// Reports to this connection, if it rules, what is being worked on. It is refused if another has replaced it.
    pub(in crate::consumer) fn report(&self, link: LinkId, now: Instant) -> Result<(), Refusal> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        self.look_at(state, now);
        if state.dismissed == Some(link) {
            return Ok(());
        }
        state.check_rule(link)?;
        let in_hand = state.hand.ids();
        if let Some(ruler) = state.ruler.as_ref().filter(|_| !in_hand.is_empty()) {
            ruler.outbox.put(&Frame::Progress(in_hand));
        }
        Ok(())
    }

    /// The connection is gone. Says whether it was the ruler.
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

    /// Accepts nothing from now on, and tells the ruler. The receiver hears when nothing is in hand any more.
    pub(in crate::consumer) fn drain(&self) -> Receiver<()> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        state.draining = true;
        if let Some(ruler) = &mut state.ruler {
            ruler.tell_drain();
        }
        self.after_a_change(state);
        self.drained.1.clone()
    }

    pub(super) fn after_a_change(&self, state: &mut DeskState) {
        self.stats.set_held(state.hand.len());
        self.room.notify_all();
        if state.hand.places() == 0 {
            self.dismiss(state);
        }
        // NACKs that nobody is there to read must not hold up the end: the messages go out again anyhow.
        if state.draining && state.hand.is_drained() {
            // Full: it was said before.
            let _ = self.drained.0.try_send(());
        }
    }
}
