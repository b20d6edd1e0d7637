//! A TCP socket that two WebSocket endpoints share: one reads (and writes pongs), the other writes.
//!
//! Each write is done whole under one lock, and tungstenite hands over whole frames, so frames of the two never mix.
//! No call lasts for ever: writes have a deadline, and so has reading until a peer has introduced itself.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use socket2::{SockRef, TcpKeepalive};

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
    /// When reading has to be over with; belongs to the one reader.
    read_deadline: Option<Instant>,
}

impl Socket {
    pub(super) fn new(tcp: TcpStream) -> io::Result<Socket> {
        tcp.set_nonblocking(false)?;
        tcp.set_nodelay(true)?;
        tcp.set_write_timeout(Some(WRITE_SLICE))?;
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_INTERVAL);
        SockRef::from(&tcp).set_tcp_keepalive(&keepalive)?;
        Ok(Socket { tcp: Arc::new(tcp), writing: Arc::default(), read_deadline: None })
    }

    /// Reading fails from `deadline` on; `None`: never.
    pub(super) fn set_read_deadline(&mut self, deadline: Option<Instant>) -> io::Result<()> {
        self.read_deadline = deadline;
        if deadline.is_none() { self.tcp.set_read_timeout(None) } else { Ok(()) }
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
    pub(super) fn linger(&mut self, limit: Duration) {
        let mut discarded = [0; 4096];
        if self.set_read_deadline(Some(Instant::now() + limit)).is_ok() {
            while matches!(self.read(&mut discarded), Ok(1..)) {}
        }
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(deadline) = self.read_deadline {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(ErrorKind::TimedOut.into());
                }
                self.tcp.set_read_timeout(Some(left))?;
            }
            match (&*self.tcp).read(buffer) {
                // Of a stopped and continued process, or of a timeout that came a moment early: look again.
                Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
                outcome => return outcome,
            }
        }
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
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn pair() -> (Socket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let peer = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
        (Socket::new(listener.accept().expect("it connected").0).expect("options"), peer)
    }

    #[test]
    fn a_dripping_peer_meets_the_deadline() {
        let (mut socket, mut peer) = pair();
        let started = Instant::now();
        socket.set_read_deadline(Some(started + Duration::from_millis(300))).expect("set");
        let dripper = std::thread::spawn(move || {
            // Ends when the other side is closed.
            while peer.write_all(b"x").is_ok() {
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let mut byte = [0];
        while socket.read(&mut byte).is_ok() {}
        assert!((Duration::from_millis(300)..Duration::from_secs(3)).contains(&started.elapsed()));
        drop(socket);
        dripper.join().expect("it ended");
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
