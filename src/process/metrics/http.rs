//! A small HTTP server for `/metrics`, `/healthz`, `/readyz` and a program's other pages. It supports only GET and
//! HEAD, and one request per connection. Everything is bounded.
//!
//! One thread accepts, and a short-lived thread answers each connection. A connection gets [`REQUEST_TIME`] for
//! everything, reading, answering and closing, however slowly its peer sends or reads. At most [`MAX_CONNECTIONS`] are
//! open: to make room for another, the oldest is closed. Requests that are answered immediately, above all `/healthz`,
//! must not wait for slow peers. There is no TLS, so the address should be on a private network.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::access::{Access, is_local};
use super::answer::{Response, Visitor, answer};
use super::settings::MetricsPlace;
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
/// The most bytes that are still read from a refused peer, so that it sees the answer and not a reset.
const MAX_DRAINED_BYTES: usize = 256 << 10;
/// How long accepting pauses after the system refused a socket or a thread.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Failures to accept are logged in five lines, then in one a second.
const FAILURE_LINES: LogPace = LogPace::Lines { at_once: 5, per_s: 1 };

/// The server; stops when it is dropped.
#[derive(Debug)]
pub struct MetricsServer {
    address: SocketAddr,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// An address that is listened on, and not served yet: connections wait.
pub struct MetricsSocket {
    listener: Listener,
    address: SocketAddr,
    access: Access,
}

impl MetricsSocket {
    /// Listens from now on.
    pub fn bind(place: &MetricsPlace) -> Result<MetricsSocket> {
        let (access, address) = (Access::new(place)?, &place.address);
        let refused = || Error::io(format!("listening on {address} (--metrics-addr / ONCECAST_METRICS_ADDR)"));
        let listener = Listener::bind(address.as_str()).map_err(refused())?;
        let address = listener.address().map_err(refused())?;
        log::info!("event=metrics-listening address={address}");
        if place.is_open() {
            let advice = "whoever reaches this address can read the metrics and pages; set --metrics-token-file, or \
                          listen on a loopback address";
            log::warn!("event=metrics-open address={address} problem={}", Quoted(advice));
        }
        Ok(MetricsSocket { listener, address, access })
    }

    /// Serves from now on.
    pub fn serve(self, site: Site) -> Result<MetricsServer> {
        let MetricsSocket { listener, address, access } = self;
        let stopping = Arc::new(AtomicBool::new(false));
        let acceptor = Acceptor { listener, address, stopping: stopping.clone(), site, access };
        let thread = thread::Builder::new()
            .name("metrics".to_owned())
            .spawn(move || acceptor.run())
            .map_err(Error::io("starting the metrics thread"))?;
        Ok(MetricsServer { address, stopping, thread: Some(thread) })
    }
}

impl MetricsServer {
    /// Listens on an address and serves from now on.
    pub fn start(place: &MetricsPlace, site: Site) -> Result<MetricsServer> {
        MetricsSocket::bind(place)?.serve(site)
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
    access: Access,
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
        let (connections, site, access) = (&Connections::default(), &self.site, &self.access);
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
                    Ok((stream, peer)) => {
                        let visitor = Visitor { site, access, is_local: is_local(peer.ip(), self.address.ip()) };
                        let place = connections.begin(stream.closer());
                        let answer = move || {
                            let _place = place;
                            serve(stream, visitor);
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

/// Answers one connection.
fn serve(mut stream: Stream, visitor: Visitor<'_>) {
    let deadline = Instant::now() + REQUEST_TIME;
    let mut exchange = || {
        stream.set_wait(Wait::Until(deadline))?;
        let response = read_request(&mut stream, visitor)?;
        stream.write_all(&response.into_bytes())
    };
    // A peer that is gone or too slow gets no answer, which is not worth a log line.
    if exchange().is_ok() {
        stream.linger(deadline, Some(MAX_DRAINED_BYTES));
    }
}

/// Reads up to the end of the headers and finds the answer. What follows the first request is ignored.
fn read_request(stream: &mut Stream, visitor: Visitor<'_>) -> io::Result<Response> {
    let mut request = [0; MAX_REQUEST_BYTES];
    let mut length = 0;
    loop {
        if let Some(response) = answer(&request[..length], visitor) {
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
