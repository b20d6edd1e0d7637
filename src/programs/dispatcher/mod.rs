//! `oncecast-dispatcher`: the process that runs a group's lanes, and reports their state to systemd and Prometheus.
//!
//! ```text
//!  main ── signals, supervision, ordered shutdown          service
//!   ├─ each lane ─────── see `lane`
//!   ├─ each reporter ─── reports once a second how a lane is, and checks its status
//!   ├─ cluster ───────── in a Redis Cluster: follows the slots' owners, plans the lanes
//!   └─ metrics ───────── /metrics, /healthz, /readyz, the status page
//! ```

mod balance;
mod board;
mod changes;
mod cluster_watch;
mod exposition;
mod health;
mod hosted;
mod lanes;
mod plan;
mod rates;
mod report_thread;
mod reporter;
mod service;
pub mod settings;
mod shadow;
#[cfg(test)]
mod tests;

pub use self::service::run;
