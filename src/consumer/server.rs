//! Accepts dispatchers' connections and owns their threads.
//!
//! One thread accepts. The number of connections is limited, those that have not introduced themselves included: when
//! the limit is reached, the oldest of these makes room, so that no crowd of silent strangers keeps a dispatcher out.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use log::warn;
use parking_lot::Mutex;
use polling::{Event, Events, Poller};

use super::desk::{Desk, LinkId};
use super::epochs::Epochs;
use super::link::Link;
use super::outbox::Outbox;
use super::socket::Socket;
use crate::error::{Error, Result};
use crate::log::Quoted;

/// The most connections at a time.
pub(super) const MAX_SOCKETS: usize = 64;
/// How long the accepting thread leaves the listener alone when the system has no more files or threads to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The accepting thread and the connections.
pub(super) struct Server {
    poller: Arc<Poller>,
    stopping: Arc<AtomicBool>,
    links: Links,
    acceptor: Option<JoinHandle<()>>,
    /// Disconnected when all links have ended.
    all_ended: Receiver<()>,
}

type Links = Arc<Mutex<Vec<LinkHandle>>>;

struct LinkHandle {
    socket: Socket,
    outbox: Arc<Outbox>,
    greeted: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl LinkHandle {
    fn is_greeted(&self) -> bool {
        self.greeted.load(Ordering::Acquire)
    }

    fn join(self) {
        if self.thread.join().is_err() {
            warn!("event=bug thread=link problem=panicked");
        }
    }
}

impl Server {
    /// Starts accepting.
    pub(super) fn start(listener: TcpListener, desk: Arc<Desk>, epochs: Arc<Epochs>) -> Result<Server> {
        let poller = Arc::new(Poller::new().map_err(Error::io("watching the listener"))?);
        let (stopping, links) = (Arc::new(AtomicBool::new(false)), Links::default());
        let (ended, all_ended) = bounded(0);
        let acceptor = Acceptor {
            listener,
            poller: poller.clone(),
            stopping: stopping.clone(),
            links: links.clone(),
            desk,
            epochs,
            ended,
            last_link: 0,
        };
        acceptor.watch().map_err(Error::io("watching the listener"))?;
        let acceptor = thread::Builder::new()
            .name("accept".to_owned())
            .spawn(move || acceptor.run())
            .map_err(Error::io("starting the accepting thread"))?;
        Ok(Server { poller, stopping, links, acceptor: Some(acceptor), all_ended })
    }

    /// Closes the listener, lets the connections write what they still have, closes them, and joins their threads.
    pub(super) fn close(mut self, limit: Duration) {
        self.stop_accepting();
        self.close_links(limit);
    }

    /// Closes the listener. Connections stay.
    fn stop_accepting(&mut self) {
        self.stopping.store(true, Ordering::Release);
        if let Err(error) = self.poller.notify() {
            warn!("event=bug thread=accept problem={}", Quoted(error));
        }
        if self.acceptor.take().is_some_and(|acceptor| acceptor.join().is_err()) {
            warn!("event=bug thread=accept problem=panicked");
        }
    }

    fn close_links(self, limit: Duration) {
        let links: Vec<_> = self.links.lock().drain(..).collect();
        for link in &links {
            link.outbox.close(None);
            if !link.is_greeted() {
                link.socket.shutdown();
            }
        }
        // Nothing is ever sent: this waits for the last sender to go.
        let _ = self.all_ended.recv_timeout(limit);
        for link in links {
            link.socket.shutdown();
            link.join();
        }
    }
}

struct Acceptor {
    listener: TcpListener,
    poller: Arc<Poller>,
    stopping: Arc<AtomicBool>,
    links: Links,
    desk: Arc<Desk>,
    epochs: Arc<Epochs>,
    ended: Sender<()>,
    last_link: LinkId,
}

impl Acceptor {
    #[allow(unsafe_code, reason = "the poller does not own what it watches")]
    fn watch(&self) -> io::Result<()> {
        self.listener.set_nonblocking(true)?;
        // SAFETY: the listener is a field beside the poller's handle, and `run` deletes it before it is dropped.
        unsafe { self.poller.add(&self.listener, Event::readable(0)) }
    }

    /// Accepts until it is told to stop: the thread's main loop.
    fn run(mut self) {
        let mut events = Events::new();
        while !self.stopping.load(Ordering::Acquire) {
            match self.listener.accept() {
                Ok((tcp, peer)) => {
                    if let Err(error) = Socket::new(tcp).and_then(|socket| self.admit(socket, peer)) {
                        warn!("event=connection-lost peer={peer} reason={}", Quoted(error));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait(&mut events, None),
                // Of a connection that was closed before it was accepted, or of a signal.
                Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) => {
                }
                Err(error) => {
                    warn!("event=accept-failed reason={}", Quoted(error));
                    self.wait(&mut events, Some(ACCEPT_PAUSE));
                }
            }
        }
        if let Err(error) = self.poller.delete(&self.listener) {
            warn!("event=bug thread=accept problem={}", Quoted(error));
        }
    }

    /// Waits for a connection, for the order to stop, or for `pause` alone if there is one.
    fn wait(&self, events: &mut Events, pause: Option<Duration>) {
        events.clear();
        let interest = if pause.is_some() { Event::none(0) } else { Event::readable(0) };
        let waited = self.poller.modify(&self.listener, interest).and_then(|()| self.poller.wait(events, pause));
        if let Err(error) = waited {
            warn!("event=accept-failed reason={}", Quoted(error));
            // The poller itself fails, so it can't do the waiting; without a pause this would spin.
            thread::sleep(ACCEPT_PAUSE);
        }
    }

    /// Starts a thread for a connection, making room for it first.
    fn admit(&mut self, socket: Socket, peer: SocketAddr) -> io::Result<()> {
        let mut links = self.links.lock();
        for ended in links.extract_if(.., |link| link.thread.is_finished()) {
            ended.join();
        }
        if links.len() >= MAX_SOCKETS {
            let Some(oldest) = links.iter().position(|link| !link.is_greeted()) else {
                self.desk.stats().strangers.add(1);
                return Err(io::Error::other(format!("{MAX_SOCKETS} dispatchers are connected already")));
            };
            let oldest = links.remove(oldest);
            oldest.socket.shutdown();
            oldest.join();
        }
        self.last_link += 1;
        let link = Link {
            id: self.last_link,
            peer,
            socket: socket.clone(),
            outbox: Arc::default(),
            greeted: Arc::default(),
            desk: self.desk.clone(),
            epochs: self.epochs.clone(),
        };
        let (outbox, greeted, ended) = (link.outbox.clone(), link.greeted.clone(), self.ended.clone());
        let thread = thread::Builder::new().name(format!("read-{}", link.id)).spawn(move || {
            link.run();
            drop(ended);
        })?;
        links.push(LinkHandle { socket, outbox, greeted, thread });
        Ok(())
    }
}
