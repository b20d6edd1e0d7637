//! A link: the connection to one consumer as the courier sees it, with what the consumer has in its hands.
//!
//! The socket never blocks. What cannot be written at once stays in the WebSocket's buffer, which is bounded because a
//! consumer is given no more than its prefetch and no more than [`LINK_BYTES`].

use std::io::ErrorKind;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, Instant};

use tungstenite::error::ProtocolError;
use tungstenite::{Bytes, Message, WebSocket};

use super::dialer::NewLink;
use super::stats::LinkFigures;
use crate::id::{IdMap, MessageId};
use crate::ledger::Pending;
use crate::wire::{ErrorCode, Frame, ReadyFlags};

/// The most payload bytes at one consumer, if it has more than one message.
pub(super) const LINK_BYTES: usize = 16 << 20;
/// Frames are gathered into WebSocket messages of about this size.
const CHUNK_BYTES: usize = 128 << 10;

/// See the module's text.
pub(super) struct Link {
    pub(super) serial: u64,
    pub(super) consumer: Arc<str>,
    pub(super) flags: ReadyFlags,
    pub(super) draining: bool,
    pub(super) last_heard: Instant,
    pub(super) figures: Arc<LinkFigures>,
    socket: WebSocket<TcpStream>,
    prefetch: u32,
    held: IdMap<Held>,
    held_bytes: usize,
    /// The suspect that it was given, if it has not let go of it.
    suspect: Option<MessageId>,
    /// Frames not yet given to the socket.
    chunk: Vec<u8>,
    /// Whether something was given to the socket since it was flushed.
    unflushed: bool,
    /// Whether the socket's buffer is waiting for the peer.
    congested: bool,
    /// What the poller watches the socket for: reading, writing.
    watched: (bool, bool),
    last_ping: Instant,
}

/// Stands for the number of a delivery that was adopted: only Redis knows it.
pub(super) const ADOPTED: u16 = 0;

/// A message in a consumer's hands.
pub(super) struct Held {
    /// The number of its delivery, or [`ADOPTED`].
    pub(super) delivery: u16,
    bytes: usize,
    /// When the consumer was given it or last said that it is working on it.
    reported: Instant,
    place: Place,
}

/// Where a message in a consumer's hands counts as being. Its place there is taken in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// There.
    Here,
    /// At the consumer of another link, which had it before this one said that it has it.
    Elsewhere,
    /// Given up: the consumer no longer reported it.
    Overdue,
}

impl Held {
    /// Whether it counts as being somewhere else.
    pub(super) fn is_detached(&self) -> bool {
        self.place != Place::Here
    }
}

/// What reading a link brought.
pub(super) enum Incoming {
    /// Frames.
    Frames(Bytes),
    /// A sign of life.
    Alive,
    /// Something that is no frame.
    Bad(ErrorCode, String),
    /// Nothing more for now.
    Nothing,
}

/// Why a link ends.
pub(super) type Failure = String;

impl Link {
    pub(super) fn new(new: NewLink, serial: u64) -> Link {
        let now = Instant::now();
        let consumer: Arc<str> = new.consumer.into();
        let figures = LinkFigures {
            consumer: consumer.clone(),
            index: new.index,
            prefetch: new.prefetch,
            draining: AtomicBool::new(false),
            in_flight: AtomicU64::new(0),
            acked: AtomicU64::new(0),
        };
        Link {
            serial,
            consumer,
            figures: Arc::new(figures),
            flags: new.flags,
            draining: false,
            last_heard: now,
            socket: new.socket,
            prefetch: new.prefetch,
            held: IdMap::default(),
            held_bytes: 0,
            suspect: None,
            chunk: Vec::new(),
            unflushed: false,
            congested: false,
            watched: (true, false),
            last_ping: now,
        }
    }

    pub(super) fn stream(&self) -> &TcpStream {
        self.socket.get_ref()
    }

