//! What is examined: a server, as one user sees it, for one group.

use std::time::Duration;

use crate::ledger::interests::Interests;
use crate::ledger::keys::Keys;
use crate::ledger::server::Server;

/// How long to wait for a reply.
const REPLY_TIME: Duration = Duration::from_secs(5);
/// After this time nothing is left of a trial that ended midway. No step may take longer.
const TRIAL_TIME: Duration = Duration::from_secs(10);

/// The server and the group for which programs are to work.
pub struct Patient<'a> {
    /// The server, with the user that the programs would have.
    pub server: Server,
    /// The group's keys.
    pub keys: Keys,
    /// What the group listens to.
    pub interests: &'a Interests,
    trial_time: Duration,
}

impl<'a> Patient<'a> {
    /// The server for a group.
    pub fn new(server: Server, keys: Keys, interests: &'a Interests) -> Patient<'a> {
        Patient { server: server.for_key(&keys.leader), keys, interests, trial_time: TRIAL_TIME }
    }

    /// The same, with keys of trials that expire after this time.
    pub fn with_trials_of(self, trial_time: Duration) -> Patient<'a> {
        Patient { trial_time, ..self }
    }

    /// How long the keys of a trial last if nobody removes them.
    pub(super) fn trial_time(&self) -> Duration {
        self.trial_time
    }

    /// The user's name.
    pub fn user(&self) -> String {
        self.server.user().to_owned()
    }

    /// How long to wait for a reply.
    pub(super) fn reply_time(&self) -> Duration {
        REPLY_TIME
    }
}
