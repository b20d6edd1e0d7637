//! What is examined: a server, as one user sees it, for one group.

use std::time::Duration;

use crate::ledger::interests::Interests;
use crate::ledger::keys::Keys;
use crate::ledger::server::Server;
use crate::net::Address;

/// How long to wait for a reply.
const REPLY_TIME: Duration = Duration::from_secs(5);
/// After this time nothing is left of a trial that ended midway. No step may take longer.
const TRIAL_TIME: Duration = Duration::from_secs(10);

/// What else a program needs, by the URL and by settings.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setup {
    /// The URL is one of a Redis Cluster.
    pub(super) in_cluster: bool,
    /// The URL is one of Sentinels.
    pub(super) by_sentinels: bool,
    /// Dispatchers wait for replicas.
    pub(super) waits: bool,
    /// The group listens to sharded channels.
    pub(super) is_sharded: bool,
    /// The group may have several lanes.
    pub(super) has_lanes: bool,
}

/// The server and the group for which programs are to work.
pub struct Patient<'a> {
    /// The server, with the user that the programs would have.
    pub server: Server,
    /// The group's keys.
    pub keys: Keys,
    /// What the group listens to.
    pub interests: &'a Interests,
    /// How many replicas the dispatchers wait for.
    pub wait_replicas: u32,
    trial_time: Duration,
    is_cluster: bool,
    by_sentinels: bool,
}

impl<'a> Patient<'a> {
    /// The server for a group.
    pub fn new(server: Server, keys: Keys, interests: &'a Interests) -> Patient<'a> {
        let (is_cluster, by_sentinels) = (server.is_cluster(), server.must_be_primary());
        let server = server.for_key(&keys.leader);
        Patient { server, keys, interests, wait_replicas: 0, trial_time: TRIAL_TIME, is_cluster, by_sentinels }
    }

    /// The same for dispatchers that wait for so many replicas.
    pub fn waiting_for(self, wait_replicas: u32) -> Patient<'a> {
        Patient { wait_replicas, ..self }
    }

    /// The same, as it would be if this server took the place of the present one.
    pub(super) fn at(&self, address: &Address) -> Patient<'a> {
        Patient { server: self.server.at(address.clone()), keys: self.keys.clone(), ..*self }
    }

    /// What programs need because of the URL and of settings.
    pub(super) fn setup(&self) -> Setup {
        let is_sharded = self.interests.is_sharded();
        Setup {
            in_cluster: self.is_cluster,
            by_sentinels: self.by_sentinels,
            waits: self.wait_replicas > 0,
            is_sharded,
            has_lanes: self.is_cluster && (is_sharded || self.interests.of_key_events().is_some()),
        }
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
