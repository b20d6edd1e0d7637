//! What a group listens to: channels by name and patterns, or sharded channels by name. Pure.
//!
//! Sharded channels (`SSUBSCRIBE`, `SPUBLISH`) are other channels than those of `PUBLISH`, also where they have the
//! same name. A group listens to one kind only.
//!
//! Redis sends a subscriber one copy of a message for each interest that matches its channel. Each channel has one
//! *owner* among the interests: its name if that is one of them, else the first pattern that matches. Only the owner's
//! copy counts. All dispatchers with the same interests therefore count the same messages, whatever the order in which
//! Redis sends the copies of one message.

mod glob;
mod identity;
mod key_events;
mod shown;
#[cfg(test)]
mod tests;

use std::collections::HashSet;

pub use self::glob::Glob;
pub use self::identity::identity_hash;
use self::identity::{identity, identity_of_sharded, named_by_hash, sorted};
use self::key_events::{is_key_event, may_be_key_event};
use self::shown::{shown_name, shown_pattern};
use crate::base::text::beginning;
use crate::wire::MAX_CHANNEL_BYTES;

/// The most interests that one group has.
pub const MAX_INTERESTS: usize = 1_024;

/// Whose copy of a message counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The one for the channel's name.
    Name,
    /// The one for the pattern with this index.
    Pattern(usize),
}

/// See the module's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interests {
    channels: Vec<Vec<u8>>,
    patterns: Vec<Glob>,
    /// Whether the channels are sharded ones.
    sharded: bool,
    /// Whether messages carry the name of their channel.
    records: bool,
    /// The same channels, to be looked up.
    named: HashSet<Vec<u8>>,
    identity: String,
}

impl Interests {
    /// One channel by its name.
    pub fn in_channel(name: &str) -> Interests {
        Interests::of(vec![name.as_bytes().to_vec()], Vec::new()).expect("one name is few")
    }

    /// Channels and patterns. The error says what must be otherwise.
    pub fn of(channels: Vec<Vec<u8>>, patterns: Vec<Glob>) -> Result<Interests, String> {
        let all = || channels.iter().map(Vec::as_slice).chain(patterns.iter().map(Glob::text));
        match all().count() {
            1..=MAX_INTERESTS => {}
            0 => return Err("at least one channel or pattern".to_owned()),
            count => return Err(format!("at most {MAX_INTERESTS} channels and patterns together, not {count}")),
        }
        if all().any(<[u8]>::is_empty) {
            return Err("a name that is not empty".to_owned());
        }
        if let Some(long) = all().map(<[u8]>::len).find(|length| *length > MAX_CHANNEL_BYTES) {
            return Err(format!("names of at most {MAX_CHANNEL_BYTES} bytes, not {long}"));
        }
        let named: HashSet<Vec<u8>> = channels.iter().cloned().collect();
        let twice = |text: &[u8]| format!("each name once, not \"{}\" twice", text.escape_ascii());
        if let Some(text) = first_twice(channels.iter().map(Vec::as_slice)) {
            return Err(twice(text));
        }
        if let Some(text) = first_twice(patterns.iter().map(Glob::text)) {
            return Err(twice(text));
        }
        let identity = identity(&channels, &patterns);
        let records = channels.len() != 1 || !patterns.is_empty();
        Ok(Interests { channels, patterns, sharded: false, records, named, identity })
    }

    /// Sharded channels. The error says what must be otherwise.
    pub fn of_sharded(channels: Vec<Vec<u8>>) -> Result<Interests, String> {
        let plain = Interests::of(channels, Vec::new())?;
        let identity = identity_of_sharded(&plain.channels);
        Ok(Interests { sharded: true, identity, ..plain })
    }

    /// Nothing of the same kind: a lane with these only delivers what is pending.
    pub fn none(&self) -> Interests {
        self.part(Vec::new(), Vec::new())
    }

    /// Whether there is nothing to listen to.
    pub fn is_none(&self) -> bool {
        self.channels.is_empty() && self.patterns.is_empty()
    }

    /// The channels that `is_meant` accepts, without patterns; `None` if there is none.
    pub fn only(&self, is_meant: impl Fn(&[u8]) -> bool) -> Option<Interests> {
        let channels: Vec<Vec<u8>> = self.channels().filter(|name| is_meant(name)).map(<[u8]>::to_vec).collect();
        Some(self.part(channels, Vec::new())).filter(|part| !part.is_none())
    }

    /// What can match nothing but keyspace events; `None` if there is nothing.
    pub fn of_key_events(&self) -> Option<Interests> {
        if self.sharded {
            return None;
        }
        let channels = self.channels().filter(|name| is_key_event(name)).map(<[u8]>::to_vec).collect();
        let patterns = self.patterns.iter().filter(|glob| is_key_event(glob.text())).cloned().collect();
        Some(self.part(channels, patterns)).filter(|part| !part.is_none())
    }

