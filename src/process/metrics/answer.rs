//! What a request is answered. Pure, except for the program's own pages and the token's file.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::access::{Access, Asked, Denied};
use super::site::{NO_POLICY, Site};
use crate::base::text::{Escaped, Quoted};

/// The most headers a request may have.
const MAX_HEADERS: usize = 64;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";
/// Both ways to send the token. A browser knows the second, and asks for a user and a password.
const LOGIN: &str =
    "WWW-Authenticate: Bearer realm=\"oncecast\"\r\nWWW-Authenticate: Basic realm=\"oncecast\", charset=\"UTF-8\"\r\n";

/// Who asks, and what there is.
#[derive(Clone, Copy)]
pub struct Visitor<'a> {
    /// What is served.
    pub site: &'a Site,
    /// To whom.
    pub access: &'a Access,
    /// Whether the request comes from this machine.
    pub is_local: bool,
}

/// The answer to a request.
#[derive(Debug, PartialEq)]
pub struct Response {
    status: &'static str,
    kind: &'static str,
    body: String,
    /// What a browser lets the page do.
    policy: &'static str,
    /// Whether only the head was asked for.
    head: bool,
}

impl Response {
    /// A sentence. It may repeat what a peer or Redis said, which must not control the reader's terminal.
    pub(super) fn plain(status: &'static str, body: impl fmt::Display) -> Response {
        Response { status, kind: PLAIN, body: format!("{}\n", Escaped(body)), policy: NO_POLICY, head: false }
    }

    /// The answer as it is sent.
    pub fn into_bytes(self) -> Vec<u8> {
        let Response { status, kind, body, policy, head } = self;
        let allow = if status.starts_with("405") { "Allow: GET, HEAD\r\n" } else { "" };
        let login = if status.starts_with("401") { LOGIN } else { "" };
        let length = body.len();
        let body = if head { "" } else { &body };
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n{allow}{login}\
             Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nX-Frame-Options: DENY\r\n\
             Content-Security-Policy: {policy}\r\nReferrer-Policy: no-referrer\r\nConnection: close\r\n\r\n{body}"
        )
        .into_bytes()
    }
}

/// The answer to a request, or `None` while it isn't complete.
pub fn answer(bytes: &[u8], visitor: Visitor<'_>) -> Option<Response> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return None,
        Err(httparse::Error::TooManyHeaders) => {
            return Some(Response::plain("431 Request Header Fields Too Large", "too many headers"));
        }
        Err(error) => return Some(Response::plain("400 Bad Request", error)),
    }
    let head = match request.method {
        Some("GET") => false,
        Some("HEAD") => true,
        _ => return Some(Response::plain("405 Method Not Allowed", "only GET and HEAD")),
    };
    let (target, path) = parts_of(request.path.unwrap_or_default());
    let is_old = request.version == Some(0);
    let asked = Asked { target, path, is_old, headers: request.headers, is_local: visitor.is_local };
    if let Err(denied) = visitor.access.check(asked) {
        let status = match denied {
            Denied::Malformed(_) => "400 Bad Request",
            Denied::Stranger(_) => "403 Forbidden",
            Denied::NoToken => "401 Unauthorized",
        };
        return Some(Response { head, ..Response::plain(status, denied.text()) });
    }
    // The program's own callback may panic: only this answer fails.
    let response = catch_unwind(AssertUnwindSafe(|| page(path, visitor.site))).unwrap_or_else(|_| {
        log::error!("event=metrics-panic path={}", Quoted(path));
        Response::plain("500 Internal Server Error", "reading the numbers failed")
    });
    Some(Response { head, ..response })
}

/// The host and the path of a request's target. It has a host only if it is meant for a proxy:
/// `http://host/metrics?name=x`.
fn parts_of(target: &str) -> (Option<&str>, &str) {
    let scheme = ["http://", "https://"]
        .into_iter()
        .find(|scheme| target.get(..scheme.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(scheme)));
    let (host, path) = match scheme {
        Some(scheme) => {
            let rest = &target[scheme.len()..];
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            (Some(&rest[..end]), &rest[end..])
        }
        None => (None, target),
    };
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    (host, if host.is_some() && path.is_empty() { "/" } else { path })
}

fn page(path: &str, site: &Site) -> Response {
    match path {
        "/metrics" => match site.metrics.text() {
            Ok(body) => Response { status: "200 OK", kind: OPENMETRICS, body, policy: NO_POLICY, head: false },
            Err(_) => Response::plain("500 Internal Server Error", "writing the numbers failed"),
        },
        "/healthz" => Response::plain("200 OK", "ok"),
        "/readyz" => match (site.ready)() {
            Ok(()) => Response::plain("200 OK", "ready"),
            Err(reason) => Response::plain("503 Service Unavailable", reason),
        },
        _ => match site.pages.iter().find(|(known, ..)| *known == path) {
            Some((_, kind, page)) => {
                Response { status: "200 OK", kind, body: page(), policy: site.policy, head: false }
            }
            None => {
                let more: String = site.pages.iter().map(|(path, ..)| format!(", {path}")).collect();
                Response::plain("404 Not Found", format!("there is /metrics, /healthz, /readyz{more}"))
            }
        },
    }
}
