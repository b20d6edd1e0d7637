//! `oncecast-dispatcher`: the process that runs a lane, reports on it, and tells systemd and Prometheus how it is.
//!
//! ```text
//!  main ── signals, supervision, ordered shutdown          service
//!   ├─ a lane ────────── see `lane`
//!   ├─ reporter ──────── reports once a second how the lane is, and checks the group's status
//!   └─ metrics ───────── /metrics, /healthz, /readyz, the status page
//! ```

mod board;
mod exposition;
mod health;
mod hosted;
mod rates;
mod reporter;
mod service;
pub mod settings;
#[cfg(test)]
mod tests;

pub use self::service::run;
