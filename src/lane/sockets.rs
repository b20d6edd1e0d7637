//! Waiting for many sockets and for a wake-up from another thread, in one place.
//!
//! A socket is reported when it becomes ready, and perhaps not again until it was read or written until it would block.

use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use crate::base::error::{Error, Result};
use crate::net::Stream;

/// Events taken in one wait. The next wait takes more.
const EVENTS: usize = 256;
/// The key of the wake-up, which is no socket's.
const WAKE: Token = Token(usize::MAX);

/// The sockets of one thread. Only that thread waits on them.
pub(super) struct Sockets {
    poll: Poll,
    events: Events,
    waker: Waker,
}

/// Wakes the thread that waits. Clones wake the same one.
#[derive(Clone)]
pub(super) struct Waker(Arc<mio::Waker>);

impl Sockets {
    pub(super) fn new() -> Result<Sockets> {
        let poll = Poll::new().map_err(Error::io("creating a poller"))?;
        let waker = mio::Waker::new(poll.registry(), WAKE).map_err(Error::io("creating a poller"))?;
        Ok(Sockets { poll, events: Events::with_capacity(EVENTS), waker: Waker(Arc::new(waker)) })
    }

    pub(super) fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Watches a socket until it is [removed](Sockets::remove).
    pub(super) fn add(&self, socket: &Stream, key: usize) -> Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        let fd = socket.as_raw_fd();
        let registry = self.poll.registry();
        registry.register(&mut SourceFd(&fd), Token(key), interest).map_err(Error::io("watching a socket"))
    }

    pub(super) fn remove(&self, socket: &Stream) {
        if let Err(error) = self.poll.registry().deregister(&mut SourceFd(&socket.as_raw_fd())) {
            log::debug!("event=unwatch-failed error={error}");
        }
    }

    /// Waits until a socket becomes ready, another thread wakes this one, or `limit` has passed. Returns the keys of
    /// the sockets that may have something to read, or have failed.
    pub(super) fn wait(&mut self, limit: Duration) -> Result<Vec<usize>> {
        match self.poll.poll(&mut self.events, Some(limit)) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => self.events.clear(),
            Err(error) => return Err(Error::io("waiting for sockets")(error)),
        }
        let readable = |event: &&mio::event::Event| {
            event.token() != WAKE && (event.is_readable() || event.is_read_closed() || event.is_error())
        };
        Ok(self.events.iter().filter(readable).map(|event| event.token().0).collect())
    }
}

impl Waker {
    /// Wakes the thread that waits, or makes its next wait return at once.
    pub(super) fn wake(&self) {
        if let Err(error) = self.0.wake() {
            // The thread wakes by itself a little later.
            log::debug!("event=wake-failed error={error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::Instant;

    use super::*;
    use crate::net::Wait;

    const LONG: Duration = Duration::from_secs(10);

    fn pairs(count: usize) -> (Vec<Stream>, Vec<TcpStream>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let pair = |_| {
            let mut stream = Stream::over_tcp(TcpStream::connect(address).expect("it listens")).expect("a socket");
            stream.set_wait(Wait::Never).expect("a socket");
            (stream, listener.accept().expect("it connects").0)
        };
        (0..count).map(pair).unzip()
    }

    #[test]
    fn what_arrived_before_is_reported_once_and_what_follows_again() {
        let (mut streams, mut peers) = pairs(1);
        let mut sockets = Sockets::new().expect("a poller");
        peers[0].write_all(b"x").expect("it is written");
        sockets.add(&streams[0], 7).expect("it is watched");
        assert_eq!(sockets.wait(LONG).expect("it waits"), [7]);
        assert_eq!(sockets.wait(Duration::ZERO).expect("it waits"), [0; 0]);
        peers[0].write_all(b"y").expect("it is written");
        assert_eq!(sockets.wait(LONG).expect("it waits"), [7]);
        let mut read = [0; 9];
        assert_eq!(streams[0].read(&mut read).expect("there is something"), 2);
        drop(peers);
        assert_eq!(sockets.wait(LONG).expect("it waits"), [7], "its end");
        sockets.remove(&streams[0]);
        assert_eq!(sockets.wait(Duration::ZERO).expect("it waits"), [0; 0]);
    }

    #[test]
    fn a_wake_up_before_the_wait_counts() {
        let mut sockets = Sockets::new().expect("a poller");
        let waker = sockets.waker();
        for _ in 0..3 {
            let begin = Instant::now();
            waker.wake();
            waker.clone().wake();
            assert_eq!(sockets.wait(LONG).expect("it waits"), [0; 0]);
            assert!(begin.elapsed() < LONG);
        }
    }

    #[test]
    fn more_sockets_than_one_wait_reports_are_all_reported() {
        let (streams, mut peers) = pairs(EVENTS + 10);
        let mut sockets = Sockets::new().expect("a poller");
        streams.iter().enumerate().for_each(|(key, stream)| sockets.add(stream, key).expect("it is watched"));
        peers.iter_mut().for_each(|peer| peer.write_all(b"x").expect("it is written"));
        let mut keys = Vec::new();
        while keys.len() < streams.len() {
            let reported = sockets.wait(LONG).expect("it waits");
            assert!(reported.len() <= EVENTS);
            keys.extend(reported);
        }
        keys.sort_unstable();
        assert_eq!(keys, (0..streams.len()).collect::<Vec<_>>());
    }
}
