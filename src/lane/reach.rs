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

/// The shortest time after which a missing marker counts as lost; see [`Hearing`](crate::lane::hearing::Hearing).
const LEAST_UNHEARD: Duration = Duration::from_secs(2);
/// The most foreign values remembered as logged.
const MAX_LOGGED: usize = 64;

/// See the module's text.
pub(super) struct Reach {
    shared: Arc<Shared>,
    counted: Counted,
    /// Foreign values that were logged.
    logged: HashSet<(String, String)>,
}

/// Whether Redis counts this dispatcher's subscription.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Counted {
    Yes,
    /// The subscription with this number was not counted, and is replaced: the next connection may lead to the right
    /// server.
    Retried(u64),
    /// The new subscription is not counted either. Leases of this dispatcher end only by expiring.
    No,
}

impl Reach {
    pub(super) fn new(shared: &Arc<Shared>) -> Reach {
        Reach { shared: shared.clone(), counted: Counted::Yes, logged: HashSet::new() }
    }

    /// Whether this dispatcher, the leader of `epoch`, no longer receives its own markers.
    pub(super) fn leader_misses_its_markers(&self, epoch: Epoch) -> bool {
        self.shared.listener.hearing.leader_misses_its_markers(epoch, self.unheard_limit())
    }

    /// Logs once each value of a key that no dispatcher can have written.
    pub(super) fn note_foreign(&mut self, attempt: &Attempt) {
        if self.logged.len() > MAX_LOGGED {
            self.logged.clear();
        }
        for (key, value) in &attempt.foreign {
            if self.logged.insert((key.clone(), value.clone())) {
                log::warn!(
                    "event=foreign-value key={} holds={} note=\"no dispatcher has written this; it is ignored, and \
                     replaced where a leader writes that key; find out who did, or choose another --group\"",
                    Quoted(key),
                    Quoted(value)
                );
            }
        }
    }

    /// Handles whether Redis counts this dispatcher's own subscription. If it does not, subscription and commands reach
    /// different servers, or a proxy forwards messages, and the counts of other dispatchers mean nothing.
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
                 replaced only when its lease has expired\""
            ),
        }
    }

    /// Replaces the subscription of a standby that sees the cursor move and receives no leader's marker: it subscribes
    /// to another server than the leader's.
    pub(super) fn hear_leader(&mut self, cursor: Option<&Cursor>, subscription: u64) {
        let cursor = cursor.map(Cursor::to_string).unwrap_or_default();
        if self.shared.listener.hearing.standby_misses_markers(cursor, self.unheard_limit()) {
            self.renew_subscription(subscription, "the cursor moves, and no leader's marker arrives");
        }
    }

    /// Makes the listener replace that subscription.
    pub(super) fn renew_subscription(&self, subscription: u64, reason: &str) {
        log::warn!("event=not-receiving reason={} note=\"the subscription is replaced\"", Quoted(reason));
        self.shared.listener.hearing.start_over();
        self.shared.listener.renew_subscription(subscription);
    }

    /// How long a leader's marker may be missing before it counts as lost.
    fn unheard_limit(&self) -> Duration {
        self.shared.settings.lease_ttl.max(LEAST_UNHEARD)
    }
}
