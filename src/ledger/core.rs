//! One group's ledger: the connection, the keys, and what the operations have in common.
//!
//! The operations are in the files beside this one, one file for each subject.

use std::sync::Arc;
use std::time::Duration;

use redis::Value;

use super::attempts::Attempts;
use super::command::Command;
use super::connection::Connection;
use super::destination::Destination;
use super::keys::Keys;
use super::replicas::{Confirmed, Replicas};
use super::script::ScriptCall;
use super::server::Server;
use super::server::errors::name_the_rights;
use super::transaction::{Guard, Guarded};
use super::value::text;
use crate::base::error::{Error, Result};
use crate::base::hint::Hint;
use crate::base::id::Epoch;
use crate::base::refusal::Refusal;

/// Where the last ids of a stream begin, which is out of reach of every clock.
const LAST_IDS: &str = "18446744073709551615-0";

/// A group's state in Redis, through one connection.
pub struct Ledger {
    pub(super) connection: Connection,
    pub(super) keys: Arc<Keys>,
    /// Watches the epoch and the cursor, for a leader's intake.
    pub(super) fence: Guard,
    /// Watches the recall, for a consumer's commits.
    pub(super) recall: Guard,
    /// Where intake puts messages.
    pub(super) destination: Destination,
    /// How many replicas must confirm an intake, if any.
    pub(super) replicas: Option<Replicas>,
    /// What is known of earlier intakes.
    pub(super) attempts: Attempts,
    /// Whether the last page of the backlog consisted of bundles for the most part.
    pub(super) reads_bundles: bool,
}

impl Ledger {
    /// The group's ledger on a server, with `timeout` for each reply. Opens no connection yet.
    pub fn new(server: Server, keys: Arc<Keys>, timeout: Duration) -> Ledger {
        Ledger::over(Connection::new(server, timeout), keys)
    }

    pub(super) fn over(connection: Connection, keys: Arc<Keys>) -> Ledger {
        let connection = connection.for_key(&keys.leader);
        let fence = Guard::new(Guarded {
            watched: vec![keys.epoch.clone(), keys.cursor.clone()],
            written: vec![(keys.pending.clone(), "zset")],
        });
        let recall = Guard::new(Guarded {
            watched: vec![keys.recall.clone()],
            written: vec![(keys.pending.clone(), "zset"), (keys.processed.clone(), "stream")],
        });
        let destination = Destination::default();
        Ledger {
            connection,
            keys,
            fence,
            recall,
            destination,
            replicas: None,
            attempts: Attempts::default(),
            reads_bundles: false,
        }
    }

    /// The same ledger, whose intake puts messages there.
    pub fn storing_in(self, destination: Destination) -> Ledger {
        Ledger { destination, ..self }
    }

    /// The same ledger, whose intake counts only when so many replicas have it.
    pub fn confirmed_by(mut self, replicas: u32) -> Ledger {
        self.replicas = (replicas > 0).then_some(Replicas(replicas));
        self.fence.confirmed_by(self.replicas);
        self
    }

    /// The group's keys.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The number of the connection that is open; `None` if none is.
    pub fn connection_number(&self) -> Option<u64> {
        self.connection.number()
    }

    /// Whether the last successful intake used the present connection, so that Redis can't have restarted since.
    pub fn is_uninterrupted(&self) -> bool {
        self.attempts.taken_on.is_some() && self.attempts.taken_on == self.connection.number()
    }

    /// The connection, for commands on no key of the group.
    pub fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// Whether the server answers at all, even with a refusal.
    pub fn is_answered(&mut self) -> bool {
        let answer = self.connection.query("checking the connection", Command::of(&["PING"]));
        answer.map_or_else(|error| error.refusal().is_some(), |_| true)
    }

    /// Calls a script. A refusal names the command, and the key whose type is wrong.
    pub(super) fn call(&mut self, doing: &'static str, call: ScriptCall) -> Result<Value> {
        self.call_confirmed(doing, call, None).map(|(reply, _)| reply)
    }

    /// The same, with the number of replicas that confirm it, if so many must.
    pub(super) fn call_confirmed(
        &mut self,
        doing: &'static str,
        call: ScriptCall,
        replicas: Option<Replicas>,
    ) -> Result<(Value, Option<Confirmed>)> {
        let outcome = self.connection.call(doing, &call, replicas);
        outcome.map_err(|error| self.name_what_it_needs(error, &call))
    }

    /// Reads by a command, then calls a script, in one write. Returns both replies.
    pub(super) fn read_and_call(
        &mut self,
        doing: &'static str,
        read: Command,
        call: ScriptCall,
    ) -> Result<(Value, Value)> {
        let outcome = self.connection.call_behind(doing, Some(read), &call, None);
        let (read, reply, _) = outcome.map_err(|error| self.name_what_it_needs(error, &call))?;
        Ok((read.unwrap_or(Value::Nil), reply))
    }

