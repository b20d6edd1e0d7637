//! Transactions that take effect only if keys are unchanged: `WATCH`, `MULTI`, and later the commands and `EXEC`.
//!
//! ```text
//!  one write:  ZADD …   SET …    EXEC  WATCH keys GET keys, TYPE of written keys  MULTI
//!  one read:   +QUEUED  +QUEUED  […]   +OK        the values, for the next        +OK: the next commands
//!                                                 transaction                     are queued
//! ```
//!
//! This gives the guarantee of a script at a lower cost for Redis (docs/PERFORMANCE.md has the figures). A transaction
//! can't check before it writes, so it suits only conditions that hold while the key is unchanged. `EXEC` always ends
//! the watch, and the next transaction is opened behind it in the same write. Another client may write between the two.
//! So every key that is watched is read as well, and the caller compares what was read with what it relies on.
//!
//! Commit watches the recall, intake the epoch and the cursor.
//!
//! No command is sent before Redis has confirmed `MULTI`: if the user lacks that right, commands behind it would be
//! executed one by one, without the watch. If a right is missing, that is logged once, no transaction is tried for
//! [`RETRY_AFTER`], and the caller uses its script.
//!
//! A [`Guard`] belongs to one connection. When the connection is lost, so are the watch and the reply: the outcome is
//! unknown, and the caller uses a script, which checks. Any other command on the connection ends the open transaction,
//! and the guard must be armed again.

use std::cell::Cell;
use std::io;
use std::time::{Duration, Instant};

use super::command::{begin, command, word};
use super::connection::Connection;
use super::replicas::{Confirmed, Replicas};
use super::resp::Reply;
use super::session::ReceiveBuffer;
use crate::base::error::{Error, Result};
use crate::base::failure::Failure;
use crate::base::refusal::Refusal;
use crate::base::text::Quoted;

/// How long no transaction is tried after a refusal. By then the right may have been granted.
const RETRY_AFTER: Duration = Duration::from_secs(30);

/// See the module's text.
pub(super) struct Guard {
    keys: Guarded,
    seen: Option<WatchedValues>,
    /// When Redis refused a transaction, if it did.
    refused: Option<Instant>,
    /// How many replicas must confirm what it executes, if any.
    replicas: Option<Replicas>,
    /// What became of that at the last transaction.
    confirmed: Option<Confirmed>,
}

/// The keys that a transaction depends on.
pub(super) struct Guarded {
    /// Watched and read.
    pub(super) watched: Vec<String>,
    /// Keys that it writes, and the type that each must have. A transaction can't check them, and is not rolled back if
    /// a command is refused for a key's type. Not watched, because other clients write them all the time.
    pub(super) written: Vec<(String, &'static str)>,
}

/// The keys' values when the watch began.
struct WatchedValues {
    /// The number of the transaction that was opened after it.
    transaction: u64,
    values: Vec<Vec<u8>>,
}

impl Guard {
    /// A guard that watches nothing yet.
    pub(super) fn new(keys: Guarded) -> Guard {
        Guard { keys, seen: None, refused: None, replicas: None, confirmed: None }
    }

    /// From now on so many replicas must confirm what it executes.
    pub(super) fn confirmed_by(&mut self, replicas: Option<Replicas>) {
        self.replicas = replicas;
    }

    /// How many have confirmed the last transaction.
    pub(super) fn take_confirmed(&mut self) -> Option<Confirmed> {
        self.confirmed.take()
    }

    /// The keys' last known values, empty where there was none; `None` while they are not watched on this connection.
    pub(super) fn values(&self, connection: &Connection) -> Option<&[Vec<u8>]> {
        let seen = self.seen.as_ref()?;
        (connection.transaction() == Some(seen.transaction)).then_some(&seen.values[..])
    }

    /// Watches and reads the keys and opens a transaction. A refusal by Redis is not an error; then nothing is
    /// watched.
    pub(super) fn arm(&mut self, connection: &mut Connection) -> Result<()> {
        const DOING: &str = "opening a transaction";
        self.seen = None;
        if self.refused.is_some_and(|at| at.elapsed() < RETRY_AFTER) {
            return Ok(());
        }
        let keys = &self.keys;
        let armed = connection.converse(
            DOING,
            |out| {
                // Otherwise a write since an earlier watch would still count.
                command(out, &["UNWATCH"]);
                keys.open(out);
            },
            |replies| replies.reply().map(drop).and_then(|()| keys.opened(replies)),
        )?;
        self.note(connection, DOING, armed);
        Ok(())
    }

