//! The state under the desk's mutex, and the settings. The rules are in the other files of this folder.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::{Condvar, Mutex};

use super::ability::Ability;
use super::held::Held;
use crate::base::id::{Epoch, MessageId};
use crate::consumer::error::SettingName;
use crate::consumer::outbox::Outbox;
use crate::consumer::peer::{CloseReason, LinkId};
use crate::consumer::stats::ConsumerStats;
use crate::wire::{ErrorCode, Frame};

/// What the consumer sends in READY, and its limits.
#[derive(Clone, Debug)]
pub(in crate::consumer) struct Terms {
    pub(in crate::consumer) group: String,
    pub(in crate::consumer) consumer_id: String,
    pub(in crate::consumer) prefetch: u32,
    /// How many handler threads there are.
    pub(in crate::consumer) concurrency: usize,
    pub(in crate::consumer) handler_timeout: Option<Duration>,
    /// How long Redis may fail to store results before no more messages are accepted.
    pub(in crate::consumer) redis_limit: Duration,
    pub(in crate::consumer) setting_name: SettingName,
}

#[cfg(test)]
impl Terms {
    /// The terms of a consumer `c0` of the group `g`.
    pub(in crate::consumer) fn of_tests(concurrency: usize) -> Terms {
        Terms {
            group: "g".to_owned(),
            consumer_id: "c0".to_owned(),
            prefetch: 1,
            concurrency,
            handler_timeout: None,
            redis_limit: Duration::from_secs(5),
            setting_name: str::to_owned,
        }
    }
}

/// See the folder's text.
pub(in crate::consumer) struct Desk {
    pub(super) terms: Terms,
    pub(super) stats: Arc<ConsumerStats>,
    pub(super) state: Mutex<DeskState>,
    /// Readers wait on this until fewer bytes are held.
    pub(super) room: Condvar,
    /// Handler threads wait on this for a message.
    pub(super) work: Condvar,
    pub(super) drained: (Sender<()>, Receiver<()>),
}

pub(super) struct DeskState {
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
    pub(super) ability: Ability,
    /// When the consumer was last found able to work again.
    pub(super) able_since: Option<Instant>,
    pub(super) draining: bool,
    /// Handlers begin no other message.
    pub(super) closed: bool,
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

impl Desk {
    pub(in crate::consumer) fn new(terms: Terms, stats: Arc<ConsumerStats>) -> Desk {
        let state = DeskState {
            epoch: None,
            highest: MessageId::default(),
            ruler: None,
            dismissed: None,
            epochs: HashMap::new(),
            held: Held::new(terms.concurrency),
            ability: Ability::new(terms.redis_limit),
            able_since: None,
            draining: false,
            closed: false,
        };
        let (room, work) = (Condvar::new(), Condvar::new());
        Desk { terms, stats, state: Mutex::new(state), room, work, drained: bounded(1) }
    }

    pub(in crate::consumer) fn stats(&self) -> &ConsumerStats {
        &self.stats
    }

    /// The highest id received.
    pub(in crate::consumer) fn highest_id(&self) -> MessageId {
        self.state.lock().highest
    }
}

impl DeskState {
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
