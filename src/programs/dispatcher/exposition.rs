//! What a dispatcher serves at its metrics address: its metrics, its readiness, and the status page.
//!
//! Figures of a lane have the label `lane` if the process has several.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::health;
use super::hosted::{Host, HostedLane};
use crate::base::error::Result;
use crate::lane::ring::RingStats;
use crate::lane::roster::SourceStatus;
use crate::lane::{DeliveryState, LaneStats, LinkFigures, Shared};
use crate::ledger::Destination;
use crate::ledger::overview::Part;
use crate::net::ClientTls;
use crate::process::metrics::{Labels, MetricKind, Metrics, MetricsServer, MetricsSocket, Number, Site};
use crate::programs::certificates::{CERTIFICATE_HELP, CERTIFICATE_METRIC, series_of};
use crate::programs::status::{PAGE, PAGE_POLICY, Status, combined, failure_to_json, json_text};

/// Serves `/metrics`, `/healthz`, `/readyz`, and the status page at `/`.
pub(super) fn serve(socket: MetricsSocket, host: &Arc<Host>) -> Result<MetricsServer> {
    let (readiness, status) = (host.clone(), host.clone());
    let site = Site::new(metrics(host), move || health::ready(&readiness))
        .policy(PAGE_POLICY)
        .page("/", "text/html; charset=utf-8", || PAGE.to_owned())
        .page("/status.json", "application/json", move || status_json(&status));
    socket.serve(site)
}

/// The status of lane 0, and if the group has several lanes, the status of each in `lanes`, by its number.
fn status_json(host: &Host) -> String {
    let lanes = host.lanes();
    let Some(first) = lanes.first() else {
        let text = "this dispatcher does not know the nodes of the Redis Cluster yet";
        return json_text(&failure_to_json("", text));
    };
    let json = |hosted: &HostedLane| hosted.board.json(&hosted.lane.settings.keys.group, &host.id);
    match first.lane.settings.name {
        None => json_text(&json(first)),
        Some(_) => json_text(&combined(lanes.iter().map(|hosted| (hosted.number, json(hosted))).collect())),
    }
}

/// All figures of the process.
pub(super) fn metrics(host: &Arc<Host>) -> Metrics {
    let mut metrics = Metrics::new();
    let mut lanes = LaneMetrics { metrics: &mut metrics, host };
    leadership(&mut lanes);
    messages(&mut lanes);
    limits(&mut lanes);
    links(&mut lanes);
    sources(&mut lanes);
    subscription(&mut lanes);
    group_figures(&mut lanes);
    lanes.series(MetricKind::Gauge, CERTIFICATE_METRIC, CERTIFICATE_HELP, |hosted| {
        let settings = &hosted.lane.settings;
        let links = settings.link_tls.as_ref().and_then(ClientTls::certificate_end);
        series_of(vec![("links", links), ("redis", settings.redis.certificate_end())])
    });
    metrics
}

/// Adds figures of every lane.
struct LaneMetrics<'a> {
    metrics: &'a mut Metrics,
    host: &'a Arc<Host>,
}

