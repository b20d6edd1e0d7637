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

use std::collections::HashSet;

pub use self::glob::Glob;
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

/// A name as a setting takes it: a name that looks like a pattern is not one.
fn shown_name(name: &[u8]) -> String {
    match std::str::from_utf8(name) {
        Ok(text) => {
            let escape =
                |letter: char| if "*?[]\\,".contains(letter) { format!("\\{letter}") } else { letter.to_string() };
            text.chars().map(escape).collect()
        }
        Err(_) => shown_bytes(name),
    }
}

/// A pattern as a setting takes it.
fn shown_pattern(text: &[u8]) -> String {
    String::from_utf8(text.to_vec()).unwrap_or_else(|_| shown_bytes(text))
}

fn shown_bytes(bytes: &[u8]) -> String {
    let escape = |byte: &u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b':' | b'-' | b'_' => char::from(*byte).to_string(),
        _ => format!("\\x{byte:02x}"),
    };
    bytes.iter().map(escape).collect()
}

fn first_twice<'a>(texts: impl Iterator<Item = &'a [u8]>) -> Option<&'a [u8]> {
    let mut seen = HashSet::new();
    texts.into_iter().find(|text| !seen.insert(*text))
}

/// Distinguishes interests by their identity, in a few bytes.
pub fn identity_hash(identity: &str) -> u64 {
    identity.bytes().fold(FNV_BASIS, fnv_1a) as u64
}

fn identity_of_sharded(channels: &[Vec<u8>]) -> String {
    let mut all: Vec<(u8, &[u8])> = channels.iter().map(|name| (b'h', name.as_slice())).collect();
    all.sort_unstable();
    named_by_hash(all)
}

fn identity(channels: &[Vec<u8>], patterns: &[Glob]) -> String {
    if let ([channel], []) = (channels, patterns)
        && let Ok(channel) = std::str::from_utf8(channel)
    {
        return channel.to_owned();
    }
    named_by_hash(sorted(channels, patterns))
}

/// What all keyspace events' channels begin with.
const KEY_EVENTS: &[u8] = b"__key";

fn is_key_event(channel: &[u8]) -> bool {
    channel.starts_with(KEY_EVENTS)
}

/// Whether a pattern may match the channel of a keyspace event, by its beginning up to the first special character.
fn may_be_key_event(pattern: &[u8]) -> bool {
    let plain = pattern.split(|byte| b"*?[\\".contains(byte)).next().unwrap_or_default();
    let both = plain.len().min(KEY_EVENTS.len());
    plain[..both] == KEY_EVENTS[..both] && (plain.len() < pattern.len() || is_key_event(plain))
}

/// Each interest with its kind.
fn sorted<'a>(channels: &'a [Vec<u8>], patterns: &'a [Glob]) -> Vec<(u8, &'a [u8])> {
    let mut all: Vec<(u8, &[u8])> = channels.iter().map(|name| (b'c', name.as_slice())).collect();
    all.extend(patterns.iter().map(|glob| (b'p', glob.text())));
    all.sort_unstable();
    all
}

fn named_by_hash(all: Vec<(u8, &[u8])>) -> String {
    let fold = |hash, (kind, text): (u8, &[u8])| {
        let length = (text.len() as u64).to_be_bytes();
        [kind].iter().chain(&length).chain(text).fold(hash, |hash, byte| fnv_1a(hash, *byte))
    };
    format!("interests:{:032x}", all.into_iter().fold(FNV_BASIS, fold))
}

/// The start of FNV-1a with 128 bits (Fowler, Noll, Vo). It only has to tell the settings of one group apart.
const FNV_BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;

