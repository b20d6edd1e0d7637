//! Everything that knows a Redis key: the keys, the scripts, and one typed operation for each thing done with them.
//!
//! A [`Ledger`] is one connection and belongs to one thread. Each operation is one script, one transaction or one command, so
//! that it happens whole or not at all (how, see `lua/steps.lua`); those of the leader carry its epoch and are refused with
//! [`Error::Fenced`] once another dispatcher leads. An operation
//! is never repeated here: after an [`Error::Redis`] its outcome is unknown, and only the caller knows what that means.

pub mod command;
mod commit;
mod connection;
mod cursor;
mod epoch;
mod intake;
mod keys;
mod leadership;
mod member;
pub mod overview;
pub mod reading;
pub mod resp;
mod script;
mod server;
pub mod server_check;
mod split;
pub mod subscription;
mod transaction;
mod types;
mod url;

use std::sync::Arc;
use std::time::Duration;

use redis::Value;

use self::connection::error_of;
use self::intake::Astray;
use self::script::{Script, ScriptCall};
use self::transaction::{Guard, Guarded};
use crate::base::error::{Error, Result};
use crate::base::id::{DispatcherId, Epoch, MessageId};
use crate::base::refusal::Refusal;

pub use self::command::{Command, Words};
pub use self::commit::{Committed, Raise, Recorded, batches, parts};
pub use self::connection::Connection;
pub use self::cursor::{Cursor, Marker, Position};
pub use self::epoch::MOST_EPOCH_BYTES;
pub use self::keys::{GROUP_FORM, Keys, is_group};
pub use self::member::{decode as decode_member, encode as encode_member, encoded_len as member_len};
pub use self::server::Server;
pub use self::split::{Split, Splitter};
pub use self::types::{
    Acquire, Arrival, Attempt, Commit, Gap, Intake, Page, Pending, Recall, Returned, Settled, Settlement, Verdict,
};

/// A message's body, shared between the ring, the intake and the courier. Those that came together share one allocation.
pub type Payload = tungstenite::Bytes;

/// The most messages one script takes in, commits or settles: Redis does nothing else meanwhile.
pub const MAX_BATCH_MESSAGES: usize = 1_000;
/// The most payload bytes one script carries, if it has more than one message.
pub const MAX_BATCH_BYTES: usize = 1 << 20;
/// The most words that a command has, if it is about more than one message: there are services and proxies that refuse
/// more than 4,000.
pub const MAX_BATCH_WORDS: usize = 3_900;
/// The most values one result has; Lua's `unpack` takes 7999.
pub const MAX_RESULT_FIELDS: usize = 3_900;
/// How many entries the record of gaps keeps.
pub const MAX_GAPS: usize = 10_000;

/// A script that relies on `lua/steps.lua`.
macro_rules! with_steps {
    ($file:literal) => {
        Script::new(concat!(include_str!("lua/steps.lua"), include_str!($file)))
    };
}

static ACQUIRE: Script = with_steps!("lua/acquire.lua");
static RENEW: Script = Script::new(include_str!("lua/renew.lua"));
static RELEASE: Script = Script::new(include_str!("lua/release.lua"));
static INTAKE: Script = with_steps!("lua/intake.lua");
static PUT_BACK: Script = with_steps!("lua/put_back.lua");
static REWIND: Script = Script::new(include_str!("lua/rewind.lua"));
static WITHDRAW: Script = Script::new(include_str!("lua/withdraw.lua"));
static COMMIT: Script = Script::new(include_str!("lua/commit.lua"));
static PAGE: Script = Script::new(include_str!("lua/page.lua"));
static FETCH: Script = with_steps!("lua/fetch.lua");
static SETTLE: Script = with_steps!("lua/settle.lua");
static COUNT: Script = Script::new(include_str!("lua/count.lua"));
static CONSUMERS: Script = Script::new(include_str!("lua/consumers.lua"));
static MARKER: Script = Script::new(include_str!("lua/marker.lua"));
static GAP: Script = Script::new(include_str!("lua/gap.lua"));

