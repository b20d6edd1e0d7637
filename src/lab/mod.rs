//! A whole cluster on this machine: a private Redis and our programs as child processes.
//!
//! The demonstration runs on it and so do the tests. The only module that starts processes. Everything here belongs to the
//! thread that made it; each child has two more threads that read its output. Every wait has a deadline and says what
//! it waited for, and whatever is dropped stops its processes and removes its folder. The weak spot: if this process
//! itself gets SIGKILL, nobody is left to stop the children.

pub mod bench;
pub mod chaos;
pub mod child;
pub mod cluster;
pub mod demo;
pub mod folder;
pub mod journal;
pub mod lines;
pub mod members;
pub mod ports;
pub mod programs;
pub mod readiness;
pub mod redis;
mod settings;
pub mod trial;
pub mod witness;

use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use crate::base::error::{Error, Result};

pub use self::child::{ChildProcess, Signal};
pub use self::cluster::Cluster;
pub use self::members::{ClusterOptions, ConsumerProgram, Member};
pub use self::programs::Programs;
pub use self::redis::{RedisOptions, RedisServer};
pub use self::trial::Trial;
pub use crate::ledger::overview::{GroupView, Lease, Snapshot};

/// The pause between two looks at a condition: the first, and the longest it grows to.
const FIRST_POLL: Duration = Duration::from_millis(1);
const LONGEST_POLL: Duration = Duration::from_millis(25);

/// Looks at `condition` until it gives a value, at most for `within`.
///
/// An `Err` of the condition ends the wait at once: return `Ok(None)` for "not yet". After the deadline the error
/// says that `what` did not happen.
pub fn wait_until<T>(
    within: Duration,
    what: impl fmt::Display,
    mut condition: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let begin = Instant::now();
    let mut pause = FIRST_POLL;
    loop {
        if let Some(value) = condition()? {
            return Ok(value);
        }
        if begin.elapsed() >= within {
            return Err(Error::Failed(format!("waited {within:?} for {what}")));
        }
        thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_with_the_value_the_error_or_the_deadline() {
        let mut looks = 0;
        let value = wait_until(Duration::from_secs(5), "three looks", || {
            looks += 1;
            Ok((looks == 3).then_some(looks))
        });
        assert_eq!(value.unwrap(), 3);
        let broken: Result<()> = wait_until(Duration::from_secs(5), "nothing", || Err(Error::Failed("broken".into())));
        assert_eq!(broken.unwrap_err().to_string(), "broken");
        let never: Result<()> = wait_until(Duration::from_millis(5), "the impossible", || Ok(None));
        assert_eq!(never.unwrap_err().to_string(), "waited 5ms for the impossible");
    }
}
