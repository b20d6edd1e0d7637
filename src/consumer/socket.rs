//! A TCP socket that two WebSocket endpoints share: one reads (and writes pongs), the other writes.
//!
//! Each write is done whole under one lock, and tungstenite hands over whole frames, so frames of the two never mix.
//! No call lasts for ever: writes have a deadline, and a read comes back soon, with or without bytes (see `inlet`).

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use socket2::{SockRef, TcpKeepalive};

/// How often a blocked read looks at the clock and at the order to stop.
pub(super) const READ_SLICE: Duration = Duration::from_millis(100);
/// How long a peer may take to read what is written to it.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a blocked write looks at the clock.
const WRITE_SLICE: Duration = Duration::from_secs(1);
/// A host that vanished without a word is noticed after this time and 3 probes, 5 s apart.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// See the module's text. Clones are the same socket.
#[derive(Clone, Debug)]
pub(super) struct Socket {
    tcp: Arc<TcpStream>,
    writing: Arc<Mutex<()>>,
    /// What the peer sends from now on is of no interest.
    read_no_more: Arc<AtomicBool>,
    /// The reader is in the midst of a large message.
    reads_much: Arc<AtomicBool>,
}

impl Socket {
    pub(super) fn new(tcp: TcpStream) -> io::Result<Socket> {
        tcp.set_nonblocking(false)?;
        tcp.set_nodelay(true)?;
        tcp.set_write_timeout(Some(WRITE_SLICE))?;
        tcp.set_read_timeout(Some(READ_SLICE))?;
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_INTERVAL);
        SockRef::from(&tcp).set_tcp_keepalive(&keepalive)?;
        let (read_no_more, reads_much) = (Arc::default(), Arc::default());
        Ok(Socket { tcp: Arc::new(tcp), writing: Arc::default(), read_no_more, reads_much })
    }

    /// Has the reader come back soon, whatever the peer sends.
    pub(super) fn stop_reading(&self) {
        self.read_no_more.store(true, Ordering::Release);
    }

    /// Whether the reader is to come back.
    pub(super) fn is_read_no_more(&self) -> bool {
        self.read_no_more.load(Ordering::Acquire)
    }

    /// The reader says whether it is in the midst of a large message.
    pub(super) fn set_reads_much(&self, much: bool) {
        self.reads_much.store(much, Ordering::Release);
    }

    /// Whether the reader is in the midst of a large message.
    pub(super) fn reads_much(&self) -> bool {
        self.reads_much.load(Ordering::Acquire)
    }

    /// Ends both directions: whoever reads or writes comes back with an error at once.
    pub(super) fn shutdown(&self) {
        // It may be closed already, which is what is wanted.
        let _ = self.tcp.shutdown(Shutdown::Both);
    }

    /// Says that nothing more is written.
    pub(super) fn finish_writing(&self) {
        let _ = self.tcp.shutdown(Shutdown::Write);
    }

    /// Reads until the peer has closed, at most for `limit`.
    ///
    /// Closing a socket with unread bytes makes the system reset the connection, and the peer might never see the
    /// ERROR that was written last.
    pub(super) fn linger(&self, limit: Duration) {
        let mut discarded = [0; 4096];
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            match (&*self.tcp).read(&mut discarded) {
                Ok(1..) => {}
                Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
                Ok(0) | Err(_) => return,
            }
        }
    }
}

impl Read for Socket {
    /// Reads what is there; waits for it no longer than a [`READ_SLICE`].
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self.tcp).read(buffer)
    }
}

impl Write for Socket {
    /// Writes all of it or fails for good: a part of a frame on the wire makes the rest unreadable.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _whole_frames = self.writing.lock();
        let deadline = Instant::now() + WRITE_TIMEOUT;
        let mut rest = bytes;
        while !rest.is_empty() {
            match (&*self.tcp).write(rest) {
                Ok(0) => return Err(self.broken(ErrorKind::WriteZero.into())),
                Ok(count) => rest = &rest[count..],
                Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
                Err(error) => return Err(self.broken(error)),
            }
            if !rest.is_empty() && Instant::now() >= deadline {
                return Err(self.broken(ErrorKind::TimedOut.into()));
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Socket {
    fn broken(&self, error: io::Error) -> io::Error {
        self.shutdown();
        error
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::net::TcpListener;

    use super::*;

    /// A socket and its peer.
    pub(in crate::consumer) fn pair() -> (Socket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let peer = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
        (Socket::new(listener.accept().expect("it connected").0).expect("options"), peer)
    }

    #[test]
    fn a_peer_that_does_not_read_ends_the_write() {
        let (mut socket, peer) = pair();
        let error = socket.write(&vec![0; 64 << 20]).expect_err("nobody reads");
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(socket.write(b"x").is_err(), "half a frame is on the wire");
        drop(peer);
    }
}