impl LaneMetrics<'_> {
    fn counter(&mut self, name: &'static str, help: &'static str, pick: fn(&LaneStats) -> &AtomicU64) {
        self.number(MetricKind::Counter, name, help, move |hosted| Some(Number::Whole(get(pick(&hosted.lane.stats)))));
    }

    fn gauge(&mut self, name: &'static str, help: &'static str, pick: fn(&LaneStats) -> &AtomicU64) {
        self.number(MetricKind::Gauge, name, help, move |hosted| Some(Number::Whole(get(pick(&hosted.lane.stats)))));
    }

    /// Adds a number for each lane, unless it is unknown.
    fn number(
        &mut self,
        kind: MetricKind,
        name: &'static str,
        help: &'static str,
        pick: impl Fn(&HostedLane) -> Option<Number> + Send + Sync + 'static,
    ) {
        self.series(kind, name, help, move |hosted| {
            pick(hosted).map(|number| (Labels::new(), number)).into_iter().collect()
        });
    }

    /// Adds numbers with labels of their own for each lane.
    fn series(
        &mut self,
        kind: MetricKind,
        name: &'static str,
        help: &'static str,
        pick: impl Fn(&HostedLane) -> Vec<(Labels, Number)> + Send + Sync + 'static,
    ) {
        let host = self.host.clone();
        self.metrics.series(kind, name, help, move || {
            let of_lane = |hosted: &Arc<HostedLane>| {
                let labelled = |(labels, number)| (lane_label(hosted).into_iter().chain(labels).collect(), number);
                pick(hosted).into_iter().map(labelled).collect::<Vec<_>>()
            };
            host.lanes().iter().flat_map(of_lane).collect()
        });
    }
}

/// `None` if the group can have only one lane.
fn lane_label(hosted: &HostedLane) -> Option<(&'static str, String)> {
    hosted.lane.settings.name.as_ref().map(|name| ("lane", name.clone()))
}

fn leadership(lanes: &mut LaneMetrics<'_>) {
    lanes.gauge("leader", "1 while this dispatcher leads", |stats| &stats.leading);
    lanes.gauge("leader_epoch", "The epoch of the present or last term", |stats| &stats.epoch);
    lanes.gauge("in_sync", "1 while this dispatcher could take over at once", |stats| &stats.in_sync);
    lanes.gauge("redis_connected", "1 if Redis answered the last request", |stats| &stats.redis_connected);
    lanes.counter("leader_changes", "Terms begun by this dispatcher", |stats| &stats.terms);
    lanes.counter("gaps", "Gaps recorded", |stats| &stats.gaps);
    lanes.counter("fenced_writes", "Writes refused because of a newer epoch", |stats| &stats.fenced);
}

const UNREPLICATED: &str = "Attempts to store messages that too few replicas confirmed in time, with --wait-replicas";
const LACKS_REPLICAS: &str = "1 while too few replicas confirm what is stored, with --wait-replicas";

fn messages(lanes: &mut LaneMetrics<'_>) {
    lanes.counter("messages_taken_in", "Published messages stored in Redis", |stats| &stats.taken_in);
    lanes.counter("messages_bundled", "Of these, messages stored 16 together, as one member", |stats| &stats.bundled);
    lanes.counter("intakes_unreplicated", UNREPLICATED, |stats| &stats.unreplicated);
    lanes.gauge("lacks_replicas", LACKS_REPLICAS, |stats| &stats.lacks_replicas);
    lanes.counter("messages_oversize", "Messages refused for their size", |stats| &stats.oversize);
    lanes.counter("messages_dispatched", "Deliveries to consumers, redeliveries included", |stats| &stats.dispatched);
    lanes.counter("messages_acked", "Messages acknowledged", |stats| &stats.acked);
    lanes.counter("messages_redelivered", "Redeliveries", |stats| &stats.redelivered);
    lanes.counter("messages_dead_lettered", "Messages moved to the dead letters", |stats| &stats.dead_lettered);
    lanes.counter("messages_spilled", "Messages kept in Redis only, because memory was full", |stats| &stats.spilled);
    lanes.counter("messages_read_back", "Messages read back from Redis", |stats| &stats.read_back);
    lanes.gauge("order_keys", "Keys with messages in progress now, with --order-key", |stats| &stats.order_keys);
    lanes.gauge("parked", "Messages in memory that wait for others of their key now", |stats| &stats.parked);
    lanes.gauge("cut_keys", "Keys of which only the next messages are in memory now", |stats| &stats.cut_keys);
    lanes.counter("messages_unkeyed", "Messages without a key, with --order-key", |stats| &stats.unkeyed);
    lanes.gauge("ready", "Messages waiting in memory for a consumer now", |stats| &stats.ready);
    lanes.gauge("delayed_messages", "Messages that failed and wait for another delivery now", |stats| &stats.delayed);
    lanes.number(
        MetricKind::Gauge,
        "next_retry_seconds",
        "Time until the first of the delayed messages is due, while there are any",
        |hosted| {
            let [delayed, left_ms] = [&hosted.lane.stats.delayed, &hosted.lane.stats.next_retry_ms]
                .map(|figure| figure.load(Ordering::Relaxed));
            (delayed > 0).then(|| Number::Real(left_ms as f64 / 1e3))
        },
    );
    lanes.number(
        MetricKind::Histogram,
        "delivery_latency_seconds",
        "Time from a message's intake to its acknowledgement",
        |hosted| Some(Number::Times(hosted.lane.stats.delivery_latency.read())),
    );
}

