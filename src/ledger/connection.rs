//! A connection to Redis that is opened when needed and dropped after any failure that leaves its state unknown.
//!
//! Owned by one thread. It never repeats a command by itself, except a script that Redis said it did not have:
//! whether a command may be repeated is known only to the caller. Commands go out in one write, and replies are read into
//! one buffer; those of a hot path are taken apart there, all others are left to the `redis` package.
//!
//! A transaction may be left open between two conversations (see `transaction`): the next one that does not continue it
//! closes it first.

use std::io::{self, ErrorKind, Read, Write};
use std::ops::Range;
use std::time::Duration;

use redis::{RedisError, Value};

use super::command::{Command, command};
use super::resp::{self, MAX_REPLY_BYTES, MAX_REPLY_VALUES, Reply, Unreadable};
use super::script::{Script, ScriptCall};
use super::server::{CONNECT_TIMEOUT, Server, not_redis};
use crate::base::error::{CONNECTING, Error, LOADING_A_SCRIPT, Result, refusal_of};
use crate::base::refusal::Refusal;
use crate::net::{Stream, Wait};

/// The receive buffer while replies are small.
const BUFFER_BYTES: usize = 64 << 10;

/// See the module's text.
pub struct Connection {
    server: Server,
    open: Option<Open>,
    timeout: Duration,
    /// How many were opened so far; whoever keeps something of a connection keeps this beside it.
    opened: u64,
    /// How many transactions were opened so far.
    transactions: u64,
    /// Commands being written.
    out: Vec<u8>,
}

impl Connection {
    /// A connection that will wait at most `timeout` for each reply. Opens nothing yet.
    pub fn new(server: Server, timeout: Duration) -> Connection {
        Connection { server, open: None, timeout, opened: 0, transactions: 0, out: Vec::new() }
    }

    /// The server it talks to.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// The number of the connection that is open; `None` if none is.
    pub(super) fn number(&self) -> Option<u64> {
        self.open.is_some().then_some(self.opened)
    }

