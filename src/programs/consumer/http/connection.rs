//! What ureq sends and receives over: connections made by `net`, each with the deadline of its request.
//!
//! ureq's own would look the name up anew for each request, and give each write its full time again. This one also
//! knows two things that decide what a failure means: whether anything was sent at all ([`NotConnected`]), and whether
//! a kept connection was closed before it brought a byte of an answer ([`Stale`]).

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport};

use super::server::{CONNECT_LIMIT, Server};
use crate::net::{Stream, Wait, connect_any};

/// The most bytes of an answer's status and headers.
pub(super) const MAX_HEADER_BYTES: usize = 16 << 10;
/// The most bytes read or written in one call. More than the headers may have, so that ureq finds them too large.
const BUFFER_BYTES: usize = 2 * MAX_HEADER_BYTES;
/// A kept connection that ends within this time after the request, without a byte of an answer, had most likely been
/// closed before the request arrived. A server that works on a request for longer before it fails has seen it.
pub(super) const STALE_WITHIN: Duration = Duration::from_secs(1);

/// Nothing was sent: there is no connection, for this reason.
#[derive(Debug)]
pub(super) struct NotConnected(pub(super) String);

/// A kept connection was closed without an answer; see [`STALE_WITHIN`].
#[derive(Debug)]
pub(super) struct Stale;

/// Makes connections to the server.
pub(super) struct HttpConnector(pub(super) Arc<Server>);

/// Leaves the addresses to the connector.
#[derive(Debug)]
pub(super) struct NoLookup;

/// A connection.
pub(super) struct Connection {
    stream: Stream,
    buffers: LazyBuffers,
    /// How many requests it had before the present one.
    earlier: u64,
    /// When the present request began; `None` before the first.
    began: Option<Instant>,
    /// Whether a byte of the present request's answer has arrived.
    answered: bool,
    /// Why writing failed. The server may have answered before it read everything, so the answer is read nevertheless.
    cut: Option<ErrorKind>,
}

impl Connector for HttpConnector {
    type Out = Connection;

    fn connect(&self, details: &ConnectionDetails<'_>, _: Option<()>) -> Result<Option<Connection>, Error> {
        let not_connected = |reason: String| Error::Other(Box::new(NotConnected(reason)));
        let addresses = self.0.addresses().map_err(not_connected)?;
        // Half of the time remains for the request, however many of the addresses are silent.
        let limit = CONNECT_LIMIT.min(*details.timeout.after / 2) / addresses.len().max(1) as u32;
        match connect_any(&addresses, limit) {
            Ok((stream, used)) => {
                self.0.note_used(used);
                Ok(Some(Connection {
                    stream,
                    buffers: LazyBuffers::new(BUFFER_BYTES, BUFFER_BYTES),
                    earlier: 0,
                    began: None,
                    answered: false,
                    cut: None,
                }))
            }
            Err(problem) => {
                let tried: Vec<_> = addresses.iter().map(ToString::to_string).collect();
                let reason = format!("{}: {problem}", tried.join(", "));
                self.0.note_absent(&reason);
                Err(not_connected(reason))
            }
        }
    }
}

impl Connection {
    /// Notes that a request begins, unless it goes on.
    fn note_sending(&mut self) {
        if self.began.is_some() && !self.answered {
            return;
        }
        self.earlier += u64::from(self.began.is_some());
        self.began = Some(Instant::now());
        self.answered = false;
    }

    /// The connection has ended, with this error if it was not closed in order.
    fn ended(&self, kind: Option<ErrorKind>) -> Result<bool, Error> {
        let soon = self.began.is_some_and(|began| began.elapsed() < STALE_WITHIN);
        if self.earlier > 0 && !self.answered && soon {
            return Err(Error::Other(Box::new(Stale)));
        }
        match kind.or(self.cut) {
            // ureq would take the kinds that the system uses for the end of an answer without a length.
            Some(kind) => Err(Error::Io(io::Error::other(kind.to_string()))),
            None => Ok(false),
        }
    }
}

impl Transport for Connection {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.note_sending();
        if self.cut.is_some() {
            return Ok(());
        }
        self.stream.set_write_wait(until(timeout))?;
        match self.stream.write_all(&self.buffers.output()[..amount]) {
            Err(error) if error.kind() == ErrorKind::TimedOut => Err(Error::Timeout(timeout.reason)),
            Err(error) => {
                self.cut = Some(error.kind());
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.stream.set_read_wait(until(timeout))?;
        match self.stream.read(self.buffers.input_append_buf()) {
            Ok(0) => self.ended(None),
            Ok(count) => {
                self.answered = true;
                self.buffers.input_appended(count);
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::TimedOut => Err(Error::Timeout(timeout.reason)),
            Err(error) => self.ended(Some(error.kind())),
        }
    }

    /// Whether it can have another request: nothing is left to read, and the server has not closed it.
    fn is_open(&mut self) -> bool {
        let is_idle = |stream: &mut Stream| {
            stream.set_wait(Wait::Never)?;
            let idle = matches!(stream.read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock);
            stream.set_wait(Wait::Forever)?;
            io::Result::Ok(idle)
        };
        self.cut.is_none() && is_idle(&mut self.stream).unwrap_or(false)
    }
}

fn until(timeout: NextTimeout) -> Wait {
    if timeout.after.is_not_happening() { Wait::Forever } else { Wait::Until(Instant::now() + *timeout.after) }
}

impl Resolver for NoLookup {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        Ok(self.empty())
    }
}

impl fmt::Debug for HttpConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HttpConnector")
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connection")
    }
}

impl fmt::Display for NotConnected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Stale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a kept connection was closed without an answer")
    }
}

impl std::error::Error for NotConnected {}
impl std::error::Error for Stale {}
