//! A number of a metric, its kind, and its labels.

use std::fmt;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::base::histogram::Distribution;

/// The labels of a number: names and values.
pub type Labels = Vec<(&'static str, String)>;

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// It only rises while the program runs.
    Counter,
    /// It rises and falls.
    Gauge,
    /// It is a distribution of times.
    Histogram,
}

/// The value of a metric.
#[derive(Clone, Debug, PartialEq)]
pub enum Number {
    /// Of a counter or a gauge.
    Whole(u64),
    /// Of a counter or a gauge.
    Real(f64),
    /// Of a histogram, in seconds.
    Times(Distribution),
}

impl MetricKind {
    pub(super) fn metric_type(self) -> MetricType {
        match self {
            MetricKind::Counter => MetricType::Counter,
            MetricKind::Gauge => MetricType::Gauge,
            MetricKind::Histogram => MetricType::Histogram,
        }
    }
}

impl Number {
    /// Adds another number of the same metric. Distributions have no labels that a peer chooses; the first one stays.
    pub(super) fn add(&mut self, other: Number) {
        match (self, other) {
            (Number::Whole(sum), Number::Whole(more)) => *sum = sum.saturating_add(more),
            (Number::Real(sum), Number::Real(more)) => *sum += more,
            _ => {}
        }
    }

    pub(super) fn encode(self, kind: MetricKind, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        match (kind, self) {
            (MetricKind::Counter, Number::Whole(number)) => ConstCounter::new(number).encode(encoder),
            (MetricKind::Counter, Number::Real(number)) => ConstCounter::new(number).encode(encoder),
            (_, Number::Whole(number)) => ConstGauge::new(i64::try_from(number).unwrap_or(i64::MAX)).encode(encoder),
            (_, Number::Real(number)) => ConstGauge::new(number).encode(encoder),
            (_, Number::Times(Distribution { sum, count, buckets })) => {
                encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
            }
        }
    }
}