    /// Changes how long a reply is waited for.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
        if let Some(open) = &mut self.open
            && open.stream.set_read_wait(Wait::Each(timeout)).is_err()
        {
            self.open = None;
        }
    }

    /// Sends one command and returns its reply; an error reply is an `Err`.
    pub fn query(&mut self, doing: &'static str, command: Command) -> Result<Value> {
        self.out.clear();
        self.out.extend_from_slice(&command.into_bytes());
        self.ask(doing)
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
            self.exchange(doing, |replies| (0..count).map(|_| replies.value()).collect::<io::Result<Vec<_>>>())?;
        Ok(replies.into_iter().map(|reply| self.checked(doing, reply)).collect())
    }

    /// Calls a script; sends its text where the server does not have it, which is safe as it then did not run.
    pub(super) fn call(&mut self, doing: &'static str, script: &Script, call: &ScriptCall) -> Result<Value> {
        let digest = match script.digest.get() {
            Some(digest) => digest,
            None => {
                let load = Command::of(&["SCRIPT", "LOAD", script.text]);
                match self.query(LOADING_A_SCRIPT, load)? {
                    Value::BulkString(digest) => {
                        script.digest.get_or_init(|| String::from_utf8_lossy(&digest).into_owned())
                    }
                    other => return Err(self.server.surprise(LOADING_A_SCRIPT, &other)),
                }
            }
        };
        self.out.clear();
        call.write("EVALSHA", digest, &mut self.out);
        match self.ask(doing) {
            // Loaded and called in one step: between two of them it could be forgotten again.
            Err(error) if error.refusal() == Some(Refusal::NoScript) => {
                self.out.clear();
                call.write("EVAL", script.text, &mut self.out);
                self.ask(doing)
            }
            outcome => outcome,
        }
    }

    /// Sends what `write` writes, in one go, and has `read` take the replies. An error that `read` gives leaves the
    /// connection in an unknown state and ends it.
    pub(super) fn converse<T>(
        &mut self,
        doing: &'static str,
        write: impl FnOnce(&mut Vec<u8>),
        read: impl FnOnce(&mut Replies<'_>) -> io::Result<T>,
    ) -> Result<T> {
        self.out.clear();
        write(&mut self.out);
        self.exchange(doing, read)
    }

    /// The number of the transaction that stands open, behind `MULTI`; each has another one.
    pub(super) fn transaction(&self) -> Option<u64> {
        self.open.as_ref()?.transaction
    }

    /// `MULTI` was answered with OK in the conversation that has just ended. Gives the transaction's number.
    pub(super) fn note_transaction(&mut self) -> Option<u64> {
        let open = self.open.as_mut()?;
        self.transactions += 1;
        open.transaction = Some(self.transactions);
        open.transaction
    }

    /// Like [`converse`](Connection::converse), within the transaction that stands open: it ends with `EXEC`, which
    /// `write` writes.
    pub(super) fn conclude<T>(
        &mut self,
        doing: &'static str,
        write: impl FnOnce(&mut Vec<u8>),
        read: impl FnOnce(&mut Replies<'_>) -> io::Result<T>,
    ) -> Result<T> {
        if let Some(open) = &mut self.open {
            open.transaction = None;
        }
        self.converse(doing, write, read)
    }

    /// An error reply as an error. A server that is no primary any more stays one that can't be written to: behind its
    /// address may be another, so the connection ends.
    pub(super) fn refusal(&mut self, doing: &'static str, error: RedisError) -> Error {
        if refusal_of(&error) == Some(Refusal::Replica) {
            self.open = None;
        }
        self.server.error(doing, error)
    }

    fn ask(&mut self, doing: &'static str) -> Result<Value> {
        let reply = self.exchange(doing, |replies| replies.value())?;
        self.checked(doing, reply)
    }

    fn checked(&mut self, doing: &'static str, reply: Value) -> Result<Value> {
        reply.extract_error().map_err(|error| self.refusal(doing, error))
    }

    fn exchange<T>(&mut self, doing: &'static str, read: impl FnOnce(&mut Replies<'_>) -> io::Result<T>) -> Result<T> {
        let open = match &mut self.open {
            Some(open) => open,
            closed => {
                let made = Open::new(&self.server, self.timeout)?;
                if self.opened > 0 {
                    self.server.note_reconnect();
                }
                self.opened += 1;
                closed.insert(made)
            }
        };
        open.settle();
        let outcome = open.leave_transaction().and_then(|()| match open.stream.write_all(&self.out) {
            Ok(()) => read(&mut Replies(open)),
            Err(error) => Err(open.last_words().unwrap_or(error)),
        });
        let answered = open.answered;
        outcome.map_err(|error| {
            // After a timeout or an interruption the reply may still come: it must not meet the next command.
            self.open = None;
            match error.downcast::<HungUp>() {
                Ok(HungUp(text)) => self.server.error(doing, error_of(&text)),
                Err(error) if !answered => self.server.unanswered(doing, error),
                Err(error) => self.server.error(doing, error.into()),
            }
        })
    }
}

/// A connection that stands.
struct Open {
    stream: Stream,
    buffer: Vec<u8>,
    /// The part of the buffer that was received and not yet taken.
    filled: Range<usize>,
    /// The number of the transaction that stands open.
    transaction: Option<u64>,
    /// Whether the server has ever said a word.
    answered: bool,
}

impl Open {
    fn new(server: &Server, timeout: Duration) -> Result<Open> {
        let connect = || {
            let mut stream = server.connect(timeout.min(CONNECT_TIMEOUT))?;
            stream.set_read_wait(Wait::Each(timeout))?;
            Ok(Open { stream, buffer: vec![0; BUFFER_BYTES], filled: 0..0, transaction: None, answered: false })
        };
        let mut open = connect().map_err(|error: io::Error| server.error(CONNECTING, error.into()))?;
        let mut greeting = Vec::new();
        let greetings = server.greet(&mut greeting);
        let replies: io::Result<Vec<Value>> = open
            .stream
            .write_all(&greeting)
            .and_then(|()| (0..greetings).map(|_| Replies(&mut open).value()).collect());
        let replies = replies.map_err(|error| server.unanswered(CONNECTING, error))?;
        for reply in replies {
            reply.extract_error().map_err(|error| server.error(CONNECTING, error))?;
        }
        Ok(open)
    }

    /// Forgets what was taken.
    fn settle(&mut self) {
        self.buffer.copy_within(self.filled.clone(), 0);
        self.filled = 0..self.filled.len();
        if self.filled.is_empty() && self.buffer.len() > BUFFER_BYTES {
            self.buffer = vec![0; BUFFER_BYTES];
        }
    }

