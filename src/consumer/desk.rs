//! The consumer's desk: who may hand messages over, what is in hand, and where the answers go. One mutex.
//!
//! Every thread of the consumer comes by: the sockets' readers with LEAD and PROCESS, their writers for PROGRESS, the
//! pool with failures, the committer with what is recorded. Nobody waits for IO under the lock: answers are put into
//! the ruling connection's [`Outbox`].
//!
//! Guarantees, each because it happens under the one lock:
//! - Only one connection *rules*: that of the highest epoch seen, and of those the latest, unless an earlier one is proven
//!   and lives (see `rivals`). Whatever any other hands over is refused.
//! - HELD lists all that was accepted from earlier rulers and has not been answered; each of these is answered to the
//!   new ruler or to a later one.
//! - A message in hand is not run a second time, unless its earlier run was given up.
//!
//! Weak at: a handler that never returns keeps its entry (and its thread) for ever. It is no longer reported, listed or
//! counted once the handler timeout has passed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::{Condvar, Mutex};

mod rivals;

use self::rivals::Standing;
pub(super) use self::rivals::{Claim, outlived};
use super::handler::HandlerError;
use super::outbox::Outbox;
use super::stats::ConsumerStats;
use crate::id::{Epoch, IdMap, MessageId};
use crate::ledger::Payload;
use crate::wire::{ErrorCode, Frame, ReadyFlags, WireError};

/// The most payload bytes in hand before the ruler's socket is no longer read. Prefetch limits only their number.
pub(super) const MAX_HELD_BYTES: usize = 64 << 20;

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

/// A message for the pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) id: MessageId,
    pub(super) number: u16,
    /// Whose leader handed it over.
    pub(super) epoch: Epoch,
    pub(super) run: Run,
    pub(super) payload: Payload,
}

/// Tells the runs of one message apart.
pub(super) type Run = u64;

/// How the consumer introduces itself, and what it keeps to.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    pub(super) group: String,
    pub(super) consumer_id: String,
    pub(super) prefetch: u32,
    pub(super) handler_timeout: Option<Duration>,
}

/// See the module's text.
pub(super) struct Desk {
    terms: Terms,
    stats: Arc<ConsumerStats>,
    state: Mutex<State>,
    room: Condvar,
    drained: (Sender<()>, Receiver<()>),
}

#[derive(Default)]
struct State {
    /// The highest epoch seen.
    epoch: Epoch,
    /// The highest id received.
    highest: MessageId,
    ruler: Option<(LinkId, Arc<Outbox>)>,
    /// What is known of the ruler.
    standing: Standing,
    /// The epochs of the connections that have said LEAD.
    epochs: HashMap<LinkId, Epoch>,
    held: IdMap<Held>,
    held_bytes: usize,
    /// How many of `held` are given up.
    given_up: usize,
    /// How many of `held` failed when nobody ruled.
    unsent: usize,
    last_run: Run,
    draining: bool,
}

struct Held {
    run: Run,
    bytes: usize,
    stage: Stage,
}

enum Stage {
    Queued,
    Running(Instant),
    /// The handler has run for too long: somebody else may have the message now.
    GivenUp,
    /// The NACK waits for a ruler.
    Failed(HandlerError),
}

impl Desk {
    pub(super) fn new(terms: Terms, stats: Arc<ConsumerStats>) -> Desk {
        Desk { terms, stats, state: Mutex::default(), room: Condvar::new(), drained: bounded(1) }
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
        let mut state = self.state.lock();
        self.check_lead(&state, epoch, group)?;
        state.epochs.insert(link, epoch);
        let newer = state.ruler.as_ref().is_some_and(|(ruler, _)| epoch == state.epoch && *ruler > link);
        if newer {
            state.check_rule(link)?;
        }
        state.check_rival(epoch)?;
        state.epoch = epoch;
        let replaced = state.ruler.replace((link, outbox.clone()));
        state.standing = Standing::default();
        self.close_replaced(&state, replaced);
        self.stats.set_ruling_epoch(epoch.0);
        state.give_up_the_slow(self.terms.handler_timeout, now, &self.stats);
        outbox.put(&Frame::Ready {
            prefetch: self.terms.prefetch,
            flags: ReadyFlags::COMMITS,
            consumer: &self.terms.consumer_id,
        });
        let in_hand = state.in_hand();
        let count = in_hand.len();
        outbox.put(&Frame::Held(in_hand));
        state.send_what_failed(outbox);
        if state.draining {
            outbox.put(&Frame::Drain);
        }
        self.after_a_change(&state);
        // A reader that waited for room as the ruler must look again.
        self.room.notify_all();
        Ok(count)
    }

