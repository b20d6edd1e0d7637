//! A connection to Redis for processes whose own cost should be low: a batch of commands is one write, and replies are
//! parsed in the buffer into which they were read.
//!
//! Owned by one thread. Strings are returned as ranges of the buffer, valid until [`RawConnection::discard_taken`]. Any
//! error ends the process: a comparison in which a contender had to reconnect would be invalid.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::time::Duration;

use crate::base::error::{Error, Result};
use crate::net::{self, ReadHalf, Wait, WriteHalf};

/// How long connecting may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// How long to wait for a reply.
const REPLY_LIMIT: Duration = Duration::from_secs(30);
/// The initial size of the buffer: a batch of small messages.
const BUFFER_BYTES: usize = 256 << 10;

/// See the module's text.
pub(crate) struct RawConnection {
    reader: ReadHalf,
    /// `None` once another thread has it.
    writer: Option<WriteHalf>,
    buffer: Vec<u8>,
    /// Where the next reply begins, and where the bytes read end.
    next: usize,
    end: usize,
}

impl RawConnection {
    /// Connects to the server on this port of 127.0.0.1.
    pub(crate) fn connect(port: u16) -> Result<RawConnection> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let connect = || {
            let (mut stream, _) = net::connect_any(&[address], CONNECT_LIMIT)?;
            stream.set_wait(Wait::Each(REPLY_LIMIT))?;
            Ok(stream.split())
        };
        let (reader, writer) = connect().map_err(Error::io(format!("connecting to redis on {address}")))?;
        Ok(RawConnection { reader, writer: Some(writer), buffer: vec![0; BUFFER_BYTES], next: 0, end: 0 })
    }

    /// Takes out the writing half, for another thread. Nothing can be sent with `send` afterwards.
    pub(super) fn take_writer(&mut self) -> WriteHalf {
        self.writer.take().expect("it is taken once")
    }

    /// Makes the connection wait for data without a time limit.
    pub(super) fn disable_timeout(&mut self) -> Result<()> {
        self.reader.set_wait(Wait::Forever).map_err(Error::io("setting a timeout"))
    }

    /// Sends commands.
    pub(crate) fn send(&mut self, commands: &[u8]) -> Result<()> {
        let writer = self.writer.as_mut().expect("the writer was not given away");
        writer.write_all(commands).map_err(Error::io("writing to redis"))
    }

    /// Discards the replies taken so far. Ranges returned before are invalid afterwards.
    pub(crate) fn discard_taken(&mut self) {
        self.buffer.copy_within(self.next..self.end, 0);
        self.end -= self.next;
        self.next = 0;
    }

    /// The bytes read but not taken.
    pub(super) fn unparsed(&self) -> &[u8] {
        &self.buffer[self.next..self.end]
    }

    /// Takes this many of the bytes read.
    pub(super) fn take(&mut self, bytes: usize) {
        self.next += bytes;
    }

    /// Waits for more bytes and reads them.
    pub(super) fn read_more(&mut self) -> Result<()> {
        if self.end == self.buffer.len() {
            self.buffer.resize(2 * self.buffer.len(), 0);
        }
        loop {
            match self.reader.read(&mut self.buffer[self.end..]) {
                Ok(0) => return Err(Error::Failed("redis closed the connection".to_owned())),
                Ok(count) => {
                    self.end += count;
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io("waiting for redis")(error)),
            }
        }
    }

    /// The bytes of a range.
    pub(crate) fn bytes(&self, range: &Range<usize>) -> &[u8] {
        &self.buffer[range.clone()]
    }

    /// Takes an integer.
    pub(crate) fn integer(&mut self) -> Result<u64> {
        let (kind, text) = self.line()?;
        if kind != b':' {
            return Err(self.unexpected(kind, &text));
        }
        self.number(&text)
    }

    /// Takes a bulk string and returns its range.
    pub(crate) fn string(&mut self) -> Result<Range<usize>> {
        let (kind, text) = self.line()?;
        if kind != b'$' {
            return Err(self.unexpected(kind, &text));
        }
        let length = self.number(&text)? as usize;
        self.body(length)
    }

    /// Takes the header of an array and returns its length; `None` for a null array.
    pub(crate) fn array(&mut self) -> Result<Option<usize>> {
        let (kind, text) = self.line()?;
        match (kind, self.bytes(&text)) {
            (b'*', b"-1") => Ok(None),
            (b'*', _) => Ok(Some(self.number(&text)? as usize)),
            _ => Err(self.unexpected(kind, &text)),
        }
    }

    /// Takes `count` replies that are simple strings, such as `+QUEUED`, integers or bulk strings, and ignores their
    /// values.
    pub(crate) fn skip_ok(&mut self, count: usize) -> Result<()> {
        for _ in 0..count {
            let (kind, text) = self.line()?;
            match kind {
                b'+' | b':' => {}
                b'$' => {
                    let length = self.number(&text)? as usize;
                    self.body(length)?;
                }
                _ => return Err(self.unexpected(kind, &text)),
            }
        }
        Ok(())
    }

    /// Takes a line and returns its first byte and the range of the rest.
    fn line(&mut self) -> Result<(u8, Range<usize>)> {
        let mut searched = self.next;
        loop {
            if let Some(end) = self.buffer[searched..self.end].iter().position(|byte| *byte == b'\n') {
                let end = searched + end;
                let line = self.next..end + 1;
                if line.len() < 3 {
                    return Err(Error::Failed("redis sent an empty line".to_owned()));
                }
                self.next = line.end;
                return Ok((self.buffer[line.start], line.start + 1..end - 1));
            }
            searched = self.end;
            self.read_more()?;
        }
    }

    fn body(&mut self, length: usize) -> Result<Range<usize>> {
        let range = self.next..self.next + length;
        while self.end < range.end + 2 {
            self.read_more()?;
        }
        self.next = range.end + 2;
        Ok(range)
    }

    fn number(&self, range: &Range<usize>) -> Result<u64> {
        digits(self.bytes(range)).ok_or_else(|| self.unexpected(b':', range))
    }

    fn unexpected(&self, kind: u8, text: &Range<usize>) -> Error {
        Error::Failed(format!("redis answered {}{}", char::from(kind), String::from_utf8_lossy(self.bytes(text))))
    }
}