    /// Whether it may be given a message of `bytes`.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        !self.draining && self.room() > 0 && (self.held.is_empty() || self.held_bytes + bytes <= LINK_BYTES)
    }

    /// How many more messages it may be given.
    pub(super) fn room(&self) -> usize {
        (self.prefetch as usize).saturating_sub(self.held.len())
    }

    /// Whether it may be given this message, and does not still have it in hand: else another link may be better.
    pub(super) fn is_natural_for(&self, message: &Pending) -> bool {
        self.has_room(message.payload.len()) && !self.has_in_hand(message)
    }

    /// Whether it has a suspect in hand: it is not given another one then.
    pub(super) fn has_suspect(&self) -> bool {
        self.suspect.is_some()
    }

    /// The message that it is given next is a suspect.
    pub(super) fn note_suspect(&mut self, id: MessageId) {
        self.suspect = Some(id);
    }

    /// Whether it still has a message in hand that goes out again.
    pub(super) fn has_in_hand(&self, message: &Pending) -> bool {
        message.delivery > 1 && self.held.contains_key(&message.id)
    }

    /// Whether the consumer has the message in hand, as far as is known.
    pub(super) fn holds(&self, id: MessageId) -> bool {
        self.held.contains_key(&id)
    }

    pub(super) fn held_len(&self) -> usize {
        self.held.len()
    }

    /// Whether it is using a lower share of its prefetch than `other`.
    pub(super) fn is_freer_than(&self, other: &Link) -> bool {
        (self.held.len() as u64 * u64::from(other.prefetch)) < (other.held.len() as u64 * u64::from(self.prefetch))
    }

    /// Gives the consumer a message.
    pub(super) fn deliver(&mut self, message: &Pending, now: Instant) -> Result<(), Failure> {
        // Held first: if the link fails below, the message comes back with the others.
        let bytes = message.payload.len();
        self.hold(message.id, Held { delivery: message.delivery, bytes, reported: now, place: Place::Here });
        let frame = Frame::Process { id: message.id, delivery: message.delivery, body: &message.payload };
        if !self.chunk.is_empty() && self.chunk.len() + message.payload.len() > CHUNK_BYTES {
            self.write_chunk()?;
        }
        frame.encode(&mut self.chunk);
        Ok(())
    }

    /// Notes a message that the consumer said it has in hand, and whether it counts as being there from now on.
    pub(super) fn adopt(&mut self, id: MessageId, here: bool) {
        let place = if here { Place::Here } else { Place::Elsewhere };
        self.hold(id, Held { delivery: ADOPTED, bytes: 0, reported: Instant::now(), place });
    }

    /// Where it counted as being it is no longer: from now on it is here, if this consumer has it in hand.
    pub(super) fn inherit(&mut self, id: MessageId) -> bool {
        match self.held.get_mut(&id) {
            Some(held) if held.place == Place::Elsewhere => {
                held.place = Place::Here;
                true
            }
            _ => false,
        }
    }

    fn hold(&mut self, id: MessageId, held: Held) {
        self.held_bytes += held.bytes;
        if let Some(before) = self.held.insert(id, held) {
            self.held_bytes -= before.bytes;
        }
    }

    /// The consumer no longer has the message.
    pub(super) fn let_go(&mut self, id: MessageId) -> Option<Held> {
        let held = self.held.remove(&id)?;
        self.held_bytes -= held.bytes;
        self.suspect.take_if(|suspect| *suspect == id);
        Some(held)
    }

    /// The consumer works on these.
    pub(super) fn progress(&mut self, ids: &[MessageId], now: Instant) {
        for id in ids {
            if let Some(held) = self.held.get_mut(id) {
                held.reported = now;
            }
        }
    }

    /// Messages that the consumer has not reported for `limit`. They take their places, but count as being elsewhere.
    pub(super) fn detach_overdue(&mut self, limit: Duration, now: Instant) -> Vec<(MessageId, u16)> {
        if self.congested {
            // It may not have been sent yet; whether the peer reads at all is seen by its pongs.
            return Vec::new();
        }
        let overdue = |held: &Held| !held.is_detached() && now.saturating_duration_since(held.reported) >= limit;
        let overdue = self.held.iter_mut().filter(|(_, held)| overdue(held));
        let overdue: Vec<_> = overdue
            .map(|(id, held)| {
                held.place = Place::Overdue;
                (*id, held.delivery)
            })
            .collect();
        // One that hangs for ever must not keep all others waiting.
        self.suspect.take_if(|suspect| overdue.iter().any(|(id, _)| id == suspect));
        overdue
    }

    /// Everything that the consumer had and that counts as being there.
    pub(super) fn take_attached(&mut self) -> Vec<(MessageId, u16)> {
        self.held_bytes = 0;
        let mut all: Vec<_> =
            self.held.drain().filter(|(_, held)| !held.is_detached()).map(|(id, held)| (id, held.delivery)).collect();
        all.sort_unstable();
        all
    }

    /// Reads what has come.
    pub(super) fn read(&mut self) -> Result<Incoming, Failure> {
        match self.socket.read() {
            Ok(Message::Binary(frames)) => Ok(Incoming::Frames(frames)),
            Ok(Message::Ping(_) | Message::Pong(_)) => Ok(Incoming::Alive),
            Ok(Message::Text(_)) => {
                Ok(Incoming::Bad(ErrorCode::Malformed, "a text message; frames are binary".to_owned()))
            }
            Ok(Message::Close(_) | Message::Frame(_)) => Err("it closed the connection".to_owned()),
            Err(tungstenite::Error::Io(error)) if is_transient(error.kind()) => Ok(Incoming::Nothing),
            Err(error @ tungstenite::Error::Capacity(_)) => Ok(Incoming::Bad(ErrorCode::TooLarge, error.to_string())),
            // The end of a stream without a goodbye.
            Err(tungstenite::Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => {
                Err("the connection dropped".to_owned())
            }
            Err(error @ tungstenite::Error::Protocol(_)) => Ok(Incoming::Bad(ErrorCode::Malformed, error.to_string())),
            Err(error) => Err(error.to_string()),
        }
    }

    /// What the poller must watch the socket for from now on, if that is not what it does.
    pub(super) fn change_of_watch(&mut self, readable: bool) -> Option<(bool, bool)> {
        let wanted = (readable, self.congested);
        let changed = self.watched != wanted;
        self.watched = wanted;
        changed.then_some(wanted)
    }

    /// Asks for a pong if one is due.
    pub(super) fn ping_if_due(&mut self, every: Duration, now: Instant) -> Result<(), Failure> {
        if now.duration_since(self.last_ping) < every {
            return Ok(());
        }
        self.last_ping = now;
        self.write(Message::Ping(Bytes::new()))
    }

    /// Says what the peer did wrong; the caller then drops the link.
    pub(super) fn complain(&mut self, code: ErrorCode, text: &str) {
        let frame = Frame::Error { code, text }.to_vec();
        // The link ends in any case.
        let _ = self.write(Message::Binary(frame.into())).and_then(|()| self.flush());
    }

    /// Puts what was gathered on the wire, as far as the socket takes it.
    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        if !self.chunk.is_empty() {
            self.write_chunk()?;
        }
        if !self.unflushed && !self.congested {
            return Ok(());
        }
        self.unflushed = false;
        let was_congested = self.congested;
        self.congested = match self.socket.flush() {
            Ok(()) => false,
            Err(tungstenite::Error::Io(error)) if is_transient(error.kind()) => true,
            Err(error) => return Err(error.to_string()),
        };
        if was_congested && !self.congested {
            // Only now has the peer got everything.
            let now = Instant::now();
            self.held.values_mut().for_each(|held| held.reported = now);
        }
        Ok(())
    }

    fn write_chunk(&mut self) -> Result<(), Failure> {
        // The next is about as large as this one.
        let room = Vec::with_capacity(self.chunk.len().min(CHUNK_BYTES));
        let chunk = std::mem::replace(&mut self.chunk, room);
        self.write(Message::Binary(chunk.into()))
    }

    fn write(&mut self, message: Message) -> Result<(), Failure> {
        self.unflushed = true;
        match self.socket.write(message) {
            Ok(()) => Ok(()),
            // It is in the buffer all the same.
            Err(tungstenite::Error::Io(error)) if is_transient(error.kind()) => {
                self.congested = true;
                Ok(())
            }
            Err(error) => Err(error.to_string()),
        }
    }
}

