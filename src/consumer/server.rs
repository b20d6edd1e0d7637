//! Accepts dispatchers' connections and owns their threads.
//!
//! One thread accepts. The number of connections is limited. Connections that have not sent LEAD (*strangers*) count,
//! too, but no number of them can keep a dispatcher out. If the limit is reached, or the system is out of files or
//! threads, a connection is closed to make room (see [`Rank`]): first one that is closing anyway, then the oldest of
//! those that have not sent LEAD. The connections of active dispatchers are never closed for this. Some places are
//! reserved for addresses that ruled before (*regulars*).
//!
//! Limitation: if strangers connect from a dispatcher's own address, as on loopback, the reserved places don't help.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded};
use log::warn;
use parking_lot::Mutex;

use super::error::{Error, Result};
use super::lanes::Lanes;
use super::link::{Common, DispatcherLink, LinkLane};
use super::outbox::Outbox;
use super::peer::LinkId;
use super::refusals::{EventKind, Refusals};
use super::regulars::Regulars;
use super::socket::Socket;
use crate::base::log_context;
use crate::base::text::Quoted;
use crate::net::{LinkSecret, Listener, NotAccepted, ReadHalf, ServerTls};

/// The most connections at a time with one lane.
pub(super) const MAX_SOCKETS: usize = 64;
/// How many more there may be for each further lane: that of its leader, and that of the one before.
const SOCKETS_PER_LANE: usize = 2;
/// How many of these are reserved for addresses that ruled before.
const KEPT_PLACES: usize = 8;
/// How long the accepting thread pauses when the system is out of files or threads.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long the accepting thread waits for the end of a connection that it closed to make room.
const EVICTION_LIMIT: Duration = Duration::from_millis(50);
/// How often the accepting thread joins the threads of ended connections, and logs events that were held back.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// File descriptors reserved for our own Redis connections, which may have to be reopened: one asks for epochs, another
/// records results. Each further lane needs as many.
const SPARE_FILES: usize = 4;

/// The accepting thread and the connections.
pub(super) struct ConsumerServer {
    listener: Arc<Listener>,
    /// Dropping it ends accepting.
    accepting: Sender<()>,
    links: Links,
    acceptor: JoinHandle<()>,
    /// Disconnected when all links have ended.
    all_ended: Receiver<()>,
}

type Links = Arc<Mutex<Vec<LinkHandle>>>;

struct LinkHandle {
    id: LinkId,
    regular: bool,
    socket: Socket,
    outbox: Arc<Outbox>,
    lane: Arc<LinkLane>,
    /// It was closed to make room, and its thread has not ended yet.
    left: bool,
    /// Disconnected when its thread has finished its work.
    ended: Receiver<()>,
    thread: JoinHandle<()>,
}

impl LinkHandle {
    fn is_greeted(&self) -> bool {
        self.lane.get().is_some()
    }

    fn rank(&self) -> Rank {
        let lane = self.lane.get();
        match () {
            () if self.left => Rank::Left,
            () if lane.is_some_and(|lane| lane.desk.ruler() == Some(self.id)) => Rank::Rules,
            () if self.outbox.is_closing() => Rank::Closing,
            // It has sent LEAD, and will be closed soon if it does not rule.
            () if self.is_greeted() => Rank::Rules,
            () if self.regular => Rank::SilentRegular,
            () => Rank::SilentStranger,
        }
    }

    fn join(self) {
        if self.thread.join().is_err() {
            warn!("event=bug thread=read problem=panicked");
        }
    }
}

/// The connections that have a place, in the order in which they are closed to make room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// It no longer takes a place.
    Left,
    /// It was replaced or refused.
    Closing,
    /// It has not sent LEAD.
    SilentStranger,
    /// It has not sent LEAD, but its address ruled before.
    SilentRegular,
    Rules,
}

/// Which connection is closed so that one more can be accepted. Places are listed in order of arrival.
///
/// A stranger gets no reserved place, and never replaces a regular.
#[derive(Debug, PartialEq, Eq)]
enum Room {
    Free,
    After(usize),
    None,
}

