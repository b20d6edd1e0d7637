//! How a link begins: the WebSocket handshake, PROOF (if both know the link secret), LEAD (and HELLO), and the
//! consumer's READY and HELD, with one deadline for all of them.
//!
//! A consumer that does something else gets an ERROR that says what was wrong, and a moment to read it before the
//! close. Nothing that it sends is believed before HELD, because its answer to LEAD may be that it has seen a higher
//! epoch.

use std::fmt;
use std::time::{Duration, Instant};

use tungstenite::error::ProtocolError;
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Error as WsError, Message, WebSocket};

use super::credentials::Credentials;
use super::handshake::{HandshakeError, Subprotocol, shake_hands};
use super::link_hint::with_hint;
use super::places::LINK_BYTES;
use crate::base::id::{Epoch, MessageId};
use crate::base::text::Quoted;
use crate::lane::kill_switch::KillSwitch;
use crate::net::{LinkSecret, Stream, Wait, is_transient};
use crate::wire::{self, ErrorCode, Frame, ReadyFlags};

/// How long all of it may take, from the connection to HELD.
const GREETING_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a connection that is closed for the consumer's mistake stays open so that it can read the reason.
const LINGER: Duration = Duration::from_millis(500);
/// The most bytes read from such a consumer and discarded meanwhile.
const LINGER_BYTES: usize = 64 << 20;
/// The largest prefetch. A larger one counts as this.
pub(super) const MAX_PREFETCH: u32 = wire::MAX_IDS as u32;
/// The longest consumer id, in bytes.
const MAX_CONSUMER_ID_BYTES: usize = 256;

/// What a dispatcher says first.
pub(super) struct Introduction<'a> {
    pub(super) epoch: Epoch,
    /// The name of the lane, for LEAD.
    pub(super) group: &'a str,
    /// The group whose lane it is, for which consumers prove the link secret.
    pub(super) base: &'a str,
    /// The text of HELLO.
    pub(super) hello: &'a str,
    /// The secret that both must know, if there is one.
    pub(super) secret: Option<&'a LinkSecret>,
}

/// What a consumer sent in READY and HELD.
pub(super) struct Greeted {
    pub(super) socket: WebSocket<Stream>,
    pub(super) subprotocol: Subprotocol,
    /// Whether both have proved that they know the link secret.
    pub(super) proved: bool,
    pub(super) consumer: String,
    pub(super) prefetch: u32,
    pub(super) flags: ReadyFlags,
    pub(super) held: Vec<MessageId>,
    /// Frames that came in the same message after HELD.
    pub(super) leftover: Vec<u8>,
}

/// Why there is no link.
#[derive(Debug)]
pub(super) enum GreetingError {
    /// The WebSocket handshake failed.
    Handshake(String),
    /// The consumer answered with an ERROR.
    Told(ErrorCode, String),
    /// The consumer violated the protocol, and was sent an ERROR.
    Broken(ErrorCode, String),
    /// The connection ended.
    Gone(String),
}

impl GreetingError {
    /// Whether one of the two did not prove the link secret.
    pub(super) fn is_unauthenticated(&self) -> bool {
        let (GreetingError::Told(code, _) | GreetingError::Broken(code, _)) = self else { return false };
        *code == ErrorCode::NotAuthenticated
    }

    /// The higher epoch that the consumer has seen, if its refusal names one.
    pub(super) fn seen_epoch(&self) -> Option<Epoch> {
        match self {
            GreetingError::Told(ErrorCode::Stale, text) => wire::seen_epoch(text),
            _ => None,
        }
    }
}

impl fmt::Display for GreetingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GreetingError::Handshake(problem) => write!(f, "WebSocket handshake: {problem}"),
            GreetingError::Told(code @ ErrorCode::NotAuthenticated, text) => {
                write!(f, "it refused: {code}: {text} (the setting here is --link-secret-file)")
            }
            GreetingError::Told(code, text) => write!(f, "it refused: {code}: {text}"),
            GreetingError::Broken(_, problem) => write!(f, "{problem}"),
            GreetingError::Gone(problem) => write!(f, "{problem} before HELD"),
        }
    }
}

