//! The main loop of the dispatcher's process, on the main thread.

use std::sync::Arc;

use crossbeam_channel::{Receiver, never, select};

use super::balance::Balance;
use super::cluster_watch::ClusterWatch;
use super::hosted::Host;
use super::lanes::Lanes;
use super::plan::Plan;
use super::settings::DispatcherConfig;
use super::{exposition, health, shadow};
use crate::base::error::{Error, Result};
use crate::base::id::DispatcherId;
use crate::base::shutdown::{ShutdownRequests, shutdown_channel};
use crate::base::text::Quoted;
use crate::lane::{self, Following};
use crate::ledger::{Destination, Interests, LaneNumber};
use crate::net::LinkSecret;
use crate::process::metrics::{MetricsPlace, MetricsSocket};
use crate::process::supervision::{CHECK_WITHIN, Supervisor};
use crate::programs::common::link_secret;

/// Runs the dispatcher, or the shadow, until it is asked to stop. Returns the exit code.
pub fn run(config: DispatcherConfig) -> Result<u8> {
    config.common.scheduling.apply();
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
    let host = Arc::new(Host::new(id, open.unwrap_or_default()));
    let balance = Balance::new(config.hand_over_every);
    Process::start(&host, lane_settings(config, link_secret), balance, metrics)?.run(&requests).map(|()| 0)
}

/// A process that runs the lanes of a group.
pub(super) struct Process {
    host: Arc<Host>,
    lanes: Lanes,
    first: Option<Plan>,
    metrics: Option<MetricsPlace>,
    watch: Option<ClusterWatch>,
    balance: Balance,
}

impl Process {
    /// Prepares the lanes of the group whose lane 0 has these settings. In a Redis Cluster it may have others, too.
    pub(super) fn start(
        host: &Arc<Host>,
        settings: lane::Settings,
        balance: Balance,
        metrics: Option<MetricsPlace>,
    ) -> Result<Process> {
        let several = settings.redis.is_cluster() && settings.interests.are_of_nodes();
        if settings.redis.is_cluster() {
            warn_of_patterns(&settings.interests);
        }
        let watch = several.then(|| ClusterWatch::start(&settings, host)).transpose()?;
        let first = (!several).then(|| Plan::from([(0, (*settings.interests).clone())]));
        let make = move |number, these: &Interests| settings_of(&settings, number, these, several);
        let lanes = Lanes::new(host, Box::new(make));
        Ok(Process { host: host.clone(), lanes, first, metrics, watch, balance })
    }

    /// Runs until asked to stop.
    pub(super) fn run(self, requests: &ShutdownRequests) -> Result<()> {
        let Process { host, lanes, first, metrics, watch, balance } = self;
        let plans = watch.as_ref().map_or_else(never, ClusterWatch::plans);
        run_lanes(&host, lanes, first, &plans, balance, metrics.as_ref(), requests)
    }
}

/// A pattern such as `*` is listened to by lane 0 alone, which hears of keyspace events only those of its node.
fn warn_of_patterns(interests: &Interests) {
    for pattern in interests.patterns_with_key_events() {
        log::warn!(
            "event=events-of-one-node pattern={} note=\"in a Redis Cluster this pattern hears the keyspace events of \
             one node, and messages by PUBLISH of all; for the events of all nodes name them by --keyevent, or by a \
             pattern that begins with __key\"",
            Quoted(String::from_utf8_lossy(pattern))
        );
    }
}

/// Runs until asked to stop. Does not end because Redis can't be reached. Follows the `first` plan, if there is one,
/// and later ones.
pub(super) fn run_lanes(
    host: &Arc<Host>,
    mut lanes: Lanes,
    first: Option<Plan>,
    plans: &Receiver<Plan>,
    mut balance: Balance,
    metrics: Option<&MetricsPlace>,
    requests: &ShutdownRequests,
) -> Result<()> {
    let socket = metrics.map(MetricsSocket::bind).transpose()?;
    first.map_or(Ok(()), |plan| lanes.follow(plan))?;
    // Served from here on, so that the first answer has the figures of the lanes.
    let metrics = socket.map(|socket| exposition::serve(socket, host)).transpose()?;
    let ends = lanes.ends();
    let mut supervisor = Supervisor::from_environment();
    let (mut stopping, mut outcome) = (false, Ok(()));
    // The main loop runs until all lanes have ended. If a lane ends by itself, which is a failure, the others are
    // stopped.
    while !(stopping && lanes.is_empty()) {
        select! {
            recv(ends) -> lane => {
                let ended = lane.map_or(Ok(true), |lane| lanes.join(lane));
                stopping |= !matches!(ended, Ok(true));
                outcome = outcome.and(ended.map(drop));
            }
            recv(plans) -> plan => match plan {
                Ok(plan) if !stopping => lanes.follow(plan)?,
                Ok(_) => {}
                Err(_) => {
                    stopping = true;
                    outcome = outcome.and(Err(Error::Failed("the thread cluster ended, which is a bug".to_owned())));
                }
            },
            recv(lanes.again()) -> _ => lanes.reconcile()?,
            recv(requests.receiver()) -> _ => stopping = true,
            recv(supervisor.ticks()) -> _ => {
                if let Some(lane) = balance.next(host) {
                    lanes.hand_over(lane);
                }
                let condition = health::condition(host);
                // Before systemd is notified: if the process is paused from here on, the next tick finds this pulse
                // late.
                host.main.beat(CHECK_WITHIN);
                supervisor.report(&condition);
            }
        }
        if stopping {
            lanes.stop();
        }
    }
    supervisor.stopping();
    drop(metrics);
    outcome
}

/// The settings of lane 0, from which those of the others are made.
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
        bundles: config.bundles,
        ring_bytes: config.ring_bytes,
        ready_bytes: config.ready_bytes,
    }
}

/// The settings of a lane that listens to `interests`. `None` if the group has no such lane.
fn settings_of(
    base: &lane::Settings,
    number: LaneNumber,
    interests: &Interests,
    several: bool,
) -> Option<lane::Settings> {
    let keys = base.keys.lane(number)?;
    let mut interests = interests.clone();
    let mut destination = base.destination.clone();
    if let (Destination::Stream { key, .. }, Some(stream)) = (&mut destination, &keys.stream) {
        interests = interests.beside_stream(stream);
        key.clone_from(stream);
    }
    let name = several.then(|| number.to_string());
    Some(lane::Settings { name, keys, interests: Arc::new(interests), destination, ..base.clone() })
}
