//! What the programs share: settings, log, metrics, standard output, scheduling, and, except in the publisher,
//! supervision.

pub mod config;
pub mod log;
pub mod metrics;
pub mod output;
pub mod program;
pub mod scheduling;
pub mod supervision;
