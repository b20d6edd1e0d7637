//! One connection to the consumer: a WebSocket client whose reads and writes have deadlines.
//!
//! Nothing here judges frames. Limitation: a host's name is looked up by the system, with time limits of its own.

use std::fmt;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tungstenite::error::ProtocolError;
use tungstenite::protocol::frame::Frame as WsFrame;
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Bytes, Error as WsError, Message, WebSocket};

use super::handshake::{self, HandshakeError, Offer};
use crate::net::{self, ClientTls, Stream, Wait, is_transient};
use crate::wire;

/// How long a TCP connection may take to be made, as for a dispatcher.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    /// Nothing listens there.
    #[error("{0}")]
    Unreachable(io::Error),
    /// What listens there is not a consumer, or refuses.
    #[error(transparent)]
    Handshake(HandshakeError),
}

/// What has arrived.
#[derive(Debug)]
pub(super) enum Arrival {
    Binary(Bytes),
    Pong(Bytes),
    /// A ping or a fragment of nothing: of no importance.
    Other,
    /// It is not part of the protocol.
    Wrong(String),
    /// The connection has ended.
    End(String),
    /// Nothing yet.
    Nothing,
}

/// See the module's text.
pub(super) struct Peer {
    socket: WebSocket<Stream>,
    /// How long a write may take.
    write_limit: Duration,
    /// The subprotocol that the consumer has selected.
    pub(super) protocol: Option<String>,
    /// What its answer says of the link secret: the headers `Oncecast-Nonce` and `Oncecast-Proof`.
    pub(super) proved: (Option<String>, Option<String>),
}

impl Peer {
    /// Connects, and makes the handshake within `limit`.
    pub(super) fn connect(
        addresses: &[SocketAddr],
        tls: Option<&ClientTls>,
        host: &str,
        offer: &Offer<'_>,
        limit: Duration,
    ) -> Result<Peer, ConnectError> {
        let (mut stream, _) = net::connect_any(addresses, CONNECT_TIMEOUT).map_err(ConnectError::Unreachable)?;
        let deadline = Instant::now() + limit;
        stream.set_wait(Wait::Until(deadline)).map_err(ConnectError::Unreachable)?;
        if let Some(tls) = tls {
            let name = host.rsplit_once(':').map_or(host, |(name, _)| name).trim_matches(['[', ']']);
            stream.secure(tls, name, deadline).map_err(ConnectError::Unreachable)?;
        }
        let accepted = handshake::shake(&mut stream, host, offer).map_err(ConnectError::Handshake)?;
        let config = WebSocketConfig::default()
            .max_message_size(Some(wire::MAX_WS_MESSAGE_BYTES))
            .max_frame_size(Some(wire::MAX_WS_MESSAGE_BYTES));
        let socket = WebSocket::from_partially_read(stream, accepted.rest, Role::Client, Some(config));
        Ok(Peer { socket, write_limit: limit, protocol: accepted.protocol, proved: (accepted.nonce, accepted.proof) })
    }

    /// Waits for at most `wait` for something to arrive.
    pub(super) fn read(&mut self, wait: Duration) -> Arrival {
        // Reading also writes pongs.
        if let Err(problem) = self.begin_to_write() {
            return Arrival::End(problem);
        }
        // A deadline, because a peer that sends single bytes would never exceed a limit for each read.
        if let Err(error) = self.socket.get_mut().set_read_wait(Wait::Until(Instant::now() + wait)) {
            return Arrival::End(error.to_string());
        }
        match self.socket.read() {
            Ok(Message::Binary(bytes)) => Arrival::Binary(bytes),
            Ok(Message::Pong(said)) => Arrival::Pong(said),
            Ok(Message::Ping(_)) => {
                // Reading has queued the pong.
                let _ = self.flush();
                Arrival::Other
            }
            Ok(Message::Text(_)) => Arrival::Wrong("a text message".to_owned()),
            Ok(Message::Close(_)) => Arrival::End("it sent a close frame".to_owned()),
            Ok(Message::Frame(_)) => Arrival::Other,
            Err(WsError::Io(error)) if is_transient(error.kind()) => Arrival::Nothing,
            Err(WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => {
                Arrival::End("it closed the connection".to_owned())
            }
            Err(error @ (WsError::Protocol(_) | WsError::Capacity(_) | WsError::Utf8(_))) => {
                Arrival::Wrong(format!("what is not a correct WebSocket message ({error})"))
            }
            Err(error) => Arrival::End(error.to_string()),
        }
    }

    /// Sends a binary message.
    pub(super) fn send(&mut self, bytes: Vec<u8>) -> Result<(), String> {
        self.write(Message::Binary(bytes.into()))
    }

    /// Sends a text message.
    pub(super) fn send_text(&mut self, text: &str) -> Result<(), String> {
        self.write(Message::text(text))
    }

    /// Sends a ping.
    pub(super) fn ping(&mut self, said: Vec<u8>) -> Result<(), String> {
        self.write(Message::Ping(said.into()))
    }

    /// Sends a binary message in fragments, with a ping behind each.
    pub(super) fn send_fragments(&mut self, bytes: &[u8], fragments: usize) -> Result<(), String> {
        let size = bytes.len().div_ceil(fragments.max(1)).max(1);
        let count = bytes.len().div_ceil(size);
        for (number, part) in bytes.chunks(size).enumerate() {
            let kind = if number == 0 { Data::Binary } else { Data::Continue };
            let frame = WsFrame::message(part.to_vec(), OpCode::Data(kind), number + 1 == count);
            self.write(Message::Frame(frame))?;
            if number + 1 < count {
                self.ping(b"between".to_vec())?;
            }
        }
        Ok(())
    }

    /// Sends bytes below the WebSocket.
    pub(super) fn send_raw(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.begin_to_write()?;
        self.socket.get_mut().write_all(bytes).map_err(failed)
    }

    fn write(&mut self, message: Message) -> Result<(), String> {
        self.begin_to_write()?;
        self.socket.send(message).map_err(failed)
    }

    fn flush(&mut self) -> Result<(), String> {
        self.begin_to_write()?;
        self.socket.flush().map_err(failed)
    }

    fn begin_to_write(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + self.write_limit;
        self.socket.get_mut().set_write_wait(Wait::Until(deadline)).map_err(failed)
    }
}

fn failed(error: impl fmt::Display) -> String {
    format!("writing failed: {error}")
}

impl Drop for Peer {
    /// Without a close frame, as dispatchers do.
    fn drop(&mut self) {
        self.socket.get_ref().shutdown();
    }
}
