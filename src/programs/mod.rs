//! The programs: the consumer, the publisher, `audit` and `status`.

pub mod audit;
pub mod consumer;
pub mod publisher;
pub mod status;
