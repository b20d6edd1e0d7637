//! Whether a dispatcher does its job: progress, not mere life.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Shared;
use crate::base::pulse::Pulse;
use crate::process::supervision::Condition;

/// How long a turn of a worker takes at most, with an open connection: it may wait for a reply.
pub(super) const TURN_WITHIN: Duration = Duration::from_secs(8);
/// The same for the election, which asks Redis several times.
pub(super) const ELECTION_TURN_WITHIN: Duration = Duration::from_secs(15);
/// A leader that had something to take in for this long, and could not, does not do its job.
pub(super) const STEP_WITHIN: Duration = Duration::from_secs(3);

/// Signs of life of a dispatcher's threads; the listener's is with its figures.
#[derive(Debug, Default)]
pub struct Pulses {
    /// The main thread looks at the others.
    pub main: Pulse,
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
    /// That of a worker of a term, by its name.
    pub(super) fn of(&self, worker: &str) -> &Pulse {
        match worker {
            "courier" => &self.courier,
            "redistributor" => &self.redistributor,
            "ingest" => &self.ingest,
            _ => unreachable!("a term has three workers"),
        }
    }
}

/// Ready is a dispatcher that leads and takes in, or whose ring holds everything after the cursor, so that it could.
/// The error says what is missing.
pub(super) fn ready(shared: &Shared) -> Result<(), String> {
    if let Some(name) = hung(shared) {
        return Err(format!("its loop {name} hangs"));
    }
    let is_set = |gauge: &AtomicU64| gauge.load(Ordering::Relaxed) == 1;
    if is_set(&shared.stats.leading) {
        return match shared.pulses.intake.is_late() {
            false => Ok(()),
            true => {
                Err("it leads, but has not managed to take anything in yet, or for some seconds; see its log"
                    .to_owned())
            }
        };
    }
    if is_set(&shared.stats.in_sync) {
        Ok(())
    } else if !shared.ring.stats().live {
        let redis = shared.config.common.redis.shown();
        Err(format!("not subscribed: Redis at {redis} does not answer, or lets nobody subscribe (--redis-url)"))
    } else if !is_set(&shared.stats.redis_connected) {
        Err("nobody leads, and this one may not yet, or Redis does not let it; see its log".to_owned())
    } else {
        Err("not in sync with the leader yet".to_owned())
    }
}

/// A loop that has not turned in its time.
fn hung(shared: &Shared) -> Option<&'static str> {
    let pulses = &shared.pulses;
    if pulses.main.is_late() {
        // The whole process stood still: the others have not had their turn yet.
        return None;
    }
    let loops = [
        ("listener", &shared.listener.pulse),
        ("election", &pulses.election),
        ("courier", &pulses.courier),
        ("redistributor", &pulses.redistributor),
        ("ingest", &pulses.ingest),
    ];
    loops.into_iter().find(|(_, pulse)| pulse.is_late()).map(|(name, _)| name)
}

/// How the dispatcher is, for whoever watches over it.
pub(super) fn condition(shared: &Shared) -> Condition {
    let leads = shared.stats.leading.load(Ordering::Relaxed) == 1;
    Condition {
        ready: ready(shared),
        hung: hung(shared),
        // What it hears is of use, even if others keep it from being in sync.
        waits: shared.ring.stats().live,
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
