//! A consumer's counters as metrics, and its readiness.

use std::sync::Arc;

use crate::base::error::Result;
use crate::consumer::{ConsumerStats, LaneStats};
use crate::process::metrics::{MetricKind, Metrics, MetricsPlace, MetricsServer, Number, Site};
use crate::programs::certificates::{CERTIFICATE_HELP, CERTIFICATE_METRIC, series_of};

/// Serves `/metrics`, `/healthz` and `/readyz`. A consumer is ready if it can run handlers and record results;
/// otherwise `/readyz` gives the reason.
pub(super) fn serve(
    place: &MetricsPlace,
    stats: &Arc<ConsumerStats>,
    certificates: impl Fn() -> Vec<(&'static str, Option<u64>)> + Send + Sync + 'static,
) -> Result<MetricsServer> {
    let mut metrics = Metrics::new();
    let read = |pick: fn(&ConsumerStats) -> u64| {
        let stats = stats.clone();
        move || pick(&stats)
    };
    metrics.counter("messages_received", "Messages accepted from dispatchers", read(ConsumerStats::received));
    metrics.counter("results_recorded", "Results recorded", read(ConsumerStats::recorded));
    metrics.counter(
        "results_dropped",
        "Results dropped because the message was already recorded",
        read(ConsumerStats::dropped),
    );
    metrics.counter(
        "first_deliveries_not_pending",
        "First deliveries that were no longer pending, without an explanation",
        read(ConsumerStats::not_pending),
    );
    metrics.counter("results_scripted", "Results recorded by script", read(ConsumerStats::scripted));
    metrics.counter(
        "commit_breaches",
        "Transactions that removed other than exactly their batch",
        read(ConsumerStats::breaches),
    );
    metrics.counter("messages_retried", "Messages that failed and are redelivered", read(ConsumerStats::retried));
    metrics.counter("messages_rejected", "Messages the handler rejected", read(ConsumerStats::rejected));
    metrics.counter(
        "messages_returned",
        "Messages returned, not begun, because the consumer could not work",
        read(ConsumerStats::returned),
    );
    metrics.counter("handler_panics", "Handlers that panicked", read(ConsumerStats::panicked));
    metrics.counter("handler_timeouts", "Handlers that ran too long", read(ConsumerStats::timed_out));
    metrics.counter("bad_frames", "Malformed or unexpected frames from dispatchers", read(ConsumerStats::bad_frames));
    metrics.counter("strangers", "Connections that ended before a LEAD", read(ConsumerStats::strangers));
    metrics.counter("stale_refused", "Connections refused for their old epoch", read(ConsumerStats::stale));
    metrics.counter(
        "dispatchers_unauthenticated",
        "Connections refused because their dispatcher did not prove the link secret",
        read(ConsumerStats::unauthenticated),
    );
    metrics.counter(
        "leads_unconfirmed",
        "Dispatchers whose epoch Redis did not confirm",
        read(ConsumerStats::unconfirmed),
    );
    metrics.counter("redis_errors", "Commits that failed in Redis", read(ConsumerStats::redis_errors));
    metrics.gauge("held", "Messages held", read(ConsumerStats::held));
    metrics.gauge("ruling_epoch", "Epoch of the active dispatcher", read(ConsumerStats::ruling_epoch));
    metrics.gauge(
        "redis_connected",
        "1 if the last request to Redis succeeded",
        read(|stats| stats.redis_is_up().into()),
    );
    metrics.gauge(
        "unable",
        "1 if the consumer accepts no messages because it can't work",
        read(|stats| stats.is_unable().into()),
    );
    metrics.counter("redis_reconnects", "Reconnections to Redis", read(ConsumerStats::redis_reconnects));
    add_lanes(&mut metrics, stats);
    metrics.series(MetricKind::Gauge, CERTIFICATE_METRIC, CERTIFICATE_HELP, move || series_of(certificates()));
    let durations = stats.clone();
    metrics.histogram("handler_duration_seconds", "How long handlers ran", move || durations.handler_duration());
    let stats = stats.clone();
    MetricsServer::start(place, Site::new(metrics, move || stats.ready()))
}

/// Adds what is known by lane. The consumer limits the number of lanes.
fn add_lanes(metrics: &mut Metrics, stats: &Arc<ConsumerStats>) {
    let mut add = |name, help, pick: fn(&LaneStats) -> u64| {
        let stats = stats.clone();
        metrics.series(MetricKind::Gauge, name, help, move || {
            let lanes = stats.lanes().into_iter();
            lanes.map(|(number, lane)| (vec![("lane", number.to_string())], Number::Whole(pick(&lane)))).collect()
        });
    };
    add("lane_held", "Messages held, by lane", LaneStats::held);
    add("lane_received", "Messages accepted since the consumer began to serve the lane, by lane", LaneStats::received);
    add("lane_recorded", "Results recorded since the consumer began to serve the lane, by lane", LaneStats::recorded);
    add("lane_ruling_epoch", "Epoch of the lane's active dispatcher, by lane", LaneStats::ruling_epoch);
    add("lane_redis_connected", "1 if the last request to the lane's Redis succeeded, by lane", |lane| {
        lane.redis_is_up().into()
    });
}
