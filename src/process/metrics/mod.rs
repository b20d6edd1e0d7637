//! A program's metrics, its health and its pages, over HTTP.
//!
//! The rest of the crate keeps plain atomics and knows no metrics library; it gives [`Metrics`] a closure for each
//! number, which is read at each scrape. The closures run on a thread of the [`MetricsServer`], so they must be quick
//! and must not wait.
//!
//! Names get the prefix `oncecast_`, counters the suffix `_total`. The metrics of the process itself come from `/proc`;
//! without it they are left out.

mod access;
mod answer;
pub mod healthcheck;
mod http;
mod labels;
mod number;
mod process;
mod registry;
pub mod settings;
mod site;
mod token;

pub use self::access::Access;
pub use self::answer::{Response, Visitor, answer};
pub use self::http::{MAX_CONNECTIONS, MAX_REQUEST_BYTES, MetricsServer, MetricsSocket, REQUEST_TIME};
pub use self::number::{Labels, MetricKind, Number};
pub use self::registry::Metrics;
pub use self::settings::MetricsPlace;
pub use self::site::Site;

#[cfg(test)]
mod tests;
