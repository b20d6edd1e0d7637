//! The system's sockets behind a [`Stream`](super::Stream): reading and writing through a shared reference, and
//! options.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

#[cfg(feature = "tls")]
use socket2::SockRef;

/// For one call, as if the socket did not block. std has no name for it.
#[cfg(feature = "tls")]
const MSG_DONTWAIT: i32 = if cfg!(any(target_os = "linux", target_os = "android")) { 0x40 } else { 0x80 };

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

    /// Writes as much as is possible without waiting, whether or not the socket blocks.
    #[cfg(feature = "tls")]
    pub(super) fn write_at_once(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Raw::Tcp(tcp) => SockRef::from(tcp).send_with_flags(bytes, MSG_DONTWAIT),
            Raw::Unix(unix) => SockRef::from(unix).send_with_flags(bytes, MSG_DONTWAIT),
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

    /// The timeouts of reading and writing.
    pub(super) fn timeouts(&self) -> io::Result<(Option<Duration>, Option<Duration>)> {
        Ok(match self {
            Raw::Tcp(tcp) => (tcp.read_timeout()?, tcp.write_timeout()?),
            Raw::Unix(unix) => (unix.read_timeout()?, unix.write_timeout()?),
        })
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
