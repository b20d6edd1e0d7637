//! How the processes of a comparison read what Redis answers: one value after the other, in the buffer into which it
//! was received.
//!
//! Owned by one thread. Any error ends the process, also an interruption: a comparison in which a contender had to
//! reconnect, or was paused, would be invalid.

use std::time::Duration;

use super::message;
use crate::base::error::{Error, Result};
use crate::ledger::Server;
use crate::ledger::resp::{MAX_REPLY_BYTES, Reply};
use crate::ledger::session::{BufferSize, ReceiveBuffer, Session};
use crate::net::{Wait, WriteHalf};

/// How long to wait for a reply, and until Redis accepts commands.
const REPLY_LIMIT: Duration = Duration::from_secs(30);
/// The receive buffer: at first the size of a batch of small messages.
const BUFFER: BufferSize = BufferSize { least_bytes: 256 << 10, most_bytes: MAX_REPLY_BYTES };

/// Connects to the server on this port of 127.0.0.1, and sends what `greet` writes, which has so many replies.
pub(super) fn open(port: u16, greet: impl FnOnce(&mut Vec<u8>) -> usize) -> Result<(ReceiveBuffer, WriteHalf)> {
    let server = Server::parse(&format!("redis://127.0.0.1:{port}")).map_err(Error::Failed)?;
    let (incoming, mut writer) = Session::open(&server, REPLY_LIMIT, BUFFER, greet)?.split();
    writer.set_wait(Wait::Each(REPLY_LIMIT)).map_err(Error::io("setting a timeout"))?;
    Ok((incoming, writer))
}

/// See the module's text.
pub(crate) struct Replies(ReceiveBuffer);

impl Replies {
    /// Connects to the server on this port of 127.0.0.1.
    pub(crate) fn connect(port: u16) -> Result<(Replies, WriteHalf)> {
        let (incoming, writer) = open(port, |_| 0)?;
        Ok((Replies(incoming), writer))
    }

    /// Makes room for the next replies. Called once for each batch: it is cheapest while nothing is left to move.
    pub(crate) fn make_room(&mut self) {
        self.0.move_to_front();
    }

    /// Takes a number.
    pub(crate) fn number(&mut self) -> Result<u64> {
        match self.next()? {
            Reply::Number(number @ 0..) => Ok(number.cast_unsigned()),
            other => Err(unexpected(other)),
        }
    }

    /// Takes a text.
    pub(crate) fn text(&mut self) -> Result<&[u8]> {
        match self.next()? {
            Reply::Text(text) => Ok(text),
            other => Err(unexpected(other)),
        }
    }

    /// Takes the head of a list and returns its length; `None` if there is no list.
    pub(crate) fn list(&mut self) -> Result<Option<usize>> {
        match self.next()? {
            Reply::List(length) => Ok(Some(length)),
            Reply::Nil => Ok(None),
            other => Err(unexpected(other)),
        }
    }

    /// Takes `count` replies that are texts or numbers, and ignores their values.
    pub(crate) fn skip_ok(&mut self, count: usize) -> Result<()> {
        for _ in 0..count {
            match self.next()? {
                Reply::Text(_) | Reply::Number(_) => {}
                other => return Err(unexpected(other)),
            }
        }
        Ok(())
    }

    /// Takes a reply without nested lists, and returns whether it is no error.
    pub(crate) fn is_accepted(&mut self) -> Result<bool> {
        match self.next()? {
            Reply::Error(_) => return Ok(false),
            Reply::List(length) => self.skip_ok(length)?,
            _ => {}
        }
        Ok(true)
    }

    /// Takes a list of results. `each` gets the number and the time of each one's message, as far as it has them.
    /// Returns the id of the last result; `None` if there are no results.
    pub(crate) fn results(&mut self, mut each: impl FnMut(Option<(u64, Option<u64>)>)) -> Result<Option<String>> {
        let mut last = Vec::new();
        for _ in 0..self.list()?.unwrap_or(0) {
            self.list()?;
            last.clear();
            last.extend_from_slice(self.text()?);
            let fields = self.list()?.unwrap_or(0);
            let mut found = None;
            for _ in 0..fields / 2 {
                let is_message = matches!(self.text()?, b"message_id" | b"payload");
                let value = self.text()?;
                if is_message {
                    found = message::read(value);
                }
            }
            each(found);
        }
        Ok((!last.is_empty()).then(|| String::from_utf8_lossy(&last).into_owned()))
    }

    fn next(&mut self) -> Result<Reply<&[u8]>> {
        self.0.reply().map_err(Error::io("reading from redis"))
    }
}

fn unexpected(reply: Reply<&[u8]>) -> Error {
    Error::Failed(match reply {
        Reply::Text(text) | Reply::Error(text) => format!("redis answered {}", String::from_utf8_lossy(text)),
        other => format!("redis answered {other:?}"),
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    #[test]
    fn replies_are_taken_however_they_are_split() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("it listens").port();
        let server = thread::spawn(move || {
            let (mut peer, _) = listener.accept().expect("a connection");
            let replies = b"+OK\r\n:12\r\n*2\r\n$5\r\na\r\nbc\r\n$0\r\n\r\n*-1\r\n\
                *1\r\n*2\r\n$3\r\n1-0\r\n*2\r\n$7\r\npayload\r\n$2\r\n42\r\n-ERR no\r\n:-1\r\n";
            replies.iter().for_each(|byte| peer.write_all(&[*byte]).expect("it takes a byte"));
        });
        let (mut replies, _writer) = Replies::connect(port).expect("it connects");
        replies.skip_ok(1).expect("+OK");
        assert_eq!(replies.number().expect("a number"), 12);
        replies.make_room();
        assert_eq!(replies.list().expect("a list"), Some(2));
        assert_eq!(replies.text().expect("a text"), b"a\r\nbc");
        assert_eq!(replies.text().expect("a text"), b"");
        assert_eq!(replies.list().expect("none"), None);
        let mut found = Vec::new();
        let last = replies.results(|result| found.push(result)).expect("a list of results");
        assert_eq!((last.as_deref(), &found[..]), (Some("1-0"), &[Some((42, None))][..]));
        assert_eq!(replies.skip_ok(1).expect_err("an error").to_string(), "redis answered ERR no");
        assert_eq!(replies.number().expect_err("negative").to_string(), "redis answered Number(-1)");
        server.join().expect("it has sent all");
        assert!(replies.number().expect_err("the end").to_string().starts_with("reading from redis"));
    }
}
