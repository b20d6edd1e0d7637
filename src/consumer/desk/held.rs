//! The messages of one lane that a consumer holds: waiting for a handler, being processed, or not answered yet.
//!
//! Pure; a part of the desk's state, so all of it changes under the desk's lock. Messages that wait for a handler are
//! stored nowhere else, so each is either taken out by a handler thread or returned, never both.
//!
//! Limitations: a handler that never returns keeps its entry and its thread forever. Once the handler timeout has
//! passed, the message is no longer reported, listed or counted against the prefetch.

use std::collections::VecDeque;

use crate::base::id::{Epoch, IdMap, MessageId};
use crate::consumer::handler::HandlerError;
use crate::consumer::peer::LinkId;
use crate::ledger::Body;

/// A message for the pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::consumer) struct Job {
    pub(in crate::consumer) id: MessageId,
    pub(in crate::consumer) number: u16,
    /// The epoch of the leader that delivered it, and the connection.
    pub(in crate::consumer) epoch: Epoch,
    pub(in crate::consumer) link: LinkId,
    pub(in crate::consumer) run: RunNumber,
    pub(in crate::consumer) body: Body,
}

/// Distinguishes the runs of one message.
pub(in crate::consumer) type RunNumber = u64;

/// See the module's text.
#[derive(Default)]
pub(super) struct Held {
    entries: IdMap<HeldMessage>,
    bytes: usize,
    /// Messages that no handler has begun, in the order of arrival. Each is also in `entries`.
    queue: VecDeque<Job>,
    /// How many of `entries` are given up.
    given_up: usize,
    /// How many of `entries` failed while no connection ruled.
    unsent: usize,
    last_run: RunNumber,
}

struct HeldMessage {
    run: RunNumber,
    bytes: usize,
    stage: MessageStage,
}

enum MessageStage {
    /// In the queue.
    Queued,
    /// A handler runs, or its result waits to be recorded.
    Begun,
    /// The handler has run for too long: another consumer may hold the message now.
    GivenUp,
    /// The NACK waits for a ruler.
    Failed(HandlerError),
}

/// What became of a failure.
pub(super) enum FailureEffect {
    /// The run no longer counts.
    Void,
    /// A NACK has to be sent.
    Send(HandlerError),
    /// It is kept for the next ruler.
    Kept,
}

impl Held {
    /// The number of messages, including those given up.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The bytes of their payloads.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The places of the prefetch that are taken.
    pub(super) fn places(&self) -> usize {
        self.entries.len() - self.given_up
    }

    /// Whether every message is given up, or has failed and can't be answered because no connection rules. If messages
    /// are not begun, those in the queue don't count either.
    pub(super) fn is_drained(&self, begins: bool) -> bool {
        let queued = if begins { 0 } else { self.queue.len() };
        self.entries.len() == self.given_up + self.unsent + queued
    }