    /// PROCESS, some at a time: takes the messages in hand and gives those that have to run.
    pub(super) fn accept(
        &self,
        link: LinkId,
        messages: Vec<(MessageId, u16, Payload)>,
        now: Instant,
    ) -> Result<Vec<Job>, Refusal> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        state.check_rule(link)?;
        if state.draining {
            // Sent before our DRAIN was read. It goes back, unused, when the connection closes.
            return Ok(Vec::new());
        }
        let mut jobs = Vec::with_capacity(messages.len());
        let mut refusal = None;
        for (id, number, payload) in messages {
            state.highest = state.highest.max(id);
            if let Some(held) = state.held.get(&id) {
                if !matches!(held.stage, Stage::GivenUp) {
                    continue;
                }
                // The earlier run goes on, but from here on only its success counts.
                state.remove(id);
            }
            if state.reported() >= self.terms.prefetch as usize {
                state.give_up_the_slow(self.terms.handler_timeout, now, &self.stats);
            }
            if state.reported() >= self.terms.prefetch as usize {
                let text = format!("more messages than the prefetch of {}", self.terms.prefetch);
                refusal = Some(Refusal::new(ErrorCode::OverPrefetch, text));
                break;
            }
            state.last_run += 1;
            let (run, bytes, epoch) = (state.last_run, payload.len(), state.epoch);
            state.held.insert(id, Held { run, bytes, stage: Stage::Queued });
            state.held_bytes += bytes;
            jobs.push(Job { id, number, epoch, run, payload });
        }
        if let Some(refusal) = refusal {
            // All or nothing: the connection closes, and what it brought goes back with it.
            for job in &jobs {
                state.remove(job.id);
            }
            return Err(refusal);
        }
        self.stats.received.add(jobs.len());
        self.after_a_change(state);
        Ok(jobs)
    }

    /// Waits while more bytes are in hand than one process should hold, as long as the connection rules.
    pub(super) fn wait_for_room(&self, link: LinkId) {
        let mut state = self.state.lock();
        while state.held_bytes > MAX_HELD_BYTES && !state.draining && state.check_rule(link).is_ok() {
            self.room.wait(&mut state);
        }
    }

    /// A handler starts on a message; needed only where there is a handler timeout.
    pub(super) fn begin(&self, id: MessageId, run: Run, now: Instant) {
        if self.terms.handler_timeout.is_none() {
            return;
        }
        if let Some(held) = self.state.lock().held.get_mut(&id).filter(|held| held.run == run) {
            held.stage = Stage::Running(now);
        }
    }

    /// A handler failed: the NACK goes to the ruler, or waits for one.
    pub(super) fn fail(&self, id: MessageId, run: Run, error: HandlerError) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let Some(held) = state.held.get_mut(&id).filter(|held| held.run == run) else { return };
        if error.is_reject() { &self.stats.rejected } else { &self.stats.retried }.add(1);
        if let Some((_, outbox)) = &state.ruler {
            outbox.put(&error.nack(id));
            state.remove(id);
        } else {
            if let Stage::GivenUp = std::mem::replace(&mut held.stage, Stage::Failed(error)) {
                state.given_up -= 1;
            }
            state.unsent += 1;
        }
        self.after_a_change(state);
    }

    /// The result of a message can't be recorded, whichever run it came from.
    pub(super) fn refuse(&self, id: MessageId, error: HandlerError) {
        let run = self.state.lock().held.get(&id).map(|held| held.run);
        if let Some(run) = run {
            self.fail(id, run, error);
        }
    }

    /// These are recorded, by us or by somebody else before: the ACK goes to the ruler, if there is one.
    pub(super) fn ack(&self, ids: impl Iterator<Item = MessageId>) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let done: Vec<_> = ids.filter(|id| state.remove(*id)).collect();
        if let Some((_, outbox)) = &state.ruler
            && !done.is_empty()
        {
            outbox.put(&Frame::Ack(done));
        }
        self.after_a_change(state);
    }

    /// The highest id received.
    pub(super) fn highest_id(&self) -> MessageId {
        self.state.lock().highest
    }

    /// Reports to this connection, if it rules, what is being worked on. It is refused if another has replaced it.
    pub(super) fn report(&self, link: LinkId, now: Instant) -> Result<(), Refusal> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        state.give_up_the_slow(self.terms.handler_timeout, now, &self.stats);
        self.after_a_change(state);
        state.check_rule(link)?;
        let in_hand = state.in_hand();
        if let Some((_, outbox)) = state.ruler.as_ref().filter(|_| !in_hand.is_empty()) {
            outbox.put(&Frame::Progress(in_hand));
        }
        Ok(())
    }

    /// The connection is gone. Says whether it was the ruler.
    pub(super) fn leave(&self, link: LinkId) -> bool {
        let mut state = self.state.lock();
        let ruled = state.check_rule(link).is_ok();
        state.epochs.remove(&link);
        if ruled {
            state.ruler = None;
            state.standing = Standing::default();
            self.stats.set_ruling_epoch(0);
        }
        self.after_a_change(&state);
        ruled
    }

    /// Accepts nothing from now on, and tells the ruler. The receiver hears when nothing is in hand any more.
    pub(super) fn drain(&self) -> Receiver<()> {
        let mut state = self.state.lock();
        state.draining = true;
        if let Some((_, outbox)) = &state.ruler {
            outbox.put(&Frame::Drain);
        }
        self.after_a_change(&state);
        self.drained.1.clone()
    }

    fn after_a_change(&self, state: &State) {
        self.stats.set_held(state.held.len());
        self.room.notify_all();
        // NACKs that nobody is there to read must not hold up the end: the messages go out again anyhow.
        if state.draining && state.held.len() == state.unsent + state.given_up {
            // Full: it was said before.
            let _ = self.drained.0.try_send(());
        }
    }
}