/// What holds deliveries back. A standby leaves out what only the leader knows.
fn limits(lanes: &mut LaneMetrics<'_>) {
    let mut add = |name, help, pick: fn(&DeliveryState) -> Option<f64>| {
        lanes.number(MetricKind::Gauge, name, help, move |hosted| {
            hosted.lane.stats.delivery.lock().as_ref().and_then(pick).map(Number::Real)
        });
    };
    add("paused", "1 while the group is paused, while leader", |state| Some(f64::from(state.pause.is_some())));
    add("max_in_flight", "The most messages that consumers may hold together, if limited, while leader", |state| {
        state.max_in_flight.map(|limit| limit.value as f64)
    });
    add("rate_limit", "The most deliveries per second, if limited, while leader", |state| {
        state.rate.map(|limit| limit.value.per_s())
    });
    lanes.number(
        MetricKind::Counter,
        "held_back_seconds",
        "Time in which messages waited because of a pause or a limit",
        |hosted| Some(Number::Real(get(&hosted.lane.stats.held_back_us) as f64 / 1e6)),
    );
}

fn links(lanes: &mut LaneMetrics<'_>) {
    lanes.counter(
        "links_unauthenticated",
        "Attempts to link a consumer that ended because one of the two did not prove the link secret",
        |stats| &stats.unauthenticated,
    );
    lanes.counter("bad_frames", "Malformed or unexpected frames from consumers", |stats| &stats.bad_frames);
    lanes
        .counter("stray_answers", "Answers for messages that the consumer does not hold", |stats| &stats.stray_answers);
    lanes.counter("answers_confirmed", "Answers confirmed to consumers without Redis", |stats| &stats.confirmed);
    lanes.counter("links_made", "Connections to consumers made", |stats| &stats.links_made);
    lanes.counter("links_lost", "Connections to consumers lost", |stats| &stats.links_lost);
    lanes.number(MetricKind::Gauge, "consumers", "Consumers connected now", |hosted| {
        // With a stream there is none, and that is no reason for an alert.
        let expected = hosted.lane.settings.destination == Destination::Pending;
        expected.then(|| Number::Whole(hosted.lane.stats.linked.lock().len() as u64))
    });
    lanes.series(MetricKind::Gauge, "in_flight", "Messages at consumers now, while leader", |hosted| {
        by_consumer(&hosted.lane.stats, |link| &link.in_flight)
    });
    lanes.series(MetricKind::Gauge, "overdue", "Messages that consumers no longer report, while leader", |hosted| {
        by_consumer(&hosted.lane.stats, |link| &link.overdue)
    });
}

/// Lists of consumers that are followed.
fn sources(lanes: &mut LaneMetrics<'_>) {
    let mut add = |kind, name, help, pick: fn(&SourceStatus) -> Option<Number>| {
        lanes.series(kind, name, help, move |hosted| {
            let sources = hosted.lane.roster.sources().into_iter();
            sources.filter_map(|status| Some((vec![("source", status.source.clone())], pick(&status)?))).collect()
        });
    };
    add(MetricKind::Gauge, "source_consumers", "Consumers that a followed list names now", |status| {
        Some(Number::Whole(status.addresses as u64))
    });
    add(MetricKind::Counter, "source_errors", "Attempts to read a list of consumers that failed", |status| {
        Some(Number::Whole(status.errors))
    });
    add(MetricKind::Gauge, "source_age_seconds", "Time since a list of consumers was last read", |status| {
        status.answered.map(|answered| Number::Real(answered.elapsed().as_secs_f64()))
    });
}

