//! The WebSocket handshake with a consumer: offers the subprotocols and checks what the consumer selects, and takes the
//! nonces and proofs of the link secret there and back.
//!
//! tungstenite's client refuses a server that selects no subprotocol when some were offered, but many consumers select
//! none. So this module drives tungstenite's handshake machine itself and checks the response by RFC 6455, section 4.1.

use std::io::ErrorKind;

use tungstenite::client::IntoClientRequest;
use tungstenite::error::ProtocolError;
use tungstenite::handshake::client::{Response, generate_request};
use tungstenite::handshake::derive_accept_key;
use tungstenite::handshake::machine::{HandshakeMachine, RoundResult, StageResult};
use tungstenite::http::{HeaderMap, HeaderValue, StatusCode};
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Error as WsError, WebSocket};

use crate::base::text::Quoted;
use crate::net::Stream;
use crate::wire::{NONCE_HEADER, Nonce, PROOF_HEADER, Proof, SUBPROTOCOL_1, SUBPROTOCOL_2, proofs_in};

/// What is offered. A library that selects the first one without being asked stays with version 1.
const OFFER: &str = "oncecast.1, oncecast.2";
const PROTOCOL: &str = "Sec-WebSocket-Protocol";
const EXTENSIONS: &str = "Sec-WebSocket-Extensions";

/// What a consumer speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subprotocol {
    /// `oncecast.1`, or none selected.
    One,
    /// `oncecast.2`: with RESULTS, HELLO, RECORDED and CREDIT.
    Two,
}

/// What a consumer's answer says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) subprotocol: Subprotocol,
    /// The consumer's nonce and its proofs, if it has a link secret.
    pub(super) proved: Option<(Nonce, Vec<Proof>)>,
}

/// Why there is no WebSocket.
#[derive(Debug)]
pub(super) enum HandshakeError {
    /// The connection failed, or the response is not that of a WebSocket server.
    WebSocket(WsError),
    /// The server selects something that was not offered.
    Selection(String),
}

impl<E: Into<WsError>> From<E> for HandshakeError {
    fn from(error: E) -> HandshakeError {
        HandshakeError::WebSocket(error.into())
    }
}

/// Makes a WebSocket of a connection to `address`, with a nonce if there is a link secret. The stream must not be set
/// to [`Wait::Never`](crate::net::Wait).
pub(super) fn shake_hands(
    stream: Stream,
    address: &str,
    config: WebSocketConfig,
    nonce: Option<Nonce>,
) -> Result<(WebSocket<Stream>, Answer), HandshakeError> {
    let mut request = format!("ws://{address}/").into_client_request()?;
    request.headers_mut().insert(PROTOCOL, HeaderValue::from_static(OFFER));
    if let Some(nonce) = nonce {
        let value = HeaderValue::try_from(nonce.to_string()).expect("hexadecimal digits");
        request.headers_mut().insert(NONCE_HEADER, value);
    }
    let (request, key) = generate_request(request)?;
    let mut machine = HandshakeMachine::start_write(stream, request);
    loop {
        machine = match machine.single_round::<Response>()? {
            RoundResult::Incomplete(machine) => machine,
            // A stream with a deadline reports a timeout instead, so this does not happen.
            RoundResult::WouldBlock(_) => return Err(WsError::Io(ErrorKind::WouldBlock.into()).into()),
            RoundResult::StageFinished(StageResult::DoneWriting(stream)) => HandshakeMachine::start_read(stream),
            RoundResult::StageFinished(StageResult::DoneReading { stream, result, tail }) => {
                let answer = check(result, &derive_accept_key(key.as_bytes()))?;
                let socket = WebSocket::from_partially_read(stream, tail, Role::Client, Some(config));
                return Ok((socket, answer));
            }
        };
    }
}

/// Checks the server's response.
fn check(response: Response, accept_key: &str) -> Result<Answer, HandshakeError> {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(WsError::Http(response.into()).into());
    }
    let headers = response.headers();
    if !has_token(headers, "Upgrade", "websocket") {
        return Err(WsError::from(ProtocolError::MissingUpgradeWebSocketHeader).into());
    }
    if !has_token(headers, "Connection", "Upgrade") {
        return Err(WsError::from(ProtocolError::MissingConnectionUpgradeHeader).into());
    }
    if headers.get("Sec-WebSocket-Accept").is_none_or(|key| key != accept_key) {
        return Err(WsError::from(ProtocolError::SecWebSocketAcceptKeyMismatch).into());
    }
    if let Some(extensions) = all(headers, EXTENSIONS) {
        return Err(HandshakeError::Selection(format!(
            "the server selects the extensions {}, but none were offered (turn compression off)",
            Quoted(extensions)
        )));
    }
    let subprotocol = match all(headers, PROTOCOL).as_deref() {
        None | Some(SUBPROTOCOL_1) => Subprotocol::One,
        Some(SUBPROTOCOL_2) => Subprotocol::Two,
        Some(other) => {
            return Err(HandshakeError::Selection(format!(
                "the server selects the subprotocol {}, offered were {OFFER}",
                Quoted(other)
            )));
        }
    };
    Ok(Answer { subprotocol, proved: proved(headers) })
}

/// What is not of its form proves nothing.
fn proved(headers: &HeaderMap) -> Option<(Nonce, Vec<Proof>)> {
    let nonce = Nonce::of_header(all(headers, NONCE_HEADER)?.as_bytes())?;
    let proofs = proofs_in(all(headers, PROOF_HEADER)?.as_bytes());
    (!proofs.is_empty()).then_some((nonce, proofs))
}

/// The values of all headers with this name, if there are any.
fn all(headers: &HeaderMap, name: &str) -> Option<String> {
    let values: Vec<_> = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
    (!values.is_empty()).then(|| values.join(", ").trim().to_owned())
}

