//! Reads the state of a group, for views, tests and measurements. One round trip reads all of it.
//!
//! Read-only. The values are read one after the other, in the order of [`Snapshot`]'s fields, not in one step. If Redis
//! refuses a command, because the user lacks the right or the command was renamed, the parts that need it are left out
//! and listed in [`GroupView::refused`]; the others are still read.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use redis::Value;

mod part;

pub use self::part::Part;
use super::bundle;
use super::command::Command;
use super::connection::Connection;
use super::core::Ledger;
use super::cursor::Cursor;
use super::keys::Keys;
use super::lease::Lease;
use super::letters::LetterHead;
use super::member;
use super::reading::RecordedGap;
use super::value::text;
use crate::base::error::{Error, Result};
use crate::base::id::{Epoch, MessageId};
use crate::base::refusal::Refusal;

/// The state of a group at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The leader's lease, if a dispatcher leads.
    pub lease: Option<Lease>,
    /// How long the lease lasts unless it is renewed.
    pub lease_left: Option<Duration>,
    /// The highest epoch.
    pub epoch: Epoch,
    /// How many connections are subscribed to the control channel: those of dispatchers and shadows.
    pub subscribers: u64,
    /// The position up to which the channel has been stored.
    pub cursor: Option<Cursor>,
    /// Entries in the result stream.
    pub processed: u64,
    /// Messages without a result.
    pub pending: u64,
    /// The id of the oldest of them.
    pub oldest: Option<MessageId>,
    /// Dead letters.
    pub dead: u64,
    /// Recorded gaps.
    pub gaps: u64,
    /// The ids of the consumers that the leader is connected to.
    pub consumers: Vec<String>,
    /// Calls of PUBLISH and SPUBLISH on this server since it started, on any channel; see
    /// [`GroupView::snapshot_with_publishes`].
    pub publish_calls: u64,
}

/// A dispatcher or a shadow that is subscribed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DispatcherReport {
    /// Its id.
    pub id: String,
    /// Its last report, if it is at most a few seconds old.
    pub report: Option<String>,
}

/// A connection that reads the state of a group.
pub struct GroupView {
    ledger: Ledger,
    /// The dispatchers found last.
    known: KnownDispatchers,
    /// The parts that the last reading had to leave out.
    refused: BTreeSet<Part>,
    /// Whether the user may call scripts.
    calls_scripts: bool,
}

/// Returns the first bytes of the oldest bundle and of the oldest message alone, which hold their ids. A payload after
/// them may have megabytes.
const OLDEST: &str = "local first = {redis.call('ZRANGE', KEYS[1], 0, 0)[1] or '', \
                      redis.call('ZRANGE', KEYS[1], '0', '+inf', 'BYSCORE', 'LIMIT', 0, 1)[1] or ''} \
                      return {string.sub(first[1], 1, 17), string.sub(first[2], 1, 17)}";

/// The result of the last search for dispatchers. A search walks through all channels of the server, so it is repeated
/// only if something may have changed.
#[derive(Default)]
struct KnownDispatchers {
    ids: Vec<String>,
    /// The ids of shadows.
    shadows: Vec<String>,
    /// How many connections were subscribed to the control channel then.
    subscribed: u64,
}

impl GroupView {
    /// A view of the group with these keys. Opens no connection yet.
    pub fn new(connection: Connection, keys: Keys) -> GroupView {
        GroupView {
            ledger: Ledger::over(connection, Arc::new(keys)),
            known: KnownDispatchers::default(),
            refused: BTreeSet::new(),
            calls_scripts: true,
        }
    }

    /// The same for a user that may not call scripts. Snapshots then lack the oldest message (see
    /// [`oldest_read_whole`](GroupView::oldest_read_whole)), and no dead letters are read.
    pub fn without_scripts(self) -> GroupView {
        GroupView { calls_scripts: false, ..self }
    }

    /// The connection, for other commands.
    pub fn connection(&mut self) -> &mut Connection {
        &mut self.ledger.connection
    }

