//! Micro-benchmarks of the work for every message and of the work that a take-over waits for. `make micro-bench` runs
//! all, or some of them:
//!
//! ```text
//! make micro-bench ARGS="ring"
//! ```
//!
//! Each measures one function and, except `stamp`, uses neither Redis nor a socket. They show whether a change made
//! that function faster or slower on one machine; `oncecast bench` shows what a cluster does. No result is compared
//! with a limit, since it depends on the machine and its load.

use std::time::Duration;

mod messages;
mod resp;
mod ring;
mod stamp;
mod wire;

/// The least time for which each is measured.
const MEASURED_FOR: Duration = Duration::from_millis(500);

fn main() {
    divan::Divan::default().min_time(MEASURED_FOR).config_with_args().main();
}
