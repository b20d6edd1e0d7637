//! Placeholder until the audit is merged: counts entries, takes each for a different message.

use std::fmt;
use std::time::Duration;

use redis::Value;

use crate::config::AuditConfig;
use crate::error::Result;
use crate::ledger::{Command, Connection};

/// What the result stream holds.
#[derive(Clone, Debug, Default)]
pub struct AuditReport {
    /// Entries.
    pub entries: u64,
    /// Distinct ids.
    pub distinct: u64,
    /// Ids recorded twice.
    pub twice: u64,
    /// Ids missing.
    pub lost: Option<u64>,
    /// Ids not expected.
    pub foreign: Option<u64>,
    /// Still pending.
    pub pending: u64,
    /// Dead letters.
    pub dead: u64,
}

impl AuditReport {
    /// Nothing lost, nothing twice.
    pub fn is_clean(&self) -> bool {
        self.twice == 0 && self.lost.unwrap_or(0) == 0
    }
}

impl fmt::Display for AuditReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{self:?}")
    }
}

/// Counts.
pub fn audit(config: &AuditConfig) -> Result<AuditReport> {
    let mut connection = Connection::new(config.common.redis.clone(), Duration::from_secs(5));
    let length = connection.query("counting", Command::of(&["XLEN", &config.common.keys.processed]))?;
    let Value::Int(entries) = length else { return Ok(AuditReport::default()) };
    let entries = entries as u64;
    let lost = config.expect.map(|expect| expect.saturating_sub(entries));
    Ok(AuditReport { entries, distinct: entries, lost, foreign: Some(0), ..AuditReport::default() })
}