    /// The group's keys.
    pub fn keys(&self) -> &Keys {
        &self.ledger.keys
    }

    /// What had to be left out since the last [`snapshot`](GroupView::snapshot) began, that one included.
    pub fn refused(&self) -> &BTreeSet<Part> {
        &self.refused
    }

    /// The dispatchers that are subscribed, and what they last reported, in the order of their ids. `snapshot` must be
    /// recent. If Redis does not list subscribers, only the leader is returned.
    pub fn members(&mut self, snapshot: &Snapshot) -> Result<Vec<DispatcherReport>> {
        let leader = snapshot.lease.as_ref().map(|lease| &lease.holder);
        let changed = self.refused.contains(&Part::Subscribers)
            || self.known.subscribed != snapshot.subscribers
            || leader.is_some_and(|leader| !self.known.ids.contains(leader))
            || !self.all_are_there()?;
        if changed {
            let found = self.ledger.dispatchers();
            let mut ids = self.allowed(Part::Members, found)?.unwrap_or_else(|| leader.cloned().into_iter().collect());
            ids.sort_unstable();
            let shadows = self.search_shadows(snapshot.subscribers, ids.len())?;
            self.known = KnownDispatchers { ids, shadows, subscribed: snapshot.subscribers };
        }
        let keys = self.ledger.keys.clone();
        let named: Vec<(String, String)> = self.known.ids.iter().map(|id| (id.clone(), keys.report_of(id))).collect();
        self.reports(named)
    }

    /// The shadows that are subscribed, and what they last reported, in the order of their ids. As found by the last
    /// [`members`](GroupView::members).
    pub fn shadows(&mut self) -> Result<Vec<DispatcherReport>> {
        let keys = self.ledger.keys.clone();
        let named = self.known.shadows.iter().map(|id| (id.clone(), keys.shadow_report_of(id))).collect();
        self.reports(named)
    }

    /// Searches for shadows, if more connections are subscribed to the control channel than there are dispatchers.
    fn search_shadows(&mut self, subscribers: u64, dispatchers: usize) -> Result<Vec<String>> {
        if subscribers <= dispatchers as u64 {
            return Ok(Vec::new());
        }
        let found = self.ledger.shadows();
        let mut ids = self.allowed(Part::Members, found)?.unwrap_or_default();
        ids.sort_unstable();
        Ok(ids)
    }

    /// The reply; `None` if Redis refuses the command, which is noted.
    fn allowed<T>(&mut self, part: Part, outcome: Result<T>) -> Result<Option<T>> {
        match outcome {
            Err(error) if is_refused(&error) => {
                self.refused.insert(part);
                Ok(None)
            }
            outcome => outcome.map(Some),
        }
    }

    fn all_are_there(&mut self) -> Result<bool> {
        const DOING: &str = "counting the dispatchers";
        let KnownDispatchers { ids, shadows, .. } = &self.known;
        if ids.is_empty() && shadows.is_empty() {
            return Ok(true);
        }
        let own = |prefix: &str, id: &String| format!("{prefix}{id}");
        let alive = ids.iter().map(|id| own(&self.keys().alive_prefix, id));
        let channels = alive.chain(shadows.iter().map(|id| own(&self.keys().shadow_prefix, id)));
        let command = Command::new(2 + ids.len() + shadows.len()).arg("PUBSUB").arg("NUMSUB");
        let reply =
            self.ledger.connection.query(DOING, channels.fold(command, |command, channel| command.arg(channel)))?;
        let Value::Array(counts) = &reply else { return self.ledger.unexpected_reply(DOING, &reply) };
        Ok(counts.iter().skip(1).step_by(2).all(|subscribed| count(subscribed) != Some(0)))
    }

