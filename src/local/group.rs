//! A group as an onlooker sees it: one round trip for all that a view, a wait or a measurement needs.
//!
//! Read-only. The values are read one after the other, in the order of [`Snapshot`]'s fields, not in one step.

use redis::Value;

use crate::error::{Error, Result};
use crate::id::Epoch;
use crate::ledger::{Command, Connection, Cursor, Keys};

/// Who leads, as the key `<group>:leader` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The dispatcher's id: its name and a suffix made at its start, `d0-5f3a9c`.
    pub holder: String,
    /// Its epoch.
    pub epoch: Epoch,
}

impl Lease {
    fn parse(text: &str) -> Option<Lease> {
        let (holder, epoch) = text.split_once(' ')?;
        Some(Lease { holder: holder.to_owned(), epoch: Epoch(epoch.parse().ok()?) })
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
    /// How far the channel has been taken in.
    pub cursor: Option<Cursor>,
    /// Entries in the result stream.
    pub processed: u64,
    /// Messages without a result.
    pub pending: u64,
    /// Dead letters.
    pub dead: u64,
    /// The ids of the consumers that the leader is connected to.
    pub consumers: Vec<String>,
    /// Calls of PUBLISH on this server since it started, on any channel.
    pub publish_calls: u64,
}

/// A connection to look at a group through.
pub struct GroupView {
    connection: Connection,
    keys: Keys,
}

impl GroupView {
    /// Looks at the group with these keys. Opens nothing yet.
    pub fn new(connection: Connection, keys: Keys) -> GroupView {
        GroupView { connection, keys }
    }

    /// The connection, for commands of one's own.
    pub fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// The group's keys.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// How it looks now.
    pub fn snapshot(&mut self) -> Result<Snapshot> {
        let keys = &self.keys;
        let commands = vec![
            Command::of(&["GET", &keys.leader]),
            Command::of(&["GET", &keys.cursor]),
            Command::of(&["XLEN", &keys.processed]),
            Command::of(&["ZCARD", &keys.pending]),
            Command::of(&["XLEN", &keys.dead]),
            Command::of(&["LRANGE", &keys.consumers, "0", "-1"]),
            Command::of(&["INFO", "commandstats"]),
        ];
        let replies = self.connection.pipeline("looking at the group", commands)?;
        read(&replies).ok_or_else(|| Error::Failed(format!("looking at the group: unexpected answers {replies:?}")))
    }
}

fn read(replies: &[Value]) -> Option<Snapshot> {
    let [lease, cursor, Value::Int(processed), Value::Int(pending), Value::Int(dead), Value::Array(consumers), stats] =
        replies
    else {
        return None;
    };
    Some(Snapshot {
        lease: text(lease).and_then(Lease::parse),
        cursor: text(cursor).and_then(|cursor| cursor.parse().ok()),
        processed: (*processed).try_into().ok()?,
        pending: (*pending).try_into().ok()?,
        dead: (*dead).try_into().ok()?,
        consumers: consumers.iter().filter_map(text).map(str::to_owned).collect(),
        publish_calls: text(stats).and_then(publish_calls).unwrap_or(0),
    })
}

/// From the line `cmdstat_publish:calls=12,usec=…`; none yet means none.
fn publish_calls(stats: &str) -> Option<u64> {
    let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_publish:calls="))?;
    line.split(',').next()?.parse().ok()
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_has_a_holder_with_a_name() {
        let lease = Lease::parse("d-0-5f3a9c 1700000000000").unwrap();
        assert_eq!((lease.name(), lease.epoch), ("d-0", Epoch(1_700_000_000_000)));
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
