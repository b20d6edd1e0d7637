//! Waiting for many sockets and for a wake-up from another thread, in one place.
//!
//! A socket is reported once when it becomes ready, and again only after it was read or written until it would block.

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
        let mut source = SourceFd(&socket.as_raw_fd());
        self.poll.registry().register(&mut source, Token(key), interest).map_err(Error::io("watching a socket"))
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
