//! Asks a server for something that is not the group's: a Sentinel, or a node of a cluster, where a server is.
//!
//! Owned by the thread that asks. The connection is kept for the next question, and opened again if it has ended
//! meanwhile. A question changes nothing, so it may be sent twice.
//!
//! Limitation: the time limit does not include the lookup of a name (see `net::connect`).

use std::io::{self, ErrorKind, Write};
use std::time::{Duration, Instant};

use redis::Value;

use crate::base::tls::TlsProblem;
use crate::ledger::login::log_in;
use crate::ledger::receiving::{BufferSize, ReceiveBuffer, is_no_answer};
use crate::ledger::resp::MAX_REPLY_BYTES;
use crate::ledger::secure::Secure;
use crate::net::{self, Address, Wait, WriteHalf};

const BUFFER: BufferSize = BufferSize { least_bytes: 4 << 10, most_bytes: MAX_REPLY_BYTES };

/// See the module's text.
pub(super) struct Asker {
    address: Address,
    secure: Option<Secure>,
    greeting: Vec<u8>,
    /// The number of replies to the greeting.
    greeted: usize,
    open: Option<(ReceiveBuffer, WriteHalf)>,
}

impl Asker {
    /// Will ask the server at this address, with this login. Opens nothing yet.
    pub(super) fn new(address: Address, secure: Option<Secure>, user: Option<&str>, password: Option<&str>) -> Asker {
        let mut greeting = Vec::new();
        let greeted = log_in(&mut greeting, user, password);
        Asker { address, secure, greeting, greeted, open: None }
    }

    /// Whom it asks.
    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    /// Sends commands in one write and returns their replies, within `limit`. An error reply is a value. An error says
    /// what to do if TLS is the reason.
    pub(super) fn ask(&mut self, commands: &[u8], replies: usize, limit: Duration) -> io::Result<Vec<Value>> {
        let deadline = Instant::now() + limit;
        let was_open = self.open.is_some();
        let outcome = match self.exchange(commands, replies, deadline) {
            Err(error) if was_open && error.kind() != ErrorKind::TimedOut => self.exchange(commands, replies, deadline),
            outcome => outcome,
        };
        outcome.map_err(|error| self.explained(error))
    }

    fn explained(&self, error: io::Error) -> io::Error {
        const PLAIN: &str = "it does not answer plain Redis commands: is this a port for TLS? then the URL must begin \
                             with rediss";
        match (&self.secure, TlsProblem::of(&error)) {
            (Some(secure), Some(problem)) => match secure.hint(problem, "the Redis URL") {
                Some(hint) => io::Error::new(error.kind(), format!("{problem} ({hint})")),
                None => error,
            },
            (None, _) if is_no_answer(&error) => io::Error::new(error.kind(), PLAIN),
            _ => error,
        }
    }

    fn exchange(&mut self, commands: &[u8], replies: usize, deadline: Instant) -> io::Result<Vec<Value>> {
        // Taken out, so that after a failure no late reply meets the next question.
        let (mut incoming, mut writer) = match self.open.take() {
            Some(open) => open,
            None => self.connect(deadline)?,
        };
        incoming.set_wait(Wait::Until(deadline))?;
        writer.set_wait(Wait::Until(deadline))?;
        writer.write_all(commands)?;
        let values = (0..replies).map(|_| incoming.value()).collect::<io::Result<_>>()?;
        self.open = Some((incoming, writer));
        Ok(values)
    }

    fn connect(&self, deadline: Instant) -> io::Result<(ReceiveBuffer, WriteHalf)> {
        let left = || deadline.saturating_duration_since(Instant::now());
        let mut stream = net::connect(&self.address, left())?;
        if let Some(secure) = &self.secure {
            secure.secure(&mut stream, &self.address, left())?;
        }
        stream.set_write_wait(Wait::Until(deadline))?;
        let (reader, mut writer) = stream.split();
        let mut incoming = ReceiveBuffer::new(reader, BUFFER);
        incoming.set_wait(Wait::Until(deadline))?;
        writer.write_all(&self.greeting)?;
        for _ in 0..self.greeted {
            incoming.value()?.extract_error().map_err(io::Error::other)?;
        }
        Ok((incoming, writer))
    }
}
