//! A link: the connection to one consumer as the courier sees it, with what the consumer holds.
//!
//! The socket never blocks. What cannot be written at once stays in the WebSocket's buffer, which is bounded because a
//! consumer is given no more than its prefetch and no more than [`LINK_BYTES`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, Instant};

use tungstenite::error::ProtocolError;
use tungstenite::{Bytes, Message, WebSocket};

use super::greeting::Greeted;
use super::places::{LINK_BYTES, Places, TakenPlace};
use super::stats::LinkFigures;
use super::strays::Strays;
use crate::base::id::MessageId;
use crate::ledger::{DeliveryNumber, Pending};
use crate::net::{Stream, is_transient};
use crate::wire::{self, ErrorCode, Frame, ReadyFlags};

/// Frames are gathered into WebSocket messages of about this size.
const CHUNK_BYTES: usize = 128 << 10;

/// Results of one consumer without Redis that may wait to be recorded; beyond it the link is not read.
const LINK_RESULT_BYTES: usize = 4 << 20;
/// The same for all consumers together.
const MAX_RESULT_BYTES: usize = 32 << 20;

/// A link on which the consumer has answered.
pub(super) struct NewLink {
    /// The consumer's place in the settings.
    pub(super) index: usize,
    pub(super) greeted: Greeted,
}

/// See the module's text.
pub(super) struct Link {
    pub(super) serial: u64,
    pub(super) consumer: Arc<str>,
    pub(super) flags: ReadyFlags,
    pub(super) draining: bool,
    pub(super) last_heard: Instant,
    pub(super) figures: Arc<LinkFigures>,
    pub(super) places: Places,
    pub(super) strays: Strays,
    /// Bytes of results that it has sent and that wait to be recorded.
    pub(super) result_bytes: usize,
    socket: WebSocket<Stream>,
    /// The suspect that it was given, if it has not released it.
    suspect: Option<MessageId>,
    /// Frames not yet given to the socket.
    chunk: Vec<u8>,
    /// Whether something was given to the socket since it was flushed.
    unflushed: bool,
    /// Whether the socket's buffer is waiting for the peer.
    congested: bool,
    /// How many bytes the system had taken when it last took some, or when nothing was waiting, and when that was.
    progress: (u64, Instant),
    /// What the poller watches the socket for: reading, writing.
    watched: (bool, bool),
    last_ping: Instant,
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
pub(super) type EndReason = String;

impl Link {
    /// `strays_paid_until` is what the stray answers of the consumer's last link left behind.
    pub(super) fn new(new: NewLink, serial: u64, strays_paid_until: Option<Instant>) -> Link {
        let now = Instant::now();
        let Greeted { socket, consumer, prefetch, flags, .. } = new.greeted;
        let consumer: Arc<str> = consumer.into();
        let figures = LinkFigures {
            consumer: consumer.clone(),
            index: new.index,
            prefetch,
            draining: AtomicBool::new(false),
            in_flight: AtomicU64::new(0),
            overdue: AtomicU64::new(0),
            acked: AtomicU64::new(0),
        };
        Link {
            serial,
            consumer,
            figures: Arc::new(figures),
            flags,
            draining: false,
            last_heard: now,
            places: Places::new(prefetch),
            strays: Strays::new(prefetch, strays_paid_until, now),
            result_bytes: 0,
            socket,
            suspect: None,
            chunk: Vec::new(),
            unflushed: false,
            congested: false,
            progress: (0, now),
            watched: (true, false),
            last_ping: now,
        }
    }

    pub(super) fn stream(&self) -> &Stream {
        self.socket.get_ref()
    }

    /// The connection, to be closed in order.
    pub(super) fn into_socket(self) -> WebSocket<Stream> {
        self.socket
    }

    /// Whether it may be given a message of `bytes`.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        let fits = self.places.taken() == 0 || self.places.bytes() + bytes <= LINK_BYTES;
        !self.draining && self.places.room() > 0 && fits
    }

    /// Whether it can be given nothing more, and works on nothing, as far as is known.
    pub(super) fn is_stuck(&self) -> bool {
        // With less than this there is room for any message.
        const FULL_BYTES: usize = LINK_BYTES - wire::MAX_BODY_BYTES;
        self.places.is_idle() && (self.places.room() == 0 || self.places.bytes() > FULL_BYTES)
    }

