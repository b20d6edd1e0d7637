//! The publisher's counters, and how they are served.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::base::error::Result;
use crate::process::metrics::{Metrics, MetricsPlace, MetricsServer, Site};

/// The numbers that are served as metrics.
#[derive(Debug, Default)]
pub(super) struct Stats {
    pub(super) published: AtomicU64,
    pub(super) receivers: AtomicU64,
    pub(super) retried: AtomicU64,
    pub(super) unknown: AtomicU64,
    pub(super) waiting: AtomicU64,
    pub(super) connected: AtomicBool,
}

/// Serves the publisher's metrics.
pub(super) fn serve(place: &MetricsPlace, stats: &Arc<Stats>) -> Result<MetricsServer> {
    let mut metrics = Metrics::new();
    let read = |pick: fn(&Stats) -> &AtomicU64| {
        let stats = stats.clone();
        move || pick(&stats).load(Ordering::Relaxed)
    };
    metrics.counter("publisher_published", "Messages that a subscriber received", read(|stats| &stats.published));
    metrics.counter("publisher_receivers", "Receivers of all messages, added up", read(|stats| &stats.receivers));
    metrics.counter(
        "publisher_retried",
        "Messages published again for want of a subscriber",
        read(|stats| &stats.retried),
    );
    metrics.counter(
        "publisher_unknown",
        "Messages whose reply was lost, so that they may have been published",
        read(|stats| &stats.unknown),
    );
    metrics.gauge("publisher_waiting", "Messages waiting for a subscriber", read(|stats| &stats.waiting));
    let (connected, ready) = (stats.clone(), stats.clone());
    metrics.gauge("redis_connected", "1 if Redis answers", move || connected.connected.load(Ordering::Relaxed).into());
    let ready = move || match ready.connected.load(Ordering::Relaxed) {
        true => Ok(()),
        false => Err("Redis does not answer (--redis-url)".to_owned()),
    };
    MetricsServer::start(place, Site::new(metrics, ready))
}
