//! Which of several connections rules: what is checked before LEAD is accepted, and what happens to the replaced
//! connection.
//!
//! A higher epoch that Redis has confirmed replaces any other connection. An epoch has one leader. So a second
//! connection of the epoch comes either from that leader, whose first connection is dead, or from an impostor. The
//! newer one wins unless the older one is *proven* (a message it delivered was pending) and *alive* (it answers a
//! ping). Otherwise an impostor that learns the epoch could replace the leader again and again.
//!
//! No thread waits for the pong under the desk's lock: the new connection's thread gets the [rival](Desk::rival) from
//! the desk, waits for the rival's pong, and notes its [silence](Desk::note_silence). A connection that was silent once
//! can't become proven again.
//!
//! Limitation: a ruler whose socket is not read because the consumer holds too many bytes counts as silent.

use std::sync::Arc;

use super::lane_state::{LaneState, Ruler, RulerStanding};
use super::state::{Desk, Desks};
use crate::base::id::Epoch;
use crate::consumer::outbox::Outbox;
use crate::consumer::peer::{CloseReason, LinkId};
use crate::wire::{ErrorCode, Frame};

/// How LEAD's epoch compares with what was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::consumer) enum Claim {
    /// It is the highest one seen.
    Known,
    /// It is higher, or the first.
    Higher,
    /// It is lower than this one.
    Lower(Epoch),
}

impl Desk {
    /// Compares the epoch in LEAD with the highest one seen. An epoch that is not known must be looked up before
    /// [`lead`](Desk::lead) is called.
    pub(in crate::consumer) fn claim(&self, epoch: Epoch) -> Result<Claim, CloseReason> {
        let mut state = self.desks.state.lock();
        let (lane, _) = state.lane(self.lane).ok_or_else(|| self.gone())?;
        Ok(match lane.epoch {
            Some(seen) if epoch < seen => Claim::Lower(seen),
            Some(seen) if epoch == seen => Claim::Known,
            _ => Claim::Higher,
        })
    }

    /// The ruling connection, if it is proven and of this epoch: another connection can replace it only if it is not
    /// alive.
    pub(in crate::consumer) fn rival(&self, epoch: Epoch) -> Option<(LinkId, Arc<Outbox>)> {
        let state = self.desks.state.lock();
        let ruler = state.lanes.get(&self.lane)?.ruler.as_ref();
        let ruler = ruler.filter(|ruler| epoch == ruler.epoch && ruler.standing == RulerStanding::Proven)?;
        Some((ruler.link, ruler.outbox.clone()))
    }

    /// A message that this connection delivered was pending: its sender knows what is in Redis.
    pub(in crate::consumer) fn prove(&self, link: LinkId) {
        self.note_standing(link, |standing| standing == RulerStanding::New, RulerStanding::Proven);
    }

    /// A message that this connection delivered was not pending, and there is no explanation.
    pub(in crate::consumer) fn doubt(&self, link: LinkId) {
        self.note_standing(link, |standing| standing == RulerStanding::Proven, RulerStanding::New);
    }

    /// This connection did not answer in time.
    pub(in crate::consumer) fn note_silence(&self, link: LinkId) {
        self.note_standing(link, |_| true, RulerStanding::Silent);
    }

    fn note_standing(&self, link: LinkId, from: impl Fn(RulerStanding) -> bool, to: RulerStanding) {
        let mut state = self.desks.state.lock();
        let ruler = state.lanes.get_mut(&self.lane).and_then(|lane| lane.ruler.as_mut());
        if let Some(ruler) = ruler.filter(|ruler| ruler.link == link && from(ruler.standing)) {
            ruler.standing = to;
        }
    }

    /// The connection that rules.
    pub(in crate::consumer) fn ruler(&self) -> Option<LinkId> {
        let state = self.desks.state.lock();
        state.lanes.get(&self.lane)?.ruler.as_ref().map(|ruler| ruler.link)
    }
}

impl Desks {
    /// Sends a replaced connection the reason and closes it, since it would only cost memory and a place.
    pub(super) fn close_replaced(&self, lane: &LaneState, replaced: &Ruler) {
        if let Err(CloseReason { code, text }) = lane.check_rule(replaced.link)
            && replaced.outbox.close(Some(&Frame::Error { code, text: &text }))
        {
            self.stats.stale.add(1);
        }
    }
}

