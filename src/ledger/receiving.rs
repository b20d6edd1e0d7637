//! The receive buffer of a connection to Redis: the bytes that have arrived, and the values in them.
//!
//! Owned by the thread that reads. Values are parsed in the buffer; more complicated ones are left to the `redis`
//! package. It grows for a large value up to its limit; a larger value is an error.

use std::fmt;
use std::io::{self, ErrorKind, Read};
use std::ops::Range;

use redis::Value;

use super::resp::{self, MAX_REPLY_BYTES, MAX_REPLY_VALUES, Reply, Unreadable};
use crate::base::failure::Failure;
use crate::base::tls::TlsProblem;
use crate::net::{ReadHalf, Wait};

/// The receive buffer's size.
#[derive(Clone, Copy, Debug)]
pub struct BufferSize {
    /// While replies are small.
    pub least_bytes: usize,
    /// At most.
    pub most_bytes: usize,
}

/// The receiving side: the bytes that have arrived, and the values in them.
pub struct ReceiveBuffer {
    reader: ReadHalf,
    buffer: Vec<u8>,
    /// The part of the buffer that was received and not yet taken.
    filled: Range<usize>,
    /// Whether the server has ever sent a value.
    answered: bool,
    size: BufferSize,
}

impl ReceiveBuffer {
    /// What arrives at this end of a stream.
    pub(super) fn new(reader: ReadHalf, size: BufferSize) -> ReceiveBuffer {
        ReceiveBuffer { reader, buffer: vec![0; size.least_bytes], filled: 0..0, answered: false, size }
    }

    /// Whether the server has ever sent a value.
    pub(super) fn is_answered(&self) -> bool {
        self.answered
    }

    /// How long reading waits.
    pub fn set_wait(&mut self, wait: Wait) -> io::Result<()> {
        self.reader.set_wait(wait)
    }

    /// The bytes that were received and not yet taken.
    pub fn received(&self) -> &[u8] {
        &self.buffer[self.filled.clone()]
    }

    /// Takes so many bytes off the front.
    pub fn take(&mut self, bytes: usize) {
        self.filled.start += bytes;
    }

    /// Whether the buffer has its largest size and is full, so the value in it does not fit.
    pub(super) fn is_full(&self) -> bool {
        self.filled.len() >= self.size.most_bytes
    }

    /// Like [`move_to_front`](Incoming::move_to_front); also gives back the room that something large has needed.
    pub fn settle(&mut self) {
        self.move_to_front();
        if self.filled.is_empty() && self.buffer.len() > self.size.least_bytes {
            self.buffer = vec![0; self.size.least_bytes];
        }
    }

    /// Forgets what was taken: moves the rest to the buffer's front.
    pub fn move_to_front(&mut self) {
        if self.filled.start > 0 {
            self.buffer.copy_within(self.filled.clone(), 0);
            self.filled = 0..self.filled.len();
        }
    }

    /// Waits for more bytes.
    pub fn receive(&mut self) -> io::Result<()> {
        if self.filled.end == self.buffer.len() {
            self.move_to_front();
        }
        if self.filled.end == self.buffer.len() {
            if self.buffer.len() >= self.size.most_bytes {
                return Err(unreadable(Unreadable::TooLarge, self.received()));
            }
            self.buffer.resize((2 * self.buffer.len()).min(self.size.most_bytes), 0);
        }
        match self.reader.read(&mut self.buffer[self.filled.end..])? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            count => {
                self.filled.end += count;
                Ok(())
            }
        }
    }

    /// Waits for more bytes of a reply, also if a signal comes: the command is under way.
    fn receive_rest(&mut self) -> io::Result<()> {
        match self.receive() {
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            outcome => outcome,
        }
    }

    /// The next reply if it has no parts, else its head.
    pub fn reply(&mut self) -> io::Result<Reply<&[u8]>> {
        loop {
            match resp::reply(self.received()).map_err(|why| unreadable(why, self.received()))? {
                Some((reply, length)) => {
                    self.answered = true;
                    let start = self.filled.start;
                    self.take(length);
                    let reply = reply.of(&self.buffer[start..]);
                    return if let Reply::Error(text) = reply {
                        LastWords::check(text).map(|()| reply)
                    } else {
                        Ok(reply)
                    };
                }
                None => self.receive_rest()?,
            }
        }
    }

    /// The next reply, whole.
    pub(super) fn value(&mut self) -> io::Result<Value> {
        let length = loop {
            match resp::whole(self.received()).map_err(|why| unreadable(why, self.received()))? {
                Some(length) => break length,
                None => self.receive_rest()?,
            }
        };
        self.answered = true;
        if let Some(text) = self.received()[..length].strip_prefix(b"-") {
            LastWords::check(text.trim_ascii_end())?;
        }
        let value = redis::parse_redis_value(&self.received()[..length]);
        self.take(length);
        value.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))
    }

    /// The error reply that the server sent before it closed the connection, or its last word by TLS, if there is one.
    pub(super) fn last_words(&mut self) -> Option<io::Error> {
        let says_why = |error: &io::Error| error.get_ref().is_some_and(|inner| inner.is::<LastWords>());
        self.reply().err().filter(|error| says_why(error) || TlsProblem::of(error).is_some())
    }
}

/// The last reply of a connection. If a word of a command is larger than `proto-max-bulk-len` allows, the server sends
/// an error and closes the connection; it executes neither that command nor any after it. A reply that is too large for
/// this client is reported in the same way.
#[derive(Debug)]
pub(super) struct LastWords(Vec<u8>);

impl LastWords {
    fn check(text: &[u8]) -> io::Result<()> {
        if text.starts_with(b"ERR Protocol error") { Err(io::Error::other(LastWords(text.to_vec()))) } else { Ok(()) }
    }

    /// The reply in an error, if it is one.
    pub(super) fn of(error: io::Error) -> std::result::Result<Failure, io::Error> {
        error.downcast::<LastWords>().map(|LastWords(text)| Failure::of_reply(&text))
    }
}

impl fmt::Display for LastWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl std::error::Error for LastWords {}

fn unreadable(why: Unreadable, received: &[u8]) -> io::Error {
    match why {
        Unreadable::NotResp => not_redis(received),
        Unreadable::TooLarge => {
            let text = format!(
                "ERR the reply is too large: more than {MAX_REPLY_BYTES} bytes or {MAX_REPLY_VALUES} values, the most \
                 that is read"
            );
            io::Error::other(LastWords(text.into_bytes()))
        }
    }
}

/// The error text for bytes that are TLS instead of RESP.
const TLS: &str = "this is TLS, not plain Redis";

/// Why these bytes are no reply of Redis.
pub(super) fn not_redis(received: &[u8]) -> io::Error {
    // A TLS alert, the answer to a client that does not begin with a handshake.
    let text = if received.starts_with(&[0x15, 0x03]) { TLS } else { "this is not Redis" };
    io::Error::new(ErrorKind::InvalidData, text)
}

/// Whether the peer closed a connection without TLS, or answered with TLS: it may expect that.
pub(super) fn is_no_answer(error: &io::Error) -> bool {
    let broke = matches!(
        error.kind(),
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe
    );
    broke || speaks_tls(error)
}

/// Whether such an error was about TLS.
fn speaks_tls(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.to_string() == TLS)
}
