//! Writes a group's keys as a dispatcher would, for a trial of one consumer: `oncecast conform`.
//!
//! Only for a group that no dispatcher uses. The caller checks that with [`Ledger::trial_state`]; and
//! [`Ledger::trial_elect`] refuses while a dispatcher holds the lease.

use redis::Value;

use super::command::Command;
use super::core::Ledger;
use super::member::{self, Body};
use crate::base::error::{Error, Result};
use crate::base::id::{Epoch, MessageId};

/// What a group has in Redis before a trial.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrialState {
    /// Whether a dispatcher holds the lease.
    pub led: bool,
    /// The value of the epoch's key.
    pub epoch: Option<Vec<u8>>,
    /// The group's other keys that exist.
    pub keys: Vec<String>,
}

impl Ledger {
    /// What the group has in Redis.
    pub fn trial_state(&mut self) -> Result<TrialState> {
        const DOING: &str = "looking for the group's keys";
        let keys: Vec<String> = self.keys.types().map(|(key, _)| key.to_owned()).collect();
        let exists = keys.iter().map(|key| Command::of(&["EXISTS", key])).collect();
        let replies = self.connection.pipeline(DOING, exists)?;
        let found: Vec<String> =
            keys.into_iter().zip(replies).filter(|(_, reply)| *reply == Value::Int(1)).map(|(key, _)| key).collect();
        let epoch = match self.connection.query(DOING, Command::of(&["GET", &self.keys.epoch]))? {
            Value::BulkString(text) => Some(text),
            _ => None,
        };
        let led = found.contains(&self.keys.leader);
        let keys = found.into_iter().filter(|key| *key != self.keys.epoch && *key != self.keys.leader).collect();
        Ok(TrialState { led, epoch, keys })
    }

    /// Makes this the newest epoch, as an election would, or removes the key.
    pub fn trial_elect(&mut self, epoch: Option<Epoch>) -> Result<()> {
        const DOING: &str = "writing the epoch of a trial";
        if self.connection.query(DOING, Command::of(&["EXISTS", &self.keys.leader]))? != Value::Int(0) {
            let leader = &self.keys.leader;
            return Err(Error::Failed(format!("a dispatcher leads this group now: Redis has the key {leader}")));
        }
        let command = match epoch {
            Some(epoch) => Command::of(&["SET", &self.keys.epoch, &epoch.to_string()]),
            None => Command::of(&["DEL", &self.keys.epoch]),
        };
        self.connection.query(DOING, command).map(drop)
    }

    /// Makes a message pending. From its second delivery on, its deliveries are counted, too.
    pub fn trial_pend(&mut self, id: MessageId, payload: &[u8], delivery: u16) -> Result<()> {
        let (mut member, score) = (Vec::new(), id.0.to_string());
        member::encode(id, &Body::copied(None, payload), &mut member);
        let mut commands = vec![Command::new(4).arg("ZADD").arg(&self.keys.pending).arg(&score).arg(&member)];
        if delivery > 1 {
            commands.push(Command::of(&["HSET", &self.keys.attempts, &score, &delivery.to_string()]));
        }
        self.connection.pipeline("making a message of a trial pending", commands).map(drop)
    }

    /// Whether a message is pending, and whether its deliveries are counted.
    pub fn trial_is_pending(&mut self, id: MessageId) -> Result<(bool, bool)> {
        let score = id.0.to_string();
        let commands = vec![
            Command::of(&["ZCOUNT", &self.keys.pending, &score, &score]),
            Command::of(&["HEXISTS", &self.keys.attempts, &score]),
        ];
        let replies = self.connection.pipeline("looking for a message of a trial", commands)?;
        Ok((replies.first() == Some(&Value::Int(1)), replies.get(1) == Some(&Value::Int(1))))
    }

    /// Removes what a trial has written, and puts back the epoch that was there before.
    pub fn trial_clear(&mut self, epoch: Option<&[u8]>) -> Result<()> {
        let keys = [&self.keys.pending, &self.keys.processed, &self.keys.attempts, &self.keys.dead, &self.keys.recall];
        let mut commands: Vec<Command> = keys.iter().map(|key| Command::of(&["DEL", key])).collect();
        commands.push(match epoch {
            Some(epoch) => Command::new(3).arg("SET").arg(&self.keys.epoch).arg(epoch),
            None => Command::of(&["DEL", &self.keys.epoch]),
        });
        self.connection.pipeline("removing the keys of a trial", commands).map(drop)
    }
}
