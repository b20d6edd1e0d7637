//! Consumer groups for Redis Pub/Sub.

pub mod audit;
mod backoff;
pub mod config;
pub mod error;
pub mod id;
pub mod ledger;
pub mod log;
pub mod metrics;
pub mod publisher;
pub mod shutdown;
pub mod wire;
