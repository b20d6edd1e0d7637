//! A connection to Redis that is opened when needed and closed after any failure that leaves its state unknown.
//!
//! Owned by one thread. It never repeats a command by itself, except a script that Redis did not have, because only the
//! caller knows whether a command may be repeated. The commands of a call are sent in one write.
//!
//! A transaction may be left open between two exchanges (see `transaction`): the next exchange that does not continue
//! it closes it first.

use std::io;
use std::time::Duration;

use redis::Value;

use super::command::{Command, command};
use super::replicas::{Confirmed, Replicas};
use super::resp::{MAX_REPLY_BYTES, Reply};
use super::script::ScriptCall;
use super::seal::Seal;
use super::server::Server;
use super::session::{BufferSize, ReceiveBuffer, Session};
use crate::base::error::{Error, Result, Step};
use crate::base::failure::Failure;
use crate::base::refusal::Refusal;
use crate::net::Wait;

/// The receive buffer.
const BUFFER: BufferSize = BufferSize { least_bytes: 64 << 10, most_bytes: MAX_REPLY_BYTES };

/// See the module's text.
pub struct Connection {
    server: Server,
    open: Option<Open>,
    timeout: Duration,
    /// How many were opened so far; state that is valid for one connection only is kept with this number.
    opened: u64,
    /// How many transactions were opened so far.
    transactions: u64,
    /// Commands being written.
    out: Vec<u8>,
    /// How what is written expires, in a trial.
    seal: Option<Seal>,
}

impl Connection {
    /// A connection that will wait at most `timeout` for each reply. Opens nothing yet.
    pub fn new(server: Server, timeout: Duration) -> Connection {
        Connection { server, open: None, timeout, opened: 0, transactions: 0, out: Vec::new(), seal: None }
    }

    /// The same connection, to the node that has this key if the server is a Redis Cluster.
    pub(super) fn for_key(self, key: &str) -> Connection {
        if !self.server.is_cluster() {
            return self;
        }
        // What is open may lead to another node.
        Connection { server: self.server.for_key(key), open: None, ..self }
    }

    /// The server it talks to.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// How long it waits for a reply.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Makes what scripts and transactions write from now on expire.
    pub(super) fn set_seal(&mut self, seal: Seal) {
        self.seal = Some(seal);
    }

    /// How what is written expires.
    pub(super) fn seal(&self) -> Option<Seal> {
        self.seal
    }

    /// The number of the connection that is open; `None` if none is, or if it leads to a server that is no longer the
    /// right one.
    pub(super) fn number(&self) -> Option<u64> {
        self.current().map(|_| self.opened)
    }

    fn current(&self) -> Option<&Open> {
        self.open.as_ref().filter(|open| !open.session.is_outdated(&self.server))
    }