fn fnv_1a(hash: u128, byte: u8) -> u128 {
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    (hash ^ u128::from(byte)).wrapping_mul(PRIME)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn interests(channels: &[&str], patterns: &[&str]) -> Interests {
        let globs = patterns.iter().map(|text| Glob::parse(text.as_bytes()).expect(text)).collect();
        Interests::of(channels.iter().map(|name| name.as_bytes().to_vec()).collect(), globs).expect("good ones")
    }

    #[test]
    fn a_name_owns_its_channel_and_else_the_first_pattern() {
        let these = interests(&["orders.eu"], &["orders.*", "*.us", "*"]);
        let owners = |channel: &str| {
            let copies = [None, Some("orders.*"), Some("*.us"), Some("*")];
            copies.map(|copy| these.is_owners(these.owner(channel.as_bytes()), copy.map(str::as_bytes)))
        };
        assert_eq!(owners("orders.eu"), [true, false, false, false]);
        assert_eq!(owners("orders.us"), [false, true, false, false]);
        assert_eq!(owners("invoices.us"), [false, false, true, false]);
        assert_eq!(owners("x"), [false, false, false, true]);
    }

    #[test]
    fn only_a_channel_by_its_name_needs_no_channel_with_each_message() {
        assert!(!interests(&["a"], &[]).record_channels());
        for (channels, patterns) in [(&["a", "b"][..], &[][..]), (&[], &["a"]), (&["a"], &["b*"])] {
            assert!(interests(channels, patterns).record_channels());
        }
    }

    #[test]
    fn equal_interests_are_named_alike() {
        assert_eq!(interests(&["orders"], &[]).identity(), "orders");
        let some = interests(&["a", "b"], &["c*"]);
        assert_eq!(some.identity(), interests(&["b", "a"], &["c*"]).identity());
        for other in [interests(&["a"], &["c*"]), interests(&["a", "b", "c*"], &[]), interests(&["ab"], &["c*"])] {
            assert_ne!(some.identity(), other.identity());
        }
        // Dispatchers of different versions must agree.
        assert_eq!(some.identity(), "interests:c9e3bc23c9eec6cdbe28dd2a8dc00237");
    }

    #[test]
    fn a_sharded_channel_is_another_one_than_that_of_its_name() {
        let sharded =
            |names: &[&str]| Interests::of_sharded(names.iter().map(|name| name.as_bytes().to_vec()).collect());
        let one = sharded(&["orders"]).expect("a good one");
        let plain = interests(&["orders"], &[]);
        assert!(one.is_sharded() && !plain.is_sharded() && !one.record_channels());
        assert_ne!((one.identity(), one.summary()), (plain.identity(), plain.summary()));
        assert_eq!(one.summary(), "orders (sharded)");
        let (ab, ba) = (sharded(&["a", "b"]).expect("good"), sharded(&["b", "a"]).expect("good"));
        assert_eq!((ab.identity(), ab.summary()), (ba.identity(), ba.summary()));
        assert_eq!(ab.identity(), "interests:fcee36e427fc8fbd4477bd721e195870");
        assert_eq!(sharded(&["__keyevent@0__:set"]).map(|these| these.clone().beside_stream("s") == these), Ok(true));
        assert!(sharded(&["a", "a"]).is_err() && sharded(&[]).is_err());
    }

    #[test]
    fn a_summary_shows_the_settings_and_is_bounded() {
        assert_eq!(interests(&["b", "a,*"], &["c*"]).summary(), r"a\,\*,b,c*");
        assert_eq!(interests(&["b", "a"], &[]).summary(), interests(&["a", "b"], &[]).summary());
        let many: Vec<String> = (0..1_000).map(|number| format!("channel-{number}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let (all, but_one) = (interests(&many, &[]).summary(), interests(&many[..999], &[]).summary());
        assert!(all.len() < 260 && all.contains("1000 in all") && all != but_one, "{all}");
    }

    #[test]
    fn where_events_of_the_stream_may_be_heard_it_counts() {
        for (channels, patterns) in [(&["orders"][..], &[][..]), (&["a"], &["orders.*", "_x*", "__kez?"])] {
            let these = interests(channels, patterns);
            assert_eq!(these.clone().beside_stream("jobs"), these);
        }
        for (channels, patterns) in [
            (&["__keyevent@0__:xadd"][..], &[][..]),
            (&["a"], &["*"]),
            (&[], &["__k*"]),
            (&[], &["[_]*"]),
            (&[], &["\\_*"]),
        ] {
            let these = interests(channels, patterns);
            let (jobs, mails) = (these.clone().beside_stream("jobs"), these.clone().beside_stream("mails"));
            assert_ne!(jobs.identity(), these.identity(), "{channels:?} {patterns:?}");
            assert_ne!(jobs.identity(), mails.identity());
            assert!(jobs.identity().starts_with("interests:"));
        }
    }

    #[test]
    fn what_can_be_no_interest_is_refused() {
        let refused = |channels: Vec<Vec<u8>>, patterns: Vec<Glob>| Interests::of(channels, patterns).expect_err("bad");
        let name = |length: usize| vec![b'a'; length];
        assert!(refused(vec![], vec![]).contains("at least one"));
        assert!(refused(vec![name(0)], vec![]).contains("not empty"));
        assert!(refused(vec![name(4_097)], vec![]).contains("4096 bytes"));
        assert!(refused((1..=1_025).map(name).collect(), vec![]).contains("1024"));
        assert!(refused(vec![name(1), name(1)], vec![]).contains("\"a\" twice"));
        let glob = Glob::parse(b"a*").expect("a pattern");
        assert!(refused(vec![], vec![glob.clone(), glob]).contains("\"a*\" twice"));
    }

    proptest! {
        /// Whatever the interests, exactly one copy counts of those that Redis sends.
        #[test]
        fn each_message_counts_once(
            channels in prop::collection::hash_set("[ab]{1,3}", 0..4),
            patterns in prop::collection::hash_set("[ab?*]{1,3}", 0..4),
            channel in "[ab]{1,3}",
        ) {
            prop_assume!(!channels.is_empty() || !patterns.is_empty());
            let texts = |set: &HashSet<String>| set.iter().cloned().collect::<Vec<_>>();
            let (channels, patterns) = (texts(&channels), texts(&patterns));
            let as_strs = |texts: &[String]| texts.iter().map(String::as_str).collect::<Vec<&str>>().join(" ");
            let these = interests(
                &as_strs(&channels).split_whitespace().collect::<Vec<_>>(),
                &as_strs(&patterns).split_whitespace().collect::<Vec<_>>(),
            );
            let name = channel.as_bytes();
            let copies = channels.iter().filter(|named| **named == channel).map(|_| None).chain(
                these.patterns.iter().filter(|glob| glob.matches(name)).map(|glob| Some(glob.text())),
            );
            let copies: Vec<Option<&[u8]>> = copies.collect();
            let counted = copies.iter().filter(|copy| these.is_owners(these.owner(name), **copy)).count();
            prop_assert_eq!(counted, usize::from(!copies.is_empty()));
        }
    }
}
