//! What a shadow serves at its metrics address: its figures and its readiness. The group's status page is served by
//! dispatchers, and shows shadows as well.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::health::{self, Watched};
use crate::base::error::Result;
use crate::lane::shadow::{Comparing, Figures};
use crate::process::metrics::{Labels, MetricKind, Metrics, MetricsPlace, MetricsServer, Number, Site};

/// Serves `/metrics`, `/healthz` and `/readyz`.
pub(super) fn serve(place: &MetricsPlace, watched: &Arc<Watched>) -> Result<MetricsServer> {
    let readiness = watched.clone();
    MetricsServer::start(place, Site::new(metrics(watched), move || health::ready(&readiness)))
}

fn metrics(watched: &Arc<Watched>) -> Metrics {
    let mut metrics = Metrics::new();
    let mut add = |kind, name, help, pick: fn(&Figures) -> Number| {
        let shadow = watched.shadow.clone();
        metrics.series(kind, name, help, move || vec![(Labels::new(), pick(&shadow.figures()))]);
    };
    let (counter, gauge) = (MetricKind::Counter, MetricKind::Gauge);
    add(counter, "shadow_messages", "Messages received that count", |figures| Number::Whole(figures.received.messages));
    add(counter, "shadow_bytes", "Bytes of their payloads", |figures| Number::Whole(figures.received.bytes));
    add(gauge, "shadow_largest_bytes", "Bytes of the largest payload", |figures| {
        Number::Whole(figures.received.largest)
    });
    add(counter, "shadow_overlaps", "Copies of messages that another interest owns", |figures| {
        Number::Whole(figures.overlaps)
    });
    add(gauge, "shadow_comparing", "1 while this shadow compares with the group", |figures| {
        Number::Whole((figures.findings.comparing == Comparing::Compares).into())
    });
    add(counter, "shadow_compared", "Messages heard that were compared", |figures| {
        Number::Whole(figures.findings.totals.heard)
    });
    add(gauge, "shadow_difference", "Messages that were heard and not stored by the group", |figures| {
        Number::Real(figures.findings.totals.difference() as f64)
    });
    add(counter, "shadow_restarts", "Times that the comparison began anew", |figures| {
        Number::Whole(figures.findings.restarts.0)
    });
    let listener = watched.shadow.listener.clone();
    metrics.counter("subscriptions", "Subscriptions made", move || listener.subscriptions.load(Ordering::Relaxed));
    let redis = watched.shadow.settings.redis.clone();
    metrics.counter("redis_reconnects", "Reconnections to Redis", move || redis.reconnects());
    metrics
}
