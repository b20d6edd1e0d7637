//! Reads the key of a group's epoch, to check whether an epoch that was received is genuine.
//!
//! Used by the owner of the [`Ledger`]. It only reads. The value is returned as it is: another program may have written
//! the key.

use redis::Value;

use super::command::Command;
use super::core::Ledger;
use crate::base::error::Result;

/// The most bytes of the value that are read. An epoch has 20 digits at most.
pub const MOST_EPOCH_BYTES: usize = 65;

impl Ledger {
    /// The first [`MOST_EPOCH_BYTES`] of the value of the epoch's key; empty if there is no such key. One round trip.
    ///
    /// # Errors
    ///
    /// In addition to the usual errors: a refusal for the type if the value is not a string, and for a right if this
    /// user may not read the key.
    pub fn epoch_text(&mut self) -> Result<Vec<u8>> {
        const DOING: &str = "reading the epoch";
        // Not GET: a foreign value may have 512 MB.
        let last = (MOST_EPOCH_BYTES - 1).to_string();
        let range = Command::of(&["GETRANGE", &self.keys.epoch, "0", &last]);
        match self.connection.query(DOING, range)? {
            Value::BulkString(text) => Ok(text),
            other => self.unexpected_reply(DOING, &other),
        }
    }

    /// Which database of which server this is, for people.
    pub fn place(&self) -> String {
        let server = self.connection.server();
        format!("redis {} database {}", server.shown(), server.database())
    }
}
