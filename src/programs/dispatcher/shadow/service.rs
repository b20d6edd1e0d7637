//! The main loop of a shadow's process, on the main thread.

use std::sync::Arc;

use crossbeam_channel::select;

use super::health::{self, Watched};
use super::{exposition, reporter};
use crate::base::error::Result;
use crate::base::id::DispatcherId;
use crate::base::log_context::LogContext;
use crate::base::pulse::Pulse;
use crate::base::shutdown::shutdown_channel;
use crate::base::text::Quoted;
use crate::lane::shadow::{Shadow, ShadowSettings, ShadowShared};
use crate::process::supervision::{CHECK_WITHIN, Supervisor};
use crate::programs::dispatcher::settings::DispatcherConfig;

/// Runs the shadow until it is asked to stop. Returns the exit code.
pub fn run(config: DispatcherConfig) -> Result<u8> {
    let id = DispatcherId::generate(&config.name);
    let _log = crate::process::log::init(config.common.log_level, id.as_str(), "shadow")?;
    let (handle, requests) = shutdown_channel();
    handle.on_signals_with_certificates(config.common.has_renewed_files())?;
    let settings =
        ShadowSettings { redis: config.common.redis, keys: config.common.keys, interests: Arc::new(config.interests) };
    log_start(&settings);
    let shared = ShadowShared::new(settings, id, LogContext::of_process());
    let watched = Arc::new(Watched { shadow: shared.clone(), main: Pulse::default() });
    let metrics = config.common.metrics.map(|place| exposition::serve(&place, &watched)).transpose()?;
    let shadow = Shadow::start(&shared)?;
    let reporter = reporter::start(&watched)?;
    let mut supervisor = Supervisor::from_environment();
    // The main loop runs until asked to stop.
    loop {
        select! {
            recv(shadow.ended()) -> _ => break,
            recv(requests.receiver()) -> _ => break,
            recv(supervisor.ticks()) -> _ => {
                let condition = health::condition(&watched);
                // Before systemd is notified: if the process is paused from here on, the next tick finds this pulse
                // late.
                watched.main.beat(CHECK_WITHIN);
                supervisor.report(&condition);
            }
        }
    }
    supervisor.stopping();
    drop(reporter);
    let outcome = shadow.stop();
    drop(metrics);
    let figures = shared.figures();
    let totals = figures.findings.totals;
    log::info!(
        "event=stopped messages={} compared={} stored={} difference={}",
        figures.received.messages,
        totals.heard,
        totals.stored,
        totals.difference()
    );
    outcome.map(|()| 0)
}

fn log_start(settings: &ShadowSettings) {
    log::info!(
        "event=started version={} redis={} group={} channel={} shadow=true",
        env!("CARGO_PKG_VERSION"),
        Quoted(&settings.redis.shown()),
        Quoted(&settings.keys.group),
        Quoted(settings.interests.summary())
    );
}
