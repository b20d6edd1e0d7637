//! Reading the backlog: what a leader reads of the pending messages.

use std::time::Duration;

use redis::Value;

use super::bundle;
use super::command::Command;
use super::core::Ledger;
use super::member::{self, Body};
use super::script::ScriptCall;
use super::scripts::{FetchCall, PageCall};
use super::types::{Fetched, Page, PageRequest, Pending};
use super::value::{score, text};
use crate::base::error::Result;
use crate::base::id::{Epoch, MessageId};

impl Ledger {
    /// Reads pending messages.
    pub fn page(&mut self, epoch: Epoch, request: PageRequest) -> Result<Page> {
        let request = PageRequest { bytes: request.bytes.max(1), ..request };
        // If that fails, the script reads: what a stranger put among the bundles may be too large for a reply.
        let page = match std::mem::take(&mut self.reads_bundles) {
            true => self.page_of_bundles(epoch, request)?,
            false => None,
        };
        let page = match page {
            Some(page) => page,
            None => self.read_page(epoch, request)?,
        };
        let bundled = page.messages.iter().filter(|message| message.body.position().is_some()).count();
        self.reads_bundles = 2 * bundled > page.messages.len();
        Ok(page)
    }

    /// Finds the first pending message with `after < id <= up_to` without reading it: an empty page that ends there.
    pub fn page_without_payloads(&mut self, epoch: Epoch, after: MessageId, up_to: MessageId) -> Result<Page> {
        self.read_page(epoch, PageRequest { after, up_to, messages: 1, bytes: 0 })
    }

    /// Reads a page by the script, for which 0 bytes mean to read no payload.
    pub(super) fn read_page(&mut self, epoch: Epoch, request: PageRequest) -> Result<Page> {
        let call = self.page_call(epoch, request, 0);
        let reply = self.call("reading the backlog", call)?;
        self.to_page(epoch, request, reply)
    }

    /// See `lua/page.lua`, also for `apart`.
    pub(super) fn page_call(&self, epoch: Epoch, request: PageRequest, apart: usize) -> ScriptCall {
        let PageRequest { after, up_to, messages, bytes } = request;
        let (most_messages, most_bytes) = (messages as u64, bytes as u64);
        PageCall { my_epoch: epoch, after, up_to, most_messages, most_bytes, apart: apart as u64 }.on(&self.keys)
    }

    /// What the script has read.
    pub(super) fn to_page(&self, epoch: Epoch, request: PageRequest, reply: Value) -> Result<Page> {
        let PageRequest { after, up_to, .. } = request;
        const DOING: &str = "reading the backlog";
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
        let (mut messages, delayed) = sorted_out(members.iter().zip(counts));
        // Only a part of a bundle may be in the range.
        messages.retain(|message| after < message.id && message.id <= up_to);
        Ok(Page { read_up_to: Some(read_up_to.min(up_to)), messages, delayed })
    }

    /// Whether this user may read and add pending messages, without which it can't take a bundle apart.
    pub fn may_take_apart(&mut self) -> Result<bool> {
        let read = Command::of(&["ZRANGEBYSCORE", &self.keys.pending, "1", "0"]);
        let add = Command::of(&["ZADD", &self.keys.pending, "XX", "GT", "-inf", ""]);
        for outcome in self.connection.pipeline_each("asking for rights", vec![read, add])? {
            match outcome {
                Err(error) if error.is_denied() => return Ok(false),
                outcome => drop(outcome?),
            }
        }
        Ok(true)
    }

    /// Whether a message is pending.
    pub fn is_pending(&mut self, id: MessageId) -> Result<bool> {
        self.not_pending(&[id]).map(|missing| missing.is_empty())
    }

    /// Those of `ids` that are not pending.
    pub fn not_pending(&mut self, ids: &[MessageId]) -> Result<Vec<MessageId>> {
        const DOING: &str = "looking for pending messages";
        let count =
            |(low, high): (i64, i64)| Command::of(&["ZCOUNT", &self.keys.pending, &low.to_string(), &high.to_string()]);
        // In this order: between the two commands a message may be taken out of its bundle.
        let bundled_or_alone = |id: &MessageId| {
            let alone = bundle::score_alone(*id);
            [count(bundle::scores_with(*id)), count((alone, alone))]
        };
        let counts = ids.iter().flat_map(bundled_or_alone).collect();
        let counts = self.connection.pipeline(DOING, counts).map_err(|error| self.name_the_key(error))?;
        let mut missing = Vec::new();
        for (id, counts) in ids.iter().zip(counts.chunks_exact(2)) {
            match counts {
                [Value::Int(0), Value::Int(0)] => missing.push(*id),
                [Value::Int(_), Value::Int(_)] => {}
                other => return self.unexpected_reply(DOING, &Value::Array(other.to_vec())),
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
        let Value::BulkString(member) = member else { continue };
        match (member::decode(member), wait_of(count)) {
            (Some((id, body)), None) => messages.push(Pending { id, delivery: delivery_of(count), body }),
            (Some((id, body)), Some(wait)) => delayed.push((Pending { id, delivery: delivery_of(count), body }, wait)),
            (None, _) => {
                messages.extend(bundle::decode(member).into_iter().flatten().map(first_delivery));
            }
        }
    }
    (messages, delayed)
}

/// A message that was not delivered before, like all in bundles.
pub(super) fn first_delivery((id, body): (MessageId, Body)) -> Pending {
    Pending { id, delivery: 1, body }
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
