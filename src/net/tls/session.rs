//! TLS on one connection: the state machine of rustls, and the bytes between it and the socket.
//!
//! One thread may read while another writes. The machine is behind a lock that is held for computing alone; the socket
//! is read and written outside of it, by the rules of [`Wait`]. So a peer that does not read holds up the writing
//! thread only.
//!
//! - *Reading*: bytes that the socket gave and the machine has not taken yet are kept, so a call that times out loses
//!   nothing. A connection that ends without the goodbye of TLS ends like one with it: RESP and WebSocket say
//!   themselves where a message ends.
//! - *Writing*: a call encrypts a part, and returns once the system has taken all of it. If the call fails before that,
//!   the rest of the part is kept, and the caller must come again with the same bytes, as it does after an incomplete
//!   write anyway: the part counts as written when the rest is gone.

use std::io::{self, ErrorKind, Read, Write};
use std::ops::Range;
use std::time::Instant;

use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, Connection, ServerConnection};

use super::config::{ClientTls, ServerTls};
use super::problem::failed;
use crate::base::tls::TlsProblem;
use crate::net::raw::Raw;
use crate::net::wait::{Wait, within};

/// How much is read from the socket at once, after the handshake and during it.
const RECEIVE_BYTES: usize = 64 << 10;
const HANDSHAKE_BYTES: usize = 4 << 10;
/// How much is encrypted at once.
const PART_BYTES: usize = 64 << 10;

/// See the module's text.
#[derive(Debug)]
pub(in crate::net) struct Session {
    machine: Mutex<Connection>,
    /// Locked by the reading thread for the whole of a call.
    incoming: Mutex<Incoming>,
    /// Locked by the writing thread for the whole of a call.
    outgoing: Mutex<Outgoing>,
    /// Where the trusted authorities are from.
    trusted: String,
}

/// What the socket gave and the machine has not taken.
#[derive(Debug, Default)]
struct Incoming {
    buffer: Vec<u8>,
    filled: Range<usize>,
    /// What the peer sent first.
    first: Vec<u8>,
    /// The peer has closed the connection.
    ended: bool,
    /// The failure that ended the connection, after what was decrypted before it.
    failure: Option<rustls::Error>,
}

/// What the machine gave and the socket has not taken.
#[derive(Debug, Default)]
struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
    /// How many of the caller's bytes are in it.
    accepted: usize,
}

impl Session {
    /// A client's, before its handshake. The peer's certificate must be for `name`, a host name or an address.
    pub(in crate::net) fn of_client(tls: &ClientTls, name: &str) -> io::Result<Session> {
        let name = ServerName::try_from(name.to_owned()).map_err(|_| {
            let what = format!("{name} is not a name that a certificate could be for");
            io::Error::new(ErrorKind::InvalidInput, TlsProblem::Other(what))
        })?;
        let machine = ClientConnection::new(tls.config(), name).map_err(|error| failed(error, &[], ""))?;
        Ok(Session::over(machine.into(), tls.trusted()))
    }

    /// A server's, before its handshake.
    pub(in crate::net) fn of_server(tls: &ServerTls) -> io::Result<Session> {
        let machine = ServerConnection::new(tls.config()).map_err(|error| failed(error, &[], ""))?;
        Ok(Session::over(machine.into(), tls.trusted()))
    }

    fn over(machine: Connection, trusted: String) -> Session {
        let (incoming, outgoing) = (Mutex::default(), Mutex::default());
        Session { machine: Mutex::new(machine), incoming, outgoing, trusted }
    }

    /// Completes the handshake by `deadline`. The socket must block. Its timeouts are changed.
    pub(in crate::net) fn shake_hands(&self, raw: &Raw, deadline: Instant) -> io::Result<()> {
        let wait = Wait::Until(deadline);
        let incoming = &mut *self.incoming.lock();
        let outgoing = &mut *self.outgoing.lock();
        incoming.buffer = vec![0; HANDSHAKE_BYTES];
        let outcome = loop {
            let mut machine = self.machine.lock();
            let stepped = incoming.feed(&mut machine);
            let gathered = outgoing.gather(&mut machine);
            let is_done = !machine.is_handshaking();
            drop(machine);
            // Also if it failed: the peer is told why.
            let sent = gathered.and_then(|()| outgoing.send(raw, wait, &mut 0));
            match (stepped, sent) {
                (Err(error), _) => break Err(failed(error, &incoming.first, &self.trusted)),
                (Ok(()), Err(error)) => break Err(error),
                (Ok(()), Ok(())) if is_done => break Ok(()),
                (Ok(()), Ok(())) => {}
            }
            match incoming.receive(raw, wait) {
                Ok(()) if incoming.ended => break Err(ErrorKind::UnexpectedEof.into()),
                Ok(()) => {}
                Err(error) => break Err(error),
            }
        };
        outcome.map_err(|error: io::Error| match error.kind() {
            ErrorKind::TimedOut => io::Error::new(ErrorKind::TimedOut, TlsProblem::Slow),
            kind @ (ErrorKind::UnexpectedEof
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::BrokenPipe) => io::Error::new(kind, TlsProblem::Closed),
            _ => error,
        })
    }

