//! A group as an onlooker sees it: one round trip for all that a view, a wait or a measurement needs.
//!
//! Read-only. The values are read one after the other, in the order of [`Snapshot`]'s fields, not in one step.

use std::sync::Arc;
use std::time::Duration;

use redis::Value;

use super::reading::RecordedGap;
use super::{Command, Connection, Cursor, Keys, Ledger, member, text};
use crate::error::{Error, Result};
use crate::id::{Epoch, MessageId};

/// Who leads, as the key `<group>:leader` says: `<dispatcher id> <epoch>`, or `<dispatcher id> <epoch> ttl`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The dispatcher's id: its name and a suffix made at its start, `d0-5f3a9c`.
    pub holder: String,
    /// Its epoch.
    pub epoch: Epoch,
    /// Whether it ends by its time alone: the holder's subscription is not counted on the server that holds the lease.
    pub by_time: bool,
}

impl std::fmt::Display for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}{}", self.holder, self.epoch, if self.by_time { " ttl" } else { "" })
    }
}

impl Lease {
    pub(super) fn parse(text: &str) -> Option<Lease> {
        let mut words = text.split(' ');
        let (holder, epoch, mode) = (words.next()?, words.next()?, words.next());
        let epoch = Epoch(epoch.parse().ok()?);
        let known = words.next().is_none() && matches!(mode, None | Some("ttl"));
        known.then(|| Lease { holder: holder.to_owned(), epoch, by_time: mode.is_some() })
    }

    /// The name part of the holder's id: the setting `dispatcher-id`.
    pub fn name(&self) -> &str {
        self.holder.rsplit_once('-').map_or(&self.holder, |(name, _)| name)
    }
}

/// What a group looks like at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Who leads, if anybody.
    pub lease: Option<Lease>,
    /// How long the lease lasts unless it is renewed.
    pub lease_left: Option<Duration>,
    /// The highest epoch given out.
    pub epoch: Epoch,
    /// How many dispatchers are subscribed.
    pub dispatchers: u64,
    /// How far the channel has been taken in.
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
    /// Calls of PUBLISH on this server since it started, on any channel.
    pub publish_calls: u64,
}

/// A dispatcher that is subscribed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: String,
    /// What it last said of itself, if that was a few seconds ago at most.
    pub report: Option<String>,
}

/// A connection to look at a group through.
pub struct GroupView {
    ledger: Ledger,
    /// The dispatchers that were found last.
    known: Known,
}

/// Looking for all dispatchers walks through all channels of the server: it is done only when it might bring something.
#[derive(Default)]
struct Known {
    ids: Vec<String>,
    /// How many connections were subscribed to the control channel then.
    subscribed: u64,
}

impl GroupView {
    /// Looks at the group with these keys. Opens nothing yet.
    pub fn new(connection: Connection, keys: Keys) -> GroupView {
        GroupView { ledger: Ledger::over(connection, Arc::new(keys)), known: Known::default() }
    }

    /// The connection, for commands of one's own.
    pub fn connection(&mut self) -> &mut Connection {
        &mut self.ledger.connection
    }

    /// The group's keys.
    pub fn keys(&self) -> &Keys {
        &self.ledger.keys
    }

    /// The dispatchers that are subscribed, and what they last reported, in the order of their ids. `snapshot` is a look of
    /// just now.
    pub fn members(&mut self, snapshot: &Snapshot) -> Result<Vec<Member>> {
        let leader = snapshot.lease.as_ref().map(|lease| &lease.holder);
        let changed = self.known.subscribed != snapshot.dispatchers
            || leader.is_some_and(|leader| !self.known.ids.contains(leader))
            || !self.all_are_there()?;
        if changed {
            let mut ids = self.ledger.dispatchers()?;
            ids.sort_unstable();
            self.known = Known { ids, subscribed: snapshot.dispatchers };
        }
        self.reports()
    }

    fn all_are_there(&mut self) -> Result<bool> {
        const DOING: &str = "counting the dispatchers";
        if self.known.ids.is_empty() {
            return Ok(true);
        }
        let channels = self.known.ids.iter().map(|id| format!("{}{id}", self.keys().alive_prefix));
        let command = Command::new(2 + self.known.ids.len()).arg("PUBSUB").arg("NUMSUB");
        let reply =
            self.ledger.connection.query(DOING, channels.fold(command, |command, channel| command.arg(channel)))?;
        let Value::Array(counts) = &reply else { return self.ledger.surprise(DOING, &reply) };
        Ok(counts.iter().skip(1).step_by(2).all(|subscribed| count(subscribed) != Some(0)))
    }