    /// Whether there are no others than keyspace events, so that in a cluster each message stays on its node.
    pub fn are_only_key_events(&self) -> bool {
        !self.sharded && self.channels().all(is_key_event) && self.patterns.iter().all(|glob| is_key_event(glob.text()))
    }

    /// Whether in a cluster each node sends some of these messages by itself.
    pub fn are_of_nodes(&self) -> bool {
        self.is_sharded() || self.of_key_events().is_some()
    }

    /// The patterns that match keyspace events and other channels as well.
    pub fn patterns_with_key_events(&self) -> impl Iterator<Item = &[u8]> {
        self.patterns().filter(|text| may_be_key_event(text) && !is_key_event(text))
    }

    /// Some of them. Messages have their channel if they have it with all.
    fn part(&self, channels: Vec<Vec<u8>>, patterns: Vec<Glob>) -> Interests {
        let identity = if self.sharded { identity_of_sharded(&channels) } else { identity(&channels, &patterns) };
        let named = channels.iter().cloned().collect();
        Interests { channels, patterns, sharded: self.sharded, records: self.records, named, identity }
    }

    /// The same for a group that delivers into this stream. Events about the stream's key are not counted. So where
    /// such events may be heard, dispatchers that deliver elsewhere count other messages and have other interests.
    pub fn beside_stream(self, key: &str) -> Interests {
        if self.sharded || !self.channels().any(is_key_event) && !self.patterns().any(may_be_key_event) {
            return self;
        }
        let mut all = sorted(&self.channels, &self.patterns);
        all.push((b's', key.as_bytes()));
        let identity = named_by_hash(all);
        Interests { identity, ..self }
    }

    /// The channels that are named, in the order of the settings.
    pub fn channels(&self) -> impl Iterator<Item = &[u8]> {
        self.channels.iter().map(Vec::as_slice)
    }

    /// Whether the channels are sharded ones. Then there is no pattern.
    pub fn is_sharded(&self) -> bool {
        self.sharded
    }

    /// The command that publishes on such channels, and the group's markers.
    pub fn publish_command(&self) -> &'static str {
        if self.sharded { "SPUBLISH" } else { "PUBLISH" }
    }

    /// The patterns, in the order of the settings.
    pub fn patterns(&self) -> impl Iterator<Item = &[u8]> {
        self.patterns.iter().map(Glob::text)
    }

    /// Whether messages carry the name of their channel. It need not be stored where it can be but one.
    pub fn record_channels(&self) -> bool {
        self.records
    }

    /// What names them in markers: the channel, if it is one by its name, or else a fingerprint. Dispatchers with equal
    /// interests, in whatever order, have equal ones.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// The owner of a channel.
    pub fn owner(&self, channel: &[u8]) -> Option<Owner> {
        if self.is_named(channel) {
            return Some(Owner::Name);
        }
        match &self.patterns[..] {
            // Redis has matched it.
            [_] => Some(Owner::Pattern(0)),
            patterns => patterns.iter().position(|glob| glob.matches(channel)).map(Owner::Pattern),
        }
    }

    /// Whether `owner` owns the copy that Redis sent for `pattern`, or for the channel's name.
    pub fn is_owners(&self, owner: Option<Owner>, pattern: Option<&[u8]>) -> bool {
        match (owner, pattern) {
            (Some(Owner::Name), None) => true,
            (Some(Owner::Pattern(index)), Some(pattern)) => self.patterns[index].text() == pattern,
            _ => false,
        }
    }

    /// The first of them as settings take them; if they don't all fit, also their number and a fingerprint: for logs
    /// and reports. Dispatchers with equal interests, in whatever order, have equal ones.
    pub fn summary(&self) -> String {
        /// The most bytes of interests that are shown.
        const MOST_BYTES: usize = 200;
        let mut names: Vec<String> = self.channels().map(shown_name).collect();
        let mut patterns: Vec<String> = self.patterns().map(shown_pattern).collect();
        names.sort_unstable();
        patterns.sort_unstable();
        let all = [names, patterns].concat();
        if self.is_none() {
            return "nothing".to_owned();
        }
        let kind = if self.sharded { " (sharded)" } else { "" };
        let whole = all.join(",") + kind;
        if whole.len() <= MOST_BYTES {
            return whole;
        }
        let (_, fingerprint) = self.identity.rsplit_once(':').unwrap_or(("", &self.identity));
        let fingerprint = beginning(fingerprint, 8);
        format!("{}… ({} in all, fingerprint {fingerprint})", beginning(&whole, MOST_BYTES), all.len())
    }

    fn is_named(&self, channel: &[u8]) -> bool {
        match &self.channels[..] {
            [] => false,
            [only] => only == channel,
            _ => self.named.contains(channel),
        }
    }
}

fn first_twice<'a>(texts: impl Iterator<Item = &'a [u8]>) -> Option<&'a [u8]> {
    let mut seen = HashSet::new();
    texts.into_iter().find(|text| !seen.insert(*text))
}
