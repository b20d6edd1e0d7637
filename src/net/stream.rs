//! A connection: one value to read and write, or two halves for two threads.
//!
//! A call on one half changes no shared state, so neither half waits for the other. Reading and writing have separate
//! [`Wait`]s. Only whether the socket blocks at all is common to both, and is set on the whole stream.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::{SockRef, TcpKeepalive};

use super::raw::Raw;

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

/// When a peer that has vanished without closing is detected.
#[derive(Clone, Copy, Debug)]
pub struct Keepalive {
    /// The silence after which the first probe is sent.
    pub after: Duration,
    /// The time between two probes.
    pub every: Duration,
}

/// A connection. See the module's text.
#[derive(Debug)]
pub struct Stream {
    reader: ReadHalf,
    writer: WriteHalf,
}

/// The half of a stream that reads.
#[derive(Debug)]
pub struct ReadHalf {
    closer: Closer,
    wait: Wait,
}

/// The half of a stream that writes.
#[derive(Debug)]
pub struct WriteHalf {
    closer: Closer,
    wait: Wait,
    written_bytes: u64,
}

/// Ends a connection from any thread. The socket itself is closed when its halves and closers are gone.
#[derive(Clone, Debug)]
pub struct Closer(Arc<Raw>);

impl Stream {
    /// A stream over a connected TCP socket that blocks. Small writes are sent immediately.
    pub fn over_tcp(tcp: TcpStream) -> io::Result<Stream> {
        tcp.set_nodelay(true)?;
        Stream::over(Raw::Tcp(tcp))
    }

    /// A stream over a connected Unix socket that blocks.
    pub fn over_unix(unix: UnixStream) -> io::Result<Stream> {
        Stream::over(Raw::Unix(unix))
    }

    fn over(raw: Raw) -> io::Result<Stream> {
        raw.set_read_timeout(None)?;
        raw.set_write_timeout(None)?;
        let closer = Closer(Arc::new(raw));
        let reader = ReadHalf { closer: closer.clone(), wait: Wait::Forever };
        Ok(Stream { reader, writer: WriteHalf { closer, wait: Wait::Forever, written_bytes: 0 } })
    }

    /// Makes the system probe a silent peer. A Unix socket does not need that.
    pub fn set_keepalive(&self, Keepalive { after, every }: Keepalive) -> io::Result<()> {
        match &*self.reader.closer.0 {
            Raw::Tcp(tcp) => {
                let keepalive = TcpKeepalive::new().with_time(after).with_interval(every);
                SockRef::from(tcp).set_tcp_keepalive(&keepalive)
            }
            Raw::Unix(_) => Ok(()),
        }
    }

    /// Sets how long reading and writing wait.
    pub fn set_wait(&mut self, wait: Wait) -> io::Result<()> {
        self.reader.closer.0.set_nonblocking(wait == Wait::Never)?;
        self.reader.set_wait(wait)?;
        self.writer.set_wait(wait)
    }

    /// Sets how long reading waits, on a stream that blocks.
    pub fn set_read_wait(&mut self, wait: Wait) -> io::Result<()> {
        self.reader.set_wait(wait)
    }

    /// Sets how long writing waits, on a stream that blocks.
    pub fn set_write_wait(&mut self, wait: Wait) -> io::Result<()> {
        self.writer.set_wait(wait)
    }

    /// The total of bytes that the system has accepted.
    pub fn written_bytes(&self) -> u64 {
        self.writer.written_bytes
    }

    /// The two halves, for two threads.
    pub fn split(self) -> (ReadHalf, WriteHalf) {
        (self.reader, self.writer)
    }

    /// A handle that ends the connection from another thread.
    pub fn closer(&self) -> Closer {
        self.reader.closer.clone()
    }

    /// Ends both directions.
    pub fn shutdown(&self) {
        self.reader.closer.shutdown();
    }

    /// Ends the writing direction, then reads until the peer has closed, too; see [`ReadHalf::linger`].
    pub fn linger(&mut self, deadline: Instant, most_bytes: Option<usize>) {
        self.reader.closer.finish_writing();
        self.reader.linger(deadline, most_bytes);
    }
}

impl ReadHalf {
    /// Sets how long reading waits. [`Wait::Never`] is for whole streams.
    pub fn set_wait(&mut self, wait: Wait) -> io::Result<()> {
        self.wait = wait;
        match each(wait) {
            Some(timeout) => self.closer.0.set_read_timeout(timeout),
            None => Ok(()),
        }
    }

    /// A handle that ends the connection from another thread.
    pub fn closer(&self) -> Closer {
        self.closer.clone()
    }

    /// Ends both directions.
    pub fn shutdown(&self) {
        self.closer.shutdown();
    }

    /// Reads and discards until the peer has closed, `deadline` has come, or it has sent `most_bytes`, if there
    /// is such a limit.
    ///
    /// Closing a socket with unread bytes makes the system reset the connection, and the peer might never see what was
    /// written last.
    pub fn linger(&mut self, deadline: Instant, most_bytes: Option<usize>) {
        let mut discarded = [0; 16 << 10];
        let mut left = most_bytes;
        // The socket must block for this.
        let _ = self.closer.0.set_nonblocking(false);
        self.wait = Wait::Until(deadline);
        while left != Some(0) {
            match self.read(&mut discarded) {
                Ok(count @ 1..) => left = left.map(|left| left.saturating_sub(count)),
                Ok(0) | Err(_) => return,
            }
        }
    }
}

impl WriteHalf {
    /// Sets how long writing waits. [`Wait::Never`] is for whole streams.
    pub fn set_wait(&mut self, wait: Wait) -> io::Result<()> {
        self.wait = wait;
        match each(wait) {
            Some(timeout) => self.closer.0.set_write_timeout(timeout),
            None => Ok(()),
        }
    }

    /// The total of bytes that the system has accepted.
    pub fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// A handle that ends the connection from another thread.
    pub fn closer(&self) -> Closer {
        self.closer.clone()
    }

    /// Ends both directions.
    pub fn shutdown(&self) {
        self.closer.shutdown();
    }
}

impl Closer {
    /// Ends both directions: blocked reads and writes return immediately.
    pub fn shutdown(&self) {
        // It may be closed already, which is fine.
        let _ = self.0.shutdown(Shutdown::Both);
    }

    /// Ends the writing direction; the peer sees the end of the stream.
    pub fn finish_writing(&self) {
        let _ = self.0.shutdown(Shutdown::Write);
    }
}

/// The socket's timeout, if it is set once for many calls.
fn each(wait: Wait) -> Option<Option<Duration>> {
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
fn within<T>(
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

impl Read for ReadHalf {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let raw = &*self.closer.0;
        within(self.wait, |timeout| raw.set_read_timeout(timeout), || raw.read(buffer))
    }
}

impl Write for WriteHalf {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let raw = &*self.closer.0;
        let written = within(self.wait, |timeout| raw.set_write_timeout(timeout), || raw.write(bytes))?;
        self.written_bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer)
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// For a poller.
impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.closer.0.as_fd()
    }
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

#[cfg(test)]
mod tests;