impl std::error::Error for GreetingError {}

/// Makes a link from a connection to `address`. From then on its socket does not block.
pub(super) fn greet(
    mut stream: Stream,
    address: &str,
    Introduction { epoch, group, base, hello, secret }: Introduction<'_>,
    kill: &KillSwitch,
) -> Result<Greeted, GreetingError> {
    stream
        .set_wait(Wait::Until(Instant::now() + GREETING_TIMEOUT))
        .map_err(|error| GreetingError::Gone(error.to_string()))?;
    let config = WebSocketConfig::default()
        .read_buffer_size(64 << 10)
        .write_buffer_size(256 << 10)
        // Room for all messages that may be in flight on a link, and for frames without a payload.
        .max_write_buffer_size(2 * LINK_BYTES + wire::MAX_WS_MESSAGE_BYTES)
        .max_message_size(Some(wire::MAX_WS_MESSAGE_BYTES))
        .max_frame_size(Some(wire::MAX_WS_MESSAGE_BYTES));
    let credentials = secret.map(Credentials::new).transpose();
    let credentials = credentials.map_err(|error| GreetingError::Gone(error.to_string()))?;
    let nonce = credentials.as_ref().map(|own| own.nonce);
    let (mut socket, answer) = shake_hands(stream, address, config, nonce).map_err(|error| match error {
        HandshakeError::WebSocket(error) if is_late(&error) => GreetingError::Handshake(too_late()),
        // Some servers with TLS answer HTTP by an alert of TLS, others by closing the connection.
        HandshakeError::WebSocket(
            error @ WsError::Protocol(ProtocolError::HttparseError(_) | ProtocolError::HandshakeIncomplete),
        ) => {
            let hint = "this is no answer of HTTP; if the consumer has TLS, its address must begin with wss://";
            GreetingError::Handshake(format!("{error} ({hint})"))
        }
        // With TLS 1.3 a server refuses a client's certificate only after the handshake.
        HandshakeError::WebSocket(WsError::Io(error)) => GreetingError::Handshake(with_hint(error).to_string()),
        HandshakeError::WebSocket(error) => GreetingError::Handshake(error.to_string()),
        HandshakeError::Selection(problem) => GreetingError::Handshake(problem),
    })?;
    let subprotocol = answer.subprotocol;
    let proof = credentials.as_ref().map(|own| own.proof(answer.proved.as_ref(), base, group, epoch)).transpose();
    let greeted = proof
        .map_err(|problem| GreetingError::Broken(ErrorCode::NotAuthenticated, problem))
        .and_then(|proof| {
            let mut introduction = proof.map_or_else(Vec::new, |proof| Frame::Proof(proof).to_vec());
            Frame::Lead { epoch, group }.encode(&mut introduction);
            if subprotocol == Subprotocol::Two {
                Frame::Hello(hello).encode(&mut introduction);
            }
            socket.send(Message::Binary(introduction.into())).map_err(refusal_of)
        })
        .and_then(|()| read_greeting(&mut socket, subprotocol, kill));
    match greeted {
        Ok((consumer, prefetch, flags, held, leftover)) => {
            socket.get_mut().set_wait(Wait::Never).map_err(|error| GreetingError::Gone(error.to_string()))?;
            let proved = credentials.is_some();
            Ok(Greeted { socket, subprotocol, proved, consumer, prefetch, flags, held, leftover })
        }
        Err(refusal) => {
            if let GreetingError::Broken(code, text) = &refusal {
                let error = Frame::Error { code: *code, text };
                if socket.get_mut().set_wait(Wait::Until(Instant::now() + LINGER)).is_ok() {
                    // The connection ends in any case.
                    let _ = socket.write(Message::Binary(error.to_vec().into()));
                    flush_and_close(socket);
                }
            }
            Err(refusal)
        }
    }
}

