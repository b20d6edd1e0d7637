//! Whether a dispatcher does its job: progress, not mere life.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Shared;
use crate::pulse::Pulse;
use crate::supervision::Condition;

/// How long a turn of a worker takes at most: it may connect to Redis and wait for a reply.
pub(super) const TURN_WITHIN: Duration = Duration::from_secs(8);
/// How long a turn of the election takes at most, which asks Redis several times.
pub(super) const ELECTION_TURN_WITHIN: Duration = Duration::from_secs(15);
/// A leader that had something to take in for this long, and could not, does not do its job.
pub(super) const STEP_WITHIN: Duration = Duration::from_secs(3);

/// Signs of life of a dispatcher's threads; the listener's is with its figures.
#[derive(Debug, Default)]
pub struct Pulses {
    /// The election's loop turns.
    pub election: Pulse,
    /// The courier's loop turns.
    pub courier: Pulse,
    /// The redistributor's loop turns.
    pub redistributor: Arc<Pulse>,
    /// Ingest's loop turns.
    pub ingest: Arc<Pulse>,
    /// Ingest is through with what it had to take in, or had nothing.
    pub intake: Pulse,
}

impl Pulses {
    /// A term has ended: nothing is expected of its workers.
    pub(super) fn term_ended(&self) {
        self.courier.rest();
        self.redistributor.rest();
        self.ingest.rest();
        self.intake.rest();
    }
}

/// Ready is a dispatcher that leads and takes in, or whose ring holds everything after the cursor, so that it could.
/// The error says what is missing.
pub(super) fn ready(shared: &Shared) -> Result<(), String> {
    let is_set = |gauge: &AtomicU64| gauge.load(Ordering::Relaxed) == 1;
    if is_set(&shared.stats.leading) {
        return match shared.pulses.intake.is_late() {
            false => Ok(()),
            true => Err(format!("it leads, but has not managed to take anything in for {STEP_WITHIN:?}; see its log")),
        };
    }
    if is_set(&shared.stats.in_sync) && !shared.pulses.election.is_late() {
        Ok(())
    } else if !is_set(&shared.stats.redis_connected) {
        Err(format!("Redis at {} does not answer (--redis-url)", shared.config.common.redis.shown()))
    } else if !shared.ring.stats().live {
        Err("not subscribed".to_owned())
    } else {
        Err("not in sync with the leader yet".to_owned())
    }
}

/// How the dispatcher is, for whoever watches over it.
pub(super) fn condition(shared: &Shared) -> Condition {
    let pulses = &shared.pulses;
    let loops = [
        ("listener", &shared.listener.pulse),
        ("election", &pulses.election),
        ("courier", &pulses.courier),
        ("redistributor", &pulses.redistributor),
        ("ingest", &pulses.ingest),
    ];
    let leads = shared.stats.leading.load(Ordering::Relaxed) == 1;
    Condition {
        ready: ready(shared),
        hung: loops.into_iter().find(|(_, pulse)| pulse.is_late()).map(|(name, _)| name),
        doing: match leads {
            true => format!(
                "leads with epoch {}, {} consumers",
                shared.stats.epoch.load(Ordering::Relaxed),
                shared.stats.linked.lock().len()
            ),
            false => "standby, in sync".to_owned(),
        },
    }
}
