//! A small HTTP server for `/metrics`, `/healthz`, `/readyz` and a program's other pages. It supports only GET and
//! HEAD, and one request per connection. Everything is bounded.
//!
//! One thread accepts, and a short-lived thread answers each connection. A connection gets [`REQUEST_TIME`] for
//! everything, reading, answering and closing, however slowly its peer sends or reads. At most [`MAX_CONNECTIONS`] are
//! open: to make room for another, the oldest is closed. Requests that are answered immediately, above all `/healthz`,
//! must not wait for slow peers. There is no TLS and no password, so the address should be on a private network.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::site::Site;
use crate::base::error::{Error, Result};
use crate::base::log_sum::{LogPace, LogSum, Sum};
use crate::base::text::Quoted;
use crate::net::{self, Closer, Listener, NotAccepted, Stream, Wait};

/// Connections open at the same time.
pub const MAX_CONNECTIONS: usize = 64;
/// A connection has at least this long before it is closed to make room for another. Answers take a few milliseconds.
const LEAST_TIME: Duration = Duration::from_millis(100);
/// The largest request, its headers included.
pub const MAX_REQUEST_BYTES: usize = 8 << 10;
/// How long one connection may take, from accepting to closing.
pub const REQUEST_TIME: Duration = Duration::from_secs(2);
/// The most headers a request may have.
const MAX_HEADERS: usize = 64;
/// The most bytes that are still read from a refused peer, so that it sees the answer and not a reset.
const MAX_DRAINED_BYTES: usize = 256 << 10;
/// How long accepting pauses after the system refused a socket or a thread.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Failures to accept are logged in five lines, then in one a second.
const FAILURE_LINES: LogPace = LogPace::Lines { at_once: 5, per_s: 1 };

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";
/// Pages load nothing else, and connect only to the server they came from.
const CONTENT_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                              connect-src 'self'; img-src data:; base-uri 'none'; frame-ancestors 'none'";

/// The server; stops when it is dropped.
#[derive(Debug)]
pub struct MetricsServer {
    address: SocketAddr,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl MetricsServer {
    /// Listens on `address` and serves from now on.
    pub fn start(address: &str, site: Site) -> Result<MetricsServer> {
        let refused = || Error::io(format!("listening on {address} (--metrics-addr / ONCECAST_METRICS_ADDR)"));
        let listener = Listener::bind(address).map_err(refused())?;
        let bound = listener.address().map_err(refused())?;
        let stopping = Arc::new(AtomicBool::new(false));
        let acceptor = Acceptor { listener, address: bound, stopping: stopping.clone(), site };
        let thread = thread::Builder::new()
            .name("metrics".to_owned())
            .spawn(move || acceptor.run())
            .map_err(Error::io("starting the metrics thread"))?;
        log::info!("event=metrics-listening address={bound}");
        Ok(MetricsServer { address: bound, stopping, thread: Some(thread) })
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for MetricsServer {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        // The thread waits for a connection, so open one to wake it.
        let woken = net::connect_any(&net::reachable(self.address), REQUEST_TIME);
        match (woken, self.thread.take()) {
            (Ok(_), Some(thread)) => {
                // The thread catches its own panics, so there is nothing to report.
                let _ = thread.join();
            }
            (Err(error), _) => log::warn!("event=metrics-not-stopped error={}", Quoted(error)),
            (Ok(_), None) => {}
        }
    }
}

struct Acceptor {
    listener: Listener,
    address: SocketAddr,
    stopping: Arc<AtomicBool>,
    site: Site,
}

/// The connections that are open.
#[derive(Default)]
struct Connections {
    /// Numbered in the order in which they were accepted.
    open: Mutex<BTreeMap<u64, OpenConnection>>,
    ended: Condvar,
}

struct OpenConnection {
    since: Instant,
    closer: Closer,
}

impl Connections {
    /// Waits for a free place. If none becomes free, the oldest connection is closed once it has been open for
    /// [`LEAST_TIME`].
    fn make_room(&self) {
        let mut open = self.open.lock();
        while open.len() >= MAX_CONNECTIONS {
            let (_, oldest) = open.first_key_value().expect("some are open");
            if oldest.since.elapsed() >= LEAST_TIME {
                // Its thread wakes up and frees the place.
                oldest.closer.shutdown();
            }
            self.ended.wait_for(&mut open, LEAST_TIME);
        }
    }

    fn begin(&self, closer: Closer) -> ConnectionSlot<'_> {
        let mut open = self.open.lock();
        let number = open.last_key_value().map_or(0, |(last, _)| last + 1);
        open.insert(number, OpenConnection { since: Instant::now(), closer });
        ConnectionSlot { all: self, number }
    }
}

/// The place of one connection, which is free again when this is dropped.
struct ConnectionSlot<'a> {
    all: &'a Connections,
    number: u64,
}

impl Drop for ConnectionSlot<'_> {
    fn drop(&mut self) {
        self.all.open.lock().remove(&self.number);
        self.all.ended.notify_all();
    }
}

