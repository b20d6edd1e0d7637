//! Signs of life of a lane's threads.

use std::fmt;
use std::time::Duration;

use crate::base::pulse::Pulse;

/// How long an iteration of a worker takes at most, with an open connection: it may wait for a reply.
pub(super) const ITERATION_WITHIN: Duration = Duration::from_secs(8);
/// The same for the election, which asks Redis several times.
pub(super) const ELECTION_ITERATION_WITHIN: Duration = Duration::from_secs(15);
/// A leader that had messages to store for this long, and could not, does not do its job.
pub(super) const STEP_WITHIN: Duration = Duration::from_secs(3);

/// The workers of a term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TermWorker {
    Ingest,
    Courier,
    Redistributor,
}

impl TermWorker {
    pub(super) fn name(self) -> &'static str {
        match self {
            TermWorker::Ingest => "ingest",
            TermWorker::Courier => "courier",
            TermWorker::Redistributor => "redistributor",
        }
    }
}

impl fmt::Display for TermWorker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One for each loop; the listener's is with its figures.
#[derive(Debug, Default)]
pub struct Pulses {
    /// The election's loop.
    pub election: Pulse,
    /// The courier's loop.
    pub courier: Pulse,
    /// The redistributor's loop.
    pub redistributor: Pulse,
    /// Ingest's loop.
    pub ingest: Pulse,
    /// Ingest has stored what it had to, or had nothing to store.
    pub intake: Pulse,
}

impl Pulses {
    /// The pulse of a worker of a term.
    pub(super) fn of(&self, worker: TermWorker) -> &Pulse {
        match worker {
            TermWorker::Ingest => &self.ingest,
            TermWorker::Courier => &self.courier,
            TermWorker::Redistributor => &self.redistributor,
        }
    }
}
