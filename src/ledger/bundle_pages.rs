//! Pages of the backlog that consist of bundles for the most part, read by plain commands.
//!
//! For Redis they cost a fifth of what the script costs, which copies each member several times. In return only the
//! caller can judge what was read. So the script reads every other page: if there are few bundles, if a stranger put
//! something among them, if messages may have a count of deliveries, and if this leader was replaced.
//!
//! Nothing is passed over. A page ends where one of the two kinds of members was not read further. Bundles are read
//! first. If one is taken apart before the other members are read, its messages are there twice, and the script reads.
//! If they are done by then, it is as if they had been done right after the page was read.

use redis::Value;

use super::backlog::first_delivery;
use super::bundle;
use super::command::Command;
use super::core::Ledger;
use super::member;
use super::types::{Page, Pending};
use super::value::text;
use crate::base::bundle::{BUNDLE_MESSAGES, BundlePosition, MAX_BUNDLE_BYTES};
use crate::base::error::Result;
use crate::base::id::{Epoch, MessageId};

/// With fewer bundles in a page, the script reads it.
const FEWEST_BUNDLES: usize = 8;
/// The most members of their own that are read with the bundles. It begins with one, and grows while they are small,
/// because how large the next ones are is not known.
const MOST_ALONE: usize = 32;

/// A message, and the id by which it is in order. A member of a stranger may name another one.
struct Found {
    place: MessageId,
    message: Pending,
}

/// The messages of one kind of members, in order.
struct Kind {
    found: Vec<Found>,
    /// Whether there may be more of them.
    goes_on: bool,
}

impl Ledger {
    /// The same as [`page`](Ledger::page), or `None` if the script must read.
    pub(super) fn page_of_bundles(
        &mut self,
        epoch: Epoch,
        after: MessageId,
        up_to: MessageId,
        most: usize,
        most_bytes: usize,
    ) -> Result<Option<Page>> {
        const DOING: &str = "reading the backlog";
        let most_bundles = most.div_ceil(BUNDLE_MESSAGES).min(most_bytes / MAX_BUNDLE_BYTES);
        if most_bundles < FEWEST_BUNDLES {
            return Ok(None);
        }
        let (keys, most_alone, first) = (&*self.keys, self.alone_at_once, MessageId(after.0.saturating_add(1)));
        let read = |low: i64, high: i64, most: usize| {
            let (low, high, most) = (low.to_string(), high.to_string(), most.to_string());
            Command::of(&["ZRANGEBYSCORE", &keys.pending, &low, &high, "WITHSCORES", "LIMIT", "0", &most])
        };
        let commands = vec![
            read(bundle::scores_with(first).0, bundle::scores_with(up_to).1, most_bundles),
            read(bundle::score_alone(first), bundle::score_alone(up_to), most_alone),
            Command::of(&["EXISTS", &keys.attempts]),
            Command::of(&["GET", &keys.epoch]),
        ];
        let replies = self.connection.pipeline(DOING, commands).map_err(|error| self.name_the_key(error))?;
        let [Value::Array(bundles), Value::Array(alone), attempts, leader] = replies.as_slice() else {
            return self.unexpected_reply(DOING, &Value::Array(replies));
        };
        self.alone_at_once = if 4 * bytes(alone) < most_bytes { MOST_ALONE.min(2 * most_alone) } else { 1 };
        let leads = text(leader) == Some(epoch.0.to_string().as_str());
        let may_be_counted = !alone.is_empty() && *attempts != Value::Int(0);
        let kinds = bundled(bundles, most_bundles).zip(others(alone, most_alone));
        let Some((bundled, others)) = kinds.filter(|_| leads && !may_be_counted) else { return Ok(None) };
        let mut found = in_order([bundled, others], after, up_to);
        let is_twice = found.windows(2).any(|two| two[0].place == two[1].place);
        if is_twice || found.len() < FEWEST_BUNDLES * BUNDLE_MESSAGES {
            return Ok(None);
        }
        found.truncate(count(&found, most, most_bytes));
        let read_up_to = found.last().map(|found| found.place);
        let messages = found.into_iter().map(|found| found.message).collect();
        Ok(Some(Page { read_up_to, messages, delayed: Vec::new() }))
    }
}

fn bytes(words: &[Value]) -> usize {
    let bytes = |word: &Value| if let Value::BulkString(word) = word { word.len() } else { 0 };
    words.iter().map(bytes).sum()
}

/// The messages of so many bundles at most; `None` if one of these is a stranger's, or has not the score of its last
/// message.
fn bundled(members: &[Value], most: usize) -> Option<Kind> {
    let mut found = Vec::with_capacity(members.len() / 2 * BUNDLE_MESSAGES);
    for pair in members.chunks_exact(2) {
        let Value::BulkString(member) = &pair[0] else { return None };
        let messages = bundle::decode(member)?;
        if text(&pair[1]) != Some(bundle::score_of(messages.last()?.0).to_string().as_str()) {
            return None;
        }
        found.extend(messages.into_iter().map(|message| Found { place: message.0, message: first_delivery(message) }));
    }
    Some(Kind { found, goes_on: members.len() == 2 * most })
}

/// The messages of so many other members at most; `None` if one of these is no message.
fn others(members: &[Value], most: usize) -> Option<Kind> {
    let other = |pair: &[Value]| {
        let Value::BulkString(member) = &pair[0] else { return None };
        let place = MessageId(text(&pair[1])?.parse::<f64>().ok()? as u64);
        Some(Found { place, message: first_delivery(member::decode(member)?) })
    };
    let found = members.chunks_exact(2).map(other).collect::<Option<_>>()?;
    Some(Kind { found, goes_on: members.len() == 2 * most })
}

/// All messages in the range, as far as both kinds were read.
fn in_order(kinds: [Kind; 2], after: MessageId, up_to: MessageId) -> Vec<Found> {
    let last = |kind: &Kind| kind.found.last().map_or(after, |found| found.place);
    let end = kinds.iter().filter(|kind| kind.goes_on).map(last).chain([up_to]).min().unwrap_or(up_to);
    let is_read =
        |Found { place, message }: &Found| after < *place && *place <= end && after < message.id && message.id <= up_to;
    let mut found: Vec<Found> = kinds.into_iter().flat_map(|kind| kind.found).filter(is_read).collect();
    found.sort_by_key(|found| found.place);
    found
}

/// How many of these make up a page: no more than so many messages, and about so many bytes, but only whole bundles.
fn count(found: &[Found], most: usize, most_bytes: usize) -> usize {
    let mut bytes = 0;
    let fits = |(at, Found { message, .. }): &(usize, &Found)| {
        let continues = message.body.position().is_some_and(|position: BundlePosition| !position.is_first());
        let fits = continues || *at < most && bytes < most_bytes;
        bytes += message.body.bytes();
        fits
    };
    found.iter().enumerate().take_while(fits).count()
}
