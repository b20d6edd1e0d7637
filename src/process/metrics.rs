//! What a program tells its operator in numbers: a registry that reads the program's own counters when it is asked.
//!
//! The product keeps plain atomics and knows no metrics library; it hands [`Metrics`] a closure for each number. The
//! closures run on a thread of the [`MetricsServer`], so they must be quick and must not wait.
//!
//! Names get the prefix `oncecast_`, counters the suffix `_total`. The numbers of the process itself come from
//! `/proc` and are left out where there is none.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

pub mod healthcheck;
mod http;
mod process;
pub mod settings;
mod site;

pub use self::http::{MAX_CONNECTIONS, MAX_REQUEST_BYTES, MetricsServer, REQUEST_TIME};
pub use self::site::Site;
pub use crate::base::histogram::{Distribution, Histogram};

/// The numbers of one program.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
}

impl Metrics {
    /// Numbers of the process and the build; a program adds its own.
    pub fn new() -> Metrics {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(process::ProcessCollector));
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
            ConstGauge::new(i64::try_from(read()).unwrap_or(i64::MAX)).encode(encoder)
        });
    }

    /// Adds a number that rises and falls, and is left out while it is not known.
    pub fn known(
        &mut self,
        name: &'static str,
        help: &'static str,
        read: impl Fn() -> Option<f64> + Send + Sync + 'static,
    ) {
        self.add(name, help, MetricType::Gauge, move |encoder| {
            read().map_or(Ok(()), |number| ConstGauge::new(number).encode(encoder))
        });
    }

    /// Adds a number for each value of a label, such as the messages in flight by consumer.
    ///
    /// The values must be few, and must not vanish for a counter.
    pub fn gauges(
        &mut self,
        name: &'static str,
        help: &'static str,
        label: &'static str,
        read: impl Fn() -> Vec<(String, u64)> + Send + Sync + 'static,
    ) {
        self.add(name, help, MetricType::Gauge, move |mut encoder| {
            for (value, number) in read() {
                let number = i64::try_from(number).unwrap_or(i64::MAX);
                ConstGauge::new(number).encode(encoder.encode_family(&[(label, value)])?)?;
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
        self.add(name, help, MetricType::Histogram, move |mut encoder| {
            let Distribution { sum, count, buckets } = read();
            encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
        });
    }

    /// All numbers as of now, as OpenMetrics text.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }

    fn add<F>(&mut self, name: &'static str, help: &'static str, kind: MetricType, encode: F)
    where
        F: Fn(prometheus_client::encoding::MetricEncoder<'_>) -> fmt::Result + Send + Sync + 'static,
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
    F: Fn(prometheus_client::encoding::MetricEncoder<'_>) -> fmt::Result + Send + Sync + 'static,
{
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        (self.encode)(encoder.encode_descriptor(&self.name, self.help, None, self.kind)?)
    }
}

#[cfg(test)]
mod tests;
