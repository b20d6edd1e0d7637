//! The state that the parts of a shadow share, and that its process may read.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use super::comparison::{Restart, Totals};
use super::pace::Pace;
use super::tally::{Received, Tally};
use crate::base::id::DispatcherId;
use crate::base::log_context::LogContext;
use crate::base::pulse::Pulse;
use crate::base::trouble::Troubles;
use crate::lane::listener_stats::ListenerStats;
use crate::ledger::{Interests, Keys, Server};

/// The settings of a shadow.
#[derive(Clone, Debug)]
pub struct ShadowSettings {
    /// The Redis server.
    pub redis: Server,
    /// The group's keys, with the stream that the group delivers to, if it does.
    pub keys: Keys,
    /// What the group listens to.
    pub interests: Arc<Interests>,
}

/// See the module's text.
pub struct ShadowShared {
    /// The settings.
    pub settings: ShadowSettings,
    /// The id of its process.
    pub id: DispatcherId,
    /// Figures of the subscription.
    pub listener: Arc<ListenerStats>,
    /// The pulse of the sampler's loop.
    pub sampler: Pulse,
    /// What its log lines show.
    pub log: LogContext,
    /// Problems with the connections to Redis.
    pub troubles: Arc<Troubles>,
    pub(super) tally: Arc<Tally>,
    pub(super) findings: Mutex<Findings>,
}

/// What a shadow has found out at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// What it received.
    pub received: Received,
    /// Copies of messages that did not count because another interest owns the message.
    pub overlaps: u64,
    /// What the sampler has found.
    pub findings: Findings,
}

/// What the sampler has found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Findings {
    /// What it is doing.
    pub comparing: Comparing,
    /// How much is received in a second.
    pub pace: Pace,
    /// What was heard and what the group stored.
    pub totals: Totals,
    /// Whether the server counts entries that were deleted from streams, as Redis 7 does. Otherwise what was trimmed
    /// counts as not stored.
    pub is_exact: bool,
    /// How often the comparison began anew, and why the last time.
    pub restarts: (u64, Option<Restart>),
    /// Why the group's state could not be read the last time, if it could not.
    pub trouble: Option<String>,
}

/// Whether a shadow can compare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Comparing {
    /// It has not heard the marker yet that the group's cursor names.
    #[default]
    Waits,
    /// The group has stored nothing yet: there is no cursor.
    NoGroup,
    /// The group's leader has other interests.
    OtherInterests,
    /// It compares.
    Compares,
}

impl ShadowShared {
    /// The state of a shadow that has not started yet.
    pub fn new(settings: ShadowSettings, id: DispatcherId, log: LogContext) -> Arc<ShadowShared> {
        Arc::new(ShadowShared {
            settings,
            id,
            listener: Arc::default(),
            sampler: Pulse::default(),
            log,
            troubles: Arc::default(),
            tally: Arc::default(),
            findings: Mutex::default(),
        })
    }

    /// What it has found out so far.
    pub fn figures(&self) -> Figures {
        let overlaps = self.listener.overlaps.load(Ordering::Relaxed);
        Figures { received: self.tally.received(), overlaps, findings: self.findings.lock().clone() }
    }

    /// A loop that is late with its iteration, if there is one.
    pub fn late_loop(&self) -> Option<&'static str> {
        let loops = [("listener", &self.listener.pulse), ("sampler", &self.sampler)];
        loops.into_iter().find(|(_, pulse)| pulse.is_late()).map(|(name, _)| name)
    }
}

impl fmt::Debug for ShadowShared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShadowShared").field("id", &self.id).field("settings", &self.settings).finish_non_exhaustive()
    }
}
