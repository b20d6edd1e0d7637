//! Writes a group's keys as a dispatcher would, for a trial of one consumer: `oncecast conform`.
//!
//! Only for a group that no dispatcher uses. The caller checks that with [`Ledger::trial_state`]. Each write is one
//! script, which does nothing if a dispatcher leads the group or has led it since the last write of the trial.

use redis::Value;

use super::command::Command;
use super::core::Ledger;
use super::keys::Keys;
use super::member::{self, Body};
use super::scripts::TrialCall;
use super::value::text;
use crate::base::error::{Error, Result};
use crate::base::id::MessageId;

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

/// What the epoch's key must hold for a write.
#[derive(Clone, Copy, Debug)]
pub enum EpochNow<'a> {
    /// Anything.
    Any,
    /// This, or nothing.
    Is(Option<&'a [u8]>),
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
    pub fn trial_elect(&mut self, now: EpochNow<'_>, epoch: Option<&[u8]>) -> Result<()> {
        self.trial("writing the epoch of a trial", now, epoch, false, None)
    }

    /// Makes a message pending. From its second delivery on, its deliveries are counted, too.
    pub fn trial_pend(&mut self, epoch: Option<&[u8]>, id: MessageId, payload: &[u8], delivery: u16) -> Result<()> {
        let message = Some((id, payload, delivery));
        self.trial("making a message of a trial pending", EpochNow::Is(epoch), epoch, false, message)
    }

    /// Removes what a trial has written, and writes the epoch.
    pub fn trial_clear(&mut self, now: EpochNow<'_>, epoch: Option<&[u8]>) -> Result<()> {
        self.trial("removing the keys of a trial", now, epoch, true, None)
    }

    fn trial(
        &mut self,
        doing: &'static str,
        now: EpochNow<'_>,
        epoch: Option<&[u8]>,
        clears: bool,
        message: Option<(MessageId, &[u8], u16)>,
    ) -> Result<()> {
        let expected = match now {
            EpochNow::Any => b"any".to_vec(),
            EpochNow::Is(None) => Vec::new(),
            EpochNow::Is(Some(epoch)) => [b"=", epoch].concat(),
        };
        let call = TrialCall { expected: &expected, epoch: epoch.unwrap_or_default(), clears };
        let mut call = call.on(&self.keys);
        if let Some((id, payload, delivery)) = message {
            let mut member = Vec::new();
            call.push((id, member::encode(id, &Body::copied(None, payload), &mut member)));
            call.push(u64::from(delivery));
        }
        let reply = self.call(doing, call)?;
        match text(&reply) {
            Some("OK") => Ok(()),
            Some("LED") => {
                let Keys { group, leader, .. } = &*self.keys;
                Err(Error::Failed(format!(
                    "a dispatcher leads the group {group} now, or has led it meanwhile ({leader}): nothing more was \
                     written or removed; use a trial group"
                )))
            }
            _ => self.unexpected_reply(doing, &reply),
        }
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
}
