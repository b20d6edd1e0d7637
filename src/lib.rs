//! Consumer groups for Redis Pub/Sub.

pub mod audit;
pub mod backoff;
pub mod config;
pub mod consumer;
pub mod dispatcher;
pub mod error;
pub mod id;
pub mod lease;
pub mod ledger;
pub mod listener;
pub mod local;
pub mod log;
pub mod metrics;
pub mod publisher;
pub mod rate;
pub mod ring;
pub mod shutdown;
pub mod wire;

pub use consumer::{Consumer, ConsumerBuilder, ConsumerStats, Delivery, Handler, HandlerError, Outcome};
