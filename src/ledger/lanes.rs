//! The set of a group's lanes, which lane 0 keeps: each lane that ever was, by its number.

use std::collections::BTreeSet;
use std::time::Duration;

use redis::Value;

use super::command::Command;
use super::core::Ledger;
use super::cursor::Cursor;
use super::group_name::LaneNumber;
use super::group_settings::FIELDS;
use super::keys::Keys;
use super::notice::Notice;
use super::value::text;
use crate::base::error::Result;

/// A field of the settings and its value.
type HeldSetting = (&'static str, Vec<u8>);

impl Ledger {
    /// The lanes that are recorded. Lane 0 always is one. For lane 0's ledger.
    pub fn lanes(&mut self) -> Result<BTreeSet<LaneNumber>> {
        const DOING: &str = "reading the group's lanes";
        let reply = self.connection.query(DOING, Command::of(&["SMEMBERS", &self.keys.lanes]))?;
        let members = match &reply {
            Value::Array(members) | Value::Set(members) => members,
            _ => return self.unexpected_reply(DOING, &reply),
        };
        // Others are not from dispatchers.
        let numbers = members.iter().filter_map(|member| text(member)?.parse().ok());
        Ok(numbers.chain([0]).collect())
    }

    /// Which of these lanes hold something, by as much of it as the user may read. For tools that can't read the
    /// recorded lanes. All must be on this ledger's node; `group` are the keys of lane 0.
    pub fn lanes_with_entries(&mut self, group: &Keys, lanes: &[LaneNumber]) -> Result<BTreeSet<LaneNumber>> {
        const COMMANDS: usize = 3;
        let keys: Vec<_> = lanes.iter().filter_map(|lane| Some((*lane, group.lane(*lane)?))).collect();
        let commands = keys.iter().flat_map(|(_, keys)| {
            let commands: [Command; COMMANDS] = [
                Command::of(&["GET", &keys.epoch]),
                Command::of(&["ZCARD", &keys.pending]),
                Command::of(&["XLEN", &keys.processed]),
            ];
            commands
        });
        let replies = self.connection.pipeline_each("looking for the group's lanes", commands.collect())?;
        let holds = |reply: &Result<Value>| matches!(reply, Ok(Value::Int(1..) | Value::BulkString(_)));
        let found = keys.iter().zip(replies.chunks(COMMANDS)).filter(|(_, replies)| replies.iter().any(holds));
        Ok(found.map(|((lane, _), _)| *lane).collect())
    }

    /// Records lanes. For lane 0's ledger.
    pub fn add_lanes(&mut self, lanes: &BTreeSet<LaneNumber>) -> Result<()> {
        let command = Command::new(2 + lanes.len()).arg("SADD").arg(&self.keys.lanes);
        let command = lanes.iter().fold(command, |command, lane| command.arg(lane.to_string()));
        self.connection.query("recording the group's lanes", command).map(drop)
    }

    /// Gives a lane that is recorded, and that nobody has led yet, the group's settings: a pause holds for it, too.
    /// `home` is lane 0's ledger.
    ///
    /// Who changes the group's settings changes those of lane 0 first, and then those of all lanes that are recorded
    /// by then. So if lane 0 has still the same after they were given, a later change comes to this lane by itself.
    pub fn inherit_settings(&mut self, home: &mut Ledger) -> Result<()> {
        let mut given = Vec::new();
        let mut held = home.held_settings()?;
        while given != held {
            self.take_settings(&held, &given)?;
            given = std::mem::replace(&mut held, home.held_settings()?);
        }
        Ok(())
    }

    /// The group's settings as they are held, without those that are not set. For lane 0's ledger.
    fn held_settings(&mut self) -> Result<Vec<HeldSetting>> {
        const DOING: &str = "reading the group's settings";
        let command = Command::new(2 + FIELDS.len()).arg("HMGET").arg(&self.keys.settings);
        let command = FIELDS.iter().fold(command, |command, field| command.arg(field));
        let reply = self.connection.query(DOING, command)?;
        let Value::Array(values) = &reply else { return self.unexpected_reply(DOING, &reply) };
        let held = |(field, value): (&&'static str, &Value)| match value {
            Value::BulkString(bytes) => Some((*field, bytes.clone())),
            _ => None,
        };
        Ok(FIELDS.iter().zip(values).filter_map(held).collect())
    }

    /// Sets what lane 0 holds, without what it no longer holds of what was `given` before. A leader is told.
    fn take_settings(&mut self, held: &[HeldSetting], given: &[HeldSetting]) -> Result<()> {
        const DOING: &str = "setting a new lane's settings";
        let gone = given.iter().map(|(field, _)| *field).filter(|field| held.iter().all(|(other, _)| other != field));
        let gone: Vec<&str> = gone.collect();
        if !gone.is_empty() {
            let command = Command::new(2 + gone.len()).arg("HDEL").arg(&self.keys.settings);
            self.connection.query(DOING, gone.iter().fold(command, |command, field| command.arg(field)))?;
        }
        if !held.is_empty() {
            let command = Command::new(2 + 2 * held.len()).arg("HSET").arg(&self.keys.settings);
            let command = held.iter().fold(command, |command, (field, value)| command.arg(field).arg(value));
            self.connection.query(DOING, command)?;
        }
        let news = Command::of(&["PUBLISH", &self.keys.control, &Notice::Settings.to_string()]);
        self.connection.query(DOING, news).map(drop)
    }

    /// Whether this lane has had a leader.
    pub fn was_led(&mut self) -> Result<bool> {
        let command = Command::of(&["EXISTS", &self.keys.epoch]);
        let reply = self.connection.query("looking for a lane's epoch", command)?;
        Ok(reply != Value::Int(0))
    }

    /// Before a lane is led for the first time: others may have listened in its place until so long ago, `None` for an
    /// unknown time, and nobody since. A lane that has a cursor keeps it.
    pub fn begin_unheard(&mut self, ago: Option<Duration>) -> Result<()> {
        let since_us = match ago {
            Some(ago) => self.clock_us()?.saturating_sub(ago.as_micros() as u64),
            None => 0,
        };
        let cursor = Cursor::unheard_since(since_us).to_string();
        let command = Command::of(&["SET", &self.keys.cursor, &cursor, "NX"]);
        self.connection.query("writing a new lane's cursor", command).map(drop)
    }

    /// Whether this lane has pending messages.
    pub fn has_pending(&mut self) -> Result<bool> {
        let command = Command::of(&["ZCARD", &self.keys.pending]);
        let reply = self.connection.query("counting a lane's pending messages", command)?;
        Ok(reply != Value::Int(0))
    }
}