impl State {
    fn check_rule(&self, link: LinkId) -> Result<(), Refusal> {
        match &self.ruler {
            Some((ruler, _)) if *ruler == link => Ok(()),
            _ if self.epochs.get(&link) == Some(&self.epoch) => {
                let text = format!("this connection was replaced by a newer one of the same epoch {}", self.epoch);
                Err(Refusal::new(ErrorCode::Replaced, text))
            }
            _ => Err(Refusal::new(ErrorCode::Stale, "this connection was replaced by that of a later leader")),
        }
    }

    /// The places of the prefetch that are taken.
    fn reported(&self) -> usize {
        self.held.len() - self.given_up
    }

    fn in_hand(&self) -> Vec<MessageId> {
        self.held.iter().filter(|(_, held)| !matches!(held.stage, Stage::GivenUp)).map(|(id, _)| *id).collect()
    }

    /// Takes a message out; `false` if it is not in hand.
    fn remove(&mut self, id: MessageId) -> bool {
        let Some(held) = self.held.remove(&id) else { return false };
        self.held_bytes -= held.bytes;
        match held.stage {
            Stage::GivenUp => self.given_up -= 1,
            Stage::Failed(_) => self.unsent -= 1,
            Stage::Queued | Stage::Running(_) => {}
        }
        true
    }

    fn give_up_the_slow(&mut self, timeout: Option<Duration>, now: Instant, stats: &ConsumerStats) {
        let Some(timeout) = timeout else { return };
        for held in self.held.values_mut() {
            if matches!(held.stage, Stage::Running(since) if now.saturating_duration_since(since) >= timeout) {
                held.stage = Stage::GivenUp;
                self.given_up += 1;
                stats.timed_out.add(1);
            }
        }
    }

    fn send_what_failed(&mut self, outbox: &Outbox) {
        for (id, held) in self.held.extract_if(|_, held| matches!(held.stage, Stage::Failed(_))) {
            self.held_bytes -= held.bytes;
            self.unsent -= 1;
            if let Stage::Failed(error) = held.stage {
                outbox.put(&error.nack(id));
            }
        }
    }
}

impl HandlerError {
    fn nack(&self, id: MessageId) -> Frame<'_> {
        Frame::Nack { id, delay_ms: self.delay_ms, reason: &self.reason }
    }
}

#[cfg(test)]
pub(super) mod tests;
