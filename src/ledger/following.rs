//! Follows a stream for an operator's tool: entry by entry as they are added, and how many were removed before they
//! could be read. Changes nothing.
//!
//! Redis counts the entries that were ever added to a stream (from version 7 on). While everything before an entry has
//! been removed in order, as trimming does, that count and the stream's length say which one the oldest is. Limitation:
//! entries that were deleted one by one count as trimmed.

use redis::Value;

use super::command::Command;
use super::core::Ledger;
use super::reading::{Entry, EntryStream, stream_entry};
use super::scripts::FollowCall;
use super::value::text;
use crate::base::error::Result;

/// The most entries on a page.
const PAGE_ENTRIES: u64 = 1_000;
/// About the most bytes on a page.
const PAGE_BYTES: u64 = 1 << 20;
/// The place before all entries.
const BEGINNING: &str = "-";

/// A place in a stream that is followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Follower {
    stream: EntryStream,
    /// The id of the last entry that was read.
    after: String,
    /// How many entries were ever added up to it, if that is known.
    index: Option<u64>,
}

/// What happened to a stream since it was last read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Followed {
    /// The next entries.
    pub entries: Vec<Entry>,
    /// About so many entries were removed before they could be read. 0 before Redis 7, which does not count them.
    pub skipped: u64,
    /// The stream ends before the place that was read: Redis has lost data, or was restored. Reading continues at its
    /// present end.
    pub went_back: bool,
}

impl Follower {
    /// Begins with the oldest entry.
    pub fn from_start(stream: EntryStream) -> Follower {
        Follower { stream, after: BEGINNING.to_owned(), index: None }
    }

    /// Begins with what was added at this time, in milliseconds since 1970.
    pub fn since(stream: EntryStream, ms: u64) -> Follower {
        // An entry can't have this number: Redis counts from 0 within a millisecond.
        let after = ms.checked_sub(1).map(|before| format!("{before}-{}", u64::MAX));
        Follower { after: after.unwrap_or_else(|| BEGINNING.to_owned()), ..Follower::from_start(stream) }
    }

    /// Begins with what is added from now on.
    pub fn from_now(ledger: &mut Ledger, stream: EntryStream) -> Result<Follower> {
        let state = ledger.read_on(&Follower::since(stream, u64::MAX))?;
        Ok(Follower { stream, after: state.newest, index: state.added })
    }

    /// Reads on. After an error the same may be requested again.
    pub fn read(&mut self, ledger: &mut Ledger) -> Result<Followed> {
        let state = ledger.read_on(self)?;
        Ok(self.take(state))
    }

    /// Waits for an entry behind those that were read, for at most so long.
    pub fn wait(&self, ledger: &mut Ledger, most_ms: u64) -> Result<()> {
        let key = self.stream.key(&ledger.keys).to_owned();
        let after = if self.after == BEGINNING { "0-0" } else { &self.after };
        let words = ["XREAD", "COUNT", "1", "BLOCK", &most_ms.to_string(), "STREAMS", &key, after];
        let waited = ledger.connection.query("waiting for an entry", Command::of(&words));
        waited.map(drop).map_err(|error| ledger.name_the_key(error))
    }

    fn take(&mut self, state: State) -> Followed {
        let State { added, length, newest, oldest, entries } = state;
        let read = place(&self.after);
        if entries.is_empty() && place(&newest) < read && self.is_behind_an_entry() {
            (self.after, self.index) = (newest, added);
            return Followed { went_back: true, ..Followed::default() };
        }
        let mut skipped = 0;
        // If the entry that was read last is still there, none behind it has been trimmed.
        if oldest.is_none_or(|oldest| place(&oldest) > read) {
            // So many entries were removed, and all of them before the oldest one.
            let removed = added.map(|added| added.saturating_sub(length));
            skipped = self.index.and_then(|index| removed?.checked_sub(index)).unwrap_or_default();
            self.index = removed;
        }
        if let Some(last) = entries.last() {
            self.after.clone_from(&last.id);
            self.index = self.index.map(|index| index + entries.len() as u64);
        }
        if self.after == newest {
            self.index = added;
        }
        Followed { entries, skipped, went_back: false }
    }

    /// Whether the place is that of an entry, not of a time.
    fn is_behind_an_entry(&self) -> bool {
        place(&self.after).is_some_and(|(_, number)| number != u64::MAX)
    }
}

/// A stream at one moment.
struct State {
    added: Option<u64>,
    length: u64,
    newest: String,
    oldest: Option<String>,
    /// The entries behind the place.
    entries: Vec<Entry>,
}

impl Ledger {
    fn read_on(&mut self, from: &Follower) -> Result<State> {
        const DOING: &str = "following a stream";
        let call = FollowCall { after: &from.after, most_entries: PAGE_ENTRIES, most_bytes: PAGE_BYTES };
        let reply = self.call_reading(DOING, |ledger| call.on(&ledger.keys).key(from.stream.key(&ledger.keys)))?;
        match state_of(reply) {
            Some(state) => Ok(state),
            None => self.unexpected_reply(DOING, &Value::Nil),
        }
    }
}

fn state_of(reply: Value) -> Option<State> {
    let Value::Array(parts) = reply else { return None };
    let mut parts = parts.into_iter();
    let added = match parts.next()? {
        Value::Int(added) => u64::try_from(added).ok(),
        _ => None,
    };
    let Value::Int(length) = parts.next()? else { return None };
    let newest = text(&parts.next()?)?.to_owned();
    let oldest = text(&parts.next()?).map(str::to_owned);
    let entries = parts.map(stream_entry).collect::<Option<Vec<_>>>()?;
    Some(State { added, length: length.unsigned_abs(), newest, oldest, entries })
}

/// An entry's id as numbers; `None`, which is before all others, for the beginning.
fn place(id: &str) -> Option<(u64, u64)> {
    let (ms, number) = id.split_once('-')?;
    Some((ms.parse().ok()?, number.parse().ok()?))
}