/// A group's state in Redis, through one connection.
pub struct Ledger {
    connection: Connection,
    keys: Arc<Keys>,
    /// Watches the epoch and the cursor, for a leader's intake.
    fence: Guard,
    /// Watches the recall, for a consumer's commits.
    recall: Guard,
    /// The number of the connection on which the last intake succeeded, if it did, and the cursor that it left.
    vouched: Option<(u64, Cursor)>,
    /// The number of the connection on which an intake last succeeded.
    taken_on: Option<u64>,
    /// Cursors that attempts at the present batch may have written: their outcome is unknown.
    doubts: Vec<Cursor>,
    /// The highest last id of cursors that earlier attempts of unknown outcome may have written or may yet write.
    spent: Option<MessageId>,
    /// What an intake left to be put right.
    astray: Option<Astray>,
}

impl Ledger {
    /// The group's ledger on a server, waiting at most `timeout` for each reply. Opens nothing yet.
    pub fn new(server: Server, keys: Arc<Keys>, timeout: Duration) -> Ledger {
        Ledger::over(Connection::new(server, timeout), keys)
    }

    fn over(connection: Connection, keys: Arc<Keys>) -> Ledger {
        let fence = Guard::new(Guarded {
            key: keys.epoch.clone(),
            also: Some(keys.cursor.clone()),
            written: vec![(keys.pending.clone(), "zset")],
        });
        let recall = Guard::new(Guarded {
            key: keys.recall.clone(),
            also: None,
            written: vec![(keys.pending.clone(), "zset"), (keys.processed.clone(), "stream")],
        });
        Ledger {
            connection,
            keys,
            fence,
            recall,
            vouched: None,
            taken_on: None,
            doubts: Vec::new(),
            spent: None,
            astray: None,
        }
    }

    /// The group's keys.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The number of the connection that is open; `None` if none is.
    pub fn connection_number(&self) -> Option<u64> {
        self.connection.number()
    }

    /// Whether the connection has stood since the last intake that succeeded: so Redis has not started anew since.
    pub fn is_uninterrupted(&self) -> bool {
        self.taken_on.is_some() && self.taken_on == self.connection.number()
    }

    /// The connection, for commands on no key of the group.
    pub fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// Whether the server answers: also with a refusal.
    pub fn is_answered(&mut self) -> bool {
        let answer = self.connection.query("asking whether it is there", Command::of(&["PING"]));
        answer.map_or_else(|error| error.refusal().is_some(), |_| true)
    }

    /// Says how a dispatcher is, for onlookers; forgotten after `ttl` unless said again.
    pub fn report(&mut self, id: &DispatcherId, report: &str, ttl: Duration) -> Result<()> {
        let key = format!("{}{id}", self.keys.status_prefix);
        let set = Command::of(&["SET", &key, report, "PX", &ttl.as_millis().to_string()]);
        self.connection.query("reporting", set).map(drop)
    }

    /// The dispatcher is gone.
    pub fn end_reports(&mut self, id: &DispatcherId) -> Result<()> {
        let key = format!("{}{id}", self.keys.status_prefix);
        self.connection.query("ending the reports", Command::of(&["DEL", &key])).map(drop)
    }

    /// How far the channel has been taken in. What no dispatcher can have written counts as not there.
    pub fn cursor(&mut self) -> Result<Option<Cursor>> {
        let get = Command::of(&["GET", &self.keys.cursor]);
        let reply = self.connection.query("reading the cursor", get).map_err(|error| self.name_the_key(error))?;
        Ok(text(&reply).and_then(|cursor| cursor.parse().ok()))
    }

