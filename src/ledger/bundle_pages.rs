//! Pages of the backlog that consist of bundles for the most part. A plain command reads the bundles, which costs Redis
//! a small part of what a script costs, because that copies each member several times. The script reads the other
//! members between them, in the same round trip.
//!
//! Nothing is passed over. A page ends where one of the two kinds of members was not read further. Bundles are read
//! first. If one is taken apart before the other members are read, its messages are there twice, and the script reads
//! the page alone. If they are done by then, it is as if they had been done right after the page was read.

use redis::Value;

use super::backlog::first_delivery;
use super::bundle;
use super::command::Command;
use super::core::Ledger;
use super::types::{Page, PageRequest, Pending};
use super::value::text;
use crate::base::bundle::{BUNDLE_MESSAGES, MAX_BUNDLE_BYTES};
use crate::base::error::Result;
use crate::base::id::{Epoch, MessageId};

impl Ledger {
    /// The same as [`page`](Ledger::page), or `None` if the script must read it alone: also if a stranger has put
    /// something among the bundles.
    pub(super) fn page_of_bundles(&mut self, epoch: Epoch, request: PageRequest) -> Result<Option<Page>> {
        const DOING: &str = "reading the backlog";
        let PageRequest { after, up_to, messages: most, bytes: most_bytes } = request;
        let most_bundles = most.div_ceil(BUNDLE_MESSAGES).min(most_bytes / MAX_BUNDLE_BYTES).max(1);
        let low = bundle::scores_with(MessageId(after.0.saturating_add(1))).0.to_string();
        let high = bundle::scores_with(up_to).1.to_string();
        let count = most_bundles.to_string();
        let words = ["ZRANGEBYSCORE", &self.keys.pending, &low, &high, "WITHSCORES", "LIMIT", "0", &count];
        let others = self.page_call(epoch, request, most_bundles);
        let (bundles, others) = self.read_and_call(DOING, Command::of(&words), others)?;
        let Value::Array(bundles) = &bundles else { return self.unexpected_reply(DOING, &bundles) };
        let others = self.to_page(epoch, request, others)?;
        let Some(bundled) = bundled(bundles) else { return Ok(None) };
        let mut end = others.read_up_to.unwrap_or(up_to);
        if let Some(last) = bundled.last().filter(|_| bundles.len() == 2 * most_bundles) {
            end = end.min(last.id);
        }
        let (mut messages, mut delayed) = ([bundled, others.messages].concat(), others.delayed);
        messages.retain(|message| after < message.id && message.id <= end);
        messages.sort_by_key(|message| message.id);
        if messages.windows(2).any(|two| two[0].id == two[1].id) {
            return Ok(None);
        }
        let fitting = fitting(&messages, most, most_bytes);
        if fitting < messages.len() {
            messages.truncate(fitting);
            end = messages.last().map_or(end, |last| last.id);
        }
        delayed.retain(|(message, _)| message.id <= end);
        let last = messages.iter().chain(delayed.iter().map(|(message, _)| message)).map(|message| message.id).max();
        let read_up_to = last.or(Some(end).filter(|end| *end < up_to));
        Ok(Some(Page { read_up_to, messages, delayed }))
    }
}

/// The messages of bundles; `None` if one of these is a stranger's, or has not the score of its last message.
fn bundled(members: &[Value]) -> Option<Vec<Pending>> {
    let mut messages = Vec::with_capacity(members.len() / 2 * BUNDLE_MESSAGES);
    for pair in members.chunks_exact(2) {
        let Value::BulkString(member) = &pair[0] else { return None };
        let bundle = bundle::decode(member)?;
        if text(&pair[1]) != Some(bundle::score_of(bundle.last()?.0).to_string().as_str()) {
            return None;
        }
        messages.extend(bundle.into_iter().map(first_delivery));
    }
    Some(messages)
}

/// How many of these make up a page: no more than so many messages, and about so many bytes, but only whole bundles.
fn fitting(messages: &[Pending], most: usize, most_bytes: usize) -> usize {
    let mut bytes = 0;
    let fits = |(at, message): &(usize, &Pending)| {
        let continues = message.body.position().is_some_and(|position| !position.is_first());
        let fits = continues || *at == 0 || *at < most && bytes < most_bytes;
        bytes += message.body.bytes();
        fits
    };
    messages.iter().enumerate().take_while(fits).count()
}
