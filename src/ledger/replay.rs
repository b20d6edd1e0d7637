//! What operators do with dead letters: put them back among the pending messages, or remove them.

use redis::Value;

use super::command::Command;
use super::core::Ledger;
use super::scripts::ReplayCall;
use super::value::text;
use crate::base::error::Result;

/// What became of a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Replayed {
    /// Its message is pending again, under its own id.
    Replayed,
    /// There is no such letter any more.
    Gone,
    /// A message with its id is pending, so the letter was left.
    Pending,
    /// Only the beginning of its message was kept, so the letter was left.
    Truncated,
    /// No dispatcher can have written it, so it was left.
    Foreign,
}

impl Ledger {
    /// Puts the messages of dead letters back, each under its own id and with its deliveries counted anew, and tells
    /// the leader. `entries`: at most [`MOST_RETURNED`](super::MOST_RETURNED) ids of entries. The call may be repeated:
    /// what is done is [`Replayed::Gone`].
    pub fn replay(&mut self, entries: &[&str]) -> Result<Vec<Replayed>> {
        const DOING: &str = "replaying dead letters";
        let mut call = ReplayCall { control_channel: &self.keys.control }.on(&self.keys);
        entries.iter().for_each(|entry| call.push(*entry));
        let reply = self.call(DOING, call)?;
        let outcomes = match &reply {
            Value::Array(outcomes) => outcomes.iter().map(outcome_of).collect::<Option<Vec<_>>>(),
            _ => None,
        };
        match outcomes.filter(|outcomes| outcomes.len() == entries.len()) {
            Some(outcomes) => Ok(outcomes),
            None => self.unexpected_reply(DOING, &reply),
        }
    }

    /// Removes dead letters for good. Returns how many of them were there.
    pub fn drop_letters(&mut self, entries: &[&str]) -> Result<u64> {
        const DOING: &str = "removing dead letters";
        let words: Vec<&str> = ["XDEL", &self.keys.dead].into_iter().chain(entries.iter().copied()).collect();
        match self.connection.query(DOING, Command::of(&words)).map_err(|error| self.name_the_key(error))? {
            Value::Int(removed) if removed >= 0 => Ok(removed as u64),
            other => self.unexpected_reply(DOING, &other),
        }
    }
}

fn outcome_of(word: &Value) -> Option<Replayed> {
    match text(word)? {
        "replayed" => Some(Replayed::Replayed),
        "gone" => Some(Replayed::Gone),
        "pending" => Some(Replayed::Pending),
        "truncated" => Some(Replayed::Truncated),
        "foreign" => Some(Replayed::Foreign),
        _ => None,
    }
}
