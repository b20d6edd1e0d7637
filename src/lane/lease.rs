//! The lease on leadership: acquires, renews and releases it, and knows by the local clock when it may have expired.
//!
//! Owned by the election's thread. Redis decides which dispatcher holds the lease. This side always assumes less time
//! than Redis granted: the time counts from before the request was sent, and a margin is subtracted.

use std::time::{Duration, Instant};

use crate::base::error::Result;
use crate::base::id::{DispatcherId, Epoch};
use crate::ledger::Lease;
use crate::ledger::{Acquire, Attempt, Ledger};

/// The longest wait for a reply. The thread does nothing else meanwhile, and the request is repeated.
const TRY_TIMEOUT: Duration = Duration::from_secs(2);
/// How soon a lease is renewed again to find out whether enough replicas have what earlier leaders stored.
const CONFIRM_EVERY: Duration = Duration::from_millis(500);
/// The shortest wait for a reply: a timeout of zero would mean none.
const LEAST_TIMEOUT: Duration = Duration::from_millis(1);

/// A dispatcher's side of the lease.
pub struct LeaseKeeper {
    ledger: Ledger,
    id: DispatcherId,
    ttl: Duration,
    held: Option<HeldLease>,
}

#[derive(Clone)]
struct HeldLease {
    lease: Lease,
    /// From this time on the lease may have expired.
    expires: Instant,
    /// When to renew next.
    renew: Instant,
    /// Whether enough replicas have what was stored before the term, if they must.
    replicated: bool,
}

/// The outcome of a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// The lease is prolonged by another TTL.
    Kept,
    /// The lease is no longer this dispatcher's.
    Lost,
}

impl LeaseKeeper {
    /// No lease yet.
    pub fn new(ledger: Ledger, id: DispatcherId, ttl: Duration) -> LeaseKeeper {
        LeaseKeeper { ledger, id, ttl, held: None }
    }

    /// Tries to acquire the lease. With `may_take` false it only checks. `floor` is the highest epoch known.
    pub fn acquire(&mut self, floor: Epoch, may_take: bool) -> Result<Attempt> {
        self.ledger.connection().set_timeout(TRY_TIMEOUT);
        let asked = Instant::now();
        let attempt = self.ledger.acquire(&self.id, self.ttl, floor, may_take)?;
        if let Acquire::Acquired { lease, .. } = &attempt.answer {
            let replicated = !self.ledger.waits_for_replicas();
            let held = self.held_from(lease.clone(), asked, replicated);
            // The first renewal finds out.
            self.held = Some(HeldLease { renew: if replicated { held.renew } else { asked }, ..held });
        }
        Ok(attempt)
    }

    /// Renews the lease. Waits for the reply at most until the lease may have expired, and at most [`TRY_TIMEOUT`].
    pub fn renew(&mut self) -> Result<Renewal> {
        let Some(held) = self.held.clone() else { return Ok(Renewal::Lost) };
        let asked = Instant::now();
        let left = held.expires.saturating_duration_since(asked).clamp(LEAST_TIMEOUT, TRY_TIMEOUT);
        self.ledger.connection().set_timeout(left);
        // Whatever the outcome, the next attempt is not made at once.
        self.held = Some(HeldLease { renew: asked + self.ttl / 10, ..held.clone() });
        let (kept, replicated) = if held.replicated {
            (self.ledger.renew(&held.lease, self.ttl)?, true)
        } else {
            self.ledger.renew_and_confirm(&held.lease, self.ttl)?
        };
        if kept {
            self.held = Some(self.held_from(held.lease, asked, replicated));
            Ok(Renewal::Kept)
        } else {
            self.held = None;
            Ok(Renewal::Lost)
        }
    }

    /// The ids of the other dispatchers that are subscribed now.
    pub fn other_dispatchers(&mut self) -> Result<Vec<String>> {
        self.ledger.other_dispatchers(&self.id)
    }

    /// Releases a lease that names this dispatcher although it does not lead: the reply to acquiring or releasing it
    /// was lost.
    pub fn release_stray(&mut self, stray: &Lease) -> Result<bool> {
        self.ledger.release(stray)
    }

    /// Releases the lease, if it is still this dispatcher's.
    pub fn release(&mut self) -> Result<bool> {
        let Some(held) = self.held.take() else { return Ok(false) };
        self.ledger.connection().set_timeout(self.ttl.min(TRY_TIMEOUT));
        self.ledger.release(&held.lease)
    }

    /// Whether enough replicas have what earlier leaders stored, as far as the last renewal found out. `true` if none
    /// must confirm anything.
    pub fn is_replicated(&self) -> bool {
        self.held.as_ref().is_some_and(|held| held.replicated)
    }

    /// How long until the next renewal is due.
    pub fn renew_in(&self) -> Duration {
        self.held.as_ref().map_or(Duration::ZERO, |held| held.renew.saturating_duration_since(Instant::now()))
    }

    /// The time by the local clock from which on the lease may have expired.
    pub fn expires(&self) -> Instant {
        self.held.as_ref().map_or_else(Instant::now, |held| held.expires)
    }

    fn held_from(&self, lease: Lease, asked: Instant, replicated: bool) -> HeldLease {
        // The margin covers clocks that run at different speeds, and the time until workers notice the kill switch.
        let margin = self.ttl / 10;
        let renew_in = if replicated { self.ttl / 3 } else { CONFIRM_EVERY.min(self.ttl / 3) };
        HeldLease { lease, expires: asked + self.ttl - margin, renew: asked + renew_in, replicated }
    }
}
