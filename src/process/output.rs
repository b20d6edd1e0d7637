//! Standard output. A closed reader, as with `| head`, is not a failure: the program exits silently. Any other failed
//! write, such as to a full disk, is reported on standard error and by the exit code.
//!
//! `print!` does neither: it panics on a failed write, and at exit it ignores a failure to write the rest of its
//! buffer.
//!
//! What is written can't control a terminal, whatever strangers have put into it: control characters other than the
//! ends of lines are escaped here, as JSON does it.

use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::base::error::{Error, Result};
use crate::base::text::Inert;

/// Clears a terminal.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Whether standard output still has a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StdoutReader {
    /// The write succeeded.
    Present,
    /// The reading end of the pipe is closed: writing more is useless.
    Gone,
}

/// Writes `text` to standard output at once.
///
/// # Errors
///
/// [`Error::Io`] if the write fails for any reason except a closed reader.
pub fn print(text: impl fmt::Display) -> Result<StdoutReader> {
    write("", text)
}

/// The same, on a terminal that is cleared first.
pub fn print_on_cleared(text: impl fmt::Display) -> Result<StdoutReader> {
    write(CLEAR, text)
}

fn write(before: &str, text: impl fmt::Display) -> Result<StdoutReader> {
    let mut out = io::stdout().lock();
    judge(write!(out, "{before}{}", Inert(text)).and_then(|()| out.flush()))
}

/// Whether standard output still has a reader, without writing. Only a pipe can lose it.
pub fn reader() -> StdoutReader {
    let out = io::stdout();
    let mut polled = [PollFd::new(out.as_fd(), PollFlags::empty())];
    let gone = poll(&mut polled, PollTimeout::ZERO).is_ok()
        && polled[0].revents().is_some_and(|events| events.contains(PollFlags::POLLERR));
    if gone { StdoutReader::Gone } else { StdoutReader::Present }
}

/// Distinguishes a closed reader from a failure.
pub fn judge(written: io::Result<()>) -> Result<StdoutReader> {
    match written {
        Ok(()) => Ok(StdoutReader::Present),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(StdoutReader::Gone),
        Err(error) => Err(Error::io("writing to standard output")(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_reader_is_not_a_failure() {
        assert!(matches!(judge(Ok(())), Ok(StdoutReader::Present)));
        assert!(matches!(judge(Err(ErrorKind::BrokenPipe.into())), Ok(StdoutReader::Gone)));
        let error = judge(Err(ErrorKind::StorageFull.into())).expect_err("a failure");
        assert!(error.to_string().starts_with("writing to standard output: ") && error.exit_code() == 1, "{error}");
    }
}
