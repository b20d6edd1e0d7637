//! The kill switch of a term: set once, with a reason, and checked by every worker.
//!
//! Any thread with a clone may set it; the first reason stays. At a time that the election postpones with each renewal
//! of the lease, the switch sets itself: the first check after that time does it. A check reads two atomics, the reason
//! and that time. The mutex and the condition are for threads that wait.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// Why a term of leadership ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Reason {
    /// The program was asked to stop.
    Shutdown = 1,
    /// Redis says that another dispatcher holds the lease.
    LeaseLost,
    /// By this dispatcher's clock the lease may have expired.
    LeaseExpired,
    /// A script was refused: a newer epoch has begun.
    Fenced,
    /// The leader's subscription dropped, so it misses messages that other dispatchers receive.
    SubscriptionLost,
    /// The cursor is not where this leader put it: Redis lost some of its data.
    CursorMoved,
    /// What follows in the ring arrived after a break, and another dispatcher has received more of it.
    NotEldest,
    /// All messages before a break are stored, and another dispatcher may hold more of them.
    BeforeBreak,
    /// The leader's own markers do not come back over its subscription, so it misses messages that others receive.
    NotReceiving,
    /// Redis no longer has what was stored: the set of pending messages has vanished.
    PendingLost,
    /// A consumer has seen a higher epoch than this leader's.
    EpochBehind,
    /// A worker failed.
    WorkerFailed,
    /// Another dispatcher leads fewer lanes.
    HandedOver,
}

impl Reason {
    const ALL: [Reason; 13] = [
        Reason::Shutdown,
        Reason::LeaseLost,
        Reason::LeaseExpired,
        Reason::Fenced,
        Reason::SubscriptionLost,
        Reason::CursorMoved,
        Reason::NotEldest,
        Reason::BeforeBreak,
        Reason::NotReceiving,
        Reason::PendingLost,
        Reason::EpochBehind,
        Reason::WorkerFailed,
        Reason::HandedOver,
    ];
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::Shutdown => "shutdown",
            Reason::LeaseLost => "lease-lost",
            Reason::LeaseExpired => "lease-expired",
            Reason::Fenced => "fenced",
            Reason::SubscriptionLost => "subscription-lost",
            Reason::CursorMoved => "cursor-moved",
            Reason::NotEldest => "not-eldest",
            Reason::BeforeBreak => "before-break",
            Reason::NotReceiving => "not-receiving",
            Reason::PendingLost => "pending-lost",
            Reason::EpochBehind => "epoch-behind",
            Reason::WorkerFailed => "worker-failed",
            Reason::HandedOver => "handed-over",
        })
    }
}

/// See the module's text. Clones are the same switch.
#[derive(Clone, Debug)]
pub struct KillSwitch(Arc<Switch>);

#[derive(Debug)]
struct Switch {
    reason: AtomicU8,
    made: Instant,
    /// When the switch sets itself unless it is prolonged, in microseconds after `made`.
    expires_us: AtomicU64,
    // For threads that wait in `wait`, for example until the next attempt.
    lock: Mutex<()>,
    set: Condvar,
}

impl KillSwitch {
    /// A switch that sets itself at `expires`, with [`Reason::LeaseExpired`], unless it is prolonged. So a worker that
    /// was paused finds it set even before the election has checked.
    pub fn until(expires: Instant) -> KillSwitch {
        let switch = KillSwitch(Arc::new(Switch {
            reason: AtomicU8::new(0),
            made: Instant::now(),
            expires_us: AtomicU64::new(0),
            lock: Mutex::new(()),
            set: Condvar::new(),
        }));
        switch.prolong(expires);
        switch
    }

    /// Postpones the time at which the switch sets itself.
    pub fn prolong(&self, expires: Instant) {
        let after = expires.saturating_duration_since(self.0.made);
        self.0.expires_us.store(after.as_micros() as u64, Ordering::Release);
    }

    /// Sets the switch; the first reason stays. Returns whether this call was the first.
    pub fn set(&self, reason: Reason) -> bool {
        let first = self.0.reason.compare_exchange(0, reason as u8, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if first {
            // A thread that checked before the store and is about to wait holds the lock until it waits.
            drop(self.0.lock.lock());
            self.0.set.notify_all();
        }
        first
    }

    /// Why the term ends; `None` if it does not.
    pub fn reason(&self) -> Option<Reason> {
        self.is_set();
        let set = self.0.reason.load(Ordering::Acquire);
        Reason::ALL.into_iter().find(|reason| *reason as u8 == set)
    }

    /// Whether the term ends.
    pub fn is_set(&self) -> bool {
        if self.0.reason.load(Ordering::Acquire) != 0 {
            return true;
        }
        let expired = self.0.made.elapsed().as_micros() as u64 >= self.0.expires_us.load(Ordering::Acquire);
        if expired {
            self.set(Reason::LeaseExpired);
        }
        expired
    }

    /// Waits until the switch is set, at most for `limit`. Returns whether it is.
    pub fn wait(&self, limit: Duration) -> bool {
        if !self.is_set() {
            // Only the atomic is read under the lock, because `set` takes the lock.
            let mut guard = self.0.lock.lock();
            if self.0.reason.load(Ordering::Acquire) == 0 {
                self.0.set.wait_for(&mut guard, limit);
            }
        }
        self.is_set()
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::bounded;

    use super::*;

    #[test]
    fn the_first_reason_stays() {
        let kill = KillSwitch::until(Instant::now() + Duration::from_secs(3600));
        assert_eq!(kill.reason(), None);
        assert!(kill.clone().set(Reason::Fenced));
        assert!(!kill.set(Reason::Shutdown));
        assert_eq!(kill.reason(), Some(Reason::Fenced));
    }

    #[test]
    fn it_sets_itself_when_its_time_is_over() {
        let kill = KillSwitch::until(Instant::now());
        assert_eq!(kill.reason(), Some(Reason::LeaseExpired));
        let kill = KillSwitch::until(Instant::now() + Duration::from_secs(3600));
        assert!(!kill.is_set());
        kill.prolong(Instant::now());
        assert!(kill.clone().is_set());
    }

    #[test]
    fn a_waiting_thread_notices_that_its_time_is_over() {
        let kill = KillSwitch::until(Instant::now() + Duration::from_millis(5));
        let (done, is_done) = bounded(1);
        // On a thread of its own, so that a wait that never ends fails the test.
        std::thread::spawn(move || done.send(kill.wait(Duration::from_millis(50))));
        assert_eq!(is_done.recv_timeout(Duration::from_secs(20)), Ok(true));
    }

    #[test]
    fn a_wait_ends_when_the_switch_is_set() {
        let kill = KillSwitch::until(Instant::now() + Duration::from_secs(3600));
        let waiter = std::thread::spawn({
            let kill = kill.clone();
            move || kill.wait(Duration::from_secs(3600))
        });
        kill.set(Reason::Shutdown);
        assert!(waiter.join().expect("it ends"));
    }

    #[test]
    fn every_reason_reads_back() {
        for reason in Reason::ALL {
            let kill = KillSwitch::until(Instant::now() + Duration::from_secs(3600));
            kill.set(reason);
            assert_eq!(kill.reason(), Some(reason));
        }
    }
}
