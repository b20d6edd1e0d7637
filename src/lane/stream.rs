//! The TCP connection of a link: with a deadline while the link is being made, and then without ever blocking.
//!
//! A socket's own timeout is for one call, so a peer that sends a byte now and then would never meet it; the deadline here is
//! for all calls together. What has been written is counted, so that the courier sees whether a peer reads.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

/// See the module's text.
#[derive(Debug)]
pub(super) struct Stream {
    tcp: TcpStream,
    /// When all reading and writing has to be over with; `None`: it does not block.
    deadline: Option<Instant>,
    written_bytes: u64,
}

impl Stream {
    /// All reads and writes together may take until `deadline`.
    pub(super) fn with_deadline(tcp: TcpStream, deadline: Instant) -> Stream {
        Stream { tcp, deadline: Some(deadline), written_bytes: 0 }
    }

    /// From now on nothing blocks.
    pub(super) fn unblock(&mut self) -> io::Result<()> {
        self.deadline = None;
        self.tcp.set_nonblocking(true)
    }

    /// From now on calls block, together until `deadline`.
    pub(super) fn block_until(&mut self, deadline: Instant) -> io::Result<()> {
        self.deadline = Some(deadline);
        self.tcp.set_nonblocking(false)
    }

    pub(super) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// Bytes that the system has taken, in all.
    pub(super) fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// Says that nothing more is written, and reads until the peer has closed, too, or the deadline has come.
    ///
    /// Closing a socket with unread bytes makes the system reset the connection, and the peer might never see what was
    /// written last.
    pub(super) fn linger(&mut self) {
        // It may be closed already.
        let _ = self.tcp.shutdown(Shutdown::Write);
        let mut discarded = [0; 16 << 10];
        while self.deadline.is_some() && matches!(self.read(&mut discarded), Ok(1..)) {}
    }

    /// Does something that may block, again and again until it has an outcome or the deadline has come.
    fn until_deadline<T>(
        &mut self,
        set_timeout: impl Fn(&TcpStream, Option<Duration>) -> io::Result<()>,
        mut act: impl FnMut(&mut TcpStream) -> io::Result<T>,
    ) -> io::Result<T> {
        let Some(deadline) = self.deadline else { return act(&mut self.tcp) };
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            set_timeout(&self.tcp, Some(left))?;
            match act(&mut self.tcp) {
                Err(error) if is_transient(error.kind()) => {}
                outcome => return outcome,
            }
        }
    }
}

/// Whether an error of a socket says no more than that there is nothing to do now.
pub(super) fn is_transient(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.until_deadline(TcpStream::set_read_timeout, |tcp| tcp.read(buffer))
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.until_deadline(TcpStream::set_write_timeout, |tcp| tcp.write(bytes))?;
        self.written_bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let one = TcpStream::connect(listener.local_addr().expect("it is bound")).expect("it listens");
        (one, listener.accept().expect("it connects").0)
    }

    #[test]
    fn a_peer_that_drips_meets_the_deadline() {
        let (tcp, mut peer) = pair();
        let limit = Duration::from_millis(300);
        let started = Instant::now();
        let mut stream = Stream::with_deadline(tcp, started + limit);
        let dripper = thread::spawn(move || {
            // Ends when the other side is closed.
            while peer.write_all(b"x").is_ok() {
                thread::sleep(Duration::from_millis(20));
            }
        });
        let mut byte = [0];
        let error = loop {
            match stream.read_exact(&mut byte) {
                Ok(()) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(started.elapsed() >= limit);
        drop(stream);
        dripper.join().expect("it ended");
    }

    #[test]
    fn without_a_deadline_nothing_blocks_and_what_was_written_is_counted() {
        let (tcp, peer) = pair();
        let mut stream = Stream::with_deadline(tcp, Instant::now());
        stream.unblock().expect("our own socket");
        assert_eq!(stream.read(&mut [0]).expect_err("nothing has come").kind(), ErrorKind::WouldBlock);
        let chunk = vec![0; 1 << 20];
        while stream.write(&chunk).is_ok() {}
        let written = stream.written_bytes();
        assert!(written > 0 && stream.write(&chunk).is_err() && stream.written_bytes() == written);
        drop(peer);
    }
}
