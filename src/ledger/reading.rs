//! Reads a group's streams and backlog page by page, for tools. Changes nothing and needs no lease.
//!
//! Pages start small and grow while they stay well below [`PAGE_BYTES`], because the sizes of the entries are not known
//! in advance. If huge entries follow tiny ones, a page may be much larger than that. A page that is too large to be
//! read is requested again with half the entries.

use redis::Value;

use super::bundle;
use super::command::Command;
use super::core::Ledger;
use super::keys::Keys;
use super::limits::MAX_BATCH_MESSAGES;
use super::member::{self, Body};
use super::value::text;
use crate::base::error::{Error, Result};
use crate::base::id::MessageId;
use crate::base::refusal::Refusal;

/// The most entries on a page.
pub const PAGE_ENTRIES: usize = MAX_BATCH_MESSAGES;
/// About the most bytes on a page.
pub const PAGE_BYTES: usize = 8 << 20;
/// The entries on the first page.
const FIRST_ENTRIES: usize = 16;

/// A stream of the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryStream {
    /// The results.
    Processed,
    /// The dead letters.
    Dead,
    /// The messages of a group that delivers to a stream.
    Messages,
}

impl EntryStream {
    /// Its key.
    pub fn key(self, keys: &Keys) -> &str {
        match self {
            EntryStream::Processed => &keys.processed,
            EntryStream::Dead => &keys.dead,
            EntryStream::Messages => keys.stream.as_deref().unwrap_or_default(),
        }
    }
}

/// A name and a value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// An entry of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Its id: when it was added, in milliseconds since 1970, and a number.
    pub id: String,
    /// Its fields.
    pub fields: Vec<Pair>,
}

impl Entry {
    /// The value of a field.
    pub fn field(&self, name: &str) -> Option<&[u8]> {
        self.fields.iter().find(|(found, _)| found == name.as_bytes()).map(|(_, value)| &value[..])
    }

    /// The same as text, with replacements for what is not UTF-8; empty without the field.
    pub fn text(&self, name: &str) -> String {
        self.field(name).map(|value| String::from_utf8_lossy(value).into_owned()).unwrap_or_default()
    }

    /// Whether it was added after the entry with this id.
    pub fn is_after(&self, id: &str) -> bool {
        let place = |id: &str| {
            let (ms, number) = id.split_once('-')?;
            Some((ms.parse::<u64>().ok()?, number.parse::<u64>().ok()?))
        };
        place(&self.id) > place(id)
    }

    /// When it was added, in milliseconds since 1970.
    pub fn at_ms(&self) -> u64 {
        self.id.split('-').next().and_then(|ms| ms.parse().ok()).unwrap_or_default()
    }
}

/// A gap as it was recorded: a stretch of the channel that may have been missed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordedGap {
    /// When it was recorded, by Redis's clock, in milliseconds since 1970.
    pub at_ms: u64,
    /// Why something may be missing.
    pub reason: String,
    /// The dispatcher that found it.
    pub dispatcher: String,
    /// The place after which something may be missing: a cursor, or `none`.
    pub begin: String,
    /// The place from which nothing is missing: a cursor, a marker or an epoch.
    pub end: String,
    /// How many messages are missing: a number, or `unknown`.
    pub count: String,
}

/// A place in a stream or the backlog, and how much to read from there. Starts at the beginning.
#[derive(Clone, Debug)]
pub struct ReadPosition {
    /// The last entry's id or score, as Redis writes it.
    after: Option<String>,
    entries: usize,
}

impl Default for ReadPosition {
    fn default() -> ReadPosition {
        ReadPosition { after: None, entries: FIRST_ENTRIES }
    }
}

impl ReadPosition {
    /// The place after everything that was added before this time, in milliseconds since 1970.
    pub fn since(ms: u64) -> ReadPosition {
        // An entry can't have this number: Redis counts from 0 within a millisecond.
        let after = ms.checked_sub(1).map(|before| format!("{before}-{}", u64::MAX));
        ReadPosition { after, ..ReadPosition::default() }
    }

