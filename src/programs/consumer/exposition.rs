//! A consumer's figures as metrics, and whether it can do its job.

use std::sync::Arc;

use super::stats::{ConsumerStats, Counter};
use crate::base::error::Result;
use crate::process::metrics::{Metrics, MetricsServer, Site};

/// Serves `/metrics`, `/healthz` and `/readyz`. Ready is a consumer that can run handlers and record results;
/// the reason if not is told.
pub(super) fn serve(address: &str, stats: &Arc<ConsumerStats>) -> Result<MetricsServer> {
    let mut metrics = Metrics::new();
    let read = |pick: fn(&ConsumerStats) -> &Counter| {
        let stats = stats.clone();
        move || pick(&stats).get()
    };
    metrics.counter("messages_received", "Messages accepted from dispatchers", read(|stats| &stats.received));
    metrics.counter("results_recorded", "Results recorded", read(|stats| &stats.recorded));
    metrics.counter("results_dropped", "Results somebody else had recorded", read(|stats| &stats.dropped));
    metrics.counter(
        "first_deliveries_not_pending",
        "First deliveries that were not pending any more",
        read(|stats| &stats.not_pending),
    );
    metrics.counter("results_scripted", "Results recorded by script", read(|stats| &stats.scripted));
    metrics.counter("commit_breaches", "Transactions that removed something else", read(|stats| &stats.breaches));
    metrics.counter("messages_retried", "Messages that failed and go out again", read(|stats| &stats.retried));
    metrics.counter("messages_rejected", "Messages the handler rejected", read(|stats| &stats.rejected));
    metrics.counter(
        "messages_handed_back",
        "Messages handed back, not begun, by a consumer that could not work",
        read(|stats| &stats.handed_back),
    );
    metrics.counter("handler_panics", "Handlers that panicked", read(|stats| &stats.panicked));
    metrics.counter("handler_timeouts", "Handlers that ran too long", read(|stats| &stats.timed_out));
    metrics.counter("bad_frames", "Frames from dispatchers that were none", read(|stats| &stats.bad_frames));
    metrics.counter("strangers", "Connections that ended before a LEAD", read(|stats| &stats.strangers));
    metrics.counter("stale_refused", "Connections refused for their old epoch", read(|stats| &stats.stale));
    metrics.counter(
        "leads_unconfirmed",
        "Dispatchers whose epoch Redis did not confirm",
        read(|stats| &stats.unconfirmed),
    );
    metrics.counter("redis_errors", "Commits that Redis did not take", read(|stats| &stats.redis_errors));
    let gauge = |pick: fn(&ConsumerStats) -> u64| {
        let stats = stats.clone();
        move || pick(&stats)
    };
    metrics.gauge("held", "Messages in hand", gauge(ConsumerStats::held));
    metrics.gauge("ruling_epoch", "The epoch of the dispatcher that rules", gauge(ConsumerStats::ruling_epoch));
    metrics.gauge("redis_connected", "1 if Redis answered last", gauge(|stats| stats.redis_is_up().into()));
    metrics.gauge(
        "unable",
        "1 if it accepts no messages because it could not work",
        gauge(|stats| stats.is_unable().into()),
    );
    let read = stats.clone();
    metrics.counter("redis_reconnects", "Connections to Redis made anew", move || read.redis_reconnects());
    let read = stats.clone();
    metrics.histogram("handler_duration_seconds", "How long handlers ran", move || read.handler_duration.read());
    let stats = stats.clone();
    MetricsServer::start(address, Site::new(metrics, move || stats.ready()))
}
