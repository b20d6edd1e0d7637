//! How long a call on a stream waits. Pure but for the clock.

use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

/// How long a call waits until it can read or write something. After that it fails with [`ErrorKind::TimedOut`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// As long as it takes.
    Forever,
    /// Each call for at most this long. A signal ends a call early, with [`ErrorKind::Interrupted`].
    Each(Duration),
    /// All calls together until this time, so that even a peer that sends single bytes meets the deadline.
    Until(Instant),
    /// Not at all: the call fails with [`ErrorKind::WouldBlock`].
    Never,
}

/// The socket's timeout, if it is set once for many calls.
pub(super) fn each(wait: Wait) -> Option<Option<Duration>> {
    match wait {
        Wait::Forever => Some(None),
        Wait::Each(limit) => Some(Some(limit)),
        // Set before each call.
        Wait::Until(_) => None,
        // A socket that does not block ignores its timeout.
        Wait::Never => None,
    }
}

/// Runs a call that may block, limited by `wait`.
pub(super) fn within<T>(
    wait: Wait,
    set_timeout: impl Fn(Option<Duration>) -> io::Result<()>,
    mut act: impl FnMut() -> io::Result<T>,
) -> io::Result<T> {
    let Wait::Until(deadline) = wait else {
        return act().map_err(|error| match error.kind() {
            // A timeout of the socket is reported as this.
            ErrorKind::WouldBlock if wait != Wait::Never => ErrorKind::TimedOut.into(),
            _ => error,
        });
    };
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        set_timeout(Some(left))?;
        match act() {
            Err(error) if is_transient(error.kind()) => {}
            outcome => return outcome,
        }
    }
}

/// Whether an error of a stream only means that nothing can be read or written now: the connection is still good.
pub fn is_transient(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}