    /// The beginning of the next range.
    fn begin(&self, first: &str) -> String {
        self.after.as_ref().map_or_else(|| first.to_owned(), |after| format!("({after}"))
    }

    /// Requests fewer entries from now on, if that may help against this error.
    fn shrinks(&mut self, error: &Error) -> bool {
        let shrinks = self.entries > 1 && error.refusal() == Some(Refusal::TooLarge);
        if shrinks {
            self.entries /= 2;
        }
        shrinks
    }

    fn read(&mut self, last: String, bytes: usize) {
        self.after = Some(last);
        if bytes > PAGE_BYTES {
            self.entries = (self.entries / 2).max(1);
        } else if bytes * 4 < PAGE_BYTES {
            self.entries = (self.entries * 2).min(PAGE_ENTRIES);
        }
    }
}

impl Ledger {
    /// How many results there are.
    pub fn count_results(&mut self) -> Result<u64> {
        self.count("counting the results", "XLEN", |ledger| &ledger.keys.processed)
    }

    /// How many entries the stream has that the group delivers to.
    pub fn count_messages(&mut self) -> Result<u64> {
        self.count("counting the messages", "XLEN", |ledger| ledger.keys.stream.as_deref().unwrap_or_default())
    }

    /// How many dead letters there are.
    pub fn count_dead(&mut self) -> Result<u64> {
        self.count("counting the dead letters", "XLEN", |ledger| &ledger.keys.dead)
    }

    /// How many messages are pending.
    pub fn count_pending(&mut self) -> Result<u64> {
        const DOING: &str = "counting the backlog";
        // In this order: if a bundle is taken apart between the two, too many are counted, not too few.
        let command = bundle::count(&self.keys.pending);
        let bundles = match self.connection.query(DOING, command).map_err(|error| self.name_the_key(error))? {
            Value::Int(bundles) if bundles >= 0 => bundles as u64,
            other => return self.unexpected_reply(DOING, &other),
        };
        let members = self.count(DOING, "ZCARD", |ledger| &ledger.keys.pending)?;
        Ok(bundle::messages(members, bundles))
    }

    /// Whether the group has left a trace: this key of it, or the one that its first leader writes. Also `true` if the
    /// user has no right to ask.
    pub fn has_group(&mut self, key: &str) -> Result<bool> {
        const DOING: &str = "asking whether the group exists";
        match self.connection.query(DOING, Command::of(&["EXISTS", key, &self.keys.recall])) {
            Err(error) if error.is_denied() => Ok(true),
            Ok(Value::Int(found)) => Ok(found > 0),
            Ok(other) => self.unexpected_reply(DOING, &other),
            Err(error) => Err(error),
        }
    }

    fn count(&mut self, doing: &'static str, command: &str, key: fn(&Ledger) -> &str) -> Result<u64> {
        let command = Command::of(&[command, key(self)]);
        match self.connection.query(doing, command).map_err(|error| self.name_the_key(error))? {
            Value::Int(count) if count >= 0 => Ok(count as u64),
            other => self.unexpected_reply(doing, &other),
        }
    }

    /// Reads the newest gaps, the newest first.
    pub fn newest_gaps(&mut self, most: usize) -> Result<Vec<RecordedGap>> {
        const DOING: &str = "reading the gaps";
        let range = Command::of(&["XREVRANGE", &self.keys.gaps, "+", "-", "COUNT", &most.to_string()]);
        let reply = self.connection.query(DOING, range).map_err(|error| self.name_the_key(error))?;
        let Value::Array(found) = reply else { return self.unexpected_reply(DOING, &reply) };
        let gaps = found.into_iter().filter_map(stream_entry).map(|entry| RecordedGap {
            at_ms: entry.at_ms(),
            reason: entry.text("reason"),
            dispatcher: entry.text("dispatcher"),
            begin: entry.text("begin"),
            end: entry.text("end"),
            count: entry.text("count"),
        });
        Ok(gaps.collect())
    }

