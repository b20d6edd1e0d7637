//! The programs: dispatcher, consumer, publisher, `audit` and `status`. The settings of each program are defined beside
//! it.

pub mod audit;
pub mod common;
pub mod consumer;
pub mod dispatcher;
pub mod interests;
pub mod publisher;
pub mod status;