fn subscription(lanes: &mut LaneMetrics<'_>) {
    let of = |pick: fn(&Shared) -> u64| move |hosted: &HostedLane| Some(Number::Whole(pick(&hosted.lane)));
    let ring =
        |pick: fn(RingStats) -> u64| move |hosted: &HostedLane| Some(Number::Whole(pick(hosted.lane.ring.stats())));
    lanes.number(
        MetricKind::Counter,
        "subscriptions",
        "Subscriptions made",
        of(|lane| lane.listener.subscriptions.load(Ordering::Relaxed)),
    );
    lanes.number(MetricKind::Gauge, "ring_bytes", "Bytes used by the ring", ring(|stats| stats.bytes as u64));
    lanes.number(
        MetricKind::Counter,
        "messages_published",
        "Messages received on the channel",
        ring(|stats| stats.seen),
    );
    lanes.number(
        MetricKind::Counter,
        "messages_overrun",
        "Messages dropped at the ring's limit before they were stored",
        ring(|stats| stats.overrun),
    );
    lanes.number(
        MetricKind::Counter,
        "messages_on_long_channels",
        "Messages ignored because their channel's name has more than 65,536 bytes",
        of(|lane| lane.listener.on_long_channels.load(Ordering::Relaxed)),
    );
    lanes.number(
        MetricKind::Counter,
        "redis_reconnects",
        "Reconnections to Redis",
        of(|lane| lane.settings.redis.reconnects()),
    );
}

/// What every dispatcher reads from Redis once a second. All dispatchers of a group report the same figures, so don't
/// add them up. Figures that the last check could not read are left out.
fn group_figures(lanes: &mut LaneMetrics<'_>) {
    let mut add = |name, help, pick: fn(&Status) -> Option<f64>| {
        lanes.number(MetricKind::Gauge, name, help, move |hosted| hosted.board.read(pick).flatten().map(Number::Real));
    };
    add("pending", "Messages without a result, in Redis", |status| {
        status.known(Part::Pending, status.snapshot.pending as f64)
    });
    add("results", "Entries in the result stream", |status| {
        status.known(Part::Results, status.snapshot.processed as f64)
    });
    add("stream_entries", "Entries in the stream of --deliver stream", |status| {
        status.stream_entries.map(|entries| entries as f64)
    });
    add("dead_letters", "Entries in the stream of dead letters", |status| {
        status.known(Part::Dead, status.snapshot.dead as f64)
    });
    add("recorded_gaps", "Entries in the record of gaps", |status| {
        status.known(Part::Gaps, status.snapshot.gaps as f64)
    });
    add("redis_warnings", "Settings of Redis that endanger the guarantees", |status| {
        Some(status.redis_warnings().len() as f64)
    });
    add("oldest_pending_age_seconds", "Age of the oldest pending message", |status| {
        status.known(Part::Oldest, status.oldest_age().unwrap_or_default().as_secs_f64())
    });
}

/// By consumer; two links to one consumer, which can't last, are one number.
fn by_consumer(stats: &LaneStats, figure: fn(&LinkFigures) -> &AtomicU64) -> Vec<(Labels, Number)> {
    let mut sums = BTreeMap::<String, u64>::new();
    for link in stats.linked.lock().iter() {
        *sums.entry(link.consumer.to_string()).or_default() += get(figure(link));
    }
    sums.into_iter().map(|(consumer, sum)| (vec![("consumer", consumer)], Number::Whole(sum))).collect()
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
