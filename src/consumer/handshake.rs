//! The server's side of the WebSocket handshake (RFC 6455, section 4.2): reads the request, checks it and answers.
//!
//! tungstenite's own handshake closes the connection without an answer if the request is not an upgrade. This one
//! answers every HTTP request with an explanation, for instance to a person who mistook this port for that of the
//! metrics. It also refuses web pages: a page of any site may open a WebSocket to any address that the browser reaches,
//! loopback included. Browsers then send `Origin` and dispatchers don't, so a request with that header is refused.
//!
//! A dispatcher with a link secret sends a nonce; the caller adds to the answer what proves the consumer's.
//!
//! The check is pure and handles every input. A request is limited to 8 KiB; the caller's stream limits
//! the time.

use std::io::{self, ErrorKind, Read, Write};

use httparse::{EMPTY_HEADER, Header, Request, Status};
use tungstenite::handshake::derive_accept_key;

use crate::wire::{NONCE_HEADER, Nonce};

/// The largest request, its headers included.
const MAX_REQUEST_BYTES: usize = 8 << 10;
/// The most headers a request may have.
const MAX_HEADERS: usize = 64;

/// Why a request is rejected, as stated in the answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The status of HTTP.
    pub status: u16,
    reason: &'static str,
    /// For people.
    pub text: &'static str,
}

const BAD_REQUEST: Rejection =
    Rejection { status: 400, reason: "Bad Request", text: "this is not a WebSocket handshake of RFC 6455" };
const FORBIDDEN: Rejection = Rejection {
    status: 403,
    reason: "Forbidden",
    text: "a handshake with an Origin header comes from a web page; only dispatchers may connect here",
};
const NOT_FOUND: Rejection = Rejection { status: 404, reason: "Not Found", text: "the path for dispatchers is /" };
const UPGRADE_REQUIRED: Rejection = Rejection {
    status: 426,
    reason: "Upgrade Required",
    text: "this is the port of an Oncecast consumer, where dispatchers connect by WebSocket (version 13); metrics \
           and health have a port of their own",
};
const NO_TLS: Rejection = Rejection {
    status: 400,
    reason: "Bad Request",
    text: "the peer begins TLS, and this consumer has none; a dispatcher's address for it must not begin with wss://",
};
const TOO_LARGE: Rejection =
    Rejection { status: 431, reason: "Request Header Fields Too Large", text: "the request is too large" };

/// How a handshake failed.
#[derive(Debug)]
pub enum Failed {
    /// The request was answered with this.
    Rejected(Rejection),
    /// The peer closed the connection or was too slow; with the number of bytes it had sent.
    Gone(io::Error, usize),
}

/// What matters of a request that is accepted.
#[derive(Debug, PartialEq, Eq)]
struct Accepted {
    /// The key for the answer.
    key: String,
    /// The dispatcher's nonce, if it has sent one.
    nonce: Option<Nonce>,
}

/// Reads the request and answers it, with the headers that `add` returns for the dispatcher's nonce. After `Ok`,
/// WebSocket frames follow.
pub fn accept(
    stream: &mut (impl Read + Write),
    add: impl FnOnce(Option<Nonce>) -> io::Result<String>,
) -> Result<(), Failed> {
    let mut request = [0; MAX_REQUEST_BYTES];
    let mut length = 0;
    let verdict = loop {
        match stream.read(&mut request[length..]) {
            Ok(0) => return Err(Failed::Gone(ErrorKind::UnexpectedEof.into(), length)),
            Ok(count) => length += count,
            Err(error) => return Err(Failed::Gone(error, length)),
        }
        match judge(&request[..length]) {
            Some(verdict) => break verdict,
            None if length == request.len() => break Err(TOO_LARGE),
            None => {}
        }
    };
    let answer = match &verdict {
        Ok(Accepted { key, nonce }) => {
            let headers = add(*nonce).map_err(|error| Failed::Gone(error, length))?;
            format!(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Accept: {key}\r\n{headers}\r\n"
            )
        }
        Err(rejection) => rejection.answer(),
    };
    stream.write_all(answer.as_bytes()).map_err(|error| Failed::Gone(error, length))?;
    verdict.map(drop).map_err(Failed::Rejected)
}

impl Rejection {
    fn answer(&self) -> String {
        let Rejection { status, reason, text } = self;
        let upgrade = if *status == 426 { "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" } else { "" };
        let connection = if *status == 426 { "Upgrade, close" } else { "close" };
        let length = text.len() + 1;
        format!(
            "HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\n\
             X-Content-Type-Options: nosniff\r\n{upgrade}Connection: {connection}\r\n\r\n{text}\n"
        )
    }
}