impl Room {
    fn for_one_more(places: &[Rank], lanes: usize, regular: bool) -> Room {
        let most = MAX_SOCKETS + SOCKETS_PER_LANE * lanes.saturating_sub(1);
        let count = |is: fn(&Rank) -> bool| places.iter().filter(|place| is(place)).count();
        let strangers = count(|place| *place == Rank::SilentStranger);
        let taken = count(|place| *place != Rank::Left);
        if places.len() >= 2 * most {
            // The threads of closed connections hang.
            Room::None
        } else if taken < most && (regular || strangers < MAX_SOCKETS - KEPT_PLACES) {
            Room::Free
        } else {
            Room::after_the_first(places, regular)
        }
    }

    fn after_the_first(places: &[Rank], regular: bool) -> Room {
        let last = if regular { Rank::SilentRegular } else { Rank::SilentStranger };
        let leaving = places.iter().enumerate().filter(|(_, place)| (Rank::Closing..=last).contains(place));
        leaving.min_by_key(|(_, place)| **place).map_or(Room::None, |(index, _)| Room::After(index))
    }
}

impl ConsumerServer {
    /// Starts accepting.
    pub(super) fn start(
        listener: Listener,
        tls: Option<ServerTls>,
        secret: Option<LinkSecret>,
        lanes: Arc<Lanes>,
    ) -> Result<ConsumerServer> {
        listener.set_wait(HOUSEKEEPING).map_err(Error::start("setting up the listener"))?;
        let address = listener.address().map_err(Error::start("setting up the listener"))?;
        let (listener, links) = (Arc::new(listener), Links::default());
        let (accepting, stopping) = bounded(0);
        let (ended, all_ended) = bounded(0);
        let acceptor = Acceptor {
            listener: listener.clone(),
            address,
            stopping,
            links: links.clone(),
            common: Arc::new(Common {
                tls,
                secret,
                lanes,
                refusals: Refusals::new(Instant::now()),
                regulars: Regulars::default(),
            }),
            ended,
            last_link: 0,
        };
        let acceptor = thread::Builder::new()
            .name("accept".to_owned())
            .spawn(move || acceptor.run())
            .map_err(Error::start("starting the accepting thread"))?;
        Ok(ConsumerServer { listener, accepting, links, acceptor, all_ended })
    }

    /// Closes the listener, lets the connections write what is left in their outboxes, closes them, and joins their
    /// threads.
    pub(super) fn close(self, limit: Duration) {
        drop(self.accepting);
        self.listener.close();
        if self.acceptor.join().is_err() {
            warn!("event=bug thread=accept problem=panicked");
        }
        close_links(&self.links, &self.all_ended, limit);
    }
}

fn close_links(links: &Links, all_ended: &Receiver<()>, limit: Duration) {
    let links: Vec<_> = links.lock().drain(..).collect();
    for link in &links {
        link.outbox.close(None);
        if !link.is_greeted() {
            link.socket.shutdown();
        }
    }
    // Nothing is ever sent: this waits until the last sender is dropped.
    let _ = all_ended.recv_timeout(limit);
    for link in links {
        link.socket.shutdown();
        link.join();
    }
}

struct Acceptor {
    listener: Arc<Listener>,
    /// Where it listens.
    address: SocketAddr,
    /// Disconnected when accepting is to end.
    stopping: Receiver<()>,
    links: Links,
    common: Arc<Common>,
    ended: Sender<()>,
    last_link: LinkId,
}

impl Acceptor {
    /// The thread's main loop: accepts until it is asked to stop.
    fn run(mut self) {
        log_context::enter(&self.common.lanes.context());
        while !self.is_stopping() {
            self.reap();
            self.common.refusals.log_the_rest(false, Instant::now());
            if let Some(pause) = self.common.refusals.pause(Instant::now()) {
                self.pause(pause);
                continue;
            }
            match self.listener.accept() {
                Ok((stream, peer)) => {
                    let admitted = Socket::new(stream).and_then(|(socket, reader)| self.admit(socket, reader, peer));
                    if let Err(error) = admitted {
                        self.log_failure(format_args!("peer={peer} "), &error);
                    }
                }
                Err(failure) => self.not_accepted(&failure),
            }
        }
        self.common.refusals.log_the_rest(true, Instant::now());
    }

