//! Starts the threads of a lane or a shadow: what they log shows its role.

use std::thread::{self, JoinHandle};

use crate::base::error::{Error, Result};
use crate::base::log_context::{self, LogContext};

/// Starts a thread with this name, which is for people only.
pub(super) fn spawn<T: Send + 'static>(
    thread: thread::Builder,
    name: &str,
    log: &LogContext,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>> {
    let log = log.clone();
    let work = move || {
        log_context::enter(&log);
        work()
    };
    thread.name(name.to_owned()).spawn(work).map_err(Error::io(format!("starting the thread {name}")))
}
