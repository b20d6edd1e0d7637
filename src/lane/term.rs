//! A term of leadership: its workers, the channels between them, and the order in which they start and stop. Ingest
//! always runs, courier and redistributor only if there are consumers.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};

use super::courier::{Courier, CourierChannels};
use super::dialers::DialRequests;
use super::elected::Elected;
use super::ingest::Ingest;
use super::intake::ToCourier;
use super::pulses::TermWorker;
use super::redistributor::Redistributor;
use super::shared::Shared;
use super::sockets::{Sockets, Waker};
use crate::base::error::{Error, Result};
use crate::lane::kill_switch::{KillSwitch, Reason};
use crate::ledger::{Destination, Ledger};

/// The longest wait of a worker for a reply of Redis. Its requests may be repeated.
const REPLY_LIMIT: Duration = Duration::from_secs(2);
/// Batches between ingest and courier; each has at most `MAX_BATCH_MESSAGES` messages and about `MAX_BATCH_BYTES`.
const ARRIVAL_BATCHES: usize = 8;
/// Tasks for the redistributor that wait in its channel; more wait in the courier.
const TASKS: usize = 64;
/// Replies of the redistributor that wait for the courier.
const REPLIES: usize = 64;

/// A running term. Ends by [`stop`](Term::stop), after the kill switch has been set.
pub(super) struct Term {
    shared: Arc<Shared>,
    /// Wakes the courier, if it runs.
    waker: Option<Waker>,
    workers: Vec<(TermWorker, JoinHandle<Result<()>>)>,
}

impl Term {
    /// Starts the workers. `ended` is notified when one of them ends by itself.
    pub(super) fn start(
        shared: &Arc<Shared>,
        elected: Elected,
        dial: &DialRequests,
        kill: KillSwitch,
        ended: Sender<()>,
    ) -> Result<Term> {
        let mut term = Term { shared: shared.clone(), waker: None, workers: Vec::with_capacity(3) };
        let started = term.start_workers(elected, dial, &kill, &ended);
        if let Err(error) = started {
            kill.set(Reason::WorkerFailed);
            // The first error is returned; here the workers are only stopped.
            let _ = term.stop();
            return Err(error);
        }
        Ok(term)
    }

    fn start_workers(
        &mut self,
        elected: Elected,
        dial: &DialRequests,
        kill: &KillSwitch,
        ended: &Sender<()>,
    ) -> Result<()> {
        let shared = &self.shared.clone();
        let to_courier = match shared.settings.destination {
            Destination::Pending => Some(self.start_delivery(&elected, dial, kill, ended)?),
            Destination::Stream { .. } => None,
        };
        let ingest = Ingest::new(shared, elected, kill.clone(), ledger_of(shared), to_courier);
        self.spawn(TermWorker::Ingest, kill, ended, move || ingest.run().or(Ok(())))
    }

    /// Starts courier and redistributor.
    fn start_delivery(
        &mut self,
        elected: &Elected,
        dial: &DialRequests,
        kill: &KillSwitch,
        ended: &Sender<()>,
    ) -> Result<ToCourier> {
        let shared = &self.shared.clone();
        let sockets = Sockets::new()?;
        let waker = sockets.waker();
        self.waker = Some(waker.clone());
        let (arrivals, arriving) = bounded(ARRIVAL_BATCHES);
        let (tasks, to_do) = bounded(TASKS);
        let (replies, answered) = bounded(REPLIES);
        // Everything that earlier leaders stored is backlog. Messages stored from now on are not.
        let &Elected { epoch, last_id: backlog_end, undelivered, ref settings, ref replicated, .. } = elected;
        let channels = CourierChannels { arrivals: arriving, replies: answered, tasks, dial: dial.clone() };
        let mut courier = Courier::new(shared, epoch, (backlog_end, undelivered), kill.clone(), sockets, channels);
        courier.keep_to(settings);
        courier.deliver_backlog_once(replicated.clone());
        let redistributor =
            Redistributor::new(shared, epoch, kill.clone(), ledger_of(shared), to_do, replies, waker.clone());
        self.spawn(TermWorker::Courier, kill, ended, move || courier.run())?;
        self.spawn(TermWorker::Redistributor, kill, ended, move || redistributor.run().or(Ok(())))?;
        Ok(ToCourier { arrivals, waker })
    }

    fn spawn(
        &mut self,
        worker: TermWorker,
        kill: &KillSwitch,
        ended: &Sender<()>,
        work: impl FnOnce() -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let guard = WorkerGuard { worker, shared: self.shared.clone(), kill: kill.clone(), ended: ended.clone() };
        let thread = self.shared.spawn(worker.name(), move || {
            let guard = guard;
            let outcome = work();
            if let Err(error) = &outcome {
                let fenced = matches!(error, Error::Fenced { .. });
                guard.kill.set(if fenced { Reason::Fenced } else { Reason::WorkerFailed });
            }
            outcome
        })?;
        self.workers.push((worker, thread));
        Ok(())
    }

    /// Joins the workers, which have all been asked to stop. Returns the first error.
    pub(super) fn stop(self) -> Result<()> {
        self.shared.ring.wake();
        if let Some(waker) = &self.waker {
            waker.wake();
        }
        let mut first = Ok(());
        for (worker, thread) in self.workers {
            let panicked = |_| Err(Error::Failed(format!("the thread {worker} panicked")));
            let outcome = thread.join().unwrap_or_else(panicked);
            if first.is_ok() {
                first = outcome;
            }
        }
        first
    }
}

fn ledger_of(shared: &Shared) -> Ledger {
    shared.ledger(shared.settings.lease_ttl.min(REPLY_LIMIT))
}

/// Ends the term when its worker ends, even after a panic.
struct WorkerGuard {
    worker: TermWorker,
    shared: Arc<Shared>,
    kill: KillSwitch,
    ended: Sender<()>,
}

impl Drop for WorkerGuard {
    fn drop(&mut self) {
        if self.kill.set(Reason::WorkerFailed) {
            log::error!("event=worker-ended worker={}", self.worker);
        }
        // The worker has ended, so its loop can't be late.
        self.shared.pulses.of(self.worker).rest();
        // A full channel already holds a notice.
        let _ = self.ended.try_send(());
    }
}