    /// Reads reports, given by the ids of those who wrote them and by their keys.
    fn reports(&mut self, named: Vec<(String, String)>) -> Result<Vec<DispatcherReport>> {
        const DOING: &str = "reading the dispatchers' reports";
        if named.is_empty() {
            return Ok(Vec::new());
        }
        let begin = Command::new(1 + named.len()).arg("MGET");
        let command = named.iter().fold(begin, |command, (_, key)| command.arg(key));
        let reply = self.ledger.connection.query(DOING, command);
        let reports = match self.allowed(Part::Reports, reply)? {
            Some(Value::Array(reports)) => reports,
            Some(reply) => return self.ledger.unexpected_reply(DOING, &reply),
            None => Vec::new(),
        };
        let report = |at| reports.get(at).and_then(text).map(str::to_owned);
        let reported = |(at, (id, _))| DispatcherReport { id, report: report(at) };
        Ok(named.into_iter().enumerate().map(reported).collect())
    }

    /// The newest gaps that were recorded, the newest first.
    pub fn newest_gaps(&mut self, most: usize) -> Result<Vec<RecordedGap>> {
        let found = self.ledger.newest_gaps(most);
        Ok(self.allowed(Part::RecentGaps, found)?.unwrap_or_default())
    }

    /// The newest dead letters, the newest first; `None` without the right to call scripts.
    pub fn newest_letters(&mut self, most: usize) -> Result<Option<Vec<LetterHead>>> {
        if !self.calls_scripts {
            return Ok(None);
        }
        let found = self.ledger.newest_letters(most);
        self.allowed(Part::RecentLetters, found)
    }

    /// How many entries a stream has; `None` if Redis refuses to say.
    pub fn count_entries(&mut self, stream: &str) -> Result<Option<u64>> {
        let reply = self.ledger.connection.query("counting a stream's entries", Command::of(&["XLEN", stream]));
        Ok(self.allowed(Part::Stream, reply)?.and_then(|entries| count(&entries)))
    }

    /// Reads the present state.
    pub fn snapshot(&mut self) -> Result<Snapshot> {
        const DOING: &str = "reading the group's state";
        let keys = self.ledger.keys.clone();
        let parts = [
            (Part::Lease, Command::of(&["GET", &keys.leader])),
            (Part::LeaseLeft, Command::of(&["PTTL", &keys.leader])),
            (Part::Epoch, Command::of(&["GET", &keys.epoch])),
            // Only dispatchers and shadows subscribe to it.
            (Part::Subscribers, Command::of(&["PUBSUB", "NUMSUB", &keys.control])),
            (Part::Cursor, Command::of(&["GET", &keys.cursor])),
            (Part::Results, Command::of(&["XLEN", &keys.processed])),
            // In this order: if a bundle is taken apart between the two, too many are counted, not too few.
            (Part::Bundles, bundle::count(&keys.pending)),
            (Part::Pending, Command::of(&["ZCARD", &keys.pending])),
            (Part::Dead, Command::of(&["XLEN", &keys.dead])),
            (Part::Gaps, Command::of(&["XLEN", &keys.gaps])),
            (Part::Consumers, Command::of(&["LRANGE", &keys.consumers, "0", "-1"])),
        ];
        let (parts, commands): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
        let outcomes = self.ledger.connection.pipeline_each(DOING, commands)?;
        self.refused.clear();
        let mut replies = Vec::with_capacity(parts.len());
        for (part, outcome) in parts.into_iter().zip(outcomes) {
            replies.push(self.allowed(part, outcome)?.unwrap_or(Value::Nil));
        }
        let snapshot = read(&replies);
        let snapshot = snapshot
            .ok_or_else(|| Error::Failed(format!("reading the group's state: unexpected answers {replies:?}")))?;
        let oldest = if self.calls_scripts {
            self.oldest(vec![Command::of(&["EVAL", OLDEST, "1", &keys.pending])])?
        } else {
            None
        };
        Ok(Snapshot { oldest, ..snapshot })
    }

    /// The id of the oldest pending message, read with its whole payload.
    pub fn oldest_read_whole(&mut self) -> Result<Option<MessageId>> {
        let pending = &self.ledger.keys.pending;
        let first = Command::of(&["ZRANGE", pending, "0", "0"]);
        let first_alone = Command::of(&["ZRANGE", pending, "0", "+inf", "BYSCORE", "LIMIT", "0", "1"]);
        self.oldest(vec![first, first_alone])
    }

