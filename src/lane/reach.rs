//! Acts on `hearing`: replaces the subscription if markers don't arrive. It also reports foreign values in Redis.
//!
//! Owned by the election's thread, and judges by the results of the election's checks. What the dispatcher cannot
//! repair is logged once.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::shared::Shared;
use crate::base::id::Epoch;
use crate::base::text::Quoted;
use crate::ledger::{Attempt, Cursor};

/// How long markers may stay unheard at least: see [`Hearing`](crate::lane::hearing::Hearing).
const LEAST_UNHEARD: Duration = Duration::from_secs(2);
/// The most foreign values that are remembered to have been logged.
const MAX_SAID: usize = 64;

/// See the module's text.
pub(super) struct Reach {
    shared: Arc<Shared>,
    counted: Counted,
    /// Foreign values that were logged.
    said: HashSet<(String, String)>,
}

/// Whether a dispatcher's subscription is counted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Counted {
    Yes,
    /// Subscription number so and so was not, and is made anew: the next connection may lead to the right server.
    Retried(u64),
    /// Nor is the new one: that is how this Redis is reached, and leases end by their time alone.
    No,
}

impl Reach {
    pub(super) fn new(shared: &Arc<Shared>) -> Reach {
        Reach { shared: shared.clone(), counted: Counted::Yes, said: HashSet::new() }
    }

    /// Whether we lead this epoch and no longer hear our own markers.
    pub(super) fn is_deaf_leader(&self, epoch: Epoch) -> bool {
        self.shared.listener.hearing.is_deaf_leader(epoch, self.unheard_limit())
    }

    /// Says once what keys hold that no dispatcher can have written.
    pub(super) fn note_foreign(&mut self, attempt: &Attempt) {
        if self.said.len() > MAX_SAID {
            self.said.clear();
        }
        for (key, value) in &attempt.foreign {
            if self.said.insert((key.clone(), value.clone())) {
                log::warn!(
                    "event=foreign-value key={} holds={} note=\"no dispatcher has written this; it is ignored, and \
                     replaced where a leader writes that key; find out who did, or choose another --group\"",
                    Quoted(key),
                    Quoted(value)
                );
            }
        }
    }

    /// Where our own subscription is not counted, it is with another server than our commands, or something between
    /// forwards what is published: nothing can be learnt of other dispatchers then.
    pub(super) fn note_counted(&mut self, counted: bool, subscription: u64) {
        let before = self.counted;
        self.counted = match (counted, before) {
            (true, _) => Counted::Yes,
            (false, Counted::Yes) => Counted::Retried(subscription),
            (false, Counted::Retried(retried)) if retried == subscription => before,
            (false, _) => Counted::No,
        };
        if self.counted == before {
            return;
        }
        match self.counted {
            Counted::Yes => log::info!("event=counted-again"),
            Counted::Retried(_) => self.renew_subscription(subscription, "not-counted"),
            Counted::No => log::warn!(
                "event=not-counted setting=redis-url problem=\"PUBSUB NUMSUB does not count this dispatcher's \
                 subscription: \
                 commands and subscription reach two servers (a proxy, a cluster's node, a replica); a dead leader is \
                 replaced only when its lease has run out\""
            ),
        }
    }

    /// A standby that sees the cursor move and hears no leader's marker listens to another server than the leader.
    pub(super) fn hear_leader(&mut self, cursor: Option<&Cursor>, subscription: u64) {
        let cursor = cursor.map(Cursor::to_string).unwrap_or_default();
        if self.shared.listener.hearing.is_deaf_standby(cursor, self.unheard_limit()) {
            self.renew_subscription(subscription, "the cursor moves, and no leader's marker is heard");
        }
    }

    /// Has that subscription made anew.
    pub(super) fn renew_subscription(&self, subscription: u64, reason: &str) {
        log::warn!("event=deaf reason={} note=\"the subscription is made anew\"", Quoted(reason));
        self.shared.listener.hearing.begin_anew();
        self.shared.listener.renew_subscription(subscription);
    }

    /// How long leaders' markers may stay unheard.
    fn unheard_limit(&self) -> Duration {
        self.shared.settings.lease_ttl.max(LEAST_UNHEARD)
    }
}
