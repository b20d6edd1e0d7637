//! What a worker of a term does when a Redis command fails: it waits a little and tries again, until the term ends.

use std::sync::Arc;

use super::pulses::{ITERATION_WITHIN, TermWorker};
use super::shared::Shared;
use super::stats::add;
use crate::base::backoff::Backoff;
use crate::base::error::{Error, Result};
use crate::base::pulse::{OPEN_WITHIN, Pulse};
use crate::base::text::Quoted;
use crate::lane::kill_switch::{KillSwitch, Reason};
use crate::ledger::{Ledger, Split, Splitter};

/// The term has ended; the kill switch has the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Killed;

/// The outcome of sending a batch.
pub(super) enum Carried<T> {
    Done(T),
    /// It must be tried in two halves.
    Halve,
    /// It is a single message and too large, for this reason.
    TooLarge(String),
}

/// Repeats a worker's Redis commands.
pub(super) struct Retry {
    shared: Arc<Shared>,
    kill: KillSwitch,
    worker: TermWorker,
    /// Whether the last attempt succeeded. If not, the next may have to open a connection first.
    connected: bool,
    /// Whether the term ends when Redis denies this dispatcher a right.
    ends_when_denied: bool,
    backoff: Backoff,
}

impl Retry {
    pub(super) fn new(shared: &Arc<Shared>, kill: KillSwitch, worker: TermWorker) -> Retry {
        Retry {
            shared: shared.clone(),
            kill,
            worker,
            connected: false,
            ends_when_denied: false,
            backoff: Backoff::for_redis(),
        }
    }

    /// For a worker that a leader can't do without: if Redis denies this dispatcher a right, the term ends.
    pub(super) fn ending_when_denied(self) -> Retry {
        Retry { ends_when_denied: true, ..self }
    }

    /// Repeats `attempt` until it succeeds or the term ends. Only for operations that may happen twice, because an
    /// attempt that failed may have been executed.
    pub(super) fn until_done<T>(&mut self, mut attempt: impl FnMut() -> Result<T>) -> Result<T, Killed> {
        loop {
            self.pulse().beat(if self.connected { ITERATION_WITHIN } else { OPEN_WITHIN });
            match attempt() {
                Ok(value) => {
                    self.note_success();
                    return Ok(value);
                }
                Err(error) => self.bear(error)?,
            }
        }
    }

    /// Like [`until_done`](Retry::until_done), for a batch that may be too large for Redis or a proxy.
    pub(super) fn carry<T>(
        &mut self,
        ledger: &mut Ledger,
        splitter: &mut Splitter,
        messages: usize,
        mut attempt: impl FnMut(&mut Ledger) -> Result<T>,
    ) -> Result<Carried<T>, Killed> {
        splitter.begin(messages);
        loop {
            self.pulse().beat(if self.connected { ITERATION_WITHIN } else { OPEN_WITHIN });
            let error = match attempt(ledger) {
                Ok(value) => {
                    self.note_success();
                    return Ok(Carried::Done(value));
                }
                Err(error) => error,
            };
            self.pulse().beat(OPEN_WITHIN);
            match splitter.judge(&error, messages, || ledger.is_answered()) {
                Split::Halve => return Ok(Carried::Halve),
                Split::TooLarge => return Ok(Carried::TooLarge(error.to_string())),
                Split::Retry => {}
            }
            self.bear(error)?;
        }
    }

    fn pulse(&self) -> &Pulse {
        self.shared.pulses.of(self.worker)
    }

    fn note_success(&mut self) {
        self.connected = true;
        if self.worker == TermWorker::Ingest {
            *self.shared.stats.unstored.lock() = None;
        }
        if self.backoff.reset() {
            log::info!("event=redis-recovered worker={}", self.worker);
        }
    }

    fn bear(&mut self, error: Error) -> Result<(), Killed> {
        if let Error::Fenced { .. } = error {
            add(&self.shared.stats.fenced, 1);
            log::warn!("event=fenced worker={} error={}", self.worker, Quoted(&error));
            self.kill.set(Reason::Fenced);
            return Err(Killed);
        }
        self.connected = false;
        if self.worker == TermWorker::Ingest {
            *self.shared.stats.unstored.lock() = Some(error.to_string());
        }
        if self.ends_when_denied && error.is_denied() {
            // The lease is renewed on a connection that may be older than the change of rights. Another dispatcher may
            // still have the right.
            log::error!("event=denied worker={} error={}", self.worker, Quoted(&error));
            self.kill.set(Reason::WorkerFailed);
            return Err(Killed);
        }
        if error.is_unsent() {
            self.shared.troubles.report(self.worker.name(), "redis-trouble", &error, &mut self.backoff);
        } else if self.backoff.should_log() {
            log::warn!("event=redis-trouble worker={} error={}", self.worker, Quoted(&error));
        }
        if self.kill.wait(self.backoff.next_wait()) { Err(Killed) } else { Ok(()) }
    }
}