    /// Changes how long a reply is waited for.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
        if let Some(open) = &mut self.open
            && open.session.incoming.set_wait(Wait::Each(timeout)).is_err()
        {
            self.open = None;
        }
    }

    /// Sends one command and returns its reply; an error reply is an `Err`.
    pub fn query(&mut self, step: impl Into<Step>, command: Command) -> Result<Value> {
        self.out.clear();
        self.out.extend_from_slice(&command.into_bytes());
        self.ask(step.into())
    }

    /// Sends commands in one write and returns their replies in order; the first error reply is an `Err`.
    pub fn pipeline(&mut self, doing: &'static str, commands: Vec<Command>) -> Result<Vec<Value>> {
        self.pipeline_each(doing, commands)?.into_iter().collect()
    }

    /// Like [`pipeline`](Connection::pipeline), with the outcome of each command by itself.
    pub fn pipeline_each(&mut self, doing: &'static str, commands: Vec<Command>) -> Result<Vec<Result<Value>>> {
        let count = commands.len();
        self.out.clear();
        commands.into_iter().for_each(|command| self.out.extend_from_slice(&command.into_bytes()));
        let replies =
            self.exchange(doing.into(), |replies| (0..count).map(|_| replies.value()).collect::<io::Result<Vec<_>>>())?;
        Ok(replies.into_iter().map(|reply| self.checked(doing.into(), reply)).collect())
    }

    /// Calls a script. If the server does not have it, sends its text, which is safe because the script did not run. If
    /// replicas must confirm it, also returns how many have (see `replicas`).
    pub(super) fn call(
        &mut self,
        doing: &'static str,
        call: &ScriptCall,
        replicas: Option<Replicas>,
    ) -> Result<(Value, Option<Confirmed>)> {
        self.call_behind(doing, None, call, replicas).map(|(_, reply, confirmed)| (reply, confirmed))
    }

    /// The same behind a command that reads, in one write. Also returns the reply to that.
    pub(super) fn call_behind(
        &mut self,
        doing: &'static str,
        read: Option<Command>,
        call: &ScriptCall,
        replicas: Option<Replicas>,
    ) -> Result<(Option<Value>, Value, Option<Confirmed>)> {
        let ahead = read.map(Command::into_bytes);
        let script = call.script;
        let sealed = self.seal.map(|seal| seal.around(script.sent()));
        let text = sealed.as_deref().unwrap_or(script.sent());
        let loaded;
        let digest = match script.digest.get() {
            Some(digest) if sealed.is_none() => digest,
            _ => {
                loaded = self.load(text)?;
                if sealed.is_some() { &loaded } else { script.digest.get_or_init(|| loaded) }
            }
        };
        let (by_digest, by_text) = call.commands();
        let ask = |connection: &mut Connection, name, script| {
            connection.out.clear();
            connection.out.extend_from_slice(ahead.as_deref().unwrap_or_default());
            call.write(name, script, &mut connection.out);
            connection.ask_confirmed(doing.into(), ahead.is_some(), replicas)
        };
        match ask(self, by_digest, digest) {
            // Loaded and called in one step, because the server could forget the script between two steps.
            Err(error) if error.refusal() == Some(Refusal::NoScript) => ask(self, by_text, text),
            outcome => outcome,
        }
    }

    /// Lets the server keep a script, and returns its digest.
    fn load(&mut self, text: &str) -> Result<String> {
        match self.query(Step::LoadingScript, Command::of(&["SCRIPT", "LOAD", text]))? {
            Value::BulkString(digest) => Ok(String::from_utf8_lossy(&digest).into_owned()),
            other => Err(self.server.unexpected_reply(Step::LoadingScript, &other)),
        }
    }

    /// Sends what `write` writes in one go, and takes the replies with `read`. An error from `read` leaves the
    /// connection in an unknown state, so the connection is closed.
    pub(super) fn converse<T>(
        &mut self,
        doing: &'static str,
        write: impl FnOnce(&mut Vec<u8>),
        read: impl FnOnce(&mut ReceiveBuffer) -> io::Result<T>,
    ) -> Result<T> {
        self.out.clear();
        write(&mut self.out);
        self.exchange(doing.into(), read)
    }

    /// The number of the open transaction, behind `MULTI`; each has its own.
    pub(super) fn transaction(&self) -> Option<u64> {
        self.current()?.transaction
    }

    /// `MULTI` was answered with OK in the exchange that has just ended. Returns the transaction's number.
    pub(super) fn note_transaction(&mut self) -> Option<u64> {
        let open = self.open.as_mut()?;
        self.transactions += 1;
        open.transaction = Some(self.transactions);
        open.transaction
    }

    /// Like [`converse`](Connection::converse), within the open transaction: it ends with `EXEC`, which
    /// `write` writes.
    pub(super) fn conclude<T>(
        &mut self,
        doing: &'static str,
        write: impl FnOnce(&mut Vec<u8>),
        read: impl FnOnce(&mut ReceiveBuffer) -> io::Result<T>,
    ) -> Result<T> {
        if let Some(open) = &mut self.open {
            open.transaction = None;
        }
        self.out.clear();
        write(&mut self.out);
        // On this connection, even if it is outdated by now: on another one the commands would be executed without
        // the transaction.
        self.exchange_here(doing.into(), read)
    }

    /// An error reply as an error. If it shows that this is the wrong server, because it has become a replica or the
    /// keys were moved, the connection ends as well.
    pub(super) fn refusal(&mut self, step: impl Into<Step>, failure: Failure) -> Error {
        let Some(open) = &self.open else { return self.server.error(step, failure) };
        let (error, is_wrong_server) = open.session.refusal(&self.server, step, failure);
        if is_wrong_server {
            self.open = None;
        }
        error
    }

    fn ask(&mut self, step: Step) -> Result<Value> {
        let reply = self.exchange(step, |replies| replies.value())?;
        self.checked(step, reply)
    }

    /// Sends the buffer: a command that reads, if there is one ahead, and a call.
    fn ask_confirmed(
        &mut self,
        step: Step,
        is_behind: bool,
        replicas: Option<Replicas>,
    ) -> Result<(Option<Value>, Value, Option<Confirmed>)> {
        if let Some(replicas) = replicas {
            replicas.write(self.timeout, &mut self.out);
        }
        let (read, reply, confirmed) = self.exchange(step, |replies| {
            let read = is_behind.then(|| replies.value()).transpose()?;
            let reply = replies.value()?;
            Ok((read, reply, replicas.map(|_| replies.value()).transpose()?))
        })?;
        let read = read.map(|read| self.checked(step, read)).transpose()?;
        Ok((read, self.checked(step, reply)?, confirmed.map(Confirmed::of)))
    }

    fn checked(&mut self, step: Step, reply: Value) -> Result<Value> {
        reply.extract_error().map_err(|error| self.refusal(step, Failure::new(error)))
    }

    fn exchange<T>(&mut self, step: Step, read: impl FnOnce(&mut ReceiveBuffer) -> io::Result<T>) -> Result<T> {
        if self.current().is_none() {
            self.open = None;
        }
        self.exchange_here(step, read)
    }

    fn exchange_here<T>(&mut self, step: Step, read: impl FnOnce(&mut ReceiveBuffer) -> io::Result<T>) -> Result<T> {
        let open = match &mut self.open {
            Some(open) => open,
            closed => {
                let session = Session::open(&self.server, self.timeout, BUFFER, |_| 0)?;
                if self.opened > 0 {
                    self.server.note_reconnect();
                }
                self.opened += 1;
                closed.insert(Open { session, transaction: None })
            }
        };
        open.session.incoming.settle();
        let outcome = open.leave_transaction().and_then(|()| match open.session.send(&self.out) {
            Ok(()) => read(&mut open.session.incoming),
            Err(error) => Err(open.session.incoming.last_words().unwrap_or(error)),
        });
        let failed = match outcome {
            Ok(value) => return Ok(value),
            Err(error) => open.session.error(&self.server, step, error),
        };
        // After a timeout or an interruption the reply may still come: it must not meet the next command.
        self.open = None;
        Err(failed)
    }
}

/// A connection that is open.
struct Open {
    session: Session,
    /// The number of the transaction that is open, behind `MULTI`.
    transaction: Option<u64>,
}

impl Open {
    /// Ends an open transaction without commands. `EXEC` also ends the watch, and needs no right that a transaction
    /// does not need anyway.
    fn leave_transaction(&mut self) -> io::Result<()> {
        if self.transaction.take().is_none() {
            return Ok(());
        }
        let mut exec = Vec::new();
        command(&mut exec, &["EXEC"]);
        self.session.send(&exec)?;
        match self.session.incoming.reply()? {
            // An empty list, since there were no commands; nil if a watched key was written; EXECABORT if it is
            // refused.
            Reply::List(0) | Reply::Nil => Ok(()),
            Reply::Error(text) if text.starts_with(b"EXECABORT") => Ok(()),
            other => Err(io::Error::other(format!("a transaction can't be left: {other:?}"))),
        }
    }
}