impl Acceptor {
    /// The main loop: waits for a connection, and makes room for it. No failure ends it: what has caused it may pass.
    fn run(self) {
        let (connections, site) = (&Connections::default(), &self.site);
        let mut failures = LogSum::new(FAILURE_LINES, Instant::now());
        // The scope joins the threads of all connections, none of which outlives its deadline.
        thread::scope(|scope| {
            loop {
                let accepted = self.listener.accept();
                if self.stopping.load(Ordering::Acquire) {
                    self.log(failures.rest());
                    return;
                }
                connections.make_room();
                let answering = match accepted {
                    Ok((stream, _)) => {
                        let place = connections.begin(stream.closer());
                        let answer = move || {
                            let _place = place;
                            serve(stream, site);
                        };
                        let started = thread::Builder::new().name("metrics-request".to_owned());
                        let started = started.spawn_scoped(scope, answer);
                        started.map(drop).map_err(|error| (format!("there is no thread for it: {error}"), ACCEPT_PAUSE))
                    }
                    Err(NotAccepted::Nothing) => Ok(()),
                    Err(failure @ NotAccepted::Passing(_)) => Err((failure.to_string(), Duration::ZERO)),
                    // Connections release their files by their deadlines.
                    Err(failure @ NotAccepted::Exhausted(_)) => Err((failure.to_string(), ACCEPT_PAUSE)),
                };
                if let Err((reason, pause)) = answering {
                    failures.add(reason, Instant::now());
                    thread::sleep(pause);
                }
                self.log(failures.due(Instant::now()));
            }
        });
    }

    fn log(&self, failures: Option<Sum<String>>) {
        if let Some(Sum { count, example }) = failures {
            let address = self.address;
            log::warn!("event=metrics-accept-failed count={count} address={address} reason={}", Quoted(example));
        }
    }
}

/// The answer to a request.
#[derive(Debug, PartialEq)]
struct Response {
    status: &'static str,
    kind: &'static str,
    body: String,
    /// Whether only the head was asked for.
    head: bool,
}

impl Response {
    fn plain(status: &'static str, body: impl Into<String>) -> Response {
        Response { status, kind: PLAIN, body: body.into() + "\n", head: false }
    }

    fn into_bytes(self) -> Vec<u8> {
        let Response { status, kind, body, head } = self;
        let allow = if status.starts_with("405") { "Allow: GET, HEAD\r\n" } else { "" };
        let length = body.len();
        let body = if head { "" } else { &body };
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n{allow}\
             Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\
             Content-Security-Policy: {CONTENT_POLICY}\r\nConnection: close\r\n\r\n{body}"
        )
        .into_bytes()
    }
}

/// Answers one connection.
fn serve(mut stream: Stream, site: &Site) {
    let deadline = Instant::now() + REQUEST_TIME;
    let mut exchange = || {
        stream.set_wait(Wait::Until(deadline))?;
        let response = read_request(&mut stream, site)?;
        stream.write_all(&response.into_bytes())
    };
    // A peer that is gone or too slow gets no answer, which is not worth a log line.
    if exchange().is_ok() {
        stream.linger(deadline, Some(MAX_DRAINED_BYTES));
    }
}

/// Reads up to the end of the headers and finds the answer. What follows the first request is ignored.
fn read_request(stream: &mut Stream, site: &Site) -> io::Result<Response> {
    let mut request = [0; MAX_REQUEST_BYTES];
    let mut length = 0;
    loop {
        if let Some(response) = answer(&request[..length], site) {
            return Ok(response);
        }
        if length == request.len() {
            return Ok(Response::plain("431 Request Header Fields Too Large", "the request is too large"));
        }
        match stream.read(&mut request[length..])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            got => length += got,
        }
    }
}

/// The answer to a request, or `None` while it isn't complete.
fn answer(bytes: &[u8], site: &Site) -> Option<Response> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return None,
        Err(httparse::Error::TooManyHeaders) => {
            return Some(Response::plain("431 Request Header Fields Too Large", "too many headers"));
        }
        Err(error) => return Some(Response::plain("400 Bad Request", error.to_string())),
    }
    let head = match request.method {
        Some("GET") => false,
        Some("HEAD") => true,
        _ => return Some(Response::plain("405 Method Not Allowed", "only GET and HEAD")),
    };
    let path = path_of(request.path.unwrap_or_default());
    // The program's own callback may panic: only this answer fails.
    let response = catch_unwind(AssertUnwindSafe(|| page(path, site))).unwrap_or_else(|_| {
        log::error!("event=metrics-panic path={}", Quoted(path));
        Response::plain("500 Internal Server Error", "reading the numbers failed")
    });
    Some(Response { head, ..response })
}

/// The path of a request's target, which also contains the host if it is meant for a proxy:
/// `http://host/metrics?name=x`.
fn path_of(target: &str) -> &str {
    let scheme = ["http://", "https://"]
        .into_iter()
        .find(|scheme| target.get(..scheme.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(scheme)));
    let path = match scheme {
        Some(scheme) => {
            let rest = &target[scheme.len()..];
            rest.find(['/', '?']).map_or("", |at| &rest[at..])
        }
        None => target,
    };
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    if scheme.is_some() && path.is_empty() { "/" } else { path }
}

fn page(path: &str, site: &Site) -> Response {
    match path {
        "/metrics" => match site.metrics.text() {
            Ok(body) => Response { status: "200 OK", kind: OPENMETRICS, body, head: false },
            Err(_) => Response::plain("500 Internal Server Error", "writing the numbers failed"),
        },
        "/healthz" => Response::plain("200 OK", "ok"),
        "/readyz" => match (site.ready)() {
            Ok(()) => Response::plain("200 OK", "ready"),
            Err(reason) => Response::plain("503 Service Unavailable", reason),
        },
        _ => match site.pages.iter().find(|(known, ..)| *known == path) {
            Some((_, kind, page)) => Response { status: "200 OK", kind, body: page(), head: false },
            None => {
                let more: String = site.pages.iter().map(|(path, ..)| format!(", {path}")).collect();
                Response::plain("404 Not Found", format!("there is /metrics, /healthz, /readyz{more}"))
            }
        },
    }
}