/// The verdict on these bytes. `None`: the request is incomplete.
fn judge(request: &[u8]) -> Option<Result<Accepted, Rejection>> {
    if request.starts_with(&[0x16, 3]) {
        return Some(Err(NO_TLS));
    }
    let mut headers = [EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = Request::new(&mut headers);
    match parsed.parse(request) {
        Ok(Status::Partial) => None,
        // A client must not send more before it has read the answer.
        Ok(Status::Complete(length)) => Some(check(&parsed, length < request.len())),
        Err(httparse::Error::TooManyHeaders) => Some(Err(TOO_LARGE)),
        Err(_) => Some(Err(BAD_REQUEST)),
    }
}

fn check(request: &Request<'_, '_>, more_follows: bool) -> Result<Accepted, Rejection> {
    let value = |name: &str| header(request.headers, name);
    let is_upgrade = request.method == Some("GET")
        && request.version == Some(1)
        && names(request.headers, "connection", "upgrade")
        && names(request.headers, "upgrade", "websocket");
    if !is_upgrade {
        return Err(UPGRADE_REQUIRED);
    }
    if value("origin").is_some() {
        return Err(FORBIDDEN);
    }
    if !request.path.is_some_and(is_root) {
        return Err(NOT_FOUND);
    }
    if value("sec-websocket-version").map(<[u8]>::trim_ascii) != Some(b"13") {
        return Err(UPGRADE_REQUIRED);
    }
    match value("sec-websocket-key").map(<[u8]>::trim_ascii) {
        Some(key) if is_key(key) && !more_follows => {
            Ok(Accepted { key: derive_accept_key(key), nonce: nonce(request.headers) })
        }
        _ => Err(BAD_REQUEST),
    }
}

/// The dispatcher's nonce. Two are none: it would not be clear which one is proved.
fn nonce(headers: &[Header<'_>]) -> Option<Nonce> {
    let mut found = headers.iter().filter(|header| header.name.eq_ignore_ascii_case(NONCE_HEADER));
    let only = found.next().filter(|_| found.next().is_none())?;
    Nonce::of_header(only.value.trim_ascii())
}

fn header<'a>(headers: &[Header<'a>], name: &str) -> Option<&'a [u8]> {
    headers.iter().find(|header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
}

/// Whether one of the headers of this name lists this word.
fn names(headers: &[Header<'_>], name: &str, word: &str) -> bool {
    let values = headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value);
    let mut words = values.flat_map(|value| value.split(|byte| *byte == b','));
    words.any(|found| found.trim_ascii().eq_ignore_ascii_case(word.as_bytes()))
}

/// Whether a request's target, `/…` or `http://host/…`, has the path `/`.
fn is_root(target: &str) -> bool {
    let path = match target.split_once("://") {
        Some((_, rest)) if !target.starts_with('/') => rest.find('/').map_or("/", |slash| &rest[slash..]),
        _ => target,
    };
    path.split(['?', '#']).next() == Some("/")
}

/// Whether this has the form of 16 bytes in base64.
fn is_key(key: &[u8]) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    key.len() == 24 && key.ends_with(b"==") && key[..22].iter().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UPGRADE: &str = "Host: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\
                           Sec-WebSocket-Version: 13\r\n";
    const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

    /// The answer to a request with these parts: the key, or the status.
    fn verdict(line: &str, headers: &[&str]) -> Result<String, u16> {
        let request = format!("{line}\r\n{}\r\n", headers.concat());
        let verdict = judge(request.as_bytes()).expect("it is whole");
        verdict.map(|accepted| accepted.key).map_err(|rejection| rejection.status)
    }

    #[test]
    fn a_nonce_is_found_if_there_is_one() {
        let of = |headers: &str| {
            let request = format!("GET / HTTP/1.1\r\n{UPGRADE}{KEY}{headers}\r\n");
            judge(request.as_bytes()).expect("it is whole").expect("it is a handshake").nonce
        };
        let line = format!("oncecast-nonce:  {} \r\n", "0a".repeat(16));
        assert_eq!(of(&line), Some(Nonce([10; 16])));
        assert_eq!(of(""), None);
        assert_eq!(of(&line.repeat(2)), None);
        assert_eq!(of(&line.replace("0a0a", "0A0A")), None);
        assert_eq!(of("Oncecast-Nonce: 0a\r\n"), None);
    }

    #[test]
    fn a_dispatcher_is_answered() {
        for line in ["GET / HTTP/1.1", "GET /?a HTTP/1.1", "GET http://x:1/ HTTP/1.1", "GET ws://x HTTP/1.1"] {
            // The example of RFC 6455.
            assert_eq!(verdict(line, &[UPGRADE, KEY]), Ok("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".to_owned()), "{line}");
        }
    }

    #[test]
    fn other_requests_are_rejected_with_a_reason() {
        let get = "GET / HTTP/1.1";
        assert_eq!(verdict(get, &["Host: x\r\n"]), Err(426));
        assert_eq!(verdict("GET /metrics HTTP/1.1", &["Host: x\r\n"]), Err(426));
        assert_eq!(verdict("GET / HTTP/1.0", &[UPGRADE, KEY]), Err(426));
        assert_eq!(verdict("POST / HTTP/1.1", &[UPGRADE, KEY]), Err(426));
        assert_eq!(verdict(get, &[&UPGRADE.replace("13", "8"), KEY]), Err(426));
        for origin in ["Origin: https://evil.example\r\n", "oRIGIN: null\r\n", "Origin:\r\n"] {
            assert_eq!(verdict(get, &[UPGRADE, KEY, origin]), Err(403), "{origin}");
        }
        for path in ["/x", "//", "/%2f", "http://x/y", "/x://y/", "*"] {
            assert_eq!(verdict(&format!("GET {path} HTTP/1.1"), &[UPGRADE, KEY]), Err(404), "{path}");
        }
        assert_eq!(verdict(get, &[UPGRADE]), Err(400));
        assert_eq!(verdict(get, &[UPGRADE, "Sec-WebSocket-Key: short\r\n"]), Err(400));
        assert_eq!(judge(b"\x16\x03\x01"), Some(Err(NO_TLS)));
        assert_eq!(verdict(get, &[&"A: b\r\n".repeat(MAX_HEADERS + 1)]), Err(431));
        let early = format!("{get}\r\n{UPGRADE}{KEY}\r\nx");
        assert_eq!(judge(early.as_bytes()), Some(Err(BAD_REQUEST)));
        assert_eq!(judge(b"GET / HTTP/1.1\r\nHost"), None);
    }
}