fn has_token(headers: &HeaderMap, name: &str, token: &str) -> bool {
    all(headers, name).is_some_and(|list| list.split(',').any(|one| one.trim().eq_ignore_ascii_case(token)))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::thread;

    use super::*;

    /// What a server leads to whose response has these headers besides the necessary ones.
    fn answered(headers: &'static str) -> Result<Subprotocol, String> {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound").to_string();
        let server = thread::spawn(move || {
            let (mut peer, _) = listener.accept().expect("it connects");
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                peer.read_exact(&mut byte).expect("a request");
                request.push(byte[0]);
            }
            let request = String::from_utf8(request).expect("text");
            let value = |name: &str| request.lines().find_map(|line| line.strip_prefix(name)).expect("it is there");
            assert_eq!(value("Sec-WebSocket-Protocol: "), "oncecast.1, oncecast.2");
            assert!(!request.contains("Extensions") && !request.contains("Origin"));
            assert_eq!(value("oncecast-nonce: "), "0b".repeat(16));
            let accept = derive_accept_key(value("Sec-WebSocket-Key: ").as_bytes());
            // A ping behind the response must not be lost.
            write!(
                peer,
                "HTTP/1.1 101 Fine\r\nUpgrade: WebSocket\r\nConnection: keep-alive, upgrade\r\n\
                 Sec-WebSocket-Accept: {accept}\r\n{headers}\r\n\u{89}"
            )
            .expect("it reads");
            peer
        });
        let stream = Stream::over_tcp(TcpStream::connect(&address).expect("it listens")).expect("a socket");
        let outcome = shake_hands(stream, &address, WebSocketConfig::default(), Some(Nonce([11; 16])));
        drop(server.join().expect("no panic"));
        match outcome {
            Ok((_, answer)) => Ok(answer.subprotocol),
            Err(HandshakeError::Selection(problem)) => Err(problem),
            Err(HandshakeError::WebSocket(error)) => Err(error.to_string()),
        }
    }

    #[test]
    fn a_server_selects_one_subprotocol_or_none() {
        assert_eq!(OFFER, format!("{SUBPROTOCOL_1}, {SUBPROTOCOL_2}"));
        assert_eq!(answered(""), Ok(Subprotocol::One));
        assert_eq!(answered("Sec-WebSocket-Protocol: oncecast.1\r\n"), Ok(Subprotocol::One));
        assert_eq!(answered("sec-websocket-protocol:oncecast.2 \r\n"), Ok(Subprotocol::Two));
        for other in ["oncecast.3", "ONCECAST.2", "mqtt", "", "oncecast.1, oncecast.2"] {
            let header: &str = format!("Sec-WebSocket-Protocol: {other}\r\n").leak();
            let problem = answered(header).expect_err("it was not offered");
            assert!(problem.contains("selects the subprotocol") && problem.contains(other), "{problem}");
        }
        let twice = "Sec-WebSocket-Protocol: oncecast.1\r\nSec-WebSocket-Protocol: oncecast.2\r\n";
        assert!(answered(twice).is_err());
    }

    #[test]
    fn what_a_consumer_proves_is_read_if_it_has_the_form() {
        let of = |headers: &[(&'static str, String)]| {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(*name, value.parse().expect("a header's value"));
            }
            proved(&map)
        };
        let (nonce, proof) = ("01".repeat(16), "02".repeat(32));
        let (name, proofs) = ("oncecast-nonce", "oncecast-proof");
        let one = of(&[(name, nonce.clone()), (proofs, proof.clone())]);
        assert_eq!(one, Some((Nonce([1; 16]), vec![Proof([2; 32])])));
        let two = of(&[(name, nonce.clone()), (proofs, format!("{proof}, {proof}"))]);
        assert_eq!(two.map(|(_, proofs)| proofs.len()), Some(2));
        for headers in [
            vec![],
            vec![(name, nonce.clone())],
            vec![(proofs, proof.clone())],
            vec![(name, nonce.clone()), (name, nonce.clone()), (proofs, proof.clone())],
            vec![(name, nonce.clone()), (proofs, [proof.as_str(); 3].join(", "))],
            vec![(name, nonce.to_uppercase().replace('0', "A")), (proofs, proof)],
        ] {
            assert_eq!(of(&headers), None, "{headers:?}");
        }
    }

    #[test]
    fn a_server_that_compresses_is_refused() {
        let problem = answered("Sec-WebSocket-Extensions: permessage-deflate\r\n").expect_err("it was not offered");
        assert!(problem.contains("permessage-deflate") && problem.contains("compression"), "{problem}");
    }

    #[test]
    fn a_response_needs_what_the_standard_says() {
        let response = |status: u16, headers: &[(&'static str, &'static str)]| {
            let mut response = Response::new(None);
            *response.status_mut() = StatusCode::from_u16(status).expect("a status");
            for (name, value) in headers {
                response.headers_mut().append(*name, HeaderValue::from_static(value));
            }
            check(response, "key")
        };
        let complete = [("upgrade", "websocket"), ("connection", "Upgrade"), ("sec-websocket-accept", "key")];
        assert!(response(101, &complete).is_ok());
        assert!(matches!(response(200, &complete), Err(HandshakeError::WebSocket(WsError::Http(_)))));
        for missing in 0..complete.len() {
            let mut headers = complete.to_vec();
            headers.remove(missing);
            assert!(matches!(response(101, &headers), Err(HandshakeError::WebSocket(WsError::Protocol(_)))));
            headers.push((complete[missing].0, "another"));
            assert!(matches!(response(101, &headers), Err(HandshakeError::WebSocket(WsError::Protocol(_)))));
        }
    }
}
