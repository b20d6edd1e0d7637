//! Waiting with a deadline, and with a message that says what did not happen.

use std::fmt;
use std::time::Duration;

use oncecast::lab;

/// How long something that must happen may take on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Polls `condition` until it returns a value. Panics after [`DEADLINE`] with what did not happen.
pub fn wait_until<T>(what: impl fmt::Display, mut condition: impl FnMut() -> Option<T>) -> T {
    match lab::wait_until(DEADLINE, what, || Ok(condition())) {
        Ok(value) => value,
        Err(error) => panic!("{error}"),
    }
}
