//! What the desk's mutex holds, and the settings it keeps to. The rules are in the files beside this one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::{Condvar, Mutex};

use super::ability::Ability;
use super::hand::Hand;
use crate::base::id::{Epoch, MessageId};
use crate::consumer::outbox::Outbox;
use crate::consumer::peer::{LinkId, Refusal};
use crate::consumer::stats::ConsumerStats;
use crate::wire::{ErrorCode, Frame};

/// How the consumer introduces itself, and what it keeps to.
#[derive(Clone, Debug)]
pub(in crate::consumer) struct Terms {
    pub(in crate::consumer) group: String,
    pub(in crate::consumer) consumer_id: String,
    pub(in crate::consumer) prefetch: u32,
    /// How many handler threads there are.
    pub(in crate::consumer) concurrency: usize,
    pub(in crate::consumer) handler_timeout: Option<Duration>,
    /// How long Redis may take no results before nothing more is accepted.
    pub(in crate::consumer) redis_limit: Duration,
}

#[cfg(test)]
impl Terms {
    /// Of a consumer `c0` of the group `g`.
    pub(in crate::consumer) fn of_tests(concurrency: usize) -> Terms {
        Terms {
            group: "g".to_owned(),
            consumer_id: "c0".to_owned(),
            prefetch: 1,
            concurrency,
            handler_timeout: None,
            redis_limit: Duration::from_secs(5),
        }
    }
}

/// See the folder's text.
pub(in crate::consumer) struct Desk {
    pub(super) terms: Terms,
    pub(super) stats: Arc<ConsumerStats>,
    pub(super) state: Mutex<DeskState>,
    /// Readers wait for it.
    pub(super) room: Condvar,
    /// Handler threads wait for it.
    pub(super) work: Condvar,
    pub(super) drained: (Sender<()>, Receiver<()>),
}

pub(super) struct DeskState {
    /// The highest epoch seen.
    pub(super) epoch: Epoch,
    /// The highest id received.
    pub(super) highest: MessageId,
    pub(super) ruler: Option<Ruler>,
    /// A connection that ruled and was closed so that it be made anew. What it still brings was sent before its DRAIN
    /// was read.
    pub(super) dismissed: Option<LinkId>,
    /// The epochs of the connections that have said LEAD.
    pub(super) epochs: HashMap<LinkId, Epoch>,
    pub(super) hand: Hand,
    pub(super) ability: Ability,
    /// When it was last found able again.
    pub(super) able_since: Option<Instant>,
    pub(super) draining: bool,
    /// Handlers begin nothing more.
    pub(super) closed: bool,
}

/// The connection that rules.
pub(super) struct Ruler {
    pub(super) link: LinkId,
    pub(super) outbox: Arc<Outbox>,
    /// It was told DRAIN: it hands nothing more over.
    pub(super) told: bool,
    pub(super) standing: Standing,
}

impl Desk {
    pub(in crate::consumer) fn new(terms: Terms, stats: Arc<ConsumerStats>) -> Desk {
        let state = DeskState {
            epoch: Epoch::default(),
            highest: MessageId::default(),
            ruler: None,
            dismissed: None,
            epochs: HashMap::new(),
            hand: Hand::new(terms.concurrency),
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
    pub(super) fn check_rule(&self, link: LinkId) -> Result<(), Refusal> {
        match &self.ruler {
            Some(ruler) if ruler.link == link => Ok(()),
            _ if self.epochs.get(&link) == Some(&self.epoch) => {
                let text = format!("this connection was replaced by a newer one of the same epoch {}", self.epoch);
                Err(Refusal::new(ErrorCode::Replaced, text))
            }
            _ => Err(Refusal::new(ErrorCode::Stale, "this connection was replaced by that of a later leader")),
        }
    }
}

impl Ruler {
    pub(super) fn tell_drain(&mut self) {
        if !std::mem::replace(&mut self.told, true) {
            self.outbox.put(&Frame::Drain);
        }
    }
}

/// What is known of the ruler.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Standing {
    #[default]
    New,
    /// A message that it handed over was pending.
    Proven,
    /// It did not answer when a rival came.
    Silent,
}