    fn name_what_it_needs(&mut self, error: Error, call: &ScriptCall) -> Error {
        let error = match call.script.command_at(&error.to_string()) {
            Some(command) => name_the_command(error, command),
            None => name_the_rights(error, || call.rights()),
        };
        self.name_the_key(error)
    }

    /// Calls a script that only reads, so that the user needs no right to write its keys where Redis knows such calls.
    pub(super) fn call_reading(&mut self, doing: &'static str, call: impl Fn(&Ledger) -> ScriptCall) -> Result<Value> {
        let read_only = call(self).reading_only();
        match self.call(doing, read_only) {
            // Redis 6.2 has no such calls.
            Err(error) if error.refusal() == Some(Refusal::UnknownCommand) => {
                let call = call(self);
                self.call(doing, call)
            }
            outcome => outcome,
        }
    }

    /// The same for a script that answers with OK.
    pub(super) fn call_for_ok(&mut self, epoch: Epoch, doing: &'static str, call: ScriptCall) -> Result<()> {
        let reply = self.call(doing, call)?;
        if text(&reply) == Some("OK") { Ok(()) } else { self.fenced(epoch, doing, &reply) }
    }

    /// Finds out which key has the wrong type, or has run out of ids, because Redis does not say, and names it in the
    /// error.
    pub(super) fn name_the_key(&mut self, error: Error) -> Error {
        let find = match error.refusal() {
            Some(Refusal::WrongType) => Self::of_another_type,
            Some(Refusal::StreamExhausted) => Self::exhausted,
            _ => return error,
        };
        let Error::Redis { server, step, cause, hint } = error else { return error };
        let keys = self.keys.clone();
        let named = keys.types().find_map(|(key, wanted)| find(self, key, wanted));
        Error::Redis { server, step, hint: named.map(Box::new).or(hint), cause }
    }

    fn of_another_type(&mut self, key: &str, wanted: &'static str) -> Option<Hint> {
        match self.connection.query("asking for a key's type", Command::of(&["TYPE", key])) {
            Ok(Value::SimpleString(found)) if found != wanted && found != "none" => {
                Some(Hint::KeyType { key: key.to_owned(), found, wanted })
            }
            _ => None,
        }
    }

    fn exhausted(&mut self, key: &str, wanted: &'static str) -> Option<Hint> {
        if wanted != "stream" {
            return None;
        }
        // An entry with one of the last ids, if it was not deleted.
        let search = Command::of(&["XREVRANGE", key, "+", LAST_IDS, "COUNT", "1"]);
        match self.connection.query("looking for the last id of a stream", search) {
            Ok(Value::Array(entries)) if !entries.is_empty() => Some(Hint::StreamExhausted(Some(key.to_owned()))),
            _ => None,
        }
    }

    /// The values after a leading OK.
    pub(super) fn ok_parts(&self, epoch: Epoch, doing: &'static str, reply: Value) -> Result<Vec<Value>> {
        match reply {
            Value::Array(mut parts) if parts.first().and_then(text) == Some("OK") => {
                parts.remove(0);
                Ok(parts)
            }
            other => self.fenced(epoch, doing, &other),
        }
    }

    pub(super) fn fenced<T>(&self, mine: Epoch, doing: &'static str, reply: &Value) -> Result<T> {
        match reply {
            Value::Array(parts) if parts.first().and_then(text) == Some("STALE") => {
                let found = parts.get(1).and_then(text).unwrap_or_default().to_owned();
                Err(Error::Fenced { mine, found })
            }
            _ => self.unexpected_reply(doing, reply),
        }
    }

    pub(super) fn unexpected_reply<T>(&self, doing: &'static str, reply: &Value) -> Result<T> {
        Err(self.connection.server().unexpected_reply(doing, reply))
    }
}

/// Names in the error the command that the user may not call or that the server lacks.
pub(super) fn name_the_command(error: Error, command: &str) -> Error {
    name(error, command, format!("+{}, or its key", command.to_lowercase()))
}

/// The same for a command without keys.
pub(super) fn name_the_right(error: Error, command: &str) -> Error {
    name(error, command, format!("+{}", command.to_lowercase()))
}

fn name(error: Error, command: &str, right: String) -> Error {
    let refusal = error.refusal();
    let Error::Redis { server, step, cause, hint } = error else { return error };
    let hint = match (refusal, hint.as_deref()) {
        (Some(Refusal::Right), _) => hint.map(|hint| Box::new(hint.with_rights(right))),
        (Some(Refusal::UnknownCommand), _) => Some(Box::new(Hint::Command(Some(command.to_owned())))),
        _ => hint,
    };
    Error::Redis { server, step, cause, hint }
}
