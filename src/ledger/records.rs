//! What a dispatcher or a shadow writes for people and tools to read: its report, the list of consumers, the gaps.

use std::time::Duration;

use super::command::Command;
use super::core::Ledger;
use super::lease::Lease;
use super::limits::MAX_GAPS;
use super::scripts::{ConsumersCall, GapCall};
use super::types::{Gap, ServerChange};
use super::value::text;
use crate::base::error::Result;
use crate::base::id::Epoch;

impl Ledger {
    /// Writes a report under its key, which expires after `ttl` unless it is written again.
    pub fn report(&mut self, key: &str, report: &str, ttl: Duration) -> Result<()> {
        let set = Command::of(&["SET", key, report, "PX", &ttl.as_millis().to_string()]);
        self.connection.query("reporting", set).map(drop)
    }

    /// The leader's id and its last report, if there is a leader.
    pub fn leaders_report(&mut self) -> Result<Option<(String, Option<String>)>> {
        const DOING: &str = "reading the leader's report";
        let command = Command::of(&["GET", &self.keys.leader]);
        let lease = self.connection.query(DOING, command).map_err(|error| self.name_the_key(error))?;
        let Some(lease) = text(&lease).and_then(Lease::parse) else { return Ok(None) };
        let command = Command::of(&["GET", &self.keys.report_of(&lease.holder)]);
        let report = self.connection.query(DOING, command)?;
        Ok(Some((lease.holder, text(&report).map(str::to_owned))))
    }

    /// Deletes the report of a process that ends.
    pub fn end_reports(&mut self, key: &str) -> Result<()> {
        self.connection.query("ending the reports", Command::of(&["DEL", key])).map(drop)
    }

    /// Rewrites the list of connected consumers.
    pub fn set_consumers(&mut self, epoch: Epoch, consumers: &[String]) -> Result<()> {
        let mut call = ConsumersCall { my_epoch: epoch }.on(&self.keys);
        consumers.iter().for_each(|consumer| call.push(consumer.as_str()));
        self.call_for_ok(epoch, "listing the consumers", call)
    }

    /// Records a gap.
    pub fn record_gap(&mut self, epoch: Epoch, gap: &Gap) -> Result<()> {
        let mut call = GapCall { my_epoch: epoch, most_entries: MAX_GAPS as u64 }.on(&self.keys);
        let count = gap.count.map_or("unknown".to_owned(), |count| count.to_string());
        for (name, value) in [
            ("reason", gap.reason),
            ("dispatcher", gap.dispatcher.as_str()),
            ("begin", &gap.begin),
            ("end", &gap.end),
            ("count", &count),
        ] {
            call.push((name, value));
        }
        call.push(("epoch", epoch));
        if let Some(ServerChange { before, now }) = gap.servers.as_deref() {
            call.push(("server_before", before.as_str()));
            call.push(("server", now.as_str()));
        }
        self.call_for_ok(epoch, "recording a gap", call)
    }
}
