//! What a consumer has in hand: messages that wait for a handler, that one works on, or that are not answered yet.
//!
//! Pure; a part of the desk's state, so all of it changes under the desk's lock. What waits for a handler lies here and
//! nowhere else: a message is either taken out by a handler thread or handed back, never both.
//!
//! Limitations: a handler that never returns keeps its entry (and its thread) for ever. It is no longer reported,
//! listed or counted once the handler timeout has passed.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::base::id::{Epoch, IdMap, MessageId};
use crate::consumer::handler::HandlerError;
use crate::consumer::peer::LinkId;
use crate::ledger::Payload;

/// A message for the pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::consumer) struct Job {
    pub(in crate::consumer) id: MessageId,
    pub(in crate::consumer) number: u16,
    /// Whose leader handed it over, and on which connection.
    pub(in crate::consumer) epoch: Epoch,
    pub(in crate::consumer) link: LinkId,
    pub(in crate::consumer) run: Run,
    pub(in crate::consumer) payload: Payload,
}

/// Tells the runs of one message apart.
pub(in crate::consumer) type Run = u64;

/// See the module's text.
#[derive(Default)]
pub(super) struct Hand {
    held: IdMap<Held>,
    bytes: usize,
    /// What no handler has begun, in the order of its arrival. Each has its entry in `held`.
    queue: VecDeque<Job>,
    /// What each handler thread is on.
    threads: Vec<Option<Work>>,
    /// How many of `held` are given up.
    given_up: usize,
    /// How many of `held` failed when nobody ruled.
    unsent: usize,
    /// How many of `threads` are on a run that was given up.
    stuck: usize,
    last_run: Run,
}

struct Held {
    run: Run,
    bytes: usize,
    stage: Stage,
}

enum Stage {
    /// In the queue.
    Queued,
    /// A handler has it, or its result waits to be recorded.
    Begun,
    /// The handler has run for too long: somebody else may have the message now.
    GivenUp,
    /// The NACK waits for a ruler.
    Failed(HandlerError),
}

/// A handler at work.
struct Work {
    id: MessageId,
    run: Run,
    since: Instant,
    given_up: bool,
}

/// What became of a failure.
pub(super) enum Failure {
    /// The run no longer counts.
    Void,
    /// It has to be told.
    Told(HandlerError),
    /// It is kept for the next ruler.
    Kept,
}

impl Hand {
    /// Nothing in hand, and so many threads that wait for work.
    pub(super) fn new(threads: usize) -> Hand {
        Hand { threads: (0..threads).map(|_| None).collect(), ..Hand::default() }
    }

    /// All messages, those given up included.
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    /// Their bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The places of the prefetch that are taken.
    pub(super) fn places(&self) -> usize {
        self.held.len() - self.given_up
    }

    /// Whether everything in hand is given up, or has failed and finds nobody to tell.
    pub(super) fn is_drained(&self) -> bool {
        self.held.len() == self.given_up + self.unsent
    }

    /// Whether every handler thread is on a run that was given up.
    pub(super) fn is_stuck(&self) -> bool {
        !self.threads.is_empty() && self.stuck == self.threads.len()
    }

    /// Whether a message is in hand and not given up.
    pub(super) fn has(&self, id: MessageId) -> bool {
        self.held.get(&id).is_some_and(|held| !matches!(held.stage, Stage::GivenUp))
    }

    /// What to report and to list.
    pub(super) fn ids(&self) -> Vec<MessageId> {
        self.held.iter().filter(|(_, held)| !matches!(held.stage, Stage::GivenUp)).map(|(id, _)| *id).collect()
    }

    /// The present run of a message.
    pub(super) fn run_of(&self, id: MessageId) -> Option<Run> {
        self.held.get(&id).map(|held| held.run)
    }

