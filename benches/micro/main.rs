//! Micro-benchmarks of what is done for every message and of what a take-over waits for: `make micro-bench`, or one of them with
//!
//! ```text
//! make micro-bench ARGS="ring"
//! ```
//!
//! Each measures one function alone and, but for `stamp`, with no Redis and no socket near it. So they tell whether a change made
//! that function faster or slower on one machine, and not what a cluster does: that is what `oncecast bench` is for. Nothing is
//! compared with a limit, since the numbers are those of the machine and of what else it does.

use std::time::Duration;

mod messages;
mod resp;
mod ring;
mod stamp;
mod wire;

/// How long each is measured for, at least.
const MEASURED_FOR: Duration = Duration::from_millis(500);

fn main() {
    divan::Divan::default().min_time(MEASURED_FOR).config_with_args().main();
}
