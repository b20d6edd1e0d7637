//! Whether a lane is able to work, not merely running.

use std::sync::atomic::{AtomicU64, Ordering};

use super::shared::Shared;

/// Why a lane is not ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotReady {
    /// It leads, but stores nothing.
    NoIntake,
    /// Its subscription is not established.
    NotSubscribed,
    /// Redis did not answer, or does not let it lead, and no other dispatcher leads.
    NoLeader,
    /// It does not hold everything that follows the cursor.
    NotInSync,
}

/// A lane is ready if it leads and stores messages, or if its ring holds everything after the cursor, so that it could
/// lead.
pub fn ready(lane: &Shared) -> Result<(), NotReady> {
    let is_set = |gauge: &AtomicU64| gauge.load(Ordering::Relaxed) == 1;
    if is_set(&lane.stats.leading) {
        return if lane.pulses.intake.is_late() { Err(NotReady::NoIntake) } else { Ok(()) };
    }
    if is_set(&lane.stats.in_sync) {
        Ok(())
    } else if !lane.ring.stats().live {
        Err(NotReady::NotSubscribed)
    } else if !is_set(&lane.stats.redis_connected) {
        Err(NotReady::NoLeader)
    } else {
        Err(NotReady::NotInSync)
    }
}

/// A loop of the lane that is late with its iteration, if there is one.
pub fn late_loop(lane: &Shared) -> Option<&'static str> {
    let pulses = &lane.pulses;
    let loops = [
        ("listener", &lane.listener.pulse),
        ("election", &pulses.election),
        ("courier", &pulses.courier),
        ("redistributor", &pulses.redistributor),
        ("ingest", &pulses.ingest),
    ];
    loops.into_iter().find(|(_, pulse)| pulse.is_late()).map(|(name, _)| name)
}
