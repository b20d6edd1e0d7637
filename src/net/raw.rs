//! The system's sockets behind a [`Stream`](super::Stream): reading and writing through a shared reference, and
//! options.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// A socket of either kind.
#[derive(Debug)]
pub(super) enum Raw {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Raw {
    pub(super) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Raw::Tcp(tcp) => (&*tcp).read(buffer),
            Raw::Unix(unix) => (&*unix).read(buffer),
        }
    }

    pub(super) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Raw::Tcp(tcp) => (&*tcp).write(bytes),
            Raw::Unix(unix) => (&*unix).write(bytes),
        }
    }

    pub(super) fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Raw::Tcp(tcp) => tcp.set_read_timeout(timeout),
            Raw::Unix(unix) => unix.set_read_timeout(timeout),
        }
    }

    pub(super) fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Raw::Tcp(tcp) => tcp.set_write_timeout(timeout),
            Raw::Unix(unix) => unix.set_write_timeout(timeout),
        }
    }

    pub(super) fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        match self {
            Raw::Tcp(tcp) => tcp.set_nonblocking(nonblocking),
            Raw::Unix(unix) => unix.set_nonblocking(nonblocking),
        }
    }

    pub(super) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match self {
            Raw::Tcp(tcp) => tcp.shutdown(how),
            Raw::Unix(unix) => unix.shutdown(how),
        }
    }
}

impl AsFd for Raw {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Raw::Tcp(tcp) => tcp.as_fd(),
            Raw::Unix(unix) => unix.as_fd(),
        }
    }
}
