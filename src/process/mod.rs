//! What every program has: settings, log, metrics, supervision by systemd, standard output.

pub mod config;
pub mod log;
pub mod metrics;
pub mod output;
pub mod program;
pub mod supervision;
