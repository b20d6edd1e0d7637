//! The consumer's desk: who may hand messages over, what is in hand, and where the answers go. One mutex.
//!
//! Every thread of the consumer comes by: the sockets' readers with LEAD and PROCESS, their writers for PROGRESS, the
//! pool for work and with failures, the committer with what is recorded. Nobody waits for IO under the lock: answers are
//! put into the ruling connection's [`Outbox`].
//!
//! Guarantees, each because it happens under the one lock:
//! - Only one connection *rules*: that of the highest epoch seen, and of those the latest, unless an earlier one is proven
//!   and lives (see `rivals`). Whatever any other hands over is refused.
//! - HELD lists all that was accepted from earlier rulers and has not been answered; each of these is answered to the
//!   new ruler or to a later one.
//! - A message in hand is not run a second time, unless its earlier run was given up.
//! - A message is handed back only if no handler has begun on it, and no handler begins on it after that.
//!
//! Here is who rules; `work` is the way of a message through the consumer, `hand` what is in hand, `ability` tells whether the
//! consumer can work, and `absence` what it does while it can't.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::{Condvar, Mutex};

mod ability;
mod absence;
mod hand;
mod rivals;
mod work;

use self::ability::Ability;
use self::hand::Hand;
pub(super) use self::hand::Job;
use self::rivals::Standing;
pub(super) use self::rivals::{Claim, outlived};
use super::outbox::Outbox;
use super::stats::ConsumerStats;
use crate::base::id::{Epoch, MessageId};
use crate::wire::{ErrorCode, Frame, ReadyFlags, WireError};

/// One connection, numbered in the order of their arrival.
pub(super) type LinkId = u64;

/// Why a connection is closed, as the ERROR frame says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: ErrorCode,
    pub(super) text: String,
}

impl Refusal {
    pub(super) fn new(code: ErrorCode, text: impl Into<String>) -> Refusal {
        Refusal { code, text: text.into() }
    }
}

impl From<WireError> for Refusal {
    fn from(error: WireError) -> Refusal {
        Refusal::new(error.code(), error.to_string())
    }
}

/// How the consumer introduces itself, and what it keeps to.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    pub(super) group: String,
    pub(super) consumer_id: String,
    pub(super) prefetch: u32,
    /// How many handler threads there are.
    pub(super) concurrency: usize,
    pub(super) handler_timeout: Option<Duration>,
    /// How long Redis may take no results before nothing more is accepted.
    pub(super) redis_limit: Duration,
}

#[cfg(test)]
impl Terms {
    /// Of a consumer `c0` of the group `g`.
    pub(super) fn of_tests(concurrency: usize) -> Terms {
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

/// See the module's text.
pub(super) struct Desk {
    terms: Terms,
    stats: Arc<ConsumerStats>,
    state: Mutex<State>,
    /// Readers wait for it.
    room: Condvar,
    /// Handler threads wait for it.
    work: Condvar,
    drained: (Sender<()>, Receiver<()>),
}

struct State {
    /// The highest epoch seen.
    epoch: Epoch,
    /// The highest id received.
    highest: MessageId,
    ruler: Option<Ruler>,
    /// A connection that ruled and was closed so that it be made anew. What it still brings was sent before its DRAIN was
    /// read.
    dismissed: Option<LinkId>,
    /// The epochs of the connections that have said LEAD.
    epochs: HashMap<LinkId, Epoch>,
    hand: Hand,
    ability: Ability,
    /// When it was last found able again.
    able_since: Option<Instant>,
    draining: bool,
    /// Handlers begin nothing more.
    closed: bool,
}

/// The connection that rules.
struct Ruler {
    link: LinkId,
    outbox: Arc<Outbox>,
    /// It was told DRAIN: it hands nothing more over.
    told: bool,
    standing: Standing,
}

impl Desk {
    pub(super) fn new(terms: Terms, stats: Arc<ConsumerStats>) -> Desk {
        let state = State {
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

    pub(super) fn stats(&self) -> &ConsumerStats {
        &self.stats
    }

    /// LEAD with an epoch that is true: this connection rules from now on, or is refused. Gives the number of messages in
    /// hand.
    pub(super) fn lead(
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

    /// The highest id received.
    pub(super) fn highest_id(&self) -> MessageId {
        self.state.lock().highest
    }

    /// Reports to this connection, if it rules, what is being worked on. It is refused if another has replaced it.
    pub(super) fn report(&self, link: LinkId, now: Instant) -> Result<(), Refusal> {
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
    pub(super) fn leave(&self, link: LinkId) -> bool {
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
    pub(super) fn drain(&self) -> Receiver<()> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        state.draining = true;
        if let Some(ruler) = &mut state.ruler {
            ruler.tell_drain();
        }
        self.after_a_change(state);
        self.drained.1.clone()
    }

    fn after_a_change(&self, state: &mut State) {
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

impl State {
    fn check_rule(&self, link: LinkId) -> Result<(), Refusal> {
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
    fn tell_drain(&mut self) {
        if !std::mem::replace(&mut self.told, true) {
            self.outbox.put(&Frame::Drain);
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