    /// The id of the newest entry of a stream.
    pub fn newest_entry(&mut self, stream: EntryStream) -> Result<Option<String>> {
        const DOING: &str = "looking for the newest entry of a stream";
        let range = Command::of(&["XREVRANGE", stream.key(&self.keys), "+", "-", "COUNT", "1"]);
        match self.connection.query(DOING, range).map_err(|error| self.name_the_key(error))? {
            Value::Array(found) => Ok(found.into_iter().find_map(stream_entry).map(|entry| entry.id)),
            other => self.unexpected_reply(DOING, &other),
        }
    }

    /// Reads the next entries of a stream; `None` at the end. After an error the same page may be requested again.
    pub fn read_stream(&mut self, stream: EntryStream, position: &mut ReadPosition) -> Result<Option<Vec<Entry>>> {
        const DOING: &str = "reading a stream";
        let key = stream.key(&self.keys);
        let reply = loop {
            let range =
                Command::of(&["XRANGE", key, &position.begin("-"), "+", "COUNT", &position.entries.to_string()]);
            match self.connection.query(DOING, range) {
                Err(error) if position.shrinks(&error) => {}
                reply => break reply.map_err(|error| self.name_the_key(error))?,
            }
        };
        let Value::Array(found) = reply else { return self.unexpected_reply(DOING, &reply) };
        let mut bytes = 0;
        let mut entries = Vec::with_capacity(found.len());
        for entry in found {
            let Some(entry) = stream_entry(entry) else { return self.unexpected_reply(DOING, &Value::Nil) };
            bytes += entry.fields.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
            entries.push(entry);
        }
        let Some(last) = entries.last() else { return Ok(None) };
        position.read(last.id.clone(), bytes);
        Ok(Some(entries))
    }

    /// Reads the next pending messages without their counts of deliveries, those in bundles first, then the others,
    /// each oldest first; `None` at the end. Foreign members are skipped.
    pub fn read_pending(&mut self, position: &mut ReadPosition) -> Result<Option<Vec<(MessageId, Body)>>> {
        const DOING: &str = "reading the backlog";
        let reply = loop {
            let (begin, count) = (position.begin("-inf"), position.entries.to_string());
            let words = ["ZRANGEBYSCORE", &self.keys.pending, &begin, "+inf", "WITHSCORES", "LIMIT", "0", &count];
            match self.connection.query(DOING, Command::of(&words)) {
                Err(error) if position.shrinks(&error) => {}
                reply => break reply.map_err(|error| self.name_the_key(error))?,
            }
        };
        let Value::Array(found) = reply else { return self.unexpected_reply(DOING, &reply) };
        let pairs = found.chunks_exact(2);
        let Some(last) = pairs.clone().last().and_then(|pair| text(&pair[1])) else { return Ok(None) };
        let (mut bytes, mut messages) = (0, Vec::with_capacity(found.len() / 2));
        for pair in pairs {
            let Value::BulkString(member) = &pair[0] else { return self.unexpected_reply(DOING, &pair[0]) };
            bytes += member.len();
            match member::decode(member) {
                Some(message) => messages.push(message),
                None => messages.extend(bundle::decode(member).into_iter().flatten()),
            }
        }
        position.read(last.to_owned(), bytes);
        Ok(Some(messages))
    }
}

/// Takes an entry apart.
pub(super) fn stream_entry(entry: Value) -> Option<Entry> {
    let Value::Array(parts) = entry else { return None };
    let [id, Value::Array(words)] = <[Value; 2]>::try_from(parts).ok()? else { return None };
    let mut fields = Vec::with_capacity(words.len() / 2);
    let mut words = words.into_iter();
    while let (Some(Value::BulkString(name)), Some(Value::BulkString(value))) = (words.next(), words.next()) {
        fields.push((name, value));
    }
    Some(Entry { id: text(&id)?.to_owned(), fields })
}
