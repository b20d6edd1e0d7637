//! How many lanes a process leads, so that the lanes of a group spread over its dispatchers.
//!
//! Of dispatchers that could take a free lease equally well, the one that leads fewer lanes goes first: each waits a
//! little longer for each lane that it leads. The wait is short, and ends long before others take it for hung.
//! A dispatcher with too many lanes hands one over: it ends the term in order, and stays away from the lease for a
//! moment. Which lane, its process decides.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// How much longer a dispatcher waits for each lane that it leads.
const EACH: Duration = Duration::from_millis(60);
/// The longest that it waits for that reason; at most a quarter of the TTL.
const MOST: Duration = Duration::from_millis(360);

/// How long a dispatcher stays away from a lease that it handed over; at most half of the TTL.
pub(super) const HANDED_OVER_PAUSE: Duration = Duration::from_secs(1);

/// The number of lanes that a process leads. Clones count the same.
#[derive(Clone, Debug, Default)]
pub struct Leading(Arc<AtomicUsize>);

/// A lane is led while this exists.
pub(super) struct Led(Leading);

impl Leading {
    /// A term begins.
    pub(super) fn begin(&self) -> Led {
        self.0.fetch_add(1, Ordering::Relaxed);
        Led(self.clone())
    }

    /// How many lanes the process leads.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// How long a lease has been free for this process, if it has been free for `vacant`: less by the time in which
    /// those go first that lead fewer. `None` in that time.
    pub(super) fn vacant_for(&self, vacant: Duration, lease_ttl: Duration) -> Option<Duration> {
        vacant.checked_sub(self.wait(lease_ttl))
    }

    /// How much longer than others the process waits before it takes one more lease.
    fn wait(&self, lease_ttl: Duration) -> Duration {
        let lanes = self.count().try_into().unwrap_or(u32::MAX);
        EACH.saturating_mul(lanes).min(MOST).min(lease_ttl / 4)
    }
}

impl Drop for Led {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_leads_more_is_late_also_where_others_need_not_wait() {
        let (leading, ttl) = (Leading::default(), Duration::from_secs(2));
        assert_eq!(leading.vacant_for(Duration::ZERO, ttl), Some(Duration::ZERO));
        let _one = leading.begin();
        assert_eq!(leading.vacant_for(EACH / 2, ttl), None);
        assert_eq!(leading.vacant_for(3 * EACH, ttl), Some(2 * EACH));
    }

    #[test]
    fn who_leads_more_waits_longer_and_never_long() {
        let (leading, ttl) = (Leading::default(), Duration::from_secs(2));
        assert_eq!(leading.wait(ttl), Duration::ZERO);
        let one = leading.begin();
        let two = leading.clone().begin();
        assert_eq!((leading.count(), leading.wait(ttl)), (2, 2 * EACH));
        drop(one);
        assert_eq!(leading.wait(ttl), EACH);
        drop(two);
        let many: Vec<Led> = (0..100).map(|_| leading.begin()).collect();
        assert_eq!(leading.wait(ttl), MOST);
        assert_eq!(leading.wait(Duration::from_millis(400)), Duration::from_millis(100));
        drop(many);
        assert_eq!(leading.count(), 0);
    }
}
