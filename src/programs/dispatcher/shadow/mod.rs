//! `oncecast-dispatcher --shadow`: the process that runs a shadow, and reports what it finds.
//!
//! ```text
//!  main ── signals, supervision, ordered shutdown          service
//!   ├─ a shadow ──────── see `lane::shadow`
//!   ├─ cluster ───────── in a Redis Cluster: what the lane listens to          following
//!   ├─ reporter ──────── writes the shadow's report once a second
//!   └─ metrics ───────── /metrics, /healthz, /readyz
//! ```

mod exposition;
mod following;
mod health;
mod reporter;
mod service;
pub mod unused;

pub use self::service::run;
