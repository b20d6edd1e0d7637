//! `oncecast-dispatcher`: the process that runs a lane, and reports its state to systemd and Prometheus.
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
mod report_thread;
mod reporter;
mod service;
pub mod settings;
mod shadow;
#[cfg(test)]
mod tests;

pub use self::service::run;