    /// Ends a transaction that stands open and has no commands. `EXEC` needs no right beyond those that a transaction
    /// needs anyhow, and ends its watch, too.
    fn leave_transaction(&mut self) -> io::Result<()> {
        if self.transaction.take().is_none() {
            return Ok(());
        }
        let mut exec = Vec::new();
        command(&mut exec, &["EXEC"]);
        self.stream.write_all(&exec)?;
        match Replies(self).next()? {
            // Nothing, since there were no commands; nil where a watched key was written; EXECABORT where it is refused.
            Reply::List(0) | Reply::Nil => Ok(()),
            Reply::Error(text) if text.starts_with(b"EXECABORT") => Ok(()),
            other => Err(io::Error::other(format!("a transaction can't be left: {other:?}"))),
        }
    }

    /// What the server said before it hung up, if it said anything: why it would not read a command.
    fn last_words(&mut self) -> Option<io::Error> {
        Replies(self).next().err().filter(|error| error.get_ref().is_some_and(|inner| inner.is::<HungUp>()))
    }

    fn received(&self) -> &[u8] {
        &self.buffer[self.filled.clone()]
    }

    fn receive(&mut self) -> io::Result<()> {
        if self.filled.end == self.buffer.len() && self.filled.start > 0 {
            self.buffer.copy_within(self.filled.clone(), 0);
            self.filled = 0..self.filled.len();
        }
        if self.filled.end == self.buffer.len() {
            if self.buffer.len() >= MAX_REPLY_BYTES {
                return Err(unreadable(Unreadable::TooLarge, self.received()));
            }
            self.buffer.resize((2 * self.buffer.len()).min(MAX_REPLY_BYTES), 0);
        }
        match self.stream.read(&mut self.buffer[self.filled.end..])? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            count => {
                self.filled.end += count;
                Ok(())
            }
        }
    }
}

/// The replies to what was sent, one after the other.
pub(super) struct Replies<'a>(&'a mut Open);

impl Replies<'_> {
    /// The next one, if it has no parts; of one that has, its head.
    pub(super) fn next(&mut self) -> io::Result<Reply<&[u8]>> {
        loop {
            match resp::reply(self.0.received()).map_err(|why| unreadable(why, self.0.received()))? {
                Some((reply, length)) => {
                    self.0.answered = true;
                    let start = self.0.filled.start;
                    self.0.filled.start += length;
                    let reply = reply.of(&self.0.buffer[start..]);
                    return if let Reply::Error(text) = reply {
                        HungUp::check(text).map(|()| reply)
                    } else {
                        Ok(reply)
                    };
                }
                None => self.0.receive()?,
            }
        }
    }

    /// The next one, whole.
    fn value(&mut self) -> io::Result<Value> {
        let length = loop {
            match resp::whole(self.0.received()).map_err(|why| unreadable(why, self.0.received()))? {
                Some(length) => break length,
                None => self.0.receive()?,
            }
        };
        self.0.answered = true;
        if let Some(text) = self.0.received()[..length].strip_prefix(b"-") {
            HungUp::check(text.trim_ascii_end())?;
        }
        let value = redis::parse_redis_value(&self.0.received()[..length]);
        self.0.filled.start += length;
        value.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))
    }
}

/// The last reply of a connection: the server would not read a command, which it says once before it hangs up, since a word
/// of it is larger than `proto-max-bulk-len` allows; neither that command nor one behind it was carried out. Or the reply is
/// too large for us to read, which stands here as if the server had said it.
#[derive(Debug)]
struct HungUp(Vec<u8>);

impl HungUp {
    fn check(text: &[u8]) -> io::Result<()> {
        if text.starts_with(b"ERR Protocol error") { Err(io::Error::other(HungUp(text.to_vec()))) } else { Ok(()) }
    }
}

impl std::fmt::Display for HungUp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl std::error::Error for HungUp {}

/// An error reply as the `redis` package tells it.
pub(super) fn error_of(text: &[u8]) -> RedisError {
    let told = redis::parse_redis_value(&[b"-", text, b"\r\n"].concat()).and_then(Value::extract_error);
    told.err().unwrap_or_else(|| (redis::ErrorKind::UnexpectedReturnType, "an error without a text").into())
}

fn unreadable(why: Unreadable, received: &[u8]) -> io::Error {
    match why {
        Unreadable::NotResp => not_redis(received),
        Unreadable::TooLarge => io::Error::other(HungUp(format!(
            "ERR the reply is too large: more than {MAX_REPLY_BYTES} bytes or {MAX_REPLY_VALUES} values, the most that is read"
        ).into_bytes())),
    }
}