    fn reports(&mut self) -> Result<Vec<Member>> {
        const DOING: &str = "reading the dispatchers' reports";
        let ids = &self.known.ids;
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let keys = ids.iter().map(|id| format!("{}{id}", self.ledger.keys.status_prefix));
        let command = keys.fold(Command::new(1 + ids.len()).arg("MGET"), |command, key| command.arg(key));
        let reply = self.ledger.connection.query(DOING, command)?;
        let Value::Array(reports) = &reply else { return self.ledger.surprise(DOING, &reply) };
        let members = ids.iter().zip(reports);
        Ok(members.map(|(id, report)| Member { id: id.clone(), report: text(report).map(str::to_owned) }).collect())
    }

    /// The newest gaps that were recorded, the newest first.
    pub fn newest_gaps(&mut self, most: usize) -> Result<Vec<RecordedGap>> {
        self.ledger.newest_gaps(most)
    }

    /// How it looks now.
    pub fn snapshot(&mut self) -> Result<Snapshot> {
        let keys = self.ledger.keys.clone();
        let commands = vec![
            Command::of(&["GET", &keys.leader]),
            Command::of(&["PTTL", &keys.leader]),
            Command::of(&["GET", &keys.epoch]),
            // Only dispatchers subscribe to it.
            Command::of(&["PUBSUB", "NUMSUB", &keys.control]),
            Command::of(&["GET", &keys.cursor]),
            Command::of(&["XLEN", &keys.processed]),
            Command::of(&["ZCARD", &keys.pending]),
            Command::of(&["ZRANGE", &keys.pending, "0", "0"]),
            Command::of(&["XLEN", &keys.dead]),
            Command::of(&["XLEN", &keys.gaps]),
            Command::of(&["LRANGE", &keys.consumers, "0", "-1"]),
            Command::of(&["INFO", "commandstats"]),
        ];
        let replies = self.ledger.connection.pipeline("looking at the group", commands)?;
        read(&replies).ok_or_else(|| Error::Failed(format!("looking at the group: unexpected answers {replies:?}")))
    }
}

fn read(replies: &[Value]) -> Option<Snapshot> {
    let [lease, lease_left, epoch, dispatchers, cursor, processed, pending, oldest, dead, gaps, consumers, stats] =
        replies
    else {
        return None;
    };
    let (Value::Array(dispatchers), Value::Array(oldest), Value::Array(consumers)) = (dispatchers, oldest, consumers)
    else {
        return None;
    };
    let oldest = oldest.first().and_then(|member| match member {
        Value::BulkString(member) => member::decode(member).map(|(id, _)| id),
        _ => None,
    });
    Some(Snapshot {
        lease: text(lease).and_then(Lease::parse),
        lease_left: count(lease_left).map(Duration::from_millis),
        epoch: Epoch(text(epoch).and_then(|epoch| epoch.parse().ok()).unwrap_or_default()),
        dispatchers: count(dispatchers.get(1)?)?,
        cursor: text(cursor).and_then(|cursor| cursor.parse().ok()),
        processed: count(processed)?,
        pending: count(pending)?,
        oldest,
        dead: count(dead)?,
        gaps: count(gaps)?,
        consumers: consumers.iter().filter_map(text).map(str::to_owned).collect(),
        publish_calls: text(stats).and_then(publish_calls).unwrap_or(0),
    })
}

/// A number that is not negative: PTTL says by negative ones that there is no such key.
fn count(value: &Value) -> Option<u64> {
    match value {
        Value::Int(number) => (*number).try_into().ok(),
        _ => None,
    }
}

/// From the line `cmdstat_publish:calls=12,usec=…`; none yet means none.
fn publish_calls(stats: &str) -> Option<u64> {
    let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_publish:calls="))?;
    line.split(',').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_has_a_holder_with_a_name() {
        let lease = Lease::parse("d-0-5f3a9c 1700000000000").unwrap();
        assert_eq!((lease.name(), lease.epoch), ("d-0", Epoch(1_700_000_000_000)));
        let by_time = Lease::parse("d0-5f3a9c 17 ttl").unwrap();
        assert!(by_time.by_time && by_time.to_string() == "d0-5f3a9c 17 ttl");
        assert_eq!(Lease::parse("d0-5f3a9c 17 forever"), None);
        assert_eq!(Lease::parse("d0-5f3a9c"), None);
        assert_eq!(Lease::parse("d0-5f3a9c x"), None);
    }

    #[test]
    fn calls_of_publish_are_counted() {
        let stats = "# Commandstats\r\ncmdstat_ping:calls=1,usec=1\r\ncmdstat_publish:calls=42,usec=7\r\n";
        assert_eq!(publish_calls(stats), Some(42));
        assert_eq!(publish_calls("# Commandstats\r\n"), None);
    }
}
