//! The socket of a link. It never blocks: frames are gathered into WebSocket messages, and bytes that can't be written
//! at once stay in the WebSocket's buffer. Whoever uses it bounds them, by what a consumer may be given.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use tungstenite::error::ProtocolError;
use tungstenite::{Bytes, Message, WebSocket};

use crate::net::{Stream, is_transient};
use crate::wire::{ErrorCode, Frame};

/// Frames are gathered into WebSocket messages of about this size.
pub(super) const CHUNK_BYTES: usize = 128 << 10;

/// Why a link ends.
pub(in crate::lane) type EndReason = String;

/// See the module's text.
pub(in crate::lane) struct FrameSocket {
    socket: WebSocket<Stream>,
    /// Frames not yet given to the socket.
    chunk: Vec<u8>,
    /// Whether something was given to the socket since it was flushed.
    unflushed: bool,
    /// Whether the socket's buffer is waiting for the peer.
    congested: bool,
    /// Bytes written, and when this last grew or nothing was waiting.
    progress: (u64, Instant),
    last_ping: Instant,
}

/// The outcome of reading.
pub(in crate::lane) enum Incoming {
    /// Frames.
    Frames(Bytes),
    /// A ping or pong: the peer is alive.
    Alive,
    /// A message that is not a sequence of frames.
    Bad(ErrorCode, String),
    /// Nothing more for now.
    Nothing,
}

impl FrameSocket {
    pub(super) fn new(socket: WebSocket<Stream>, now: Instant) -> FrameSocket {
        FrameSocket {
            socket,
            chunk: Vec::new(),
            unflushed: false,
            congested: false,
            progress: (0, now),
            last_ping: now,
        }
    }

    pub(in crate::lane) fn stream(&self) -> &Stream {
        self.socket.get_ref()
    }

    pub(super) fn into_inner(self) -> WebSocket<Stream> {
        self.socket
    }

    /// Reads what has arrived.
    pub(in crate::lane) fn read(&mut self) -> Result<Incoming, EndReason> {
        match self.socket.read() {
            Ok(Message::Binary(frames)) => Ok(Incoming::Frames(frames)),
            Ok(Message::Ping(_) | Message::Pong(_)) => Ok(Incoming::Alive),
            Ok(Message::Text(_)) => {
                Ok(Incoming::Bad(ErrorCode::Malformed, "a text message; frames are binary".to_owned()))
            }
            Ok(Message::Close(_) | Message::Frame(_)) => Err("it closed the connection".to_owned()),
            // Only here is there nothing more for now: what is left unread is not reported again.
            Err(tungstenite::Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => Ok(Incoming::Nothing),
            Err(tungstenite::Error::Io(error)) if error.kind() == ErrorKind::Interrupted => self.read(),
            Err(error @ tungstenite::Error::Capacity(_)) => Ok(Incoming::Bad(ErrorCode::TooLarge, error.to_string())),
            // The end of a stream without a goodbye.
            Err(tungstenite::Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => {
                Err("the connection dropped".to_owned())
            }
            Err(error @ tungstenite::Error::Protocol(_)) => Ok(Incoming::Bad(ErrorCode::Malformed, error.to_string())),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Adds a frame of about so many bytes to what is written next.
    pub(super) fn gather(&mut self, frame: &Frame<'_>, bytes: usize) -> Result<(), EndReason> {
        if !self.chunk.is_empty() && self.chunk.len() + bytes > CHUNK_BYTES {
            self.write_chunk()?;
        }
        frame.encode(&mut self.chunk);
        Ok(())
    }

    /// Writes the gathered frames, as far as the socket accepts them. Returns whether the peer, which was behind, has
    /// been sent everything now.
    pub(super) fn flush(&mut self) -> Result<bool, EndReason> {
        if !self.chunk.is_empty() {
            self.write_chunk()?;
        }
        if !self.unflushed && !self.congested {
            return Ok(false);
        }
        self.unflushed = false;
        let was_congested = self.congested;
        self.congested = match self.socket.flush() {
            Ok(()) => false,
            Err(tungstenite::Error::Io(error)) if is_transient(error.kind()) => true,
            Err(error) => return Err(error.to_string()),
        };
        Ok(was_congested && !self.congested)
    }

    /// Sends a ping if one is due.
    pub(in crate::lane) fn ping_if_due(&mut self, every: Duration, now: Instant) -> Result<(), EndReason> {
        if now.duration_since(self.last_ping) < every {
            return Ok(());
        }
        self.last_ping = now;
        self.write(Message::Ping(Bytes::new()))
    }

    /// Sends the peer an ERROR; the caller then drops the link.
    pub(in crate::lane) fn send_error(&mut self, code: ErrorCode, text: &str) {
        let frame = Frame::Error { code, text }.to_vec();
        // The link ends in any case.
        let _ = self.write(Message::Binary(frame.into())).and_then(|()| self.flush());
    }

    /// Whether bytes wait for the peer.
    pub(super) fn is_congested(&self) -> bool {
        self.congested
    }

    /// Whether bytes have waited to be written for `limit` and the peer has read none of them.
    pub(in crate::lane) fn reads_nothing(&mut self, limit: Duration, now: Instant) -> bool {
        let written = self.socket.get_ref().written_bytes();
        if !self.congested || written != self.progress.0 {
            self.progress = (written, now);
        }
        now.saturating_duration_since(self.progress.1) >= limit
    }

    /// The peer counts as having read something just now.
    pub(super) fn excuse(&mut self, now: Instant) {
        self.progress.1 = now;
    }

    fn write_chunk(&mut self) -> Result<(), EndReason> {
        // The next chunk is about as large as this one.
        let room = Vec::with_capacity(self.chunk.len().min(CHUNK_BYTES));
        let chunk = std::mem::replace(&mut self.chunk, room);
        self.write(Message::Binary(chunk.into()))
    }

    fn write(&mut self, message: Message) -> Result<(), EndReason> {
        self.unflushed = true;
        match self.socket.write(message) {
            Ok(()) => Ok(()),
            // The bytes are in the buffer nevertheless.
            Err(tungstenite::Error::Io(error)) if is_transient(error.kind()) => {
                self.congested = true;
                Ok(())
            }
            Err(error) => Err(error.to_string()),
        }
    }
}

#[cfg(test)]
impl FrameSocket {
    /// The frames that wait to be written.
    pub(super) fn gathered(&self) -> &[u8] {
        &self.chunk
    }
}
