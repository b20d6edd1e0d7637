//! What a dispatcher serves at its metrics address: its figures, whether it can do its job, and the status page.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::stats::LinkFigures;
use super::{DispatcherStats, Shared, health};
use crate::base::error::Result;
use crate::ledger::overview::Part;
use crate::process::metrics::{Metrics, MetricsServer, Site};
use crate::programs::status::Status;

/// One page for everybody: it asks for `/status.json` again and again.
const STATUS_PAGE: &str = include_str!("../programs/status/page.html");

/// Serves `/metrics`, `/healthz`, `/readyz`, and the status page at `/`.
pub(super) fn serve(address: &str, shared: &Arc<Shared>) -> Result<MetricsServer> {
    let mut metrics = Metrics::new();
    let read = |pick: fn(&Shared) -> &AtomicU64| {
        let shared = shared.clone();
        move || pick(&shared).load(Ordering::Relaxed)
    };
    metrics.gauge("leader", "1 while this dispatcher leads", read(|shared| &shared.stats.leading));
    metrics.gauge("leader_epoch", "The epoch of the present or last term", read(|shared| &shared.stats.epoch));
    metrics.gauge("in_sync", "1 while this dispatcher could take over at once", read(|shared| &shared.stats.in_sync));
    metrics.gauge("redis_connected", "1 if Redis answered last", read(|shared| &shared.stats.redis_connected));
    metrics.counter("leader_changes", "Terms begun by this dispatcher", read(|shared| &shared.stats.terms));
    metrics.counter("messages_taken_in", "Messages taken in", read(|shared| &shared.stats.taken_in));
    metrics.counter("messages_oversize", "Messages refused for their size", read(|shared| &shared.stats.oversize));
    metrics.counter("messages_dispatched", "Messages sent to consumers", read(|shared| &shared.stats.dispatched));
    metrics.counter("messages_acked", "Messages acknowledged", read(|shared| &shared.stats.acked));
    metrics.counter("messages_redelivered", "Messages that went out again", read(|shared| &shared.stats.redelivered));
    metrics.counter(
        "messages_dead_lettered",
        "Messages moved to the dead letters",
        read(|shared| &shared.stats.buried),
    );
    metrics.counter(
        "messages_spilled",
        "Messages left to Redis for lack of memory",
        read(|shared| &shared.stats.spilled),
    );
    metrics.counter("messages_read_back", "Messages read back from Redis", read(|shared| &shared.stats.read_back));
    metrics.counter("gaps", "Gaps recorded", read(|shared| &shared.stats.gaps));
    metrics.counter("fenced_writes", "Writes refused by a newer epoch", read(|shared| &shared.stats.fenced));
    metrics.counter("bad_frames", "Frames from consumers that were none", read(|shared| &shared.stats.bad_frames));
    metrics.counter(
        "stray_answers",
        "Answers of consumers for messages that they do not have in hand",
        read(|shared| &shared.stats.stray_answers),
    );
    metrics.counter("links_made", "Links made to consumers", read(|shared| &shared.stats.links_made));
    metrics.counter("links_lost", "Links to consumers lost", read(|shared| &shared.stats.links_lost));
    let one = shared.clone();
    metrics.gauge("consumers", "Consumers linked now", move || one.stats.linked.lock().len() as u64);
    let one = shared.clone();
    metrics.gauges("in_flight", "Messages at consumers now, while leader", "consumer", move || {
        by_consumer(&one.stats, |link| &link.in_flight)
    });
    let one = shared.clone();
    metrics.gauges("overdue", "Messages that consumers no longer report, while leader", "consumer", move || {
        by_consumer(&one.stats, |link| &link.overdue)
    });
    metrics.gauge("ready", "Messages waiting in memory for a consumer now", read(|shared| &shared.stats.ready));
    metrics.counter("subscriptions", "Subscriptions made", read(|shared| &shared.listener.subscriptions));
    let ring = |pick: fn(crate::lane::ring::RingStats) -> u64| {
        let ring = shared.ring.clone();
        move || pick(ring.stats())
    };
    metrics.gauge("ring_bytes", "Bytes used by the ring", ring(|stats| stats.bytes as u64));
    metrics.counter("messages_published", "Messages seen on the channel", ring(|stats| stats.seen));
    metrics.counter(
        "messages_overrun",
        "Messages dropped at the ring's limit before their intake",
        ring(|stats| stats.overrun),
    );
    let one = shared.clone();
    metrics.counter("redis_reconnects", "Connections to Redis made anew", move || one.config.common.redis.reconnects());
    let one = shared.clone();
    metrics.histogram("delivery_latency_seconds", "From a message's intake to its ACK", move || {
        one.stats.delivery_latency.read()
    });
    group_figures(&mut metrics, shared);
    let (readiness, status) = (shared.clone(), shared.clone());
    let site = Site::new(metrics, move || health::ready(&readiness))
        .page("/", "text/html; charset=utf-8", || STATUS_PAGE.to_owned())
        .page("/status.json", "application/json", move || status.board.json(&status));
    MetricsServer::start(address, site)
}

/// What every dispatcher reads from Redis once a second. Over several dispatchers these are to be compared, not added.
/// What the last look did not bring is left out.
fn group_figures(metrics: &mut Metrics, shared: &Arc<Shared>) {
    let mut add = |name, help, pick: fn(&Status) -> Option<f64>| {
        let shared = shared.clone();
        metrics.known(name, help, move || shared.board.read(pick).flatten());
    };
    add("pending", "Messages without a result, in Redis", |status| {
        status.known(Part::Pending, status.snapshot.pending as f64)
    });
    add("results", "Entries in the result stream", |status| {
        status.known(Part::Results, status.snapshot.processed as f64)
    });
    add("dead_letters", "Entries in the stream of dead letters", |status| {
        status.known(Part::Dead, status.snapshot.dead as f64)
    });
    add("recorded_gaps", "Entries in the record of gaps", |status| {
        status.known(Part::Gaps, status.snapshot.gaps as f64)
    });
    add("redis_warnings", "Settings of Redis that endanger what is promised", |status| {
        Some(status.redis_warnings().len() as f64)
    });
    add("oldest_pending_age_seconds", "How long the oldest pending message has been so", |status| {
        status.known(Part::Oldest, status.oldest_age().unwrap_or_default().as_secs_f64())
    });
}

/// By consumer; two links to one consumer, which can't last, are one number.
fn by_consumer(stats: &DispatcherStats, figure: fn(&LinkFigures) -> &AtomicU64) -> Vec<(String, u64)> {
    let mut sums = BTreeMap::<String, u64>::new();
    for link in stats.linked.lock().iter() {
        *sums.entry(link.consumer.to_string()).or_default() += figure(link).load(Ordering::Relaxed);
    }
    sums.into_iter().collect()
}
