//! A dispatcher's figures as metrics, and whether it can do its job.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Shared;
use crate::error::Result;
use crate::metrics::{Metrics, MetricsServer};

/// Serves `/metrics`, `/healthz` and `/readyz`. Ready is a dispatcher that leads, or whose ring holds everything after
/// the cursor, so that it could.
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
    metrics.counter("links_made", "Links made to consumers", read(|shared| &shared.stats.links_made));
    metrics.counter("links_lost", "Links to consumers lost", read(|shared| &shared.stats.links_lost));
    metrics.gauge("consumers", "Consumers linked now", read(|shared| &shared.stats.links));
    metrics.gauge("in_flight", "Messages at consumers now", read(|shared| &shared.stats.in_flight));
    metrics.gauge("ready", "Messages waiting in memory for a consumer now", read(|shared| &shared.stats.ready));
    metrics.counter("subscriptions", "Subscriptions made", read(|shared| &shared.listener.subscriptions));
    let ring = |pick: fn(crate::ring::RingStats) -> u64| {
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
    let shared = shared.clone();
    MetricsServer::start(address, metrics, move || {
        let is_set = |gauge: &AtomicU64| gauge.load(Ordering::Relaxed) == 1;
        if is_set(&shared.stats.leading) || is_set(&shared.stats.in_sync) {
            Ok(())
        } else if !shared.ring.stats().live {
            Err("not subscribed".to_owned())
        } else {
            Err("not in sync with the leader yet".to_owned())
        }
    })
}
