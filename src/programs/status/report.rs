//! A dispatcher's report, written once a second: a JSON object under `<group>:status:<dispatcher id>`.
//!
//! It is only shown; no dispatcher or consumer acts on it. Missing fields and fields of another type are read as zero
//! or empty, so that dispatchers and tools of different versions understand each other.

use serde_json::{Value, json};

use super::delivery::DeliveryReport;
use super::order::OrderReport;

/// See the module's text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// The program's version.
    pub version: String,
    /// The channel that it subscribes to.
    pub channel: String,
    /// The address of the node that it uses, in a Redis Cluster; else empty.
    pub node: String,
    /// Whether it leads.
    pub leads: bool,
    /// The epoch of its present or last term.
    pub epoch: u64,
    /// Whether it holds all messages that the leader may not have stored yet.
    pub in_sync: bool,
    /// Why it is not ready, if it is not.
    pub trouble: Option<String>,
    /// Seconds since its start.
    pub uptime_s: f64,
    /// Bytes used by its ring.
    pub ring_bytes: u64,
    /// The id of the oldest pending message at its last check.
    pub oldest: Option<u64>,
    /// Messages in memory that wait for a consumer.
    pub ready: u64,
    /// Whether some pending messages are in Redis only.
    pub behind: bool,
    /// Messages that failed and wait for their next delivery.
    pub delayed: u64,
    /// In how many milliseconds the first of them is due, if any waits. Dispatchers of older versions do not tell.
    pub next_retry_ms: Option<u64>,
    /// Order by key, if it is set.
    pub order: Option<OrderReport>,
    /// Whether it tracks as many messages as it can, so that others wait in Redis only.
    pub full: bool,
    /// Messages that it moved to the dead letters within the window.
    pub recent_deaths: u64,
    /// While it leads a group with consumers: what holds deliveries back.
    pub delivery: Option<DeliveryReport>,
    /// Its rates over the last second.
    pub rates: Rates,
    /// The consumers it is linked to.
    pub consumers: Vec<ConsumerReport>,
    /// While it leads, the addresses of consumers that it is not linked to.
    pub missing: Vec<String>,
    /// The lists of consumers that it follows.
    pub sources: Vec<SourceReport>,
    /// The consumers it is linked to of which whoever reaches them may claim to be the dispatcher.
    pub open_consumers: Vec<String>,
    /// While it leads, the addresses where one of the two does not prove the link secret.
    pub unauthenticated: Vec<String>,
    /// The key of the stream that it adds messages to; empty if it delivers to consumers.
    pub stream: String,
    /// A fingerprint of the settings that must be the same for all dispatchers.
    pub agreement: String,
    /// The settings of Redis that it warns of. It knows the group's interests, which observers don't.
    pub redis_warnings: Vec<String>,
    /// The address at which other machines may read its metrics and the status page without a token; empty if none.
    pub open_metrics: String,
}

/// Messages per second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// Received on the channel.
    pub published: f64,
    /// Stored.
    pub taken_in: f64,
    /// Delivered to consumers, redeliveries included.
    pub dispatched: f64,
    /// Acknowledged by consumers.
    pub acked: f64,
    /// Redelivered.
    pub redelivered: f64,
}

/// A consumer as the leader sees it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConsumerReport {
    /// Its id.
    pub id: String,
    /// Its address in the dispatcher's settings.
    pub address: String,
    /// Whether it is stopping: it finishes what it holds, and gets no more messages.
    pub draining: bool,
    /// Whether it is no longer listed: it finishes what it holds, and gets no more messages.
    pub leaving: bool,
    /// Messages that it holds.
    pub in_flight: u64,
    /// Messages that were delivered to it and that it no longer reports.
    pub overdue: u64,
    /// The most messages that it holds at once.
    pub prefetch: u64,
    /// Messages that it acknowledges per second.
    pub acked_per_s: f64,
}

/// A list of consumers that a dispatcher follows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SourceReport {
    /// The entry of `--consumers`.
    pub source: String,
    /// The addresses that it leads to now.
    pub addresses: u64,
    /// Seconds since it last gave a list that could be used; `None` if it never did.
    pub answer_age_s: Option<f64>,
    /// Why the last attempt gave none; empty if it gave one.
    pub error: String,
}

