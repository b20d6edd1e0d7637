//! A connection: one value to read and write, or two halves for two threads.
//!
//! A call on one half changes no shared state, so neither half waits for the other. With TLS they share its state,
//! which is locked only for computing, never while a socket is waited for. Reading and writing have separate [`Wait`]s.
//! Only whether the socket blocks at all is common to both, and is set on the whole stream.
//!
//! A write that fails for now ([`is_transient`](super::is_transient)) must be repeated with the same bytes, perhaps
//! with more behind them: with TLS a part of them may be on its way already.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use socket2::{SockRef, TcpKeepalive};

use super::raw::Raw;
use super::tls::{ClientTls, ServerTls, Session};
use super::wait::{Wait, each, within};

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
pub struct Closer(Arc<Shared>);

/// What the halves and closers of a connection share.
#[derive(Debug)]
struct Shared {
    raw: Raw,
    /// Once it is secure.
    tls: OnceLock<Session>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(tls) = self.tls.get() {
            tls.say_goodbye(&self.raw);
        }
    }
}

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
        let closer = Closer(Arc::new(Shared { raw, tls: OnceLock::new() }));
        let reader = ReadHalf { closer: closer.clone(), wait: Wait::Forever };
        Ok(Stream { reader, writer: WriteHalf { closer, wait: Wait::Forever, written_bytes: 0 } })
    }

    /// Begins TLS as a client and completes the handshake by `deadline`. The peer must show a certificate for `name`, a
    /// host name or an address, that an authority has signed which `tls` trusts. The stream must block.
    ///
    /// # Errors
    ///
    /// Those of reading and writing; in the others is a [`TlsProblem`](crate::base::tls::TlsProblem). With TLS 1.3 a
    /// server that refuses our certificate says so only when it is read from.
    pub fn secure(&mut self, tls: &ClientTls, name: &str, deadline: Instant) -> io::Result<()> {
        self.reader.closer.begin_tls(Session::of_client(tls, name)?, deadline)
    }

    /// Begins TLS as a server, in the same way. If `tls` requires certificates of clients, the peer has shown one.
    pub fn secure_as_server(&mut self, tls: &ServerTls, deadline: Instant) -> io::Result<()> {
        self.reader.secure_as_server(tls, deadline)
    }

    /// Makes the system probe a silent peer. A Unix socket does not need that.
    pub fn set_keepalive(&self, Keepalive { after, every }: Keepalive) -> io::Result<()> {
        match &self.reader.closer.0.raw {
            Raw::Tcp(tcp) => {
                let keepalive = TcpKeepalive::new().with_time(after).with_interval(every);
                SockRef::from(tcp).set_tcp_keepalive(&keepalive)
            }
            Raw::Unix(_) => Ok(()),
        }
    }

    /// Sets how long reading and writing wait.
    pub fn set_wait(&mut self, wait: Wait) -> io::Result<()> {
        self.reader.closer.0.raw.set_nonblocking(wait == Wait::Never)?;
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
            Some(timeout) => self.closer.0.raw.set_read_timeout(timeout),
            None => Ok(()),
        }
    }

    /// The same as [`Stream::secure_as_server`], once the stream is split. Nobody may write before this returns.
    pub fn secure_as_server(&mut self, tls: &ServerTls, deadline: Instant) -> io::Result<()> {
        self.closer.begin_tls(Session::of_server(tls)?, deadline)
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
        let _ = self.closer.0.raw.set_nonblocking(false);
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
            Some(timeout) => self.closer.0.raw.set_write_timeout(timeout),
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
    /// Ends both directions without a word: blocked reads and writes return immediately.
    pub fn abort(&self) {
        // It may be closed already, which is fine.
        let _ = self.0.raw.shutdown(Shutdown::Both);
    }

    /// Ends both directions: blocked reads and writes return immediately.
    pub fn shutdown(&self) {
        self.say_goodbye();
        // It may be closed already, which is fine.
        let _ = self.0.raw.shutdown(Shutdown::Both);
    }

    /// Ends the writing direction; the peer sees the end of the stream.
    pub fn finish_writing(&self) {
        self.say_goodbye();
        let _ = self.0.raw.shutdown(Shutdown::Write);
    }

    fn begin_tls(&self, session: Session, deadline: Instant) -> io::Result<()> {
        let Shared { raw, tls } = &*self.0;
        let before = raw.timeouts()?;
        session.shake_hands(raw, deadline)?;
        raw.set_read_timeout(before.0)?;
        raw.set_write_timeout(before.1)?;
        tls.set(session).map_err(|_| io::Error::other("the stream has TLS already"))
    }

    fn say_goodbye(&self) {
        if let Some(tls) = self.0.tls.get() {
            tls.say_goodbye(&self.0.raw);
        }
    }
}

impl Read for ReadHalf {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Shared { raw, tls } = &*self.closer.0;
        match tls.get() {
            Some(tls) => tls.read(raw, self.wait, buffer),
            None => within(self.wait, |timeout| raw.set_read_timeout(timeout), || raw.read(buffer)),
        }
    }
}

impl Write for WriteHalf {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Shared { raw, tls } = &*self.closer.0;
        if let Some(tls) = tls.get() {
            return tls.write(raw, self.wait, bytes, &mut self.written_bytes);
        }
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
        self.reader.closer.0.raw.as_fd()
    }
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

#[cfg(test)]
mod tests;
