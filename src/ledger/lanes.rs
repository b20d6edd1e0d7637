//! The set of a group's lanes, which lane 0 keeps: each lane that ever was, by its number.

use std::collections::BTreeSet;

use redis::Value;

use super::command::Command;
use super::core::Ledger;
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

    /// Whether this lane has pending messages.
    pub fn has_pending(&mut self) -> Result<bool> {
        let command = Command::of(&["ZCARD", &self.keys.pending]);
        let reply = self.connection.query("counting a lane's pending messages", command)?;
        Ok(reply != Value::Int(0))
    }
}