impl Report {
    /// The JSON that is written.
    pub fn to_json(&self) -> Value {
        json!({
            "version": self.version,
            "channel": self.channel,
            "node": self.node,
            "leads": self.leads,
            "epoch": self.epoch,
            "in_sync": self.in_sync,
            "trouble": self.trouble,
            "uptime_s": self.uptime_s,
            "ring_bytes": self.ring_bytes,
            "oldest": self.oldest,
            "ready": self.ready,
            "behind": self.behind,
            "delayed": self.delayed,
            "next_retry_ms": self.next_retry_ms,
            "order": self.order.as_ref().map(OrderReport::to_json),
            "full": self.full,
            "recent_deaths": self.recent_deaths,
            "delivery": self.delivery.as_ref().map(DeliveryReport::to_json),
            "rates": self.rates.to_json(),
            "missing": self.missing,
            "sources": self.sources.iter().map(SourceReport::to_json).collect::<Value>(),
            "open_consumers": self.open_consumers,
            "unauthenticated": self.unauthenticated,
            "stream": self.stream,
            "agreement": self.agreement,
            "redis_warnings": self.redis_warnings,
            "open_metrics": self.open_metrics,
            "consumers": self.consumers.iter().map(ConsumerReport::to_json).collect::<Value>(),
        })
    }

    /// Parses a report; `None` if it is not a JSON object.
    pub fn parse(text: &str) -> Option<Report> {
        let report: Value = serde_json::from_str(text).ok().filter(Value::is_object)?;
        let list = |name: &str| report[name].as_array().map(Vec::as_slice).unwrap_or_default();
        Some(Report {
            version: text_of(&report["version"]),
            channel: text_of(&report["channel"]),
            node: text_of(&report["node"]),
            leads: report["leads"].as_bool().unwrap_or_default(),
            epoch: count_of(&report["epoch"]),
            in_sync: report["in_sync"].as_bool().unwrap_or_default(),
            trouble: report["trouble"].as_str().map(str::to_owned),
            uptime_s: number_of(&report["uptime_s"]),
            ring_bytes: count_of(&report["ring_bytes"]),
            oldest: report["oldest"].as_u64(),
            ready: count_of(&report["ready"]),
            behind: report["behind"].as_bool().unwrap_or_default(),
            delayed: count_of(&report["delayed"]),
            next_retry_ms: report["next_retry_ms"].as_u64(),
            order: OrderReport::read(&report["order"]),
            full: report["full"].as_bool().unwrap_or_default(),
            recent_deaths: count_of(&report["recent_deaths"]),
            delivery: DeliveryReport::read(&report["delivery"]),
            rates: Rates::read(&report["rates"]),
            consumers: list("consumers").iter().map(ConsumerReport::read).collect(),
            missing: list("missing").iter().map(text_of).collect(),
            sources: list("sources").iter().map(SourceReport::read).collect(),
            open_consumers: list("open_consumers").iter().map(text_of).collect(),
            unauthenticated: list("unauthenticated").iter().map(text_of).collect(),
            stream: text_of(&report["stream"]),
            agreement: text_of(&report["agreement"]),
            redis_warnings: list("redis_warnings").iter().map(text_of).collect(),
            open_metrics: text_of(&report["open_metrics"]),
        })
    }
}

impl Rates {
    /// The JSON that is written.
    pub fn to_json(self) -> Value {
        json!({
            "published": tenths(self.published),
            "taken_in": tenths(self.taken_in),
            "dispatched": tenths(self.dispatched),
            "acked": tenths(self.acked),
            "redelivered": tenths(self.redelivered),
        })
    }

    fn read(rates: &Value) -> Rates {
        Rates {
            published: number_of(&rates["published"]),
            taken_in: number_of(&rates["taken_in"]),
            dispatched: number_of(&rates["dispatched"]),
            acked: number_of(&rates["acked"]),
            redelivered: number_of(&rates["redelivered"]),
        }
    }
}

impl ConsumerReport {
    /// The JSON that is written.
    pub fn to_json(&self) -> Value {
        json!({
            "id": self.id,
            "address": self.address,
            "draining": self.draining,
            "leaving": self.leaving,
            "in_flight": self.in_flight,
            "overdue": self.overdue,
            "prefetch": self.prefetch,
            "acked_per_s": tenths(self.acked_per_s),
        })
    }