    /// The lowest id that a member begins with, of those that these commands read.
    fn oldest(&mut self, commands: Vec<Command>) -> Result<Option<MessageId>> {
        let mut oldest = None;
        for reply in self.ledger.connection.pipeline_each("looking for the oldest message", commands)? {
            let Some(Value::Array(members)) = self.allowed(Part::Oldest, reply)? else { continue };
            let ids = members.iter().filter_map(|member| match member {
                Value::BulkString(member) => Some(member::split_id(member)?.0),
                _ => None,
            });
            oldest = ids.chain(oldest).min();
        }
        Ok(oldest)
    }

    /// The same with the number of calls of PUBLISH and SPUBLISH, for which Redis must list the statistics of all its
    /// commands.
    pub fn snapshot_with_publishes(&mut self) -> Result<Snapshot> {
        let snapshot = self.snapshot()?;
        let stats =
            self.ledger.connection.query("counting what was published", Command::of(&["INFO", "commandstats"]))?;
        Ok(Snapshot { publish_calls: text(&stats).map_or(0, publish_calls), ..snapshot })
    }
}

/// Whether Redis denies this user the command, does not have it, or finds another type in the key.
fn is_refused(error: &Error) -> bool {
    matches!(error.refusal(), Some(Refusal::Right | Refusal::UnknownCommand | Refusal::WrongType))
}

/// Nil stands for a part that was left out.
fn read(replies: &[Value]) -> Option<Snapshot> {
    let [lease, lease_left, epoch, subscribers, cursor, processed, bundles, members, dead, gaps, consumers] = replies
    else {
        return None;
    };
    Some(Snapshot {
        lease: text(lease).and_then(Lease::parse),
        lease_left: count(lease_left).map(Duration::from_millis),
        epoch: Epoch(text(epoch).and_then(|epoch| epoch.parse().ok()).unwrap_or_default()),
        subscribers: list(subscribers)?.get(1).map_or(Some(0), count)?,
        cursor: text(cursor).and_then(|cursor| cursor.parse().ok()),
        processed: length(processed)?,
        pending: bundle::messages(length(members)?, length(bundles)?),
        oldest: None,
        dead: length(dead)?,
        gaps: length(gaps)?,
        consumers: list(consumers)?.iter().filter_map(text).map(str::to_owned).collect(),
        publish_calls: 0,
    })
}

fn list(value: &Value) -> Option<&[Value]> {
    match value {
        Value::Array(values) => Some(values),
        Value::Nil => Some(&[]),
        _ => None,
    }
}

fn length(value: &Value) -> Option<u64> {
    if *value == Value::Nil { Some(0) } else { count(value) }
}

/// A number that is not negative. PTTL returns a negative one if there is no such key.
fn count(value: &Value) -> Option<u64> {
    match value {
        Value::Int(number) => (*number).try_into().ok(),
        _ => None,
    }
}

/// From the lines `cmdstat_publish:calls=12,usec=…` and `cmdstat_spublish:…`; none yet means none.
fn publish_calls(stats: &str) -> u64 {
    let calls = |line: &str| {
        let rest = line.strip_prefix("cmdstat_publish:calls=").or(line.strip_prefix("cmdstat_spublish:calls="))?;
        rest.split(',').next()?.parse::<u64>().ok()
    };
    stats.lines().filter_map(calls).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_publish_are_counted() {
        let stats = "# Commandstats\r\ncmdstat_ping:calls=1,usec=1\r\ncmdstat_publish:calls=42,usec=7\r\n";
        assert_eq!(publish_calls(stats), 42);
        assert_eq!(publish_calls(&format!("{stats}cmdstat_spublish:calls=8,usec=1\r\n")), 50);
        assert_eq!(publish_calls("# Commandstats\r\n"), 0);
    }
}
