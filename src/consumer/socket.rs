//! The part of a socket that the threads of its connection share: the writing half, and the means to close it.
//!
//! Two WebSocket endpoints write: the writing thread's, and the reading thread's, which sends pongs. Each write is
//! completed under one lock, and tungstenite writes whole frames, so the frames of the two never mix. The half that
//! reads belongs to the [`Inlet`](super::inlet::Inlet) alone. No call blocks forever: writes have a deadline, and a
//! read returns soon, with or without bytes.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::net::{Closer, Keepalive, ReadHalf, Stream, Wait, WriteHalf, is_transient};

/// How often a blocked read checks the clock and whether it should stop.
const READ_SLICE: Duration = Duration::from_millis(100);
/// How long a peer may take to read what is written to it.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a blocked write checks the clock.
const WRITE_SLICE: Duration = Duration::from_secs(1);
/// A peer that vanished without closing is noticed after this time and a few probes.
const KEEPALIVE: Keepalive = Keepalive { after: Duration::from_secs(10), every: Duration::from_secs(5) };

/// See the module's text. Clones share the socket.
#[derive(Clone, Debug)]
pub(super) struct Socket {
    writer: Arc<Mutex<WriteHalf>>,
    closer: Closer,
    /// Set when the reader should stop: what the peer sends from then on is not read.
    read_no_more: Arc<AtomicBool>,
    /// The reader is in the middle of a large message.
    reads_much: Arc<AtomicBool>,
}

impl Socket {
    /// The socket of an accepted connection, and its reading half.
    pub(super) fn new(mut stream: Stream) -> io::Result<(Socket, ReadHalf)> {
        stream.set_read_wait(Wait::Each(READ_SLICE))?;
        stream.set_write_wait(Wait::Each(WRITE_SLICE))?;
        stream.set_keepalive(KEEPALIVE)?;
        let (reader, writer) = stream.split();
        let (closer, writer) = (reader.closer(), Arc::new(Mutex::new(writer)));
        Ok((Socket { writer, closer, read_no_more: Arc::default(), reads_much: Arc::default() }, reader))
    }

    /// Makes the reader return soon, whatever the peer sends.
    pub(super) fn stop_reading(&self) {
        self.read_no_more.store(true, Ordering::Release);
    }

    /// Whether the reader should return.
    pub(super) fn is_read_no_more(&self) -> bool {
        self.read_no_more.load(Ordering::Acquire)
    }

    /// Notes whether the reader is in the middle of a large message.
    pub(super) fn set_reads_much(&self, much: bool) {
        self.reads_much.store(much, Ordering::Release);
    }

    /// Whether the reader is in the middle of a large message.
    pub(super) fn reads_much(&self) -> bool {
        self.reads_much.load(Ordering::Acquire)
    }

    /// Ends both directions: blocked reads and writes return with an error at once.
    pub(super) fn shutdown(&self) {
        self.closer.shutdown();
    }

    /// Signals to the peer that nothing more will be written.
    pub(super) fn finish_writing(&self) {
        self.closer.finish_writing();
    }
}

/// WebSocket endpoints require both traits, but the inlet owns the reading half.
impl Read for Socket {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(ErrorKind::Unsupported.into())
    }
}

impl Write for Socket {
    /// Writes all bytes or closes the socket: after a partial frame, the peer could not parse any other.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut writer = self.writer.lock();
        let deadline = Instant::now() + WRITE_TIMEOUT;
        let mut rest = bytes;
        while !rest.is_empty() {
            match writer.write(rest) {
                Ok(0) => return Err(self.broken(ErrorKind::WriteZero.into())),
                Ok(count) => rest = &rest[count..],
                Err(error) if is_transient(error.kind()) => {}
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
    use std::net::TcpStream;

    use super::*;
    use crate::net::Listener;

    #[test]
    fn a_peer_that_does_not_read_ends_the_write() {
        let listener = Listener::bind("127.0.0.1:0").expect("a free port");
        let peer = TcpStream::connect(listener.address().expect("bound")).expect("it listens");
        let (mut socket, _reader) = Socket::new(listener.accept().expect("it connected").0).expect("options");
        let error = socket.write(&vec![0; 64 << 20]).expect_err("the peer does not read");
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(socket.write(b"x").is_err(), "half a frame is on the wire");
        drop(peer);
    }
}
