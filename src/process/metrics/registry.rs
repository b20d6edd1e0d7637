//! The numbers of a program, and their text.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use super::labels;
use super::number::{Labels, MetricKind, Number};
use super::process::ProcessCollector;
use crate::base::histogram::Distribution;

/// The numbers of one program.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
}

impl Metrics {
    /// Numbers of the process and the build; a program adds its own.
    pub fn new() -> Metrics {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(ProcessCollector));
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("oncecast_build", "The version of this program", build);
        Metrics { registry }
    }

    /// Adds a number that only rises while the program runs. `name` without `oncecast_` and `_total`.
    pub fn counter(&mut self, name: &'static str, help: &'static str, read: impl Fn() -> u64 + Send + Sync + 'static) {
        debug_assert!(!name.ends_with("_total"), "the suffix is added");
        self.add(name, help, MetricType::Counter, move |encoder| ConstCounter::new(read()).encode(encoder));
    }

    /// Adds a number that rises and falls. `name` without `oncecast_`.
    pub fn gauge(&mut self, name: &'static str, help: &'static str, read: impl Fn() -> u64 + Send + Sync + 'static) {
        self.add(name, help, MetricType::Gauge, move |encoder| {
            Number::Whole(read()).encode(MetricKind::Gauge, encoder)
        });
    }

    /// Adds a metric with a number for each set of labels, such as the messages in flight by consumer. A number without
    /// labels must be the only one. Numbers that are currently unknown are left out.
    ///
    /// There should be few sets of labels, and those of a counter must not vanish. Values of labels may be any text;
    /// they are escaped and cut, and their number is limited.
    pub fn series(
        &mut self,
        kind: MetricKind,
        name: &'static str,
        help: &'static str,
        read: impl Fn() -> Vec<(Labels, Number)> + Send + Sync + 'static,
    ) {
        self.add(name, help, kind.metric_type(), move |mut encoder| {
            for (labels, number) in labels::bounded(read()) {
                if labels.is_empty() {
                    return number.encode(kind, encoder);
                }
                number.encode(kind, encoder.encode_family(&labels)?)?;
            }
            Ok(())
        });
    }

    /// Adds the distribution of a time in seconds. `name` without `oncecast_`, ending in `_seconds`.
    pub fn histogram(
        &mut self,
        name: &'static str,
        help: &'static str,
        read: impl Fn() -> Distribution + Send + Sync + 'static,
    ) {
        self.add(name, help, MetricType::Histogram, move |encoder| {
            Number::Times(read()).encode(MetricKind::Histogram, encoder)
        });
    }

    /// The current values of all numbers, as OpenMetrics text.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }

    fn add<F>(&mut self, name: &'static str, help: &'static str, kind: MetricType, encode: F)
    where
        F: Fn(MetricEncoder<'_>) -> fmt::Result + Send + Sync + 'static,
    {
        let name = format!("oncecast_{name}");
        self.registry.register_collector(Box::new(ReadCollector { name, help, kind, encode }));
    }
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

/// One metric that is read when it is asked for.
struct ReadCollector<F> {
    name: String,
    help: &'static str,
    kind: MetricType,
    encode: F,
}

impl<F> fmt::Debug for ReadCollector<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ReadCollector").field(&self.name).finish()
    }
}

impl<F> Collector for ReadCollector<F>
where
    F: Fn(MetricEncoder<'_>) -> fmt::Result + Send + Sync + 'static,
{
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        (self.encode)(encoder.encode_descriptor(&self.name, self.help, None, self.kind)?)
    }
}
