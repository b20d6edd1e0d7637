//! Which connection rules: LEAD, the end of a connection, and draining.

use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::Receiver;

use super::lane_state::{LaneState, Ruler, RulerStanding};
use super::state::{CommonState, Desk, Desks, DesksState};
use crate::base::id::Epoch;
use crate::consumer::outbox::Outbox;
use crate::consumer::peer::{CloseReason, LinkId};
use crate::wire::{Frame, ReadyFlags};

impl Desk {
    /// Handles LEAD with a confirmed epoch: this connection rules from now on, or is refused. `flags` are those of
    /// READY. Returns the number of messages listed in HELD.
    pub(in crate::consumer) fn lead(
        &self,
        link: LinkId,
        outbox: &Arc<Outbox>,
        epoch: Epoch,
        flags: ReadyFlags,
        now: Instant,
    ) -> Result<usize, CloseReason> {
        let desks = &*self.desks;
        let mut guard = desks.state.lock();
        let (lane, _) = guard.lane(self.lane).ok_or_else(|| self.gone())?;
        lane.check_lead(epoch)?;
        lane.epochs.insert(link, epoch);
        let newer = lane.ruler.as_ref().is_some_and(|ruler| epoch == ruler.epoch && ruler.link > link);
        if newer {
            lane.check_rule(link)?;
        }
        lane.check_rival(epoch)?;
        if Some(epoch) > lane.epoch {
            // Redis has confirmed it a moment ago.
            lane.silence.redis_was_heard(now);
        }
        lane.epoch = Some(epoch);
        // Nothing that follows may go to the previous ruler.
        if let Some(replaced) = lane.ruler.take() {
            desks.close_replaced(lane, &replaced);
        }
        desks.check_locked(&mut guard, now);
        let (lane, common) = guard.lane(self.lane).ok_or_else(|| self.gone())?;
        outbox.put(&Frame::Ready { prefetch: desks.terms.prefetch, flags, consumer: &desks.terms.consumer_id });
        let held = lane.held.ids();
        let count = held.len();
        outbox.put(&Frame::Held(held));
        let takes_nothing = common.draining || common.is_unable(lane);
        let (outbox, standing) = (outbox.clone(), RulerStanding::New);
        let ruler = lane.ruler.insert(Ruler { link, epoch, outbox, sent_drain: false, standing });
        lane.stats.set_ruling_epoch(epoch.0);
        if takes_nothing {
            // Sent first, so that messages returned below are not delivered here again.
            ruler.send_drain();
        }
        for (id, error) in lane.held.take_failed() {
            ruler.outbox.put(&error.nack(id));
        }
        desks.judge(&mut guard, now);
        desks.after_a_change(&mut guard);
        Ok(count)
    }

    /// Reports the held messages to this connection, if it rules. The connection is refused if another one has replaced
    /// it.
    pub(in crate::consumer) fn report(&self, link: LinkId, now: Instant) -> Result<(), CloseReason> {
        let mut state = self.desks.state.lock();
        self.desks.check_locked(&mut state, now);
        let (lane, _) = state.lane(self.lane).ok_or_else(|| self.gone())?;
        if lane.dismissed == Some(link) {
            return Ok(());
        }
        let ruler = lane.check_rule(link)?;
        let held = lane.held.ids();
        if !held.is_empty() {
            ruler.outbox.put(&Frame::Progress(held));
        }
        Ok(())
    }

    /// The connection has ended. Returns whether it ruled.
    pub(in crate::consumer) fn leave(&self, link: LinkId) -> bool {
        let mut state = self.desks.state.lock();
        let Some((lane, _)) = state.lane(self.lane) else { return false };
        let ruled = lane.ruler.take_if(|ruler| ruler.link == link).is_some();
        lane.dismissed.take_if(|dismissed| *dismissed == link);
        lane.epochs.remove(&link);
        if ruled {
            lane.stats.set_ruling_epoch(0);
        }
        self.desks.after_a_change(&mut state);
        ruled
    }
}

impl Desks {
    /// Accepts nothing from now on, and sends DRAIN to the ruler of each lane. The receiver gets a message when there
    /// is nothing left to wait for.
    pub(in crate::consumer) fn drain(&self) -> Receiver<()> {
        let mut state = self.state.lock();
        state.common.draining = true;
        state.lanes.values_mut().filter_map(|lane| lane.ruler.as_mut()).for_each(Ruler::send_drain);
        self.after_a_change(&mut state);
        self.drained.1.clone()
    }

    /// After a change that may have affected several lanes.
    pub(super) fn after_a_change(&self, state: &mut DesksState) {
        let DesksState { lanes, common } = state;
        lanes.values_mut().for_each(|lane| self.after_a_change_of(lane, common));
        self.check_drained(state);
    }

    /// After a change that affected only this lane.
    pub(super) fn after_a_change_of(&self, lane: &mut LaneState, common: &mut CommonState) {
        common.count(lane);
        lane.stats.set_held(lane.held.len());
        self.stats.set_held(common.held);
        self.room.notify_all();
        if lane.held.places() == 0 {
            self.dismiss(lane, common);
        }
    }

    pub(super) fn check_drained(&self, state: &DesksState) {
        let DesksState { lanes, common } = state;
        // NACKs that can't be sent because no connection rules must not delay the stop, because these messages are
        // delivered again anyway.
        if common.draining && lanes.values().all(|lane| lane.held.is_drained(!common.is_unable(lane))) {
            // If it is full, this was reported before.
            let _ = self.drained.0.try_send(());
        }
    }
}
