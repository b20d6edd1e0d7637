//! What a worker of a term does when Redis fails it: wait a little and try again, until the term ends. Where Redis denies
//! this dispatcher what it asks, the term ends at once.

use std::sync::Arc;

use super::Shared;
use super::health::TURN_WITHIN;
use super::stats::add;
use crate::backoff::Backoff;
use crate::error::{Error, Result};
use crate::log::Quoted;
use crate::pulse::Pulse;
use crate::shutdown::{KillSwitch, Reason};

/// The term is over; why is in the kill switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Killed;

/// A worker's patience.
pub(super) struct Retry {
    shared: Arc<Shared>,
    kill: KillSwitch,
    worker: &'static str,
    /// The worker's.
    pulse: Arc<Pulse>,
    backoff: Backoff,
}

impl Retry {
    pub(super) fn new(shared: &Arc<Shared>, kill: KillSwitch, worker: &'static str, pulse: &Arc<Pulse>) -> Retry {
        Retry { shared: shared.clone(), kill, worker, pulse: pulse.clone(), backoff: Backoff::for_redis() }
    }

    /// Repeats `attempt` until it succeeds or the term ends. Only for what does no harm when it happens twice: an
    /// attempt that failed may have been carried out.
    pub(super) fn until_done<T>(&mut self, mut attempt: impl FnMut() -> Result<T>) -> Result<T, Killed> {
        loop {
            self.pulse.beat(TURN_WITHIN);
            match attempt() {
                Ok(value) => {
                    if self.backoff.reset() {
                        log::info!("event=redis-recovered worker={}", self.worker);
                    }
                    return Ok(value);
                }
                Err(error) => self.bear(error)?,
            }
        }
    }

    fn bear(&mut self, error: Error) -> Result<(), Killed> {
        if let Error::Fenced { .. } = error {
            add(&self.shared.stats.fenced, 1);
            log::warn!("event=fenced worker={} error={}", self.worker, Quoted(&error));
            self.kill.set(Reason::Fenced);
            return Err(Killed);
        }
        if error.is_denied() {
            // The lease is renewed on a connection that may be older than the change of rights: others may be let in.
            log::error!("event=denied worker={} error={}", self.worker, Quoted(&error));
            self.kill.set(Reason::WorkerFailed);
            return Err(Killed);
        }
        if self.backoff.should_say() {
            log::warn!("event=redis-trouble worker={} error={}", self.worker, Quoted(&error));
        }
        if self.kill.wait(self.backoff.next_wait()) { Err(Killed) } else { Ok(()) }
    }
}
