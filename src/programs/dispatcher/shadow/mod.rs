//! `oncecast-dispatcher --shadow`: the process that runs a shadow, and reports what it finds.
//!
//! ```text
//!  main ── signals, supervision, ordered shutdown          service
//!   ├─ a shadow ──────── see `lane::shadow`
//!   ├─ reporter ──────── writes the shadow's report once a second
//!   └─ metrics ───────── /metrics, /healthz, /readyz
//! ```

mod exposition;
mod health;
mod reporter;
mod service;
pub mod unused;

pub use self::service::run;
