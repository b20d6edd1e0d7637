//! The client's side of the WebSocket handshake (RFC 6455, section 4.1).
//!
//! tungstenite's own fails if a server selects none of the subprotocols that are offered, which is allowed here, and
//! does not check extensions. The answer is limited to [`MAX_ANSWER_BYTES`]; the caller's stream limits the time.

use std::io::{self, ErrorKind, Read, Write};

use httparse::{EMPTY_HEADER, Header, Response, Status};
use thiserror::Error;
use tungstenite::handshake::client::generate_key;
use tungstenite::handshake::derive_accept_key;

use crate::base::text::beginning;
use crate::wire::{NONCE_HEADER, PROOF_HEADER, SUBPROTOCOL_1, SUBPROTOCOL_2};

/// The largest answer, its headers included.
const MAX_ANSWER_BYTES: usize = 16 << 10;
/// The most headers of an answer.
const MAX_HEADERS: usize = 64;
/// The most bytes of an answer that an error shows.
const MAX_SHOWN_BYTES: usize = 80;

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Offer<'a> {
    /// The header `Origin`.
    pub(super) origin: Option<&'a str>,
    /// Subprotocols.
    pub(super) protocols: &'a [&'a str],
    /// The header `Oncecast-Nonce`.
    pub(super) nonce: Option<String>,
}

/// A handshake that succeeded.
#[derive(Debug)]
pub(super) struct Accepted {
    /// The subprotocol that the server has selected.
    pub(super) protocol: Option<String>,
    /// Its header `Oncecast-Nonce`.
    pub(super) nonce: Option<String>,
    /// Its header `Oncecast-Proof`.
    pub(super) proof: Option<String>,
    /// Bytes that came behind the answer.
    pub(super) rest: Vec<u8>,
}

/// Why there is no connection.
#[derive(Debug, Error)]
pub(super) enum HandshakeError {
    /// No answer arrived, or none in time.
    #[error("no answer to the WebSocket handshake: {0}")]
    NoAnswer(io::Error),
    /// The server answered with another status than 101.
    #[error("the WebSocket handshake was refused with status {0}")]
    Status(u16),
    /// What came is not an answer of HTTP.
    #[error("not a WebSocket server: it answered {0}; if it has TLS, its address begins with wss://")]
    NotHttp(String),
    /// The answer violates RFC 6455.
    #[error("the answer to the WebSocket handshake is wrong: {0}")]
    Wrong(String),
}

/// Asks for the path `/` and reads the answer.
pub(super) fn shake(
    stream: &mut (impl Read + Write),
    host: &str,
    offer: &Offer<'_>,
) -> Result<Accepted, HandshakeError> {
    let key = generate_key();
    let mut request = format!(
        "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
    );
    if let Some(origin) = offer.origin {
        request += &format!("Origin: {origin}\r\n");
    }
    if !offer.protocols.is_empty() {
        request += &format!("Sec-WebSocket-Protocol: {}\r\n", offer.protocols.join(", "));
    }
    if let Some(nonce) = &offer.nonce {
        request += &format!("{NONCE_HEADER}: {nonce}\r\n");
    }
    stream.write_all((request + "\r\n").as_bytes()).map_err(HandshakeError::NoAnswer)?;
    let mut answer = Vec::new();
    let mut part = [0; 4 << 10];
    loop {
        match stream.read(&mut part) {
            Ok(0) if answer.is_empty() => return Err(HandshakeError::NoAnswer(ErrorKind::UnexpectedEof.into())),
            Ok(0) => return Err(HandshakeError::NotHttp(shown(&answer))),
            Ok(count) => answer.extend_from_slice(&part[..count]),
            Err(error) => return Err(HandshakeError::NoAnswer(error)),
        }
        if let Some(verdict) = judge(&answer, &key, offer) {
            return verdict;
        }
        if answer.len() > MAX_ANSWER_BYTES {
            return Err(HandshakeError::NotHttp(shown(&answer)));
        }
    }
}

/// The verdict on an answer; `None` if it is incomplete.
fn judge(answer: &[u8], key: &str, offer: &Offer<'_>) -> Option<Result<Accepted, HandshakeError>> {
    let mut headers = [EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = Response::new(&mut headers);
    let length = match parsed.parse(answer) {
        Ok(Status::Partial) => return None,
        Ok(Status::Complete(length)) => length,
        Err(_) => return Some(Err(HandshakeError::NotHttp(shown(answer)))),
    };
    match parsed.code {
        Some(101) => {}
        Some(other) => return Some(Err(HandshakeError::Status(other))),
        None => return Some(Err(HandshakeError::NotHttp(shown(answer)))),
    }
    let checked = check(parsed.headers, key, offer).map_err(HandshakeError::Wrong);
    let (nonce, proof) = (value(parsed.headers, NONCE_HEADER), value(parsed.headers, PROOF_HEADER));
    Some(checked.map(|protocol| Accepted { protocol, nonce, proof, rest: answer[length..].to_vec() }))
}

/// Checks the headers, and gives the subprotocol that was selected.
fn check(headers: &[Header<'_>], key: &str, offer: &Offer<'_>) -> Result<Option<String>, String> {
    let value = |name: &str| value(headers, name);
    if !value("upgrade").is_some_and(|upgrade| upgrade.eq_ignore_ascii_case("websocket")) {
        return Err("no header \"Upgrade: websocket\"".to_owned());
    }
    let connection = value("connection").unwrap_or_default();
    if !connection.split(',').any(|word| word.trim().eq_ignore_ascii_case("upgrade")) {
        return Err("no header \"Connection: Upgrade\"".to_owned());
    }
    if value("sec-websocket-accept").as_deref() != Some(&derive_accept_key(key.as_bytes())) {
        return Err("Sec-WebSocket-Accept does not fit the key".to_owned());
    }
    if let Some(extension) = value("sec-websocket-extensions").filter(|text| !text.is_empty()) {
        return Err(format!("it selects the extension {extension:?}, which was not offered"));
    }
    match value("sec-websocket-protocol") {
        Some(other) if !offer.protocols.contains(&other.as_str()) => {
            Err(format!("it selects the subprotocol {other:?}, which was not offered"))
        }
        Some(other) if ![SUBPROTOCOL_1, SUBPROTOCOL_2].contains(&other.as_str()) => {
            Err(format!("it selects the subprotocol {other:?}, which no protocol defines"))
        }
        protocol => Ok(protocol),
    }
}

fn value(headers: &[Header<'_>], name: &str) -> Option<String> {
    let header = headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
    Some(String::from_utf8_lossy(header.value.trim_ascii()).into_owned())
}

fn shown(answer: &[u8]) -> String {
    let text = String::from_utf8_lossy(&answer[..answer.len().min(4 * MAX_SHOWN_BYTES)]);
    format!("{:?}", beginning(&text, MAX_SHOWN_BYTES))
}
