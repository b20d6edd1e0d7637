//! The main loop of a shadow's process, on the main thread.
//!
//! When slots of a Redis Cluster move, the shadow starts anew with what its lane listens to from then on. Limitation:
//! what it has counted and compared so far is logged, and counting begins anew.

use std::sync::Arc;

use crossbeam_channel::select;

use super::following::{Following, LaneInterests};
use super::health::{self, Watched};
use super::{exposition, reporter};
use crate::base::error::Result;
use crate::base::id::DispatcherId;
use crate::base::log_context::LogContext;
use crate::base::pulse::Pulse;
use crate::base::shutdown::{ShutdownRequests, shutdown_channel};
use crate::base::text::Quoted;
use crate::lane::shadow::{Shadow, ShadowSettings, ShadowShared};
use crate::ledger::{Interests, LaneNumber};
use crate::process::metrics::MetricsPlace;
use crate::process::supervision::{CHECK_WITHIN, Supervisor};
use crate::programs::dispatcher::settings::DispatcherConfig;

/// Runs the shadow until it is asked to stop. Returns the exit code.
pub fn run(config: DispatcherConfig) -> Result<u8> {
    let id = DispatcherId::generate(&config.name);
    let _log = crate::process::log::init(config.common.log_level, id.as_str(), "shadow")?;
    let (handle, requests) = shutdown_channel();
    handle.on_signals_with_certificates(config.common.has_renewed_files())?;
    let (keys, lane) = (config.common.keys, config.common.lane);
    let group = keys.group.clone();
    let keys = lane.and_then(|lane| keys.lane(lane)).unwrap_or(keys);
    let redis = config.common.redis.unexamined();
    let all = ShadowSettings { redis, keys, interests: Arc::new(config.interests) };
    log_start(&all, lane);
    let of = LaneInterests { settings: all, group, lane: lane.unwrap_or(0) };
    let mut interests = of.now().unwrap_or_else(|| (*of.settings.interests).clone());
    let following = Following::start(&of, &interests)?;
    let mut supervisor = Supervisor::from_environment();
    loop {
        let settings = ShadowSettings { interests: Arc::new(interests), ..of.settings.clone() };
        let shared = ShadowShared::new(settings, id.clone(), LogContext::of_process());
        let round = Round { shared, metrics: config.common.metrics.as_ref() };
        match round.run(&requests, &following, &mut supervisor)? {
            Some(changed) => interests = changed,
            None => return Ok(0),
        }
    }
}

/// The time for which the shadow listens to the same.
struct Round<'a> {
    shared: Arc<ShadowShared>,
    metrics: Option<&'a MetricsPlace>,
}

impl Round<'_> {
    /// Returns what to listen to from then on; `None` if it was asked to stop.
    fn run(
        &self,
        requests: &ShutdownRequests,
        following: &Following,
        supervisor: &mut Supervisor,
    ) -> Result<Option<Interests>> {
        let watched = Arc::new(Watched { shadow: self.shared.clone(), main: Pulse::default() });
        let metrics = self.metrics.map(|place| exposition::serve(place, &watched)).transpose()?;
        let shadow = Shadow::start(&self.shared)?;
        let reporter = reporter::start(&watched)?;
        // The main loop.
        let changed = loop {
            select! {
                recv(shadow.ended()) -> _ => break None,
                recv(requests.receiver()) -> _ => break None,
                recv(following.changes()) -> changed => if let Ok(changed) = changed { break Some(changed) },
                recv(supervisor.ticks()) -> _ => {
                    let condition = health::condition(&watched);
                    // Before systemd is notified: if the process is paused from here on, the next tick finds this
                    // pulse late.
                    watched.main.beat(CHECK_WITHIN);
                    supervisor.report(&condition);
                }
            }
        };
        if changed.is_none() {
            supervisor.stopping();
        }
        drop(reporter);
        let outcome = shadow.stop();
        drop(metrics);
        self.log_end(changed.as_ref());
        outcome.map(|()| changed)
    }

    fn log_end(&self, changed: Option<&Interests>) {
        let figures = self.shared.figures();
        let (messages, totals) = (figures.received.messages, figures.findings.totals);
        let (compared, stored, difference) = (totals.heard, totals.stored, totals.difference());
        match changed {
            Some(interests) => log::info!(
                "event=channels-changed channel={} messages={messages} compared={compared} stored={stored} \
                 difference={difference} note=\"slots have moved to other nodes: counting begins anew\"",
                Quoted(interests.summary())
            ),
            None => log::info!(
                "event=stopped messages={messages} compared={compared} stored={stored} difference={difference}"
            ),
        }
    }
}

fn log_start(settings: &ShadowSettings, lane: Option<LaneNumber>) {
    log::info!(
        "event=started version={} redis={} group={} channel={} shadow=true",
        env!("CARGO_PKG_VERSION"),
        Quoted(&settings.redis.shown()),
        Quoted(&settings.keys.group),
        Quoted(settings.interests.summary())
    );
    if lane.is_none() && settings.redis.is_cluster() && settings.interests.are_of_nodes() {
        log::warn!(
            "event=shadow-of-one-lane group={} note=\"a group with such interests has several lanes in a Redis \
             Cluster, and a shadow follows one: for each lane N start one with --lane N and the group's channels, of \
             which it hears those of its lane\"",
            Quoted(&settings.keys.group)
        );
    }
}