    /// Reads pending messages with `after < id <= up_to`, oldest first, up to a number and about `most_bytes`.
    ///
    /// At least one message is given if there is one, however large; with `most_bytes` 0 none, only where the first one is.
    pub fn page(
        &mut self,
        epoch: Epoch,
        after: MessageId,
        up_to: MessageId,
        most: usize,
        most_bytes: usize,
    ) -> Result<Page> {
        let keys = self.keys.clone();
        let keys_used = [keys.epoch.as_str(), &keys.pending, &keys.attempts];
        let call = ScriptCall::new(&keys_used).show(epoch).show(after.0).show(up_to.0).show(most).show(most_bytes);
        let reply = self.call("reading the backlog", &PAGE, call)?;
        let parts = self.ok_parts(epoch, "reading the backlog", reply)?;
        let [last, counts, members @ ..] = parts.as_slice() else {
            return self.surprise("reading the backlog", &Value::Array(parts));
        };
        let read_up_to = match last {
            Value::Nil => return Ok(Page { read_up_to: None, messages: Vec::new() }),
            last => text(last).and_then(score),
        };
        let Some(read_up_to) = read_up_to else { return self.surprise("reading the backlog", last) };
        let counts = if let Value::Array(counts) = counts { counts.as_slice() } else { &[] };
        let counts = counts.iter().chain(std::iter::repeat(&Value::Nil));
        let messages = members.iter().zip(counts).filter_map(|(member, count)| pending_of(member, count)).collect();
        Ok(Page { read_up_to: Some(read_up_to), messages })
    }

    /// Whether a message is pending.
    pub fn is_pending(&mut self, id: MessageId) -> Result<bool> {
        self.not_pending(&[id]).map(|missing| missing.is_empty())
    }

    /// Those of `ids` that are not pending.
    pub fn not_pending(&mut self, ids: &[MessageId]) -> Result<Vec<MessageId>> {
        const DOING: &str = "looking for pending messages";
        let count = |id: &MessageId| {
            let score = id.0.to_string();
            Command::of(&["ZCOUNT", &self.keys.pending, &score, &score])
        };
        let counts = ids.iter().map(count).collect();
        let counts = self.connection.pipeline(DOING, counts).map_err(|error| self.name_the_key(error))?;
        let mut missing = Vec::new();
        for (id, count) in ids.iter().zip(counts) {
            match count {
                Value::Int(0) => missing.push(*id),
                Value::Int(_) => {}
                other => return self.surprise(DOING, &other),
            }
        }
        Ok(missing)
    }

    /// Reads those of `ids` that are still pending, up to about `most_bytes`.
    ///
    /// Gives how many of `ids` were looked at, at least one, and what was found.
    pub fn fetch(&mut self, epoch: Epoch, ids: &[MessageId], most_bytes: usize) -> Result<(usize, Vec<Pending>)> {
        let keys = self.keys.clone();
        let keys_used = [keys.epoch.as_str(), &keys.pending, &keys.attempts];
        let mut call = ScriptCall::new(&keys_used).show(epoch).show(most_bytes);
        ids.iter().for_each(|id| call.push_number(id.0));
        let reply = self.call("reading messages again", &FETCH, call)?;
        let parts = self.ok_parts(epoch, "reading messages again", reply)?;
        match parts.split_first() {
            Some((Value::Int(looked_at), found)) => Ok((
                *looked_at as usize,
                found.chunks_exact(2).filter_map(|pair| pending_of(&pair[0], &pair[1])).collect(),
            )),
            _ => self.surprise("reading messages again", &Value::Array(parts)),
        }
    }

    /// Settles messages that came back: counts failed deliveries, and buries what has had its last. Repeating the call
    /// does no harm: deliveries are counted by their numbers.
    pub fn settle(&mut self, epoch: Epoch, max_deliveries: u32, batch: &[Returned]) -> Result<Settlement> {
        const DOING: &str = "settling returned messages";
        let keys = self.keys.clone();
        let keys_used = [keys.epoch.as_str(), &keys.pending, &keys.attempts, &keys.dead, &keys.recall];
        let mut call = ScriptCall::new(&keys_used).show(epoch).show(max_deliveries);
        for Returned { id, verdict, delivery, consumer, reason, let_go } in batch {
            call.push_number(id.0);
            call.push_bytes(verdict.as_str());
            call.push_bytes(if *let_go { "let-go" } else { "held" });
            call.push_shown(delivery);
            call.push_bytes(consumer.as_bytes());
            call.push_bytes(reason.as_bytes());
        }
        let reply = self.call(DOING, &SETTLE, call)?;
        let parts = self.ok_parts(epoch, DOING, reply)?;
        let (outcomes, refused) = parts.split_at(batch.len().min(parts.len()));
        let settled: Option<Vec<_>> = outcomes
            .iter()
            .map(|part| match part {
                Value::Int(0) => Some(Settled::Gone),
                Value::Int(-1) => Some(Settled::Buried),
                Value::Int(-2) => Some(Settled::Unburied),
                Value::Int(delivery) => Some(Settled::Again((*delivery).clamp(1, u16::MAX.into()) as u16)),
                _ => None,
            })
            .collect();
        let Some(settled) = settled.filter(|settled| settled.len() == batch.len()) else {
            return self.surprise(DOING, &Value::Array(parts));
        };
        let refused = match refused {
            [Value::BulkString(text)] => {
                let refusal = self.connection.refusal(DOING, error_of(text.strip_prefix(b"-").unwrap_or(text)));
                Some(self.name_the_key(name_the_command(refusal, Some("XADD"))))
            }
            _ => None,
        };
        Ok(Settlement { settled, refused })
    }

