//! Standard output. A reader that has left (`| head`) is no failure: the program ends in silence. One that takes
//! nothing, such as a full disk, is told on standard error, and the exit code says so.
//!
//! `print!` does neither: it panics, and what is still in its buffer at the end is lost without a word.

use std::fmt;
use std::io::{self, ErrorKind, Write};

use crate::base::error::{Error, Result};

/// Whether anybody is there to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// What was written may be read.
    Present,
    /// Whoever read has closed the pipe: nothing more need be written.
    Gone,
}

/// Writes `text` to standard output at once.
///
/// # Errors
///
/// [`Error::Io`] if it can't be written and somebody may wait for it.
pub fn print(text: impl fmt::Display) -> Result<Reader> {
    let mut out = io::stdout().lock();
    judge(write!(out, "{text}").and_then(|()| out.flush()))
}

/// What the outcome of a write to standard output means.
pub fn judge(written: io::Result<()>) -> Result<Reader> {
    match written {
        Ok(()) => Ok(Reader::Present),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Reader::Gone),
        Err(error) => Err(Error::io("writing to standard output")(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_reader_that_has_left_is_no_failure() {
        assert!(matches!(judge(Ok(())), Ok(Reader::Present)));
        assert!(matches!(judge(Err(ErrorKind::BrokenPipe.into())), Ok(Reader::Gone)));
        let error = judge(Err(ErrorKind::StorageFull.into())).expect_err("somebody waits for it");
        assert!(error.to_string().starts_with("writing to standard output: ") && error.exit_code() == 1, "{error}");
    }
}