/// Writes what is still buffered, and closes the connection once the consumer has read it or the time is over.
pub(super) fn flush_and_close(mut socket: WebSocket<Stream>) {
    let deadline = Instant::now() + LINGER;
    if socket.get_mut().set_wait(Wait::Until(deadline)).is_ok() && socket.flush().is_ok() {
        socket.get_mut().linger(deadline, Some(LINGER_BYTES));
    }
}

type ReadyAndHeld = (String, u32, ReadyFlags, Vec<MessageId>, Vec<u8>);

/// Reads READY and HELD.
fn read_greeting(
    socket: &mut WebSocket<Stream>,
    subprotocol: Subprotocol,
    kill: &KillSwitch,
) -> Result<ReadyAndHeld, GreetingError> {
    let mut ready = None;
    while !kill.is_set() {
        let message = match socket.read() {
            Ok(Message::Binary(message)) => message,
            Ok(Message::Ping(_) | Message::Pong(_)) => continue,
            Ok(Message::Text(_)) => return Err(broken("a text message; frames are binary")),
            Ok(_) => return Err(GreetingError::Gone("it closed the connection".to_owned())),
            Err(error) => return Err(refusal_of(error)),
        };
        let mut frames = wire::frames(&message);
        while let Some(frame) = frames.next() {
            let frame = frame.map_err(|error| GreetingError::Broken(error.code(), error.to_string()))?;
            match (frame, ready.take()) {
                (Frame::Ready { prefetch, flags, consumer }, None) => {
                    ready = Some((name_of(consumer)?, prefetch_of(prefetch, subprotocol)?, flags));
                }
                (Frame::Held(held), Some((consumer, prefetch, flags))) => {
                    return Ok((consumer, prefetch, flags, held, frames.rest().to_vec()));
                }
                (Frame::Error { code, text }, _) => return Err(GreetingError::Told(code, text.to_owned())),
                (other, before) => {
                    let wanted = if before.is_none() { "READY" } else { "HELD" };
                    let problem = format!("{} where {wanted} is expected", other.name());
                    return Err(GreetingError::Broken(ErrorCode::Unexpected, problem));
                }
            }
        }
    }
    Err(GreetingError::Gone("the term ended".to_owned()))
}

fn name_of(consumer: &str) -> Result<String, GreetingError> {
    let plain = !consumer.chars().any(|c| c.is_whitespace() || c.is_control());
    if plain && (1..=MAX_CONSUMER_ID_BYTES).contains(&consumer.len()) {
        return Ok(consumer.to_owned());
    }
    let shown: String = consumer.chars().take(32).collect();
    Err(broken(format!(
        "READY: the consumer id {} is not 1 to {MAX_CONSUMER_ID_BYTES} bytes without spaces",
        Quoted(shown)
    )))
}

fn prefetch_of(prefetch: u32, subprotocol: Subprotocol) -> Result<u32, GreetingError> {
    if prefetch == 0 && subprotocol == Subprotocol::One {
        return Err(broken("READY: a prefetch of 0; send DRAIN to be given nothing"));
    }
    Ok(prefetch.min(MAX_PREFETCH))
}

fn broken(problem: impl Into<String>) -> GreetingError {
    GreetingError::Broken(ErrorCode::Malformed, problem.into())
}

fn refusal_of(error: WsError) -> GreetingError {
    match error {
        error if is_late(&error) => GreetingError::Broken(ErrorCode::Unexpected, too_late()),
        WsError::Io(error) => GreetingError::Gone(error.to_string()),
        WsError::Capacity(error) => GreetingError::Broken(ErrorCode::TooLarge, error.to_string()),
        // The stream ended without a close frame.
        WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
            GreetingError::Gone("the connection dropped".to_owned())
        }
        WsError::Protocol(error) => GreetingError::Broken(ErrorCode::Malformed, error.to_string()),
        error => GreetingError::Gone(error.to_string()),
    }
}

fn is_late(error: &WsError) -> bool {
    matches!(error, WsError::Io(error) if is_transient(error.kind()))
}

fn too_late() -> String {
    format!("no READY and HELD within {} s of the connection", GREETING_TIMEOUT.as_secs())
}