    /// The numbers that the present deliveries of these messages have, as far as they were counted.
    ///
    /// Only for what was handed out by an earlier leader: a delivery of one's own has its number with it.
    pub fn deliveries(&mut self, ids: &[MessageId]) -> Result<Vec<u16>> {
        const DOING: &str = "reading the counts of deliveries";
        let ids: Vec<String> = ids.iter().map(|id| id.0.to_string()).collect();
        let words: Vec<&str> =
            ["HMGET", &self.keys.attempts].into_iter().chain(ids.iter().map(String::as_str)).collect();
        let reply = self.connection.query(DOING, Command::of(&words)).map_err(|error| self.name_the_key(error))?;
        match &reply {
            Value::Array(counts) if counts.len() == ids.len() => Ok(counts.iter().map(delivery_of).collect()),
            _ => self.surprise(DOING, &reply),
        }
    }

    /// Counts deliveries that went out again after a lost link, each with its number. Messages that are done are passed
    /// over.
    pub fn count_deliveries(&mut self, epoch: Epoch, sent: &[(MessageId, u16)]) -> Result<()> {
        let keys = self.keys.clone();
        let keys_used = [keys.epoch.as_str(), &keys.pending, &keys.attempts];
        let mut call = ScriptCall::new(&keys_used).show(epoch);
        for (id, delivery) in sent {
            call.push_number(id.0);
            call.push_shown(delivery);
        }
        self.call_for_ok(epoch, "counting deliveries", &COUNT, call)
    }

    /// Rewrites the list of connected consumers.
    pub fn set_consumers(&mut self, epoch: Epoch, consumers: &[String]) -> Result<()> {
        let keys = self.keys.clone();
        let keys_used = [keys.epoch.as_str(), &keys.consumers];
        let mut call = ScriptCall::new(&keys_used).show(epoch);
        consumers.iter().for_each(|consumer| call.push_bytes(consumer.as_bytes()));
        self.call_for_ok(epoch, "listing the consumers", &CONSUMERS, call)
    }

    /// Records a gap.
    pub fn record_gap(&mut self, epoch: Epoch, gap: &Gap) -> Result<()> {
        let keys = self.keys.clone();
        let keys_used = [keys.epoch.as_str(), &keys.gaps];
        let mut call = ScriptCall::new(&keys_used).show(epoch).show(MAX_GAPS);
        let count = gap.count.map_or("unknown".to_owned(), |count| count.to_string());
        for (name, value) in [
            ("reason", gap.reason),
            ("dispatcher", gap.dispatcher.as_str()),
            ("begin", &gap.begin),
            ("end", &gap.end),
            ("count", &count),
        ] {
            call.push_bytes(name.as_bytes());
            call.push_bytes(value);
        }
        call.push_bytes(b"epoch");
        call.push_shown(epoch);
        self.call_for_ok(epoch, "recording a gap", &GAP, call)
    }

    fn call(&mut self, doing: &'static str, script: &Script, call: ScriptCall) -> Result<Value> {
        self.connection.call(doing, script, &call).map_err(|error| {
            let command = script::command_at(script.text, &error.to_string());
            let error = name_the_command(error, command.as_deref());
            self.name_the_key(error)
        })
    }

