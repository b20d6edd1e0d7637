//! Waiting for many sockets and for a wake-up from another thread, in one place.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use polling::{Event, Events, PollMode, Poller};

use crate::base::error::{Error, Result};
use crate::net::Stream;

/// The sockets of one thread. Only that thread waits on them.
pub(super) struct Sockets {
    poller: Arc<Poller>,
    events: Events,
}

/// Wakes the thread that waits. Clones wake the same one.
#[derive(Clone)]
pub(super) struct Waker(Arc<Poller>);

/// A socket that can be read or written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Readiness {
    pub(super) key: usize,
    pub(super) readable: bool,
}

impl Sockets {
    pub(super) fn new() -> Result<Sockets> {
        let poller = Poller::new().map_err(Error::io("creating a poller"))?;
        Ok(Sockets { poller: Arc::new(poller), events: Events::new() })
    }

    pub(super) fn waker(&self) -> Waker {
        Waker(self.poller.clone())
    }

    /// Watches a socket, which must be [removed](Sockets::remove) before it is closed.
    #[allow(unsafe_code, reason = "the poller can't know when a socket is closed")]
    pub(super) fn add(&self, socket: &Stream, key: usize) -> Result<()> {
        // SAFETY: the courier removes each link's socket before it drops the link, in `drop_link`, and the poller
        // itself is dropped with the courier.
        unsafe { self.poller.add_with_mode(socket, Event::readable(key), PollMode::Level) }
            .map_err(Error::io("watching a socket"))
    }

    /// Changes what a socket is watched for.
    pub(super) fn watch(&self, socket: &Stream, key: usize, readable: bool, writable: bool) -> Result<()> {
        let interest = Event::new(key, readable, writable);
        self.poller.modify_with_mode(socket, interest, PollMode::Level).map_err(Error::io("watching a socket"))
    }

    pub(super) fn remove(&self, socket: &Stream) {
        if let Err(error) = self.poller.delete(socket) {
            log::debug!("event=unwatch-failed error={error}");
        }
    }

    /// Waits until a socket is ready, another thread wakes this one, or `limit` has passed.
    pub(super) fn wait(&mut self, limit: Duration) -> Result<Vec<Readiness>> {
        self.events.clear();
        match self.poller.wait(&mut self.events, Some(limit)) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io("waiting for sockets")(error)),
        }
        Ok(self.events.iter().map(|event| Readiness { key: event.key, readable: event.readable }).collect())
    }
}

impl Waker {
    /// Wakes the thread that waits, or makes its next wait return at once.
    pub(super) fn wake(&self) {
        if let Err(error) = self.0.notify() {
            // The thread wakes by itself a little later.
            log::debug!("event=wake-failed error={error}");
        }
    }
}