    /// Takes a message in hand that is not, and queues it. An earlier run that was given up goes on, but from here on
    /// only its success counts.
    pub(super) fn take(&mut self, id: MessageId, number: u16, payload: Payload, epoch: Epoch, link: LinkId) {
        self.remove(id);
        self.last_run += 1;
        let (run, bytes) = (self.last_run, payload.len());
        self.held.insert(id, Held { run, bytes, stage: Stage::Queued });
        self.bytes += bytes;
        self.queue.push_back(Job { id, number, epoch, link, run, payload });
    }

    /// Forgets the last `count` that were taken.
    pub(super) fn take_back(&mut self, count: usize) {
        for _ in 0..count {
            let Some(job) = self.queue.pop_back() else { return };
            self.forget(job.id);
        }
    }

    /// The next message for a handler thread.
    pub(super) fn begin(&mut self, thread: usize, now: Instant) -> Option<Job> {
        let job = self.queue.pop_front()?;
        if let Some(held) = self.held.get_mut(&job.id) {
            held.stage = Stage::Begun;
        }
        self.threads[thread] = Some(Work { id: job.id, run: job.run, since: now, given_up: false });
        Some(job)
    }

    /// A handler has returned.
    pub(super) fn end(&mut self, thread: usize) {
        if self.threads[thread].take().is_some_and(|work| work.given_up) {
            self.stuck -= 1;
        }
    }

    /// Gives up the handlers that have run for `limit`. Gives their number.
    pub(super) fn give_up(&mut self, limit: Duration, now: Instant) -> usize {
        let before = self.stuck;
        for work in self.threads.iter_mut().flatten() {
            if work.given_up || now.saturating_duration_since(work.since) < limit {
                continue;
            }
            work.given_up = true;
            self.stuck += 1;
            if let Some(held) = self.held.get_mut(&work.id).filter(|held| held.run == work.run) {
                held.stage = Stage::GivenUp;
                self.given_up += 1;
            }
        }
        self.stuck - before
    }

    /// Takes out what no handler has begun.
    pub(super) fn take_queued(&mut self) -> Vec<MessageId> {
        let queued: Vec<_> = std::mem::take(&mut self.queue).into_iter().map(|job| job.id).collect();
        queued.iter().for_each(|id| {
            self.forget(*id);
        });
        queued
    }

    /// A run has failed. If it can be told now the message is out of hand.
    pub(super) fn fail(&mut self, id: MessageId, run: Run, error: HandlerError, can_tell: bool) -> Failure {
        let Some(held) = self.held.get_mut(&id).filter(|held| held.run == run) else { return Failure::Void };
        if can_tell {
            self.forget(id);
            return Failure::Told(error);
        }
        match std::mem::replace(&mut held.stage, Stage::Failed(error)) {
            Stage::GivenUp => self.given_up -= 1,
            Stage::Failed(_) => self.unsent -= 1,
            Stage::Queued | Stage::Begun => {}
        }
        self.unsent += 1;
        Failure::Kept
    }

    /// Takes out what failed when nobody ruled.
    pub(super) fn take_failed(&mut self) -> Vec<(MessageId, HandlerError)> {
        let mut failed = Vec::with_capacity(self.unsent);
        for (id, held) in self.held.extract_if(|_, held| matches!(held.stage, Stage::Failed(_))) {
            self.bytes -= held.bytes;
            if let Stage::Failed(error) = held.stage {
                failed.push((id, error));
            }
        }
        self.unsent = 0;
        failed
    }

    /// Takes a message out; `false` if it is not in hand.
    pub(super) fn remove(&mut self, id: MessageId) -> bool {
        if matches!(self.held.get(&id), Some(Held { stage: Stage::Queued, .. })) {
            // Rare: an earlier run, which was given up, has ended well.
            self.queue.retain(|job| job.id != id);
        }
        self.forget(id)
    }

    fn forget(&mut self, id: MessageId) -> bool {
        let Some(held) = self.held.remove(&id) else { return false };
        self.bytes -= held.bytes;
        match held.stage {
            Stage::GivenUp => self.given_up -= 1,
            Stage::Failed(_) => self.unsent -= 1,
            Stage::Queued | Stage::Begun => {}
        }
        true
    }
}