fn is_transient(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

#[cfg(test)]
pub(super) mod tests {
    use std::net::TcpListener;

    use tungstenite::protocol::{Role, WebSocketConfig};

    use super::*;

    /// A link with a small buffer, and its peer, which reads only what the test reads.
    pub(in crate::dispatcher) fn link(prefetch: u32) -> (Link, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let stream = TcpStream::connect(listener.local_addr().expect("it is bound")).expect("it listens");
        let (peer, _) = listener.accept().expect("it connects");
        stream.set_nonblocking(true).expect("a socket");
        let config = WebSocketConfig::default().write_buffer_size(0);
        let socket = WebSocket::from_raw_socket(stream, Role::Client, Some(config));
        let new = NewLink {
            index: 0,
            socket,
            consumer: "c0".to_owned(),
            prefetch,
            flags: ReadyFlags::COMMITS,
            held: Vec::new(),
            leftover: Vec::new(),
        };
        (Link::new(new, 1), peer)
    }

    pub(in crate::dispatcher) fn message(id: u64, bytes: usize) -> Pending {
        Pending { id: MessageId(id), delivery: 1, payload: vec![b'x'; bytes].into() }
    }

    #[test]
    fn what_a_broken_link_could_not_send_comes_back_with_the_rest() {
        let (mut link, peer) = link(10_000);
        drop(peer);
        let mut last = 0;
        // The first writes may succeed: the system takes them before it hears that nobody is there.
        while last < 9_000 {
            last += 1;
            if link.deliver(&message(last, CHUNK_BYTES), Instant::now()).is_err() {
                break;
            }
        }
        assert!(last < 9_000, "writing to nobody fails at last");
        let back: Vec<u64> = link.take_attached().iter().map(|(id, _)| id.0).collect();
        assert_eq!(back, (1..=last).collect::<Vec<_>>());
    }

    #[test]
    fn what_was_not_sent_yet_is_not_overdue() {
        let (mut link, peer) = link(10_000);
        let now = Instant::now();
        let mut last = 0;
        while !link.congested {
            last += 1;
            link.deliver(&message(last, CHUNK_BYTES), now).expect("the peer is there");
            link.flush().expect("the peer is there");
        }
        let much_later = now + Duration::from_secs(3600);
        assert_eq!(link.detach_overdue(Duration::from_secs(1), much_later), []);
        assert_eq!(link.change_of_watch(true), Some((true, true)));
        assert_eq!(link.change_of_watch(true), None);
        drop(peer);
    }

    #[test]
    fn a_place_is_free_when_its_message_is_let_go() {
        let (mut link, _peer) = link(2);
        let now = Instant::now();
        for id in [1, 2] {
            assert!(link.has_room(1));
            link.deliver(&message(id, 1), now).expect("the peer is there");
        }
        assert!(!link.has_room(1));
        let mut overdue = link.detach_overdue(Duration::ZERO, now);
        overdue.sort_unstable();
        assert_eq!(overdue, [(MessageId(1), 1), (MessageId(2), 1)]);
        assert!(!link.has_room(1), "what is overdue keeps its place");
        assert!(link.let_go(MessageId(1)).is_some_and(|held| held.is_detached()));
        assert!(link.has_room(1));
        assert!(!link.inherit(MessageId(2)), "what is overdue is given up");
        assert_eq!(link.take_attached(), [], "what is overdue counts as being elsewhere");
    }

    #[test]
    fn what_it_has_beside_another_is_its_own_when_the_other_is_gone() {
        let (mut link, _peer) = link(2);
        link.adopt(MessageId(1), false);
        assert!(link.inherit(MessageId(1)) && !link.inherit(MessageId(1)) && !link.inherit(MessageId(2)));
        assert_eq!(link.take_attached(), [(MessageId(1), ADOPTED)]);
    }
}
