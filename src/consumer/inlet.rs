//! The reading side of a connection: a blocking stream whose reads end at a deadline or on request.
//!
//! Owned by the link's reading thread. A read returns when the greeting's deadline has passed, and soon after
//! [`stop_reading`](Socket::stop_reading) was called, so that a replaced connection frees a partly received message.
//!
//! Unfinished messages of all links of a lane share one budget. Until a link rules, the WebSocket's own limit keeps
//! each of its messages at 64 KiB or less. A ruling link needs one of the lane's [`LARGE_MESSAGES`] permits for a
//! larger message. Only one link of a lane rules at a time, so it waits only until the links that it replaced have
//! released their permits.

use std::io::{self, ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::socket::Socket;
use crate::net::{ReadHalf, is_transient};

/// The largest message of a peer that does not rule, and the most unfinished bytes that need no permit.
pub(super) const MAX_SMALL_BYTES: usize = 64 << 10;
/// The most unfinished messages above that size, over all links of a lane.
const LARGE_MESSAGES: usize = 2;
/// How often a link that waits for a permit checks whether it should stop.
const PERMIT_CHECK: Duration = Duration::from_millis(100);
/// How long a link waits for a permit before its connection is given up.
const PERMIT_LIMIT: Duration = Duration::from_secs(5);

/// A lane's permits for large messages. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Permits(Sender<()>, Receiver<()>);

impl Permits {
    pub(super) fn new() -> Permits {
        let (taken, given_back) = bounded(LARGE_MESSAGES);
        Permits(taken, given_back)
    }
}

/// A permit, returned when dropped.
#[derive(Debug)]
struct Permit(Receiver<()>);

impl Drop for Permit {
    fn drop(&mut self) {
        // The channel holds one entry for each permit taken; this removes one.
        let _ = self.0.try_recv();
    }
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Inlet {
    reader: ReadHalf,
    socket: Socket,
    /// Reading fails from this time on, unless the peer is trusted by then.
    deadline: Option<Instant>,
    /// Those of the lane, once the link rules.
    permits: Option<Permits>,
    permit: Option<Permit>,
    /// Bytes read since the last complete message.
    unfinished_bytes: usize,
}

impl Inlet {
    /// Reading fails from `deadline` on, until the peer is [trusted](Inlet::trust).
    pub(super) fn new(reader: ReadHalf, socket: Socket, deadline: Instant) -> Inlet {
        Inlet { reader, socket, deadline: Some(deadline), permits: None, permit: None, unfinished_bytes: 0 }
    }

    /// Notes that the link rules: its peer may be silent, and its messages may be large.
    pub(super) fn trust(&mut self, permits: &Permits) {
        self.deadline = None;
        self.permits = Some(permits.clone());
    }

    /// Ends receiving and returns the permit, if there is one. The reader remains, to wait for the peer's close.
    pub(super) fn into_reader(self) -> ReadHalf {
        self.reader
    }

    /// A message is complete.
    pub(super) fn message_is_whole(&mut self) {
        self.unfinished_bytes = 0;
        if self.permit.take().is_some() {
            self.socket.set_reads_much(false);
        }
    }

    fn check_deadline(&self) -> io::Result<()> {
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(ErrorKind::TimedOut.into());
        }
        if self.socket.is_read_no_more() {
            return Err(io::Error::new(ErrorKind::ConnectionAborted, "it was closed here"));
        }
        Ok(())
    }

    /// Waits for a permit, if what is read next needs one.
    fn wait_for_permit(&mut self) -> io::Result<()> {
        // Before LEAD, messages are small, so only pings can add up to this many bytes.
        let Some(permits) = &self.permits else { return Ok(()) };
        if self.permit.is_some() || self.unfinished_bytes < MAX_SMALL_BYTES {
            return Ok(());
        }
        let limit = Instant::now() + PERMIT_LIMIT;
        while permits.0.send_timeout((), PERMIT_CHECK).is_err() {
            self.check_deadline()?;
            if Instant::now() >= limit {
                return Err(io::Error::other("too many large messages are on their way"));
            }
        }
        self.permit = Some(Permit(permits.1.clone()));
        self.socket.set_reads_much(true);
        Ok(())
    }
}

impl Read for Inlet {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.wait_for_permit()?;
        loop {
            self.check_deadline()?;
            match self.reader.read(buffer) {
                // The socket's read slice has ended, or a signal interrupted the call.
                Err(error) if is_transient(error.kind()) => {}
                outcome => {
                    self.unfinished_bytes += outcome.as_ref().map_or(0, |count| *count);
                    return outcome;
                }
            }
        }
    }
}

impl Write for Inlet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;
    use crate::net::Listener;

    const LONG: Duration = Duration::from_secs(60);

    /// An inlet with this much time for the greeting, its socket and its peer.
    fn inlet(limit: Duration) -> (Inlet, Socket, TcpStream) {
        let listener = Listener::bind("127.0.0.1:0").expect("a free port");
        let peer = TcpStream::connect(listener.address().expect("bound")).expect("it listens");
        let (socket, reader) = Socket::new(listener.accept().expect("it connected").0).expect("options");
        (Inlet::new(reader, socket.clone(), Instant::now() + limit), socket, peer)
    }

    #[test]
    fn a_dripping_peer_meets_the_deadline() {
        let started = Instant::now();
        let (mut inlet, socket, mut peer) = inlet(Duration::from_millis(300));
        let dripper = std::thread::spawn(move || {
            // Ends when the other side is closed.
            while peer.write_all(b"x").is_ok() {
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let mut byte = [0];
        while inlet.read(&mut byte).is_ok() {}
        assert!((Duration::from_millis(300)..Duration::from_secs(3)).contains(&started.elapsed()));
        drop((inlet, socket));
        dripper.join().expect("it ended");
    }

    #[test]
    fn a_link_that_is_asked_to_stop_reading_stops() {
        let (mut inlet, socket, _peer) = inlet(LONG);
        inlet.trust(&Permits::new());
        let reader = std::thread::spawn(move || inlet.read(&mut [0]).expect_err("nothing comes").kind());
        socket.stop_reading();
        assert_eq!(reader.join().expect("no panic"), ErrorKind::ConnectionAborted);
    }

    #[test]
    fn large_messages_need_permits_which_come_back() {
        let permits = Permits::new();
        let mut buffer = vec![0; MAX_SMALL_BYTES];
        let mut links: Vec<_> = (0..=LARGE_MESSAGES)
            .map(|_| {
                let (mut inlet, socket, peer) = inlet(LONG);
                inlet.trust(&permits);
                (inlet, socket, peer)
            })
            .collect();
        let mut bring = |(inlet, _, peer): &mut (Inlet, Socket, TcpStream)| {
            peer.write_all(&[0; MAX_SMALL_BYTES]).expect("it is buffered");
            inlet.read_exact(&mut buffer).expect("it came");
            peer.write_all(b"x").expect("it is buffered");
        };
        links.iter_mut().for_each(&mut bring);
        let (mut last, socket, _peer) = links.pop().expect("there are some");
        for (inlet, ..) in &mut links {
            assert_eq!(inlet.read(&mut [0; 2]).expect("there are permits"), 1);
        }
        // The last one gets its permit when another has completed its message.
        let waiting = std::thread::spawn(move || last.read(&mut [0; 2]).map_err(|error| error.kind()));
        links[0].0.message_is_whole();
        assert_eq!(waiting.join().expect("no panic"), Ok(1));
        drop(socket);
    }
}
