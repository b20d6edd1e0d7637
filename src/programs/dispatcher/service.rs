//! The main loop of the dispatcher's process, on the main thread.

use std::sync::Arc;

use crossbeam_channel::{bounded, select};

use super::board::Board;
use super::hosted::{Host, HostedLane};
use super::report_thread::ReportThread;
use super::reporter;
use super::settings::DispatcherConfig;
use super::{exposition, health, shadow};
use crate::base::error::Result;
use crate::base::id::DispatcherId;
use crate::base::log_context::{self, LogContext};
use crate::base::pulse::Pulse;
use crate::base::shutdown::{ShutdownRequests, shutdown_channel};
use crate::base::text::Quoted;
use crate::lane::{self, Following, Lane, ProcessHandles};
use crate::ledger::Destination;
use crate::net::LinkSecret;
use crate::process::metrics::MetricsPlace;
use crate::process::supervision::{CHECK_WITHIN, Supervisor};
use crate::programs::common::link_secret;

/// Runs the dispatcher, or the shadow, until it is asked to stop. Returns the exit code.
pub fn run(config: DispatcherConfig) -> Result<u8> {
    if config.shadow {
        return shadow::run(config);
    }
    let link_secret = link_secret(config.link_secret_file.as_deref())?;
    let id = DispatcherId::generate(&config.name);
    let _log = crate::process::log::init(config.common.log_level, id.as_str(), "starting")?;
    let (handle, requests) = shutdown_channel();
    handle.on_signals_with_certificates(config.has_renewed_files())?;
    let metrics = config.common.metrics.clone();
    let open = metrics.as_ref().filter(|place| place.is_open()).map(|place| place.address.clone());
    let host = Host { open_metrics: open.unwrap_or_default(), ..host(id, vec![lane_settings(config, link_secret)]) };
    let host = Arc::new(host);
    run_lanes(&host, metrics.as_ref(), &requests).map(|()| 0)
}

/// Runs until asked to stop. Does not end because Redis can't be reached.
pub(super) fn run_lanes(host: &Arc<Host>, metrics: Option<&MetricsPlace>, requests: &ShutdownRequests) -> Result<()> {
    let metrics = metrics.map(|place| exposition::serve(place, host)).transpose()?;
    host.lanes.iter().for_each(|hosted| log_context::within(&hosted.lane.log, || log_start(&hosted.lane)));
    let (ended, ends) = bounded(host.lanes.len());
    let start = |hosted: &HostedLane| Lane::start(&hosted.lane, ended.clone());
    let lanes: Vec<Lane> = host.lanes.iter().map(start).collect::<Result<_>>()?;
    let reporters: Vec<ReportThread> =
        (0..host.lanes.len()).map(|lane| reporter::start(host, lane)).collect::<Result<_>>()?;
    let mut supervisor = Supervisor::from_environment();
    let mut running = lanes.len();
    // The main loop runs until all lanes have ended. If a lane ends by itself, which is a failure, the others are
    // stopped.
    while running > 0 {
        select! {
            recv(ends) -> _ => {
                running -= 1;
                lanes.iter().for_each(Lane::stop);
            }
            recv(requests.receiver()) -> _ => lanes.iter().for_each(Lane::stop),
            recv(supervisor.ticks()) -> _ => {
                let condition = health::condition(host);
                // Before systemd is notified: if the process is paused from here on, the next tick finds this pulse
                // late.
                host.main.beat(CHECK_WITHIN);
                supervisor.report(&condition);
            }
        }
    }
    supervisor.stopping();
    drop(reporters);
    let outcomes: Vec<Result<()>> = lanes.into_iter().map(Lane::join).collect();
    drop(metrics);
    for hosted in &host.lanes {
        hosted.lane.log.set("stopped", None);
        log_context::within(&hosted.lane.log, || log::info!("event=stopped {}", hosted.lane.stats.summary()));
    }
    outcomes.into_iter().collect()
}

/// The settings of the process's only lane.
fn lane_settings(config: DispatcherConfig, link_secret: Option<LinkSecret>) -> lane::Settings {
    lane::Settings {
        name: None,
        redis: config.common.redis,
        keys: config.common.keys,
        interests: Arc::new(config.interests),
        destination: config.destination,
        consumers: config.consumers,
        following: Following::default(),
        link_tls: config.link_tls,
        link_secret,
        lease_ttl: config.lease_ttl,
        link_timeout: config.link_timeout,
        max_deliveries: config.max_deliveries,
        retry: config.retry,
        max_in_flight: config.max_in_flight,
        max_rate: config.max_rate,
        order_key: config.order_key,
        wait_replicas: config.wait_replicas,
        ring_bytes: config.ring_bytes,
        ready_bytes: config.ready_bytes,
    }
}

/// The process and its lanes, not started. An only lane logs in the process's context.
pub(super) fn host(id: DispatcherId, lanes: Vec<lane::Settings>) -> Host {
    let lane = |settings: lane::Settings| {
        let log = match &settings.name {
            None => LogContext::of_process(),
            name => LogContext::with_lane("starting", name.clone()),
        };
        let lane = lane::Shared::new(settings, ProcessHandles { id: id.clone(), log });
        HostedLane { lane, board: Arc::new(Board::default()) }
    };
    let lanes = lanes.into_iter().map(lane).collect();
    Host { id, open_metrics: String::new(), main: Pulse::default(), lanes }
}

fn log_start(lane: &lane::Shared) {
    let settings = &lane.settings;
    log::info!(
        "event=started version={} redis={} group={} channel={} {}",
        env!("CARGO_PKG_VERSION"),
        Quoted(&settings.redis.shown()),
        Quoted(&settings.keys.group),
        Quoted(settings.interests.summary()),
        match &settings.destination {
            Destination::Pending => format!("consumers={}", settings.consumers.len()),
            Destination::Stream { key, maxlen } => format!("stream={} stream_maxlen={maxlen}", Quoted(key)),
        }
    );
    if settings.wait_replicas > 0 {
        log::info!("event=waits-for-replicas replicas={}", settings.wait_replicas);
    }
    if settings.destination != Destination::Pending {
        return;
    }
    let (retry, max_deliveries) = (settings.retry, settings.max_deliveries);
    let dead_after_s = retry.dead_after(max_deliveries).as_secs_f64();
    log::info!("event=retry-policy retry={retry} max_deliveries={max_deliveries} dead_after_s={dead_after_s}");
    if let Some(key) = &settings.order_key {
        log::info!("event=order key={}", Quoted(key.to_string()));
    }
}