impl LaneState {
    pub(super) fn check_lead(&self, epoch: Epoch) -> Result<(), CloseReason> {
        if self.epoch.is_some_and(|seen| epoch < seen) {
            return Err(CloseReason::new(ErrorCode::Stale, format!("epoch {epoch} is over: a later leader was here")));
        }
        Ok(())
    }

    /// Refuses an epoch whose proven leader is connected already.
    pub(super) fn check_rival(&self, epoch: Epoch) -> Result<(), CloseReason> {
        match &self.ruler {
            Some(ruler) if epoch == ruler.epoch && ruler.standing == RulerStanding::Proven => Err(outlived(epoch)),
            _ => Ok(()),
        }
    }
}

/// The refusal of a connection while another one of the same epoch rules and is alive.
pub(in crate::consumer) fn outlived(epoch: Epoch) -> CloseReason {
    let text = format!(
        "another connection of epoch {epoch} rules here and is alive (is this consumer listed under two addresses?)"
    );
    CloseReason::new(ErrorCode::Replaced, text)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::tests::{desk, lead, refusal, said};
    use super::*;
    use crate::wire::ReadyFlags;

    fn lead_again(desk: &Desk, link: LinkId, epoch: u64) -> Result<usize, CloseReason> {
        desk.lead(link, &Arc::default(), Epoch(epoch), ReadyFlags::COMMITS, Instant::now())
    }

    #[test]
    fn a_claim_is_compared_with_the_highest_epoch_seen() {
        let desk = desk(4);
        assert_eq!(desk.claim(Epoch(0)), Ok(Claim::Higher));
        lead(&desk, 1, 5);
        assert_eq!(desk.claim(Epoch(5)), Ok(Claim::Known));
        assert_eq!(desk.claim(Epoch(6)), Ok(Claim::Higher));
        assert_eq!(desk.claim(Epoch(4)), Ok(Claim::Lower(Epoch(5))));
    }

    #[test]
    fn a_replaced_connection_is_told_at_once_and_learns_no_epoch() {
        let desk = desk(4);
        let outboxes = [(1, 5), (2, 5), (3, 678)].map(|(link, epoch)| lead(&desk, link, epoch));
        let texts: Vec<_> =
            outboxes.iter().map(|outbox| String::from_utf8_lossy(&outbox.take()).into_owned()).collect();
        assert!(texts[0].contains("newer one of the same epoch 5"), "{texts:?}");
        assert!(texts[1].contains("later leader") && !texts[1].contains("678"), "{texts:?}");
        assert!(outboxes[0].is_closing() && outboxes[1].is_closing() && !outboxes[2].is_closing());
        assert_eq!(desk.stats().stale.get(), 2);
        assert_eq!(desk.ruler(), Some(3));
        let error = lead_again(&desk, 4, 7).expect_err("it is over");
        assert!(error.code == ErrorCode::Stale && !error.text.contains("678"), "{error:?}");
    }

    #[test]
    fn a_proven_ruler_is_replaced_when_it_was_silent_or_by_a_later_leader() {
        let desk = desk(4);
        lead(&desk, 1, 5);
        assert!(desk.rival(Epoch(5)).is_none(), "nothing speaks for it");
        let ruler = lead(&desk, 2, 5);
        desk.prove(1);
        assert!(desk.rival(Epoch(5)).is_none(), "it was another one that was proven");
        desk.prove(2);
        assert_eq!(desk.rival(Epoch(5)).map(|(link, _)| link), Some(2));
        assert!(desk.rival(Epoch(6)).is_none());
        assert_eq!(refusal(lead_again(&desk, 3, 5)), ErrorCode::Replaced);
        desk.note_silence(2);
        desk.prove(2);
        assert!(desk.rival(Epoch(5)).is_none(), "its old messages do not make it live");
        assert_eq!(lead_again(&desk, 3, 5), Ok(0));
        assert_eq!(said(&ruler).last().map(String::as_str), Some("ERROR"));
        // A later leader begins unproven, and so does a connection after the ruler has left.
        desk.prove(3);
        assert_eq!(lead_again(&desk, 4, 6), Ok(0));
        desk.prove(4);
        desk.leave(4);
        assert_eq!(lead_again(&desk, 5, 6), Ok(0));
    }
}