/// Parses decimal digits.
pub(crate) fn digits(text: &[u8]) -> Option<u64> {
    /// More might not fit into 64 bits.
    const MAX_DIGITS: usize = 19;
    if text.is_empty() || text.len() > MAX_DIGITS {
        return None;
    }
    text.iter().try_fold(0, |number, byte| byte.is_ascii_digit().then(|| 10 * number + u64::from(byte - b'0')))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    #[test]
    fn only_digits_are_numbers() {
        assert_eq!(digits(b"0042"), Some(42));
        for text in [&b""[..], b"-1", b"4 2", b"99999999999999999999"] {
            assert_eq!(digits(text), None, "{text:?}");
        }
    }

    #[test]
    fn replies_are_parsed_however_they_are_split() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("it listens").port();
        let server = thread::spawn(move || {
            let (mut peer, _) = listener.accept().expect("a connection");
            let replies = b"+OK\r\n:12\r\n*2\r\n$5\r\na\r\nbc\r\n$0\r\n\r\n*-1\r\n-ERR no\r\n";
            replies.iter().for_each(|byte| peer.write_all(&[*byte]).expect("it takes a byte"));
        });
        let mut connection = RawConnection::connect(port).expect("it connects");
        connection.skip_ok(1).expect("+OK");
        assert_eq!(connection.integer().expect("a number"), 12);
        connection.discard_taken();
        assert_eq!(connection.array().expect("an array"), Some(2));
        let (first, second) = (connection.string().expect("a string"), connection.string().expect("a string"));
        assert_eq!((connection.bytes(&first), connection.bytes(&second)), (&b"a\r\nbc"[..], &b""[..]));
        assert_eq!(connection.array().expect("none"), None);
        assert_eq!(connection.skip_ok(1).expect_err("an error").to_string(), "redis answered -ERR no");
        assert!(connection.integer().expect_err("the end").to_string().contains("closed the connection"));
        server.join().expect("it has sent all");
    }
}