    /// Executes the commands that `write` writes, `commands` in number, unless a watched key was written since it was
    /// last read. Passes their replies to `each`, in order. Returns whether they were executed; without a watch they
    /// are not. After an error reply they were not executed; if the connection broke, the outcome is unknown.
    pub(super) fn transact(
        &mut self,
        connection: &mut Connection,
        doing: &'static str,
        commands: usize,
        write: impl FnOnce(&mut Vec<u8>),
        mut each: impl FnMut(usize, Reply<&[u8]>),
    ) -> Result<bool> {
        if self.values(connection).is_none() {
            return Ok(false);
        }
        self.seen = None;
        let (keys, replicas, patience) = (&self.keys, self.replicas, connection.timeout());
        let seal = connection.seal();
        let sealing = Cell::new(0);
        let (executed, confirmed, armed) = connection.conclude(
            doing,
            |out| {
                write(out);
                sealing.set(seal.map_or(0, |seal| seal.close(keys.names(), out)));
                command(out, &["EXEC"]);
                if let Some(replicas) = replicas {
                    replicas.write(patience, out);
                }
                keys.open(out);
            },
            |replies| {
                let mut refused = None;
                for _ in 0..commands + sealing.get() {
                    if let Reply::Error(text) = replies.reply()? {
                        refused.get_or_insert_with(|| text.to_vec());
                    }
                }
                let executed = match replies.reply()? {
                    Reply::List(count) => {
                        (0..count).try_for_each(|at| {
                            let reply = replies.reply()?;
                            if at < commands {
                                each(at, reply);
                            }
                            Ok::<_, io::Error>(())
                        })?;
                        Ok(true)
                    }
                    Reply::Error(text) => Err(refused.unwrap_or_else(|| text.to_vec())),
                    _ => Ok(false),
                };
                let confirmed = replicas.map(|_| replies.value()).transpose()?;
                Ok((executed, confirmed.map(Confirmed::of), keys.opened(replies)?))
            },
        )?;
        self.confirmed = confirmed;
        self.note(connection, doing, armed);
        executed.map_err(|text| {
            let error = connection.refusal(doing, Failure::of_reply(&text));
            self.note_refusal(connection, &error);
            error
        })
    }

    /// Forgets the watch, so that no caller relies on it.
    pub(super) fn disarm(&mut self) {
        self.seen = None;
    }

    fn note(&mut self, connection: &mut Connection, doing: &'static str, Opened { multi, values }: Opened) {
        // Also if the watch was refused: the next command must leave the transaction first.
        let transaction = multi.then(|| connection.note_transaction()).flatten();
        match (values, transaction) {
            (Ok(values), Some(transaction)) => self.seen = Some(WatchedValues { transaction, values }),
            (Err(text), _) => {
                let error = connection.refusal(doing, Failure::of_reply(&text));
                self.note_refusal(connection, &error);
            }
            (Ok(_), None) => {}
        }
    }

    /// If a right is missing, the next transaction would be refused as well.
    fn note_refusal(&mut self, connection: &Connection, error: &Error) {
        if !matches!(error.refusal(), Some(Refusal::Right | Refusal::UnknownCommand)) {
            return log::debug!("event=transaction-skipped reason={}", Quoted(error));
        }
        self.refused = Some(Instant::now());
        self.seen = None;
        if connection.server().should_log_no_transactions() {
            log::warn!(
                "event=no-transactions reason={} note=\"scripts are used instead; they cost Redis more\"",
                Quoted(error)
            );
        }
    }
}

/// The outcome of opening a transaction.
struct Opened {
    /// Whether commands are queued from now on.
    multi: bool,
    /// The watched keys' values, or the first error reply.
    values: std::result::Result<Vec<Vec<u8>>, Vec<u8>>,
}

impl Guarded {
    /// All keys.
    fn names(&self) -> impl Iterator<Item = &str> {
        self.watched.iter().chain(self.written.iter().map(|(key, _)| key)).map(String::as_str)
    }

    fn open(&self, out: &mut Vec<u8>) {
        begin(out, 1 + self.watched.len());
        word(out, "WATCH");
        self.watched.iter().for_each(|key| word(out, key));
        self.watched.iter().for_each(|key| command(out, &["GET", key]));
        self.written.iter().for_each(|(key, _)| command(out, &["TYPE", key]));
        command(out, &["MULTI"]);
    }

    fn opened(&self, replies: &mut ReceiveBuffer) -> io::Result<Opened> {
        let mut refused = None;
        let mut note = |text: &[u8]| {
            refused.get_or_insert_with(|| text.to_vec());
        };
        if let Reply::Error(text) = replies.reply()? {
            note(text);
        }
        let mut values = vec![Vec::new(); self.watched.len()];
        for value in &mut values {
            match replies.reply()? {
                Reply::Text(text) => *value = text.to_vec(),
                Reply::Error(text) => note(text),
                _ => {}
            }
        }
        for (_, wanted) in &self.written {
            match replies.reply()? {
                Reply::Error(text) => note(text),
                Reply::Text(kind) if kind == b"none" || kind == wanted.as_bytes() => {}
                _ => note(b"WRONGTYPE Operation against a key holding the wrong kind of value"),
            }
        }
        let multi = match replies.reply()? {
            Reply::Error(text) => {
                note(text);
                false
            }
            _ => true,
        };
        Ok(Opened { multi, values: refused.map_or(Ok(values), Err) })
    }
}
