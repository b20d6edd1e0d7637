//! The signals that ask a program to end. A signal that was ignored when the program started stays ignored.
//!
//! `nohup` ignores SIGHUP, and a shell script ignores SIGINT for commands started with `&`: such a program is meant to
//! outlive the terminal. SIGTERM is always handled, since service managers and container runtimes stop programs with
//! it.
//!
//! Limitation: `ctrlc` installs its handler for all three at once. A signal that arrives in the microseconds before the
//! ignored ones are restored is handled.

use std::io;
use std::mem::MaybeUninit;

use nix::libc;
use nix::sys::signal::{SigHandler, Signal, signal};

use crate::base::error::{Error, Result};

/// Calls `ask` at each SIGTERM, SIGINT and SIGHUP, except those that are ignored. SIGHUP is ignored from now on if
/// `ignore_hangup`. Call it once per process.
pub(super) fn catch(ask: impl FnMut() + Send + 'static, ignore_hangup: bool) -> Result<()> {
    let mut ignored = Vec::new();
    for signal in [Signal::SIGINT, Signal::SIGHUP] {
        if signal == Signal::SIGHUP && ignore_hangup
            || is_ignored(signal).map_err(Error::io(format!("checking whether {signal} is ignored")))?
        {
            ignored.push(signal);
        }
    }
    ctrlc::set_handler(ask).map_err(|error| Error::Failed(format!("catching signals: {error}")))?;
    ignored.into_iter().try_for_each(ignore)
}

#[allow(unsafe_code, reason = "nix can't read a signal's handler without setting another")]
fn is_ignored(signal: Signal) -> io::Result<bool> {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: without a new action nothing is changed; the present one is written to memory of its own type.
    let outcome = unsafe { libc::sigaction(signal as libc::c_int, std::ptr::null(), action.as_mut_ptr()) };
    if outcome != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has succeeded, so it has written the action.
    let action = unsafe { action.assume_init() };
    Ok(action.sa_sigaction == libc::SIG_IGN)
}

#[allow(unsafe_code, reason = "a handler could run at any place; ignoring runs none")]
fn ignore(which: Signal) -> Result<()> {
    // SAFETY: no function is installed that could be called.
    let outcome = unsafe { signal(which, SigHandler::SigIgn) };
    outcome.map(drop).map_err(|error| Error::Failed(format!("ignoring {which} again: {error}")))
}
