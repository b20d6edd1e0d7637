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

/// How long those who can do more are waited for: a few attempts' time.
const STEP: Duration = Duration::from_millis(150);
/// How long others are waited for to come back after a restart of Redis: a few times the longest wait between two
/// attempts, and more where the TTL says that there is time.
const LEAST_RETURN: Duration = Duration::from_millis(400);
const MOST_RETURN: Duration = Duration::from_secs(2);

/// What a dispatcher may store that takes a free lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// What follows the cursor without a break.
    Rest,
    /// Also what follows a break, if it is the eldest: those who may hold more of what came before have been waited
    /// for.
    BreakIfEldest,
    /// Also what follows a break: the elders have had their time, and must hang.
    Break,
}

/// Whether a dispatcher may take a lease that has been free for so long, and with which right. `None`: others go first.
pub fn right(standing: Standing, eldest: bool, vacant_for: Duration, lease_ttl: Duration) -> Option<Right> {
    if vacant_for < wait(standing, eldest, lease_ttl) {
        return None;
    }
    Some(match standing {
        Standing::InSync | Standing::Continues => Right::Rest,
        Standing::Beyond | Standing::Fresh if vacant_for < longest_wait(lease_ttl) => Right::BreakIfEldest,
        Standing::Beyond | Standing::Fresh => Right::Break,
    })
}

/// How long a dispatcher lets others go first, from when the lease is free.
pub fn wait(standing: Standing, eldest: bool, lease_ttl: Duration) -> Duration {
    match standing {
        Standing::InSync => Duration::ZERO,
        Standing::Continues if eldest => Duration::ZERO,
        Standing::Continues => STEP,
        // Perhaps the beginning of a group, perhaps one that Redis has lost and another dispatcher remembers.
        Standing::Fresh | Standing::Beyond if eldest => others_return(lease_ttl),
        Standing::Fresh | Standing::Beyond => longest_wait(lease_ttl),
    }
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

    #[test]
    fn who_can_do_more_goes_first() {
        for lease_ttl in [100, 2_000, 600_000].map(Duration::from_millis) {
            let wait = |standing, eldest| wait(standing, eldest, lease_ttl);
            let order = [
                wait(Standing::InSync, false),
                wait(Standing::Continues, false),
                wait(Standing::Beyond, true),
                wait(Standing::Beyond, false),
            ];
            assert!(order.is_sorted_by(|first, second| first < second), "{order:?}");
            assert_eq!(wait(Standing::Continues, true), Duration::ZERO);
            assert_eq!(wait(Standing::Fresh, true), wait(Standing::Beyond, true));
            assert!(order.iter().all(|wait| *wait <= longest_wait(lease_ttl)));
        }
    }

    #[test]
    fn only_who_has_waited_may_pass_a_break() {
        let ttl = Duration::from_secs(2);
        let right = |standing, eldest, ms| right(standing, eldest, Duration::from_millis(ms), ttl);
        assert_eq!(right(Standing::InSync, false, 0), Some(Right::Rest));
        assert_eq!(right(Standing::Continues, true, 60_000), Some(Right::Rest), "however long it took");
        assert_eq!(right(Standing::Beyond, true, 499), None);
        assert_eq!(right(Standing::Beyond, true, 500), Some(Right::BreakIfEldest));
        assert_eq!(right(Standing::Fresh, true, 500), Some(Right::BreakIfEldest));
        assert_eq!(right(Standing::Beyond, false, 2_499), None);
        assert_eq!(right(Standing::Beyond, false, 2_500), Some(Right::Break));
    }
}