    /// Whether messages wait for a handler.
    pub(super) fn has_queued(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Whether a message is held and not given up.
    pub(super) fn has(&self, id: MessageId) -> bool {
        self.entries.get(&id).is_some_and(|held| !matches!(held.stage, MessageStage::GivenUp))
    }

    /// The messages to report and to list in HELD: those not given up.
    pub(super) fn ids(&self) -> Vec<MessageId> {
        self.entries
            .iter()
            .filter(|(_, held)| !matches!(held.stage, MessageStage::GivenUp))
            .map(|(id, _)| *id)
            .collect()
    }

    /// The current run of a message.
    pub(super) fn run_of(&self, id: MessageId) -> Option<RunNumber> {
        self.entries.get(&id).map(|held| held.run)
    }

    /// Adds a message and queues it. An earlier run that was given up is abandoned. If the abandoned run still
    /// succeeds, its result is used; its failure is ignored.
    pub(super) fn insert(&mut self, id: MessageId, number: u16, body: Body, epoch: Epoch, link: LinkId) {
        self.remove(id);
        self.last_run += 1;
        let (run, bytes) = (self.last_run, body.bytes());
        self.entries.insert(id, HeldMessage { run, bytes, stage: MessageStage::Queued });
        self.bytes += bytes;
        self.queue.push_back(Job { id, number, epoch, link, run, body });
    }

    /// Removes the last `count` messages that were taken.
    pub(super) fn take_back(&mut self, count: usize) {
        for _ in 0..count {
            let Some(job) = self.queue.pop_back() else { return };
            self.forget(job.id);
        }
    }

    /// The next message for a handler thread.
    pub(super) fn begin(&mut self) -> Option<Job> {
        let job = self.queue.pop_front()?;
        if let Some(held) = self.entries.get_mut(&job.id) {
            held.stage = MessageStage::Begun;
        }
        Some(job)
    }

    /// A handler has returned without having begun the message: it is the next one again. If another run of it has
    /// begun or has ended meanwhile, there is nothing to do.
    pub(super) fn put_back(&mut self, job: Job) {
        let Some(held) = self.entries.get_mut(&job.id).filter(|held| held.run == job.run) else { return };
        match std::mem::replace(&mut held.stage, MessageStage::Queued) {
            MessageStage::GivenUp => self.given_up -= 1,
            MessageStage::Failed(_) => self.unsent -= 1,
            MessageStage::Queued | MessageStage::Begun => {}
        }
        self.queue.push_front(job);
    }

    /// The handler of this run has run for too long.
    pub(super) fn give_up(&mut self, id: MessageId, run: RunNumber) {
        if let Some(held) = self.entries.get_mut(&id).filter(|held| held.run == run) {
            held.stage = MessageStage::GivenUp;
            self.given_up += 1;
        }
    }

    /// Takes out the messages that no handler has begun.
    pub(super) fn take_queued(&mut self) -> Vec<MessageId> {
        let queued: Vec<_> = std::mem::take(&mut self.queue).into_iter().map(|job| job.id).collect();
        queued.iter().for_each(|id| {
            self.forget(*id);
        });
        queued
    }

    /// A run has failed. If the NACK can be sent now, the message is removed.
    pub(super) fn fail(&mut self, id: MessageId, run: RunNumber, error: HandlerError, can_send: bool) -> FailureEffect {
        let Some(held) = self.entries.get_mut(&id).filter(|held| held.run == run) else { return FailureEffect::Void };
        if can_send {
            self.forget(id);
            return FailureEffect::Send(error);
        }
        match std::mem::replace(&mut held.stage, MessageStage::Failed(error)) {
            MessageStage::GivenUp => self.given_up -= 1,
            MessageStage::Failed(_) => self.unsent -= 1,
            MessageStage::Queued | MessageStage::Begun => {}
        }
        self.unsent += 1;
        FailureEffect::Kept
    }

    /// Takes out the messages that failed while no connection ruled.
    pub(super) fn take_failed(&mut self) -> Vec<(MessageId, HandlerError)> {
        let mut failed = Vec::with_capacity(self.unsent);
        for (id, held) in self.entries.extract_if(|_, held| matches!(held.stage, MessageStage::Failed(_))) {
            self.bytes -= held.bytes;
            if let MessageStage::Failed(error) = held.stage {
                failed.push((id, error));
            }
        }
        self.unsent = 0;
        failed
    }

    /// Removes a message; `false` if it is not held.
    pub(super) fn remove(&mut self, id: MessageId) -> bool {
        if matches!(self.entries.get(&id), Some(HeldMessage { stage: MessageStage::Queued, .. })) {
            // Rare: an earlier run, which was given up, has succeeded.
            self.queue.retain(|job| job.id != id);
        }
        self.forget(id)
    }

    fn forget(&mut self, id: MessageId) -> bool {
        let Some(held) = self.entries.remove(&id) else { return false };
        self.bytes -= held.bytes;
        match held.stage {
            MessageStage::GivenUp => self.given_up -= 1,
            MessageStage::Failed(_) => self.unsent -= 1,
            MessageStage::Queued | MessageStage::Begun => {}
        }
        true
    }
}
