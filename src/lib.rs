//! Consumer groups for Redis Pub/Sub.

pub mod audit;
pub mod config;
pub mod error;
pub mod id;
pub mod ledger;
pub mod local;
pub mod log;
pub mod shutdown;
pub mod wire;
