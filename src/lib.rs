//! Consumer groups for Redis Pub/Sub.

pub mod config;
pub mod consumer;
pub mod error;
pub mod id;
pub mod ledger;
pub mod log;
pub mod shutdown;
pub mod wire;

pub use consumer::{Consumer, ConsumerBuilder, ConsumerStats, Delivery, Handler, HandlerError, Outcome};
