//! The programs: dispatcher, consumer, publisher, and the tools, such as `status` and `dead` (`operate` has `pause`,
//! `resume` and `set`). The settings of each program are defined beside it.

pub mod absent;
pub mod audit;
pub mod certificates;
pub mod common;
pub mod conform;
pub mod consumer;
pub mod consumer_sources;
pub mod dead;
pub mod dispatcher;
pub mod doctor;
pub mod interests;
pub mod lanes;
pub mod messages;
pub mod operate;
pub mod patience;
pub mod pending;
pub mod publisher;
pub mod results;
pub mod status;
