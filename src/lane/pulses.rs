//! The pulses of a lane's threads, by which a hung loop is detected.

use std::fmt;
use std::time::Duration;

use crate::base::pulse::Pulse;

/// The longest iteration of a worker with an open connection, including the wait for a reply.
pub(super) const ITERATION_WITHIN: Duration = Duration::from_secs(8);
/// The same for the election, which makes several requests.
pub(super) const ELECTION_ITERATION_WITHIN: Duration = Duration::from_secs(15);
/// A leader that has not been able to store messages for this long is not ready.
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

/// One pulse for each loop, except the listener's, which is in `ListenerStats`.
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
    /// Beats when ingest has stored messages or had none to store.
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
