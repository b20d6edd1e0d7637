//! Decides which dispatcher may lead first when the lease is free. Pure.
//!
//! A leader stores only what follows the cursor. Only the *eldest* dispatcher continues past a break in what it has
//! received. The eldest has the oldest unbroken subscription, so it has received everything that the others have
//! received since then. After one TTL another dispatcher may continue past a break, in case the eldest hangs.
//!
//! Other dispatchers may hold more of what came before a break. So a term that has stored the messages before a break
//! ends there, and a dispatcher that can continue better leads first. No dispatcher continues past a break while a
//! connected one has more.

use std::time::Duration;

use crate::lane::ring::Standing;

/// How long to wait for a dispatcher that can continue better: the time of a few attempts.
const STEP: Duration = Duration::from_millis(150);
/// How long to wait at least for other dispatchers to reconnect after a restart of Redis: a few times the longest wait
/// between two attempts. A longer TTL leaves more time.
const LEAST_RETURN: Duration = Duration::from_millis(400);
const MOST_RETURN: Duration = Duration::from_secs(2);

/// What a dispatcher that takes a free lease may store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// Only what follows the cursor without a break.
    Rest,
    /// Also what follows a break, if it is the eldest. Dispatchers that may hold more of what came before had time to
    /// lead.
    BreakIfEldest,
    /// Also what follows a break. The older dispatchers had time to lead, so they must hang.
    Break,
}

/// The right with which a dispatcher may take a lease that has been free for `vacant_for`. `None`: others go first.
pub fn right(standing: Standing, eldest: bool, vacant_for: Duration, lease_ttl: Duration) -> Option<Right> {
    if vacant_for < wait(standing, eldest, lease_ttl) {
        return None;
    }
    Some(match standing {
        Standing::InSync | Standing::Continues | Standing::Idle => Right::Rest,
        Standing::Beyond | Standing::Fresh if vacant_for < longest_wait(lease_ttl) => Right::BreakIfEldest,
        Standing::Beyond | Standing::Fresh => Right::Break,
    })
}

/// How long after the lease became free a dispatcher lets others go first.
pub fn wait(standing: Standing, eldest: bool, lease_ttl: Duration) -> Duration {
    match standing {
        Standing::InSync => Duration::ZERO,
        Standing::Continues if eldest => Duration::ZERO,
        Standing::Continues => STEP,
        Standing::Idle => 2 * STEP,
        // Either a new group, or one whose cursor Redis has lost and another dispatcher remembers.
        Standing::Fresh | Standing::Beyond if eldest => others_return(lease_ttl),
        Standing::Fresh | Standing::Beyond => longest_wait(lease_ttl),
    }
}

/// The longest that a dispatcher should stay away after a term. Others take one that stays away for longer than one
/// TTL for hung; the rest of the TTL is for jitter and for the way back.
pub fn longest_pause(lease_ttl: Duration) -> Duration {
    lease_ttl / 2
}

fn longest_wait(lease_ttl: Duration) -> Duration {
    others_return(lease_ttl) + lease_ttl
}

fn others_return(lease_ttl: Duration) -> Duration {
    (lease_ttl / 4).clamp(LEAST_RETURN, MOST_RETURN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::backoff::exponential;

    #[test]
    fn dispatchers_that_hold_more_go_first() {
        for lease_ttl in [100, 2_000, 600_000].map(Duration::from_millis) {
            let wait = |standing, eldest| wait(standing, eldest, lease_ttl);
            let order = [
                wait(Standing::InSync, false),
                wait(Standing::Continues, false),
                wait(Standing::Idle, false),
                wait(Standing::Beyond, true),
                wait(Standing::Beyond, false),
            ];
            assert!(order.is_sorted_by(|first, second| first < second), "{order:?}");
            assert_eq!(wait(Standing::Continues, true), Duration::ZERO);
            assert_eq!(wait(Standing::Idle, true), wait(Standing::Idle, false), "so a lane can be handed over");
            assert_eq!(wait(Standing::Fresh, true), wait(Standing::Beyond, true));
            assert!(order.iter().all(|wait| *wait <= longest_wait(lease_ttl)));
        }
    }

    /// Otherwise the next dispatcher continues past a break that the eldest could fill.
    #[test]
    fn a_dispatcher_that_pauses_is_back_before_others_take_it_for_hung() {
        for lease_ttl in [100, 600, 2_000, 60_000].map(Duration::from_millis) {
            let longest = Duration::from_secs(600);
            let pauses = (0..100).map(|_| exponential(longest, longest.min(longest_pause(lease_ttl)), 0));
            let back = pauses.max().expect("some") + wait(Standing::Beyond, true, lease_ttl);
            assert!(back < wait(Standing::Beyond, false, lease_ttl), "{lease_ttl:?}: {back:?}");
        }
    }

    #[test]
    fn a_break_is_passed_only_after_waiting() {
        let ttl = Duration::from_secs(2);
        let right = |standing, eldest, ms| right(standing, eldest, Duration::from_millis(ms), ttl);
        assert_eq!(right(Standing::InSync, false, 0), Some(Right::Rest));
        assert_eq!(right(Standing::Idle, false, 300), Some(Right::Rest));
        assert_eq!(right(Standing::Continues, true, 60_000), Some(Right::Rest), "however long it took");
        assert_eq!(right(Standing::Beyond, true, 499), None);
        assert_eq!(right(Standing::Beyond, true, 500), Some(Right::BreakIfEldest));
        assert_eq!(right(Standing::Fresh, true, 500), Some(Right::BreakIfEldest));
        assert_eq!(right(Standing::Beyond, false, 2_499), None);
        assert_eq!(right(Standing::Beyond, false, 2_500), Some(Right::Break));
    }
}
