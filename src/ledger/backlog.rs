//! Reading the backlog: what a leader reads of the pending messages.

use std::time::Duration;

use redis::Value;

use super::command::Command;
use super::core::Ledger;
use super::member;
use super::scripts::{FetchCall, PageCall};
use super::types::{Fetched, Page, Pending};
use super::value::{score, text};
use crate::base::error::Result;
use crate::base::id::{Epoch, MessageId};

impl Ledger {
    /// Reads pending messages with `after < id <= up_to`, oldest first, up to a number and about `most_bytes`.
    ///
    /// Returns at least one message if there is one, however large.
    pub fn page(
        &mut self,
        epoch: Epoch,
        after: MessageId,
        up_to: MessageId,
        most: usize,
        most_bytes: usize,
    ) -> Result<Page> {
        self.read_page(epoch, after, up_to, most as u64, most_bytes.max(1) as u64)
    }

    /// Finds the first pending message with `after < id <= up_to` without reading it: an empty page that ends there.
    pub fn page_without_payloads(&mut self, epoch: Epoch, after: MessageId, up_to: MessageId) -> Result<Page> {
        self.read_page(epoch, after, up_to, 1, 0)
    }

    /// See `lua/page.lua`, for which `most_bytes` 0 means to read no payload.
    fn read_page(
        &mut self,
        epoch: Epoch,
        after: MessageId,
        up_to: MessageId,
        most_messages: u64,
        most_bytes: u64,
    ) -> Result<Page> {
        const DOING: &str = "reading the backlog";
        let call = PageCall { my_epoch: epoch, after, up_to, most_messages, most_bytes }.on(&self.keys);
        let reply = self.call(DOING, call)?;
        let parts = self.ok_parts(epoch, DOING, reply)?;
        let [last, counts, members @ ..] = parts.as_slice() else {
            return self.unexpected_reply(DOING, &Value::Array(parts));
        };
        let read_up_to = match last {
            Value::Nil => return Ok(Page::default()),
            last => text(last).and_then(score),
        };
        let Some(read_up_to) = read_up_to else { return self.unexpected_reply(DOING, last) };
        let counts = if let Value::Array(counts) = counts { counts.as_slice() } else { &[] };
        let counts = counts.iter().chain(std::iter::repeat(&Value::Nil));
        let (messages, delayed) = sorted_out(members.iter().zip(counts));
        Ok(Page { read_up_to: Some(read_up_to), messages, delayed })
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
                other => return self.unexpected_reply(DOING, &other),
            }
        }
        Ok(missing)
    }

    /// Reads those of `ids` that are still pending, up to about `most_bytes`. The caller has waited as long as it knows
    /// that they must.
    pub fn fetch(&mut self, epoch: Epoch, ids: &[MessageId], most_bytes: usize) -> Result<Fetched> {
        const DOING: &str = "reading messages again";
        let mut call = FetchCall { my_epoch: epoch, most_bytes: most_bytes as u64 }.on(&self.keys);
        ids.iter().for_each(|id| call.push(id));
        let reply = self.call(DOING, call)?;
        let parts = self.ok_parts(epoch, DOING, reply)?;
        match parts.split_first() {
            Some((Value::Int(looked_at), found)) => {
                let pairs = found.chunks_exact(2).map(|pair| (&pair[0], &pair[1]));
                let (messages, delayed) = sorted_out(pairs);
                Ok(Fetched { looked_at: *looked_at as usize, messages, delayed })
            }
            _ => self.unexpected_reply(DOING, &Value::Array(parts)),
        }
    }

    /// The numbers of the present deliveries of these messages, as far as they were counted.
    ///
    /// Only for messages that an earlier leader delivered: this leader's own deliveries carry their number.
    pub fn deliveries(&mut self, ids: &[MessageId]) -> Result<Vec<u16>> {
        const DOING: &str = "reading the counts of deliveries";
        let ids: Vec<String> = ids.iter().map(|id| id.0.to_string()).collect();
        let words: Vec<&str> =
            ["HMGET", &self.keys.attempts].into_iter().chain(ids.iter().map(String::as_str)).collect();
        let reply = self.connection.query(DOING, Command::of(&words)).map_err(|error| self.name_the_key(error))?;
        match &reply {
            Value::Array(counts) if counts.len() == ids.len() => Ok(counts.iter().map(delivery_of).collect()),
            _ => self.unexpected_reply(DOING, &reply),
        }
    }
}

/// Divides members with their counts into messages that may be delivered and those that must wait.
fn sorted_out<'a>(read: impl Iterator<Item = (&'a Value, &'a Value)>) -> (Vec<Pending>, Vec<(Pending, Duration)>) {
    let (mut messages, mut delayed) = (Vec::new(), Vec::new());
    for (member, count) in read {
        match (pending_of(member, count), wait_of(count)) {
            (Some(message), None) => messages.push(message),
            (Some(message), Some(wait)) => delayed.push((message, wait)),
            (None, _) => {}
        }
    }
    (messages, delayed)
}

/// A member and its count of deliveries; `None` for a foreign member.
fn pending_of(member: &Value, count: &Value) -> Option<Pending> {
    let Value::BulkString(member) = member else { return None };
    let (id, body) = member::decode(member)?;
    Some(Pending { id, delivery: delivery_of(count), body })
}

/// How long a message must still wait.
fn wait_of(count: &Value) -> Option<Duration> {
    let (_, wait_ms) = text(count)?.split_once(' ')?;
    wait_ms.parse().ok().map(Duration::from_millis)
}

/// A message's count of deliveries; without a count it is the first delivery. What follows the number is not part of
/// it.
fn delivery_of(count: &Value) -> u16 {
    let number = |count: &str| count.split(' ').next()?.parse().ok();
    text(count).and_then(number).unwrap_or(1)
}
