//! A consumer's figures as metrics, and whether it can do its job.

use std::sync::Arc;

use crate::base::error::Result;
use crate::consumer::ConsumerStats;
use crate::process::metrics::{Metrics, MetricsServer, Site};

/// Serves `/metrics`, `/healthz` and `/readyz`. Ready is a consumer that can run handlers and record results;
/// `/readyz` gives the reason if it is not.
pub(super) fn serve(address: &str, stats: &Arc<ConsumerStats>) -> Result<MetricsServer> {
    let mut metrics = Metrics::new();
    let read = |pick: fn(&ConsumerStats) -> u64| {
        let stats = stats.clone();
        move || pick(&stats)
    };
    metrics.counter("messages_received", "Messages accepted from dispatchers", read(ConsumerStats::received));
    metrics.counter("results_recorded", "Results recorded", read(ConsumerStats::recorded));
    metrics.counter("results_dropped", "Results somebody else had recorded", read(ConsumerStats::dropped));
    metrics.counter(
        "first_deliveries_not_pending",
        "First deliveries that were not pending any more",
        read(ConsumerStats::not_pending),
    );
    metrics.counter("results_scripted", "Results recorded by script", read(ConsumerStats::scripted));
    metrics.counter("commit_breaches", "Transactions that removed something else", read(ConsumerStats::breaches));
    metrics.counter("messages_retried", "Messages that failed and go out again", read(ConsumerStats::retried));
    metrics.counter("messages_rejected", "Messages the handler rejected", read(ConsumerStats::rejected));
    metrics.counter(
        "messages_handed_back",
        "Messages handed back, not begun, by a consumer that could not work",
        read(ConsumerStats::handed_back),
    );
    metrics.counter("handler_panics", "Handlers that panicked", read(ConsumerStats::panicked));
    metrics.counter("handler_timeouts", "Handlers that ran too long", read(ConsumerStats::timed_out));
    metrics.counter("bad_frames", "Frames from dispatchers that were none", read(ConsumerStats::bad_frames));
    metrics.counter("strangers", "Connections that ended before a LEAD", read(ConsumerStats::strangers));
    metrics.counter("stale_refused", "Connections refused for their old epoch", read(ConsumerStats::stale));
    metrics.counter(
        "leads_unconfirmed",
        "Dispatchers whose epoch Redis did not confirm",
        read(ConsumerStats::unconfirmed),
    );
    metrics.counter("redis_errors", "Commits that Redis did not take", read(ConsumerStats::redis_errors));
    metrics.gauge("held", "Messages in hand", read(ConsumerStats::held));
    metrics.gauge("ruling_epoch", "The epoch of the dispatcher that rules", read(ConsumerStats::ruling_epoch));
    metrics.gauge("redis_connected", "1 if Redis answered last", read(|stats| stats.redis_is_up().into()));
    metrics.gauge(
        "unable",
        "1 if it accepts no messages because it could not work",
        read(|stats| stats.is_unable().into()),
    );
    metrics.counter("redis_reconnects", "Connections to Redis made anew", read(ConsumerStats::redis_reconnects));
    let durations = stats.clone();
    metrics.histogram("handler_duration_seconds", "How long handlers ran", move || durations.handler_duration());
    let stats = stats.clone();
    MetricsServer::start(address, Site::new(metrics, move || stats.ready()))
}
