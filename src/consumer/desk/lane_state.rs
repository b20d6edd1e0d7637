//! The desk's state for one lane: who rules, and which messages are held. It changes under the lock of all desks.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use super::ability::RedisSilence;
use super::held::Held;
use crate::base::id::{Epoch, MessageId};
use crate::consumer::outbox::Outbox;
use crate::consumer::outlet::Outlet;
use crate::consumer::peer::{CloseReason, LinkId};
use crate::consumer::stats::LaneStats;
use crate::wire::{ErrorCode, Frame};

/// See the module's text.
pub(super) struct LaneState {
    /// The highest epoch seen, once there was a leader.
    pub(super) epoch: Option<Epoch>,
    /// The highest id received.
    pub(super) highest: MessageId,
    pub(super) ruler: Option<Ruler>,
    /// A connection that ruled and was closed so that the dispatcher reconnects. Messages that it still delivers were
    /// sent before our DRAIN was read.
    pub(super) dismissed: Option<LinkId>,
    /// The epochs of the connections that have sent LEAD.
    pub(super) epochs: HashMap<LinkId, Epoch>,
    pub(super) held: Held,
    /// How many messages and bytes of `held` are part of the sums over all lanes.
    pub(super) counted: (usize, usize),
    /// Whether the lane's Redis stores results.
    pub(super) silence: RedisSilence,
    /// When the consumer was last found able to work for this lane again.
    pub(super) able_since: Option<Instant>,
    /// Where results go; `None` once the desks are closed.
    pub(super) outlet: Option<Arc<Outlet>>,
    /// Whether it is in the handlers' line of lanes.
    pub(super) in_line: bool,
    /// Since when it has had neither a connection nor a message.
    pub(super) idle_since: Option<Instant>,
    pub(super) stats: Arc<LaneStats>,
}

/// The connection that rules.
pub(super) struct Ruler {
    pub(super) link: LinkId,
    pub(super) epoch: Epoch,
    pub(super) outbox: Arc<Outbox>,
    /// DRAIN was sent on it: it delivers no other message.
    pub(super) sent_drain: bool,
    pub(super) standing: RulerStanding,
}

impl LaneState {
    pub(super) fn new(silence: RedisSilence, outlet: Outlet, stats: Arc<LaneStats>) -> LaneState {
        LaneState {
            epoch: None,
            highest: MessageId::default(),
            ruler: None,
            dismissed: None,
            epochs: HashMap::new(),
            held: Held::default(),
            counted: (0, 0),
            silence,
            able_since: None,
            outlet: Some(Arc::new(outlet)),
            in_line: false,
            idle_since: None,
            stats,
        }
    }

    /// The ruler, if that is this connection.
    pub(super) fn check_rule(&self, link: LinkId) -> Result<&Ruler, CloseReason> {
        match (&self.ruler, self.epoch) {
            (Some(ruler), _) if ruler.link == link => Ok(ruler),
            (_, Some(epoch)) if self.epochs.get(&link) == Some(&epoch) => {
                let text = format!("this connection was replaced by a newer one of the same epoch {epoch}");
                Err(CloseReason::new(ErrorCode::Replaced, text))
            }
            _ => Err(CloseReason::new(ErrorCode::Stale, "this connection was replaced by that of a later leader")),
        }
    }

    /// Whether it has neither a connection nor a message.
    pub(super) fn is_idle(&self) -> bool {
        self.epochs.is_empty() && self.held.len() == 0
    }
}

impl Ruler {
    pub(super) fn send_drain(&mut self) {
        if !std::mem::replace(&mut self.sent_drain, true) {
            self.outbox.put(&Frame::Drain);
        }
    }
}

/// What is known about the ruler.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum RulerStanding {
    #[default]
    New,
    /// A message that it delivered was pending.
    Proven,
    /// It did not answer a ping when a rival connected.
    Silent,
}