    fn call_for_ok(&mut self, epoch: Epoch, doing: &'static str, script: &Script, call: ScriptCall) -> Result<()> {
        let reply = self.call(doing, script, call)?;
        if text(&reply) == Some("OK") { Ok(()) } else { self.fenced(epoch, doing, &reply) }
    }

    /// Redis does not say which key has the wrong type: find out, so that the message can.
    fn name_the_key(&mut self, error: Error) -> Error {
        if !error.to_string().contains("WRONGTYPE") {
            return error;
        }
        let Error::Redis { server, doing, source, hint } = error else { return error };
        let keys = self.keys.clone();
        let wrong = keys.types().into_iter().find_map(|(key, wanted)| {
            match self.connection.query("asking for a key's type", Command::of(&["TYPE", key])) {
                Ok(Value::SimpleString(kind)) if kind != wanted && kind != "none" => Some(format!(
                    " (key {key} is a {kind}, it must be a {wanted}: rename or delete it, or choose another --group)"
                )),
                _ => None,
            }
        });
        Error::Redis { server, doing, hint: wrong.unwrap_or(hint), source }
    }

    fn cursor_of(&self, value: &Value) -> Result<Option<Cursor>> {
        match (value, text(value)) {
            (Value::Nil, _) => Ok(None),
            (_, Some(cursor)) if cursor.parse::<Cursor>().is_ok() => Ok(cursor.parse().ok()),
            _ => self.surprise("reading the cursor", value),
        }
    }

    /// The values after a leading OK.
    fn ok_parts(&self, epoch: Epoch, doing: &'static str, reply: Value) -> Result<Vec<Value>> {
        match reply {
            Value::Array(mut parts) if parts.first().and_then(text) == Some("OK") => {
                parts.remove(0);
                Ok(parts)
            }
            other => self.fenced(epoch, doing, &other),
        }
    }

    fn fenced<T>(&self, mine: Epoch, doing: &'static str, reply: &Value) -> Result<T> {
        match reply {
            Value::Array(parts) if parts.first().and_then(text) == Some("STALE") => {
                let found = parts.get(1).and_then(text).unwrap_or_default().to_owned();
                Err(Error::Fenced { mine, found })
            }
            _ => self.surprise(doing, reply),
        }
    }

    fn surprise<T>(&self, doing: &'static str, reply: &Value) -> Result<T> {
        Err(self.connection.server().surprise(doing, reply))
    }
}

/// Says which right is missing, or which command.
fn name_the_command(error: Error, command: Option<&str>) -> Error {
    let (refusal, Some(command)) = (error.refusal(), command) else { return error };
    let Error::Redis { server, doing, source, hint } = error else { return error };
    let hint = match refusal {
        Some(Refusal::Right) => format!(
            " (the user in --redis-url / ONCECAST_REDIS_URL lacks a right: +{}, or its key; ACL LOG shows which)",
            command.to_lowercase()
        ),
        Some(Refusal::UnknownCommand) => {
            format!(" (the server lacks a command, {command}: it was renamed, or is older than 6.2)")
        }
        _ => hint,
    };
    Error::Redis { server, doing, source, hint }
}

/// A string of any kind, if it is UTF-8.
fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        Value::Okay => Some("OK"),
        _ => None,
    }
}

/// A score as an id. Rounded up: a foreign member may have a score between two ids.
fn score(text: &str) -> Option<MessageId> {
    text.parse::<f64>().ok().map(|score| MessageId(score.ceil() as u64))
}

/// A member and its count of deliveries; `None` for a member that is none of ours.
fn pending_of(member: &Value, count: &Value) -> Option<Pending> {
    let Value::BulkString(member) = member else { return None };
    let (id, payload) = member::decode(member)?;
    Some(Pending { id, delivery: delivery_of(count), payload: Payload::copy_from_slice(payload) })
}

/// What a message's count of deliveries says; without one it is the first.
fn delivery_of(count: &Value) -> u16 {
    text(count).and_then(|count| count.parse().ok()).unwrap_or(1)
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
