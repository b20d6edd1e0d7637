//! The health of a shadow's process, for `/readyz`, systemd and its report.

use std::sync::Arc;

use crate::base::pulse::Pulse;
use crate::lane::shadow::{Comparing, Figures, ShadowShared};
use crate::process::supervision::Condition;
use crate::programs::status::shadow::COMPARING;

/// A shadow, and the pulse of the main thread, which monitors the other threads.
pub(super) struct Watched {
    pub(super) shadow: Arc<ShadowShared>,
    pub(super) main: Pulse,
}

/// Ready if it is subscribed. The error says what is missing.
pub(super) fn ready(watched: &Watched) -> Result<(), String> {
    if let Some(name) = hung(watched) {
        return Err(format!("its loop {name} hangs"));
    }
    if watched.shadow.figures().received.is_subscribed {
        return Ok(());
    }
    let redis = watched.shadow.settings.redis.shown();
    Err(format!("not subscribed: Redis at {redis} does not answer, or refuses the subscription (--redis-url)"))
}

/// What is reported to systemd.
pub(super) fn condition(watched: &Watched) -> Condition {
    let figures = watched.shadow.figures();
    let (state, difference) = (state(&figures), figures.findings.totals.difference());
    Condition {
        ready: ready(watched),
        hung: hung(watched),
        waits: false,
        doing: format!("shadow, {state}, difference {difference}"),
    }
}

/// What it is doing, in a few words.
pub(super) fn state(figures: &Figures) -> &'static str {
    match figures.findings.comparing {
        _ if !figures.received.is_subscribed => "not subscribed",
        Comparing::Waits => "waiting for a leader's marker",
        Comparing::NoGroup => "no group has stored anything yet",
        Comparing::OtherInterests => "the group has other interests",
        Comparing::Compares => COMPARING,
    }
}

/// A loop that is late with its iteration.
fn hung(watched: &Watched) -> Option<&'static str> {
    // After a pause of the whole process the other threads have not run yet.
    if watched.main.is_late() { None } else { watched.shadow.late_loop() }
}
