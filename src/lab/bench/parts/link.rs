//! A connection to Redis for programs whose own cost must not count: whole batches go out in one write, and replies are
//! taken apart in the buffer that they were read into.
//!
//! Owned by one thread. Text that was read stays where it is until [`Link::settle`], so a caller may keep its place and
//! look at it later. Whatever goes wrong ends the program: a comparison in which one had to connect again is none.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::ops::Range;
use std::time::Duration;

use crate::base::error::{Error, Result};

/// How long opening a connection may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// How long Redis may be silent while a reply is owed.
const REPLY_LIMIT: Duration = Duration::from_secs(30);
/// The buffer's size at first: a batch of small messages.
const BUFFER_BYTES: usize = 256 << 10;

/// See the module's text.
pub(in crate::lab::bench) struct Link {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// Where the next value begins, and where what has been read ends.
    next: usize,
    end: usize,
}

impl Link {
    /// Connects to the server on this port of 127.0.0.1.
    pub(in crate::lab::bench) fn connect(port: u16) -> Result<Link> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let connect = || {
            let stream = TcpStream::connect_timeout(&address, CONNECT_LIMIT)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(REPLY_LIMIT))?;
            stream.set_write_timeout(Some(REPLY_LIMIT))?;
            Ok(stream)
        };
        let stream = connect().map_err(Error::io(format!("connecting to redis on {address}")))?;
        Ok(Link { stream, buffer: vec![0; BUFFER_BYTES], next: 0, end: 0 })
    }

    /// A second handle on the connection, for a thread that only writes.
    pub(super) fn writer(&self) -> Result<TcpStream> {
        self.stream.try_clone().map_err(Error::io("sharing a connection to redis"))
    }

    /// Lets it wait for as long as it takes until something comes.
    pub(super) fn wait_for_ever(&self) -> Result<()> {
        self.stream.set_read_timeout(None).map_err(Error::io("setting a timeout"))
    }

    /// Sends commands.
    pub(in crate::lab::bench) fn send(&mut self, commands: &[u8]) -> Result<()> {
        self.stream.write_all(commands).map_err(Error::io("writing to redis"))
    }

    /// Forgets what has been taken; texts that were read before are gone.
    pub(in crate::lab::bench) fn settle(&mut self) {
        self.buffer.copy_within(self.next..self.end, 0);
        self.end -= self.next;
        self.next = 0;
    }

    /// What has been read and not taken.
    pub(super) fn waiting(&self) -> &[u8] {
        &self.buffer[self.next..self.end]
    }

    /// Takes so many bytes of what has been read.
    pub(super) fn take(&mut self, bytes: usize) {
        self.next += bytes;
    }

    /// Reads more, waiting for it.
    pub(super) fn read_more(&mut self) -> Result<()> {
        if self.end == self.buffer.len() {
            self.buffer.resize(2 * self.buffer.len(), 0);
        }
        loop {
            match self.stream.read(&mut self.buffer[self.end..]) {
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

    /// The bytes of a text that was read since the buffer was last settled.
    pub(in crate::lab::bench) fn text(&self, place: &Range<usize>) -> &[u8] {
        &self.buffer[place.clone()]
    }

    /// Takes a whole number.
    pub(in crate::lab::bench) fn integer(&mut self) -> Result<u64> {
        let (kind, text) = self.line()?;
        if kind != b':' {
            return Err(self.surprise(kind, &text));
        }
        self.number(&text)
    }

    /// Takes a text; gives its place.
    pub(in crate::lab::bench) fn bulk(&mut self) -> Result<Range<usize>> {
        let (kind, text) = self.line()?;
        if kind != b'$' {
            return Err(self.surprise(kind, &text));
        }
        let length = self.number(&text)? as usize;
        self.body(length)
    }

    /// Takes the beginning of a list; gives its length. `None`: there is no list.
    pub(in crate::lab::bench) fn list(&mut self) -> Result<Option<usize>> {
        let (kind, text) = self.line()?;
        match (kind, self.text(&text)) {
            (b'*', b"-1") => Ok(None),
            (b'*', _) => Ok(Some(self.number(&text)? as usize)),
            _ => Err(self.surprise(kind, &text)),
        }
    }

    /// Takes `count` replies that say no more than that all is well, such as `+QUEUED`, or hold one text or number.
    pub(in crate::lab::bench) fn pass(&mut self, count: usize) -> Result<()> {
        for _ in 0..count {
            let (kind, text) = self.line()?;
            match kind {
                b'+' | b':' => {}
                b'$' => {
                    let length = self.number(&text)? as usize;
                    self.body(length)?;
                }
                _ => return Err(self.surprise(kind, &text)),
            }
        }
        Ok(())
    }

    /// Takes a line: its kind, and the place of the rest.
    fn line(&mut self) -> Result<(u8, Range<usize>)> {
        let mut looked_at = self.next;
        loop {
            if let Some(end) = self.buffer[looked_at..self.end].iter().position(|byte| *byte == b'\n') {
                let end = looked_at + end;
                let line = self.next..end + 1;
                if line.len() < 3 {
                    return Err(Error::Failed("redis sent an empty line".to_owned()));
                }
                self.next = line.end;
                return Ok((self.buffer[line.start], line.start + 1..end - 1));
            }
            looked_at = self.end;
            self.read_more()?;
        }
    }

    fn body(&mut self, length: usize) -> Result<Range<usize>> {
        let place = self.next..self.next + length;
        while self.end < place.end + 2 {
            self.read_more()?;
        }
        self.next = place.end + 2;
        Ok(place)
    }

    fn number(&self, place: &Range<usize>) -> Result<u64> {
        digits(self.text(place)).ok_or_else(|| self.surprise(b':', place))
    }

    fn surprise(&self, kind: u8, text: &Range<usize>) -> Error {
        Error::Failed(format!("redis answered {}{}", char::from(kind), String::from_utf8_lossy(self.text(text))))
    }
}

/// A number of decimal digits and nothing else.
pub(in crate::lab::bench) fn digits(text: &[u8]) -> Option<u64> {
    /// More would not fit.
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
    fn digits_are_digits() {
        assert_eq!(digits(b"0042"), Some(42));
        for text in [&b""[..], b"-1", b"4 2", b"99999999999999999999"] {
            assert_eq!(digits(text), None, "{text:?}");
        }
    }

    #[test]
    fn replies_are_taken_however_they_are_cut() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("it listens").port();
        let server = thread::spawn(move || {
            let (mut peer, _) = listener.accept().expect("a connection");
            let replies = b"+OK\r\n:12\r\n*2\r\n$5\r\na\r\nbc\r\n$0\r\n\r\n*-1\r\n-ERR no\r\n";
            replies.iter().for_each(|byte| peer.write_all(&[*byte]).expect("it takes a byte"));
        });
        let mut link = Link::connect(port).expect("it connects");
        link.pass(1).expect("all is well");
        assert_eq!(link.integer().expect("a number"), 12);
        link.settle();
        assert_eq!(link.list().expect("a list"), Some(2));
        let (first, second) = (link.bulk().expect("a text"), link.bulk().expect("a text"));
        assert_eq!((link.text(&first), link.text(&second)), (&b"a\r\nbc"[..], &b""[..]));
        assert_eq!(link.list().expect("none"), None);
        assert_eq!(link.pass(1).expect_err("an error").to_string(), "redis answered -ERR no");
        assert!(link.integer().expect_err("the end").to_string().contains("closed the connection"));
        server.join().expect("it has sent all");
    }
}
