//! One open connection to a Redis server: the socket, the greeting and the receive buffer.
//!
//! Everything that talks to Redis goes through this: commands ([`Connection`](super::Connection)), the subscription,
//! and the bench's own peers. Owned by one thread, or by two once it is [split](Session::split).

use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::command::command;
use super::receiving::LastWords;
pub use super::receiving::{BufferSize, ReceiveBuffer};
use super::role::{Role, role};
use super::server::{CONNECT_TIMEOUT, Server};
use crate::base::error::{Error, Result, Step};
use crate::base::failure::Failure;
use crate::base::refusal::Refusal;
use crate::net::{Closer, Wait, WriteHalf};

/// See the module's text.
pub struct Session {
    /// What the server sends.
    pub incoming: ReceiveBuffer,
    writer: WriteHalf,
    /// See `place`.
    generation: u64,
    /// Kept for as long as the session is to end with its generation.
    watched: Option<Arc<Closer>>,
}

impl Session {
    /// Connects and logs in, and then sends what `greet` writes; `greet` returns the number of replies to it. Once
    /// connected, the whole greeting may take `limit`; afterwards each read may. Name lookup and connecting have limits
    /// of their own, so that a slow name server does not use up the greeting's time.
    pub fn open(
        server: &Server,
        limit: Duration,
        buffer: BufferSize,
        greet: impl FnOnce(&mut Vec<u8>) -> usize,
    ) -> Result<Session> {
        let (stream, generation) =
            server.connect(limit.min(CONNECT_TIMEOUT)).map_err(|error| server.error(Step::Connecting, error))?;
        let watched = server.watch(generation, stream.closer());
        let (reader, writer) = stream.split();
        let incoming = ReceiveBuffer::new(reader, buffer);
        let mut session = Session { incoming, writer, generation, watched };
        let failed = |session: &Session, error| session.error(server, Step::Connecting, error);
        let wait = session.incoming.set_wait(Wait::Until(Instant::now() + limit));
        wait.map_err(|error| failed(&session, error))?;
        let mut greeting = Vec::new();
        let replies = server.greet(&mut greeting) + greet(&mut greeting);
        if let Err(error) = session.send(&greeting) {
            let error = session.incoming.last_words().unwrap_or(error);
            return Err(failed(&session, error));
        }
        for _ in 0..replies {
            let reply = session.incoming.value().map_err(|error| failed(&session, error))?;
            reply.extract_error().map_err(|error| session.refusal(server, Step::Connecting, Failure::new(error)).0)?;
        }
        if server.must_be_primary() {
            session.check_role(server)?;
        }
        let wait = session.incoming.set_wait(Wait::Each(limit));
        wait.map_err(|error| failed(&session, error))?;
        Ok(session)
    }

    /// From now on the session does not end by itself when its server is no longer the right one: what that has sent is
    /// taken first.
    pub(super) fn outlive_its_generation(&mut self) {
        self.watched = None;
    }

    /// Ends in an error if the server says that it is no primary.
    fn check_role(&mut self, server: &Server) -> Result<()> {
        let mut refused = None;
        for question in [&["ROLE"][..], &["INFO", "replication"]] {
            let mut out = Vec::new();
            command(&mut out, question);
            let asked = self.send(&out).and_then(|()| self.incoming.value());
            let reply = asked.map_err(|error| self.error(server, Step::Connecting, error))?;
            match role(&reply) {
                Role::Primary => return Ok(()),
                Role::Other => {
                    let problem = "it is no primary (any more): a failover may be under way";
                    return Err(server.error(Step::Connecting, io::Error::other(problem)));
                }
                Role::Unknown => {}
            }
            if let Err(error) = reply.extract_error() {
                refused = Some(Failure::new(error));
            }
        }
        match refused {
            // Not for lack of a right, for instance while it loads its data.
            Some(failure) if !matches!(failure.refusal(), Some(Refusal::Right | Refusal::UnknownCommand)) => {
                Err(self.refusal(server, Step::Connecting, failure).0)
            }
            refused => {
                server.note_unknown_role(refused.as_ref());
                Ok(())
            }
        }
    }

    /// The generation at which it was opened.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether the server is elsewhere now, so that this session must be replaced.
    pub(super) fn is_outdated(&self, server: &Server) -> bool {
        server.is_outdated(self.generation)
    }

    /// An error reply as an error, and whether the session must end, because this is the wrong server.
    pub(super) fn refusal(&self, server: &Server, step: impl Into<Step>, failure: Failure) -> (Error, bool) {
        let is_wrong_server = server.note_refusal(self.generation, &failure);
        (server.error(step, failure), is_wrong_server)
    }

    /// Sends commands that are already in the protocol's form.
    pub fn send(&mut self, commands: &[u8]) -> io::Result<()> {
        self.writer.write_all(commands)
    }

    /// The two directions, for two threads.
    pub fn split(self) -> (ReceiveBuffer, WriteHalf) {
        (self.incoming, self.writer)
    }

    /// The error for a session that has ended.
    pub(super) fn error(&self, server: &Server, step: impl Into<Step>, error: io::Error) -> Error {
        match LastWords::of(error) {
            Ok(failure) => server.error(step, failure),
            Err(error) if !self.incoming.is_answered() => server.unanswered(step, error),
            Err(error) => server.error(step, error),
        }
    }
}
