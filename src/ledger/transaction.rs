//! Transactions that take effect only if keys still say what they said: `WATCH`, and later `MULTI` … `EXEC`.
//!
//! ```text
//!  one write:  MULTI  ZADD …   SET …    EXEC  WATCH key  GET key
//!  one read:   +OK    +QUEUED  +QUEUED  […]   +OK        what it says now, for the next transaction
//! ```
//!
//! That is the condition of a script without its price: Redis runs commands of a transaction as if they had come alone,
//! and a batch through Lua costs it half as much again. What it can't do is look before it writes, so it suits only what
//! is known to hold as long as the key stands still. `EXEC` ends a watch whatever comes of it, and the next one is set
//! up behind it in the same write. Between the two somebody else may write: of the key that is read that shows in what it
//! says, so what is watched beside it must not be written without that one.
//!
//! A [`Guard`] belongs to one connection. When that is lost the watch is gone with it, and with the reply the knowledge
//! of what took place: the caller then has a script look.

use std::io;

use super::command::{begin, command, word};
use super::connection::{Connection, Replies, error_of};
use super::resp::Reply;
use crate::error::Result;
use crate::log::Quoted;

/// See the module's text.
pub(super) struct Guard {
    /// Read and watched.
    key: String,
    /// Watched only.
    also: Option<String>,
    seen: Option<Seen>,
}

/// What the key said when it was put under watch.
struct Seen {
    connection: u64,
    value: Vec<u8>,
}

impl Guard {
    /// A guard that watches nothing yet. What `key` says is known, `also` just has to stand still.
    pub(super) fn new(key: &str, also: Option<&str>) -> Guard {
        Guard { key: key.to_owned(), also: also.map(str::to_owned), seen: None }
    }

    /// What the key said last, empty if it was not there; `None` while it is not watched on this connection.
    pub(super) fn value(&self, connection: &Connection) -> Option<&[u8]> {
        let seen = self.seen.as_ref()?;
        (connection.number() == Some(seen.connection)).then_some(&seen.value)
    }

    /// Puts the keys under watch and reads the one.
    pub(super) fn arm(&mut self, connection: &mut Connection) -> Result<()> {
        const DOING: &str = "watching a key";
        self.seen = None;
        let keys = (self.key.as_str(), self.also.as_deref());
        let armed = connection.converse(
            DOING,
            |out| {
                // What was written since an earlier watch would still count.
                command(out, &["UNWATCH"]);
                watch(keys, out);
            },
            |replies| replies.next().map(drop).and_then(|()| watched(replies)),
        )?;
        self.note(connection, DOING, armed)
    }

    /// Carries the commands out that `write` writes, `commands` in number, if nobody has written a key since the one was
    /// last read, and has `each` see what became of them, in order. Says whether they were carried out; without a watch
    /// they are not. After an error reply they were not, either; if the connection is gone nobody knows.
    pub(super) fn transact(
        &mut self,
        connection: &mut Connection,
        doing: &'static str,
        commands: usize,
        write: impl FnOnce(&mut Vec<u8>),
        mut each: impl FnMut(usize, Reply<&[u8]>),
    ) -> Result<bool> {
        if self.value(connection).is_none() {
            return Ok(false);
        }
        self.seen = None;
        let keys = (self.key.as_str(), self.also.as_deref());
        let (executed, armed) = connection.converse(
            doing,
            |out| {
                command(out, &["MULTI"]);
                write(out);
                command(out, &["EXEC"]);
                watch(keys, out);
            },
            |replies| {
                if let Reply::Error(text) = replies.next()? {
                    // The rest may have been carried out one by one: as if the reply had been lost.
                    return Err(io::Error::other(String::from_utf8_lossy(text).into_owned()));
                }
                let mut refused = None;
                for _ in 0..commands {
                    if let Reply::Error(text) = replies.next()? {
                        refused.get_or_insert_with(|| text.to_vec());
                    }
                }
                let executed = match replies.next()? {
                    Reply::List(count) => {
                        (0..count).try_for_each(|at| replies.next().map(|reply| each(at, reply)))?;
                        Ok(true)
                    }
                    Reply::Error(text) => Err(refused.unwrap_or_else(|| text.to_vec())),
                    _ => Ok(false),
                };
                Ok((executed, watched(replies)?))
            },
        )?;
        let armed = self.note(connection, doing, armed);
        let executed = executed.map_err(|text| connection.refusal(doing, error_of(&text)))?;
        if let Err(error) = armed {
            // Until it is armed anew, which tells why if it can't be, there are no transactions.
            log::debug!("event=no-watch doing={} reason={}", Quoted(doing), Quoted(error));
        }
        Ok(executed)
    }

    /// Watches nothing any more, as far as anybody may rely on it.
    pub(super) fn disarm(&mut self) {
        self.seen = None;
    }

    fn note(&mut self, connection: &mut Connection, doing: &'static str, armed: Armed) -> Result<()> {
        let value = armed.map_err(|text| connection.refusal(doing, error_of(&text)))?;
        self.seen = connection.number().map(|connection| Seen { connection, value });
        Ok(())
    }
}

/// What a watched key says, or the error reply of watching it.
type Armed = std::result::Result<Vec<u8>, Vec<u8>>;

fn watch((key, also): (&str, Option<&str>), out: &mut Vec<u8>) {
    begin(out, 2 + usize::from(also.is_some()));
    word(out, "WATCH");
    [Some(key), also].into_iter().flatten().for_each(|key| word(out, key));
    command(out, &["GET", key]);
}

fn watched(replies: &mut Replies<'_>) -> io::Result<Armed> {
    let refused = match replies.next()? {
        Reply::Error(text) => Some(text.to_vec()),
        _ => None,
    };
    let value = match replies.next()? {
        Reply::Text(text) => Ok(text.to_vec()),
        Reply::Error(text) => Err(text.to_vec()),
        _ => Ok(Vec::new()),
    };
    Ok(refused.map_or(value, Err))
}
