//! The lease on leadership: taking it, keeping it, giving it back, and knowing by our own clock when it may be gone.
//!
//! Owned by the election's thread. Redis decides who holds the lease; this side only ever assumes less than Redis
//! granted: the time counts from before the request was sent, and a margin is taken off at the end.

use std::time::{Duration, Instant};

use crate::base::error::Result;
use crate::base::id::{DispatcherId, Epoch};
use crate::ledger::Lease;
use crate::ledger::{Acquire, Attempt, Ledger};

/// The longest wait for a reply: what is asked is asked again, and meanwhile nothing else is heard.
const TRY_TIMEOUT: Duration = Duration::from_secs(2);
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
    /// From here on the lease may be gone.
    expires: Instant,
    /// When to renew next.
    renew: Instant,
}

/// What became of a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// The lease is ours for another TTL.
    Kept,
    /// Redis says that it is not ours.
    Lost,
}

impl LeaseKeeper {
    /// No lease yet.
    pub fn new(ledger: Ledger, id: DispatcherId, ttl: Duration) -> LeaseKeeper {
        LeaseKeeper { ledger, id, ttl, held: None }
    }

    /// Tries to take it; with `may_take` false it only checks. `floor` is the highest epoch heard of.
    pub fn acquire(&mut self, floor: Epoch, may_take: bool) -> Result<Attempt> {
        self.ledger.connection().set_timeout(TRY_TIMEOUT);
        let asked = Instant::now();
        let attempt = self.ledger.acquire(&self.id, self.ttl, floor, may_take)?;
        if let Acquire::Acquired { lease, .. } = &attempt.answer {
            self.held = Some(self.held_from(lease.clone(), asked));
        }
        Ok(attempt)
    }

    /// Renews it; waits for the answer no longer than the lease is surely ours, and not for long.
    pub fn renew(&mut self) -> Result<Renewal> {
        let Some(held) = self.held.clone() else { return Ok(Renewal::Lost) };
        let asked = Instant::now();
        let left = held.expires.saturating_duration_since(asked).clamp(LEAST_TIMEOUT, TRY_TIMEOUT);
        self.ledger.connection().set_timeout(left);
        // Whatever comes of it, the next attempt is not at once.
        self.held = Some(HeldLease { renew: asked + self.ttl / 10, ..held.clone() });
        if self.ledger.renew(&held.lease, self.ttl)? {
            self.held = Some(self.held_from(held.lease, asked));
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

    /// Gives a lease back that is in our name although we do not lead: the answer to taking it or to giving it back
    /// got lost.
    pub fn release_stray(&mut self, stray: &Lease) -> Result<bool> {
        self.ledger.release(stray)
    }

    /// Gives it back, if it is still ours.
    pub fn release(&mut self) -> Result<bool> {
        let Some(held) = self.held.take() else { return Ok(false) };
        self.ledger.connection().set_timeout(self.ttl.min(TRY_TIMEOUT));
        self.ledger.release(&held.lease)
    }

    /// How long until the next renewal is due.
    pub fn renew_in(&self) -> Duration {
        self.held.as_ref().map_or(Duration::ZERO, |held| held.renew.saturating_duration_since(Instant::now()))
    }

    /// From when on by our own clock the lease may be gone.
    pub fn expires(&self) -> Instant {
        self.held.as_ref().map_or_else(Instant::now, |held| held.expires)
    }

    fn held_from(&self, lease: Lease, asked: Instant) -> HeldLease {
        // The margin is for clocks that run at different speeds and for the time the kill switch needs to be heard.
        let margin = self.ttl / 10;
        HeldLease { lease, expires: asked + self.ttl - margin, renew: asked + self.ttl / 3 }
    }
}
