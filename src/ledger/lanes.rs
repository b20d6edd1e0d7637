//! The set of a group's lanes, which lane 0 keeps: each lane that ever was, by its number.

use std::collections::BTreeSet;

use redis::Value;

use super::command::Command;
use super::core::Ledger;
use super::group_settings::FIELDS;
use super::keys::LaneNumber;
use super::value::text;
use crate::base::error::Result;

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

    /// Records lanes. For lane 0's ledger.
    pub fn add_lanes(&mut self, lanes: &BTreeSet<LaneNumber>) -> Result<()> {
        let command = Command::new(2 + lanes.len()).arg("SADD").arg(&self.keys.lanes);
        let command = lanes.iter().fold(command, |command, lane| command.arg(lane.to_string()));
        self.connection.query("recording the group's lanes", command).map(drop)
    }

    /// The group's settings as they are held, without those that are not set. For lane 0's ledger.
    pub fn held_settings(&mut self) -> Result<Vec<(&'static str, Vec<u8>)>> {
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

    /// A new lane has the settings of lane 0: a pause holds for it, too.
    pub fn take_settings(&mut self, held: &[(&'static str, Vec<u8>)]) -> Result<()> {
        if held.is_empty() {
            return Ok(());
        }
        let command = Command::new(2 + 2 * held.len()).arg("HSET").arg(&self.keys.settings);
        let command = held.iter().fold(command, |command, (field, value)| command.arg(field).arg(value));
        self.connection.query("setting a new lane's settings", command).map(drop)
    }

    /// Whether this lane has pending messages.
    pub fn has_pending(&mut self) -> Result<bool> {
        let command = Command::of(&["ZCARD", &self.keys.pending]);
        let reply = self.connection.query("counting a lane's pending messages", command)?;
        Ok(reply != Value::Int(0))
    }
}