    fn read(consumer: &Value) -> ConsumerReport {
        ConsumerReport {
            id: text_of(&consumer["id"]),
            address: text_of(&consumer["address"]),
            draining: consumer["draining"].as_bool().unwrap_or_default(),
            leaving: consumer["leaving"].as_bool().unwrap_or_default(),
            in_flight: count_of(&consumer["in_flight"]),
            overdue: count_of(&consumer["overdue"]),
            prefetch: count_of(&consumer["prefetch"]),
            acked_per_s: number_of(&consumer["acked_per_s"]),
        }
    }
}

impl SourceReport {
    /// The JSON that is written.
    pub fn to_json(&self) -> Value {
        json!({
            "source": self.source,
            "addresses": self.addresses,
            "answer_age_s": self.answer_age_s.map(tenths),
            "error": self.error,
        })
    }

    fn read(source: &Value) -> SourceReport {
        SourceReport {
            source: text_of(&source["source"]),
            addresses: count_of(&source["addresses"]),
            answer_age_s: source["answer_age_s"].as_f64(),
            error: text_of(&source["error"]),
        }
    }
}

/// A text; empty if it is of another type.
pub(super) fn text_of(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// A number that is not negative; 0 if it is of another type.
pub(super) fn count_of(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

/// A number; 0 if it is of another type.
pub(super) fn number_of(value: &Value) -> f64 {
    value.as_f64().unwrap_or_default()
}

/// Rounded to tenths: more digits would be false precision.
pub(super) fn tenths(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_back() {
        let report = Report {
            version: "0.1.0".into(),
            channel: "messages:published".into(),
            node: "10.0.0.9:6379".into(),
            leads: true,
            epoch: 1_764_086_400_000,
            in_sync: true,
            trouble: Some("a \"quoted\" reason".into()),
            uptime_s: 12.3,
            ring_bytes: 4_096,
            oldest: Some(1_764_086_400_000_000),
            ready: 7,
            behind: true,
            delayed: 8,
            next_retry_ms: Some(12_345),
            order: Some(OrderReport { key: "channel".into(), keys: 3, parked: 20, cut: 1, unkeyed: 4 }),
            full: true,
            recent_deaths: 9,
            delivery: Some(DeliveryReport::default()),
            rates: Rates { published: 1.5, taken_in: 2.0, dispatched: 3.0, acked: 4.0, redelivered: 5.0 },
            consumers: vec![ConsumerReport {
                id: "c0".into(),
                address: "10.0.0.2:6969".into(),
                draining: true,
                leaving: true,
                in_flight: 12,
                overdue: 1,
                prefetch: 1_024,
                acked_per_s: 8_666.6,
            }],
            missing: vec!["10.0.0.1:6969".into()],
            sources: vec![SourceReport {
                source: "dns:consumer:6969".into(),
                addresses: 2,
                answer_age_s: Some(1.5),
                error: "no answer".into(),
            }],
            open_consumers: vec!["c0".into()],
            unauthenticated: vec!["10.0.0.1:6969".into()],
            stream: "orders:messages".to_owned(),
            agreement: "0f".into(),
            redis_warnings: vec!["set it".into()],
            open_metrics: "0.0.0.0:9464".into(),
        };
        assert_eq!(Report::parse(&report.to_json().to_string()), Some(report));
    }

    #[test]
    fn reports_of_other_versions_are_read_as_far_as_possible() {
        let report = Report::parse(r#"{"leads":true,"epoch":"later a text","more":[1]}"#).expect("an object");
        assert_eq!(report, Report { leads: true, ..Report::default() });
        let older = Report::parse(r#"{"consumers":[{"id":"c0","in_flight":1,"prefetch":2}]}"#).expect("an object");
        let consumer = ConsumerReport { id: "c0".into(), in_flight: 1, prefetch: 2, ..ConsumerReport::default() };
        assert_eq!((older.consumers, older.channel.as_str()), (vec![consumer], ""));
        assert_eq!(Report::parse("[]"), None);
        assert_eq!(Report::parse("no JSON"), None);
    }
}
