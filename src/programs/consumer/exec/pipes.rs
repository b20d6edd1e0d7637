//! Reading and writing pipes without blocking, and waiting for several of them with a deadline.
//!
//! The consumer's ends are non-blocking; the child's ends are not changed, since each end has flags of its own.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// What a read or a write that does not block has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moved {
    /// This many bytes, at least one.
    Bytes(usize),
    /// Nothing: there is nothing to read, or no room.
    Nothing,
    /// Nothing, and it will stay so: the other end is closed.
    End,
}

/// Makes this end of a pipe non-blocking.
pub(super) fn set_nonblocking(pipe: impl AsFd) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(&pipe, FcntlArg::F_GETFL)?);
    fcntl(&pipe, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

/// Reads what there is, at most a buffer full.
pub(super) fn read(pipe: &mut impl Read, buffer: &mut [u8]) -> io::Result<Moved> {
    loop {
        match pipe.read(buffer) {
            Ok(0) => return Ok(Moved::End),
            Ok(count) => return Ok(Moved::Bytes(count)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Moved::Nothing),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Writes what there is room for.
pub(super) fn write(pipe: &mut impl Write, bytes: &[u8]) -> io::Result<Moved> {
    loop {
        match pipe.write(bytes) {
            Ok(count) => return Ok(Moved::Bytes(count)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Moved::Nothing),
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(Moved::End),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Waits until one of these pipes can be read or written or has ended, or until `limit` has passed. It may return
/// earlier. Returns whether one of them is ready.
pub(super) fn wait(readable: &[BorrowedFd<'_>], writable: Option<BorrowedFd<'_>>, limit: Duration) -> io::Result<bool> {
    let mut fds: Vec<PollFd<'_>> = readable.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
    fds.extend(writable.map(|fd| PollFd::new(fd, PollFlags::POLLOUT)));
    // Rounded up, so that the last part of a millisecond is not spent polling.
    let limit = PollTimeout::try_from(limit.as_micros().div_ceil(1_000)).unwrap_or(PollTimeout::MAX);
    poll_for(&mut fds, limit)
}

/// Whether a pipe has bytes to read now.
pub(super) fn has_bytes(pipe: impl AsFd) -> io::Result<bool> {
    Ok(events(pipe)?.contains(PollFlags::POLLIN))
}

/// Whether the other end of a pipe that nothing is written to is closed.
pub(super) fn has_ended(pipe: impl AsFd) -> io::Result<bool> {
    Ok(events(pipe)?.contains(PollFlags::POLLHUP))
}

fn events(pipe: impl AsFd) -> io::Result<PollFlags> {
    let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
    poll_for(&mut fds, PollTimeout::ZERO)?;
    Ok(fds[0].revents().unwrap_or(PollFlags::empty()))
}

fn poll_for(fds: &mut [PollFd<'_>], limit: PollTimeout) -> io::Result<bool> {
    match poll(fds, limit) {
        Ok(ready) => Ok(ready > 0),
        // Callers check what they wait for again.
        Err(Errno::EINTR) => Ok(true),
        Err(error) => Err(error.into()),
    }
}