    /// No failure ends accepting: what has caused it may pass.
    fn not_accepted(&self, failure: &NotAccepted) {
        match failure {
            NotAccepted::Nothing => {}
            NotAccepted::Passing(_) => {
                self.log_failure(format_args!(""), failure);
                self.common.refusals.charge(Instant::now());
            }
            NotAccepted::Exhausted(_) if self.is_stopping() => {}
            NotAccepted::Exhausted(_) => {
                self.log_failure(format_args!(""), failure);
                // Close a connection, as if to make room for a stranger. Otherwise no connection could ever be accepted
                // again.
                if !self.make_room(false) {
                    self.pause(ACCEPT_PAUSE);
                }
            }
        }
    }

    fn is_stopping(&self) -> bool {
        self.stopping.try_recv() == Err(TryRecvError::Disconnected)
    }

    /// Accepts nothing for a while, or until it is asked to stop.
    fn pause(&self, limit: Duration) {
        // Nothing is ever sent.
        let _ = self.stopping.recv_timeout(limit);
    }

    fn log_failure(&self, peer: fmt::Arguments<'_>, reason: &dyn fmt::Display) {
        let example = format!("address={} {peer}reason={}", self.address, Quoted(reason));
        self.common.refusals.note(EventKind::NotAccepted, example, Instant::now());
    }

    /// Joins the threads of connections that have ended, which closes their sockets.
    fn reap(&self) {
        let ended: Vec<_> = self.links.lock().extract_if(.., |link| link.thread.is_finished()).collect();
        ended.into_iter().for_each(LinkHandle::join);
    }

    /// Closes the first connection that may be closed; `false` if there is none.
    fn make_room(&self, regular: bool) -> bool {
        let mut links = self.links.lock();
        match Room::after_the_first(&Acceptor::places(&links), regular) {
            Room::After(index) => {
                evict(&mut links, index);
                true
            }
            Room::Free | Room::None => false,
        }
    }

    fn places(links: &[LinkHandle]) -> Vec<Rank> {
        links.iter().map(LinkHandle::rank).collect()
    }

    /// Starts a thread for a connection, making room for it first.
    fn admit(&mut self, socket: Socket, reader: ReadHalf, peer: SocketAddr) -> io::Result<()> {
        let regular = self.common.regulars.has(peer.ip());
        let lanes = self.common.lanes.count();
        while !self.listener.has_spare_files(SPARE_FILES * lanes) {
            let reason = "there are too few files (LimitNOFILE, ulimit -n)";
            if !self.make_room(regular) {
                return Err(io::Error::other(reason));
            }
            let example = format!("address={} reason={}", self.address, Quoted(reason));
            self.common.refusals.note(EventKind::FewFiles, example, Instant::now());
        }
        let mut links = self.links.lock();
        match Room::for_one_more(&Acceptor::places(&links), lanes, regular) {
            Room::Free => {}
            Room::After(index) => evict(&mut links, index),
            Room::None => {
                self.common.lanes.stats().strangers.add(1);
                self.common.refusals.charge(Instant::now());
                return Err(io::Error::other(format!("{} places are taken", links.len())));
            }
        }
        self.last_link += 1;
        let link = DispatcherLink {
            id: self.last_link,
            peer,
            socket: socket.clone(),
            outbox: Arc::default(),
            lane: Arc::default(),
            common: self.common.clone(),
        };
        let (id, outbox, lane) = (link.id, link.outbox.clone(), link.lane.clone());
        let (alive, ended) = bounded::<()>(0);
        let all_ended = self.ended.clone();
        let thread = thread::Builder::new().name(format!("read-{id}")).spawn(move || {
            link.run(reader);
            drop((alive, all_ended));
        });
        let thread = thread.map_err(|error| io::Error::other(format!("there is no thread for it: {error}")))?;
        links.push(LinkHandle { id, regular, socket, outbox, lane, left: false, ended, thread });
        Ok(())
    }
}

/// Closes a connection to make room. Does not wait long for its thread, which may itself be waiting for Redis.
fn evict(links: &mut Vec<LinkHandle>, index: usize) {
    let link = &mut links[index];
    link.socket.stop_reading();
    link.socket.shutdown();
    link.left = true;
    if link.ended.recv_timeout(EVICTION_LIMIT) == Err(RecvTimeoutError::Disconnected) {
        links.remove(index).join();
    }
}

#[cfg(test)]
mod tests;