    /// Reads what was decrypted; waits for more if there is nothing.
    pub(in crate::net) fn read(&self, raw: &Raw, wait: Wait, into: &mut [u8]) -> io::Result<usize> {
        let incoming = &mut *self.incoming.lock();
        let began = Instant::now();
        loop {
            if let Some(count) = self.decrypt(incoming, raw, into)? {
                return Ok(count);
            }
            // Each read of the socket has the time of one call, and one call may need several reads. So it may last
            // twice as long, but no longer, even if the peer sends single bytes.
            if matches!(wait, Wait::Each(limit) if began.elapsed() >= limit) {
                return Err(ErrorKind::TimedOut.into());
            }
            if incoming.buffer.len() < RECEIVE_BYTES {
                incoming.buffer.resize(RECEIVE_BYTES, 0);
            }
            incoming.receive(raw, wait)?;
        }
    }

    /// `None`: the machine needs more bytes.
    fn decrypt(&self, incoming: &mut Incoming, raw: &Raw, into: &mut [u8]) -> io::Result<Option<usize>> {
        let mut machine = self.machine.lock();
        let mut count = 0;
        loop {
            match machine.reader().read(&mut into[count..]) {
                Ok(0) => return Ok(Some(count)),
                Ok(more) => count += more,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(Some(count)),
                Err(error) => return Err(error),
            }
            if count == into.len() {
                return Ok(Some(count));
            }
            if incoming.filled.is_empty() && incoming.failure.is_none() {
                return Ok((count > 0 || incoming.ended).then_some(count));
            }
            if incoming.failure.is_none() {
                incoming.failure = incoming.take_in(&mut machine).err();
            }
            if let Some(failure) = &incoming.failure {
                if count > 0 {
                    return Ok(Some(count));
                }
                let error = failed(failure.clone(), &incoming.first, &self.trusted);
                drop(machine);
                self.send_alert(raw);
                return Err(error);
            }
        }
    }

    /// Encrypts and writes a part of these bytes. Adds to `written` what the system has taken.
    pub(in crate::net) fn write(&self, raw: &Raw, wait: Wait, bytes: &[u8], written: &mut u64) -> io::Result<usize> {
        let outgoing = &mut *self.outgoing.lock();
        if outgoing.accepted == 0 {
            let part = &bytes[..bytes.len().min(PART_BYTES)];
            let mut machine = self.machine.lock();
            outgoing.accepted = machine.writer().write(part)?;
            outgoing.gather(&mut machine)?;
        } else if outgoing.accepted > bytes.len() {
            return Err(io::Error::new(ErrorKind::InvalidInput, "other bytes than those whose write was incomplete"));
        }
        outgoing.send(raw, wait, written)?;
        Ok(std::mem::take(&mut outgoing.accepted))
    }

    /// Tells the peer that nothing follows, if that is possible without waiting.
    pub(in crate::net) fn say_goodbye(&self, raw: &Raw) {
        self.machine.lock().send_close_notify();
        self.send_alert(raw);
    }

    /// Sends what the machine has to say beside data, if that is possible without waiting. If another thread is
    /// writing, the middle of its part is no place for that.
    fn send_alert(&self, raw: &Raw) {
        if let Some(outgoing) = &mut self.outgoing.try_lock()
            && outgoing.gather(&mut self.machine.lock()).is_ok()
        {
            let sent = raw.write_at_once(&outgoing.bytes[outgoing.sent..]);
            outgoing.sent += sent.unwrap_or(0);
        }
    }
}

impl Incoming {
    /// Reads from the socket. All that was read before must have been taken.
    fn receive(&mut self, raw: &Raw, wait: Wait) -> io::Result<()> {
        let buffer = &mut self.buffer;
        let count = within(wait, |timeout| raw.set_read_timeout(timeout), || raw.read(buffer))?;
        self.filled = 0..count;
        self.ended = count == 0;
        if self.first.is_empty() {
            self.first = self.buffer[..count.min(8)].to_vec();
        }
        Ok(())
    }

    /// Gives the machine as much as it takes at once.
    fn take_in(&mut self, machine: &mut Connection) -> Result<(), rustls::Error> {
        let mut bytes = &self.buffer[self.filled.clone()];
        let taken = machine.read_tls(&mut bytes).unwrap_or(0);
        self.filled.start += taken;
        machine.process_new_packets()?;
        // It takes nothing behind the peer's goodbye.
        if taken == 0 {
            self.filled = 0..0;
        }
        Ok(())
    }

    /// Gives the machine everything, during the handshake. What follows that stays here.
    fn feed(&mut self, machine: &mut Connection) -> Result<(), rustls::Error> {
        while !self.filled.is_empty() && machine.is_handshaking() {
            self.take_in(machine)?;
        }
        Ok(())
    }
}

impl Outgoing {
    /// Takes what the machine wants to write.
    fn gather(&mut self, machine: &mut Connection) -> io::Result<()> {
        if self.sent == self.bytes.len() {
            self.bytes.clear();
            self.sent = 0;
        }
        while machine.wants_write() {
            machine.write_tls(&mut self.bytes)?;
        }
        Ok(())
    }

    /// Writes all of it to the socket.
    fn send(&mut self, raw: &Raw, wait: Wait, written: &mut u64) -> io::Result<()> {
        while self.sent < self.bytes.len() {
            let rest = &self.bytes[self.sent..];
            let count = within(wait, |timeout| raw.set_write_timeout(timeout), || raw.write(rest))?;
            if count == 0 {
                return Err(ErrorKind::WriteZero.into());
            }
            self.sent += count;
            *written += count as u64;
        }
        Ok(())
    }
}
