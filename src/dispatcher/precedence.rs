//! Who goes first when the lease is free. Pure.
//!
//! Nothing is lost whoever goes first: a leader takes in only what follows the cursor, and only the *eldest* goes on over
//! a break in what it has heard. The eldest is the one whose present subscription stands longest, so whatever any other
//! has heard since then it has heard, too. (Whoever is not may go on over a break once the elders have had a TTL to lead, since they
//! may hang.) Precedence only keeps leadership from moving to and fro: who can do more goes first.

use std::time::Duration;

use crate::ring::{Resolution, Standing};

/// A few attempts' time: enough for those who can do more, and are connected.
const STEP: Duration = Duration::from_millis(150);
/// What others need to come back after a restart of Redis: more than the longest wait between two attempts.
const RETURN: Duration = Duration::from_secs(1);

/// What a dispatcher knows about the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Others {
    /// Whether there are any.
    pub(super) any: bool,
    /// Whether all of them are younger.
    pub(super) younger: bool,
}

/// How long it lets others go first, from when the lease is free.
pub(super) fn wait(resolution: Resolution, others: Others, lease_ttl: Duration) -> Duration {
    match (resolution.standing, others.younger) {
        (Standing::InSync, _) | (Standing::Continues, true) => Duration::ZERO,
        (Standing::Continues, false) => STEP,
        // The beginning of a group; a group that lost everything may have others that remember.
        (Standing::Fresh, true) => {
            if others.any {
                2 * STEP
            } else {
                Duration::ZERO
            }
        }
        (Standing::Beyond, true) => RETURN,
        (Standing::Fresh | Standing::Beyond, false) => longest_wait(lease_ttl),
    }
}

/// After this time everybody may lead: elders that have not led by then hang.
pub(super) fn longest_wait(lease_ttl: Duration) -> Duration {
    RETURN + lease_ttl
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Epoch;
    use crate::ledger::Marker;
    use crate::ledger::subscription::Seen;
    use crate::ring::Ring;

    #[test]
    fn who_can_do_more_goes_first() {
        let ring = Ring::new(1 << 20);
        ring.begin_segment();
        ring.append([Seen::Marker(Marker::of_leader(Epoch(1), 0))]);
        let found = ring.resolve(None).expect("it has a beginning");
        let ttl = Duration::from_secs(2);
        let wait = |standing, younger, any| wait(Resolution { standing, ..found }, Others { any, younger }, ttl);
        let order = [
            wait(Standing::Continues, true, true),
            wait(Standing::Continues, false, true),
            wait(Standing::Fresh, true, true),
            wait(Standing::Beyond, true, true),
            wait(Standing::Beyond, false, true),
        ];
        assert!(order.is_sorted_by(|first, second| first < second), "{order:?}");
        assert_eq!(wait(Standing::InSync, false, true), Duration::ZERO);
        assert_eq!(wait(Standing::Fresh, true, false), Duration::ZERO, "a group begins at once");
        assert!(order.iter().all(|wait| *wait <= longest_wait(ttl)));
    }
}