    /// Whether it may bring more results: those that wait to be recorded hold up this link alone, and where there are
    /// too many in all, those links that brought some.
    pub(super) fn is_read(&self, all_result_bytes: usize) -> bool {
        let most = if all_result_bytes < MAX_RESULT_BYTES { LINK_RESULT_BYTES } else { 1 };
        self.result_bytes < most
    }

    /// Whether it may be given this message, and does not still hold it: else another link may be better.
    pub(super) fn is_natural_for(&self, message: &Pending) -> bool {
        self.has_room(message.payload.len()) && !self.has_in_hand(message)
    }

    /// Whether it holds a suspect: it is not given another one then.
    pub(super) fn has_suspect(&self) -> bool {
        self.suspect.is_some()
    }

    /// The message that it is given next is a suspect.
    pub(super) fn note_suspect(&mut self, id: MessageId) {
        self.suspect = Some(id);
    }

    /// Whether it still holds a message that goes out again.
    pub(super) fn has_in_hand(&self, message: &Pending) -> bool {
        message.delivery > 1 && self.places.get(message.id).is_some()
    }

    /// Whether it is using a lower share of its prefetch than `other`.
    pub(super) fn is_freer_than(&self, other: &Link) -> bool {
        let weigh = |one: &Places, other: &Places| one.taken() as u64 * u64::from(other.prefetch());
        weigh(&self.places, &other.places) < weigh(&other.places, &self.places)
    }

    /// Gives the consumer a message.
    pub(super) fn deliver(&mut self, message: &Pending, now: Instant) -> Result<(), EndReason> {
        // First: if the link fails below, the message comes back with the others.
        self.places.give(message.id, message.delivery, message.payload.len(), now);
        let frame = Frame::Process { id: message.id, delivery: message.delivery, body: &message.payload };
        if !self.chunk.is_empty() && self.chunk.len() + message.payload.len() > CHUNK_BYTES {
            self.write_chunk()?;
        }
        frame.encode(&mut self.chunk);
        Ok(())
    }

    /// The consumer has answered for a message: its place is free. `None`: it had none.
    pub(super) fn answer(&mut self, id: MessageId) -> Option<TakenPlace> {
        let held = self.places.answer(id)?;
        self.suspect.take_if(|suspect| *suspect == id);
        Some(held)
    }

    /// Messages that the consumer has not reported for `limit`.
    pub(super) fn take_overdue(&mut self, limit: Duration, now: Instant) -> Vec<(MessageId, DeliveryNumber)> {
        if self.congested {
            // It may not have been sent yet; whether the peer reads at all is judged by `reads_nothing`.
            return Vec::new();
        }
        let overdue = self.places.expire(limit, now);
        // One that hangs for ever must not keep all others waiting.
        self.suspect.take_if(|suspect| overdue.iter().any(|(id, _)| id == suspect));
        overdue
    }

    /// What it has said lately was not heard: it counts as having reported, and read, everything.
    pub(super) fn excuse(&mut self, now: Instant) {
        self.last_heard = now;
        self.places.received(now);
        self.progress.1 = now;
    }

    /// Whether something has waited to be written for `limit`, and the peer has read none of it.
    pub(super) fn reads_nothing(&mut self, limit: Duration, now: Instant) -> bool {
        let written = self.socket.get_ref().written_bytes();
        if !self.congested || written != self.progress.0 {
            self.progress = (written, now);
        }
        now.saturating_duration_since(self.progress.1) >= limit
    }

    /// Everything that the consumer had and that counts as being there.
    pub(super) fn take_attached(&mut self) -> Vec<(MessageId, DeliveryNumber)> {
        self.suspect = None;
        self.places.take_attached()
    }

    /// Reads what has come.
    pub(super) fn read(&mut self) -> Result<Incoming, EndReason> {
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
    pub(super) fn ping_if_due(&mut self, every: Duration, now: Instant) -> Result<(), EndReason> {
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
    pub(super) fn flush(&mut self) -> Result<(), EndReason> {
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
            self.places.received(Instant::now());
        }
        Ok(())
    }

    fn write_chunk(&mut self) -> Result<(), EndReason> {
        // The next is about as large as this one.
        let room = Vec::with_capacity(self.chunk.len().min(CHUNK_BYTES));
        let chunk = std::mem::replace(&mut self.chunk, room);
        self.write(Message::Binary(chunk.into()))
    }

    fn write(&mut self, message: Message) -> Result<(), EndReason> {
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

#[cfg(test)]
mod tests;
