//! What a group listens to, as settings give it. Pure.
//!
//! A setting holds names separated by commas, and may be given several times. A backslash makes the next character
//! plain, also a comma, and `\xHH` is the byte with this hexadecimal number: so any name can be written. In a channel's
//! name `*`, `?` and `[` must be escaped: unescaped they are more likely a pattern, to which no message would ever
//! come.

use crate::base::setting::ConfigError;
use crate::ledger::interests::MAX_INTERESTS;
use crate::ledger::{Glob, Interests, Keys};
use crate::process::config::Default::{Found, Text};
use crate::process::config::{Setting, Values, quoted};
use crate::wire::MAX_CHANNEL_BYTES;

/// Channels by their names.
pub const CHANNEL: Setting = Setting::new(
    "channel",
    "NAME,…",
    Text("messages:published"),
    "The channels that messages are published on: names, not patterns. Put a backslash before each of * ? [ ] \\ , in \
     a name; \\xHH is any byte. May be repeated",
)
.list();
/// Sharded channels.
pub const SHARDED_CHANNEL: Setting = Setting::new(
    "sharded-channel",
    "NAME,…",
    Found("none"),
    "The sharded channels that messages are published on by SPUBLISH, instead of --channel, --pattern and --keyevent: \
     names as in --channel. Needs Redis 7.0 or newer. May be repeated",
)
.list();
/// Patterns.
pub const PATTERN: Setting = Setting::new(
    "pattern",
    "GLOB,…",
    Found("none"),
    "Listen to all channels that match, as PSUBSCRIBE does: orders.*, h?llo, [a-c]x. Put a backslash before a comma \
     or a plain * ? [ ] \\ in it. A message on several of these is taken in once. May be repeated",
)
.list();
/// Keyspace events.
pub const KEYEVENT: Setting = Setting::new(
    "keyevent",
    "EVENT,…",
    Found("none"),
    "Listen to these keyspace events, such as expired: the payload is the key's name. Redis publishes them only if its \
     setting notify-keyspace-events asks for them. May be repeated",
)
.list();
/// The databases of keyspace events.
pub const KEYSPACE_DB: Setting = Setting::new(
    "keyspace-db",
    "N",
    Found("the database of --redis-url"),
    "The database whose keyspace events --keyevent means, or * for all",
);

/// What may be written in a name.
const NAME_FORM: &str =
    r"names separated by commas, with a backslash before each of * ? [ ] \ , in a name, and \xHH for any byte";
const PATTERN_FORM: &str = r"patterns separated by commas, with a backslash before a comma, and \xHH for any byte";
const EVENT_FORM: &str = "names of events separated by commas, such as expired,del";

/// Reads all settings of this file.
pub fn interests(values: &Values<'_>, keys: &Keys, database: i64) -> Result<Interests, ConfigError> {
    if let Some(channels) = sharded_channels(values, keys)? {
        return Interests::of_sharded(channels)
            .map_err(|takes| ConfigError::new("sharded-channel", "something else", takes));
    }
    let given = ["channel", "pattern", "keyevent"].map(|name| values.is_given(name));
    let mut channels = if given == [false, true, false] || given[2] && !given[0] {
        Vec::new()
    } else {
        published_channels(values, keys)?
    };
    let mut patterns = items(values, "pattern", PATTERN_FORM, pattern)?;
    let events = items(values, "keyevent", EVENT_FORM, event)?;
    match keyspace(values, database)? {
        Keyspace::Of(database) => {
            channels.extend(events.iter().map(|event| format!("__keyevent@{database}__:{event}").into_bytes()));
        }
        Keyspace::All => {
            let glob = |event: &String| Glob::parse(format!("__keyevent@*__:{event}").as_bytes());
            patterns.extend(events.iter().map(glob).collect::<Result<Vec<_>, _>>().expect("a plain pattern"));
        }
    }
    let most_given = [("channel", channels.len()), ("pattern", patterns.len()), ("keyevent", events.len())];
    let (setting, _) = most_given.into_iter().max_by_key(|(_, count)| *count).expect("there are three");
    Interests::of(channels, patterns).map_err(|takes| ConfigError::new(setting, "too much", takes))
}

/// Reads the sharded channels. `None`: the group listens to others.
pub fn sharded_channels(values: &Values<'_>, keys: &Keys) -> Result<Option<Vec<Vec<u8>>>, ConfigError> {
    if !values.is_given("sharded-channel") {
        return Ok(None);
    }
    const ALONE: &str = "sharded channels without --channel, --pattern and --keyevent: messages of both kinds have no \
                         common order in a cluster; use two groups";
    let others = [CHANNEL, PATTERN, KEYEVENT, KEYSPACE_DB];
    if let Some(other) = others.iter().find(|setting| values.has(setting) && values.is_given(setting.name)) {
        return Err(ConfigError::new("sharded-channel", format_args!("names, beside --{}", other.name), ALONE));
    }
    named_channels(values, "sharded-channel", keys).map(Some)
}

/// Reads the channels by their names, which must not be the group's own.
pub fn published_channels(values: &Values<'_>, keys: &Keys) -> Result<Vec<Vec<u8>>, ConfigError> {
    named_channels(values, "channel", keys)
}

fn named_channels(values: &Values<'_>, setting: &'static str, keys: &Keys) -> Result<Vec<Vec<u8>>, ConfigError> {
    let channels = items(values, setting, NAME_FORM, exact_name)?;
    match channels.iter().find(|name| keys.is_own_channel(name)) {
        Some(own) => {
            let got = quoted(&String::from_utf8_lossy(own));
            Err(ConfigError::new(setting, got, "channels that the group does not use itself"))
        }
        None => Ok(channels),
    }
}

/// The databases that keyspace events are of.
enum Keyspace {
    Of(i64),
    All,
}

fn keyspace(values: &Values<'_>, database: i64) -> Result<Keyspace, ConfigError> {
    const FORM: &str = "the number of a database, or *, with --keyevent";
    let Some(text) = values.text("keyspace-db")? else { return Ok(Keyspace::Of(database)) };
    match text.parse() {
        _ if !values.is_given("keyevent") => {
            Err(ConfigError::new("keyspace-db", format_args!("{} without --keyevent", quoted(&text)), FORM))
        }
        _ if text == "*" => Ok(Keyspace::All),
        Ok(number @ 0_u16..) if text == number.to_string() => Ok(Keyspace::Of(number.into())),
        _ => Err(ConfigError::new("keyspace-db", quoted(&text), FORM)),
    }
}

/// The items of a setting, each read by `read`, all different.
fn items<T: PartialEq>(
    values: &Values<'_>,
    setting: &'static str,
    form: &str,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, ConfigError> {
    let mut items = Vec::new();
    for text in values.texts(setting)? {
        for item in split(&text) {
            if item.is_empty() {
                return Err(ConfigError::new(setting, format_args!("an empty name in {}", quoted(&text)), form));
            }
            if item.trim() != item {
                let got = format_args!("a name that begins or ends with a space in {}", quoted(&text));
                return Err(ConfigError::new(setting, got, format_args!(r"{form}; a space is written as \x20")));
            }
            let read = read(item).map_err(|takes| ConfigError::new(setting, quoted(item), takes))?;
            if items.contains(&read) {
                return Err(ConfigError::new(setting, format_args!("{} twice", quoted(item)), "each name once"));
            }
            if items.len() == MAX_INTERESTS {
                let takes = format_args!("at most {MAX_INTERESTS} channels, patterns and events together");
                return Err(ConfigError::new(setting, format_args!("more than {MAX_INTERESTS} names"), takes));
            }
            items.push(read);
        }
    }
    Ok(items)
}

/// The items of a text: a comma separates them unless it is escaped.
fn split(text: &str) -> Vec<&str> {
    let (mut items, mut begin, mut escaped) = (Vec::new(), 0, false);
    for (at, letter) in text.char_indices() {
        if letter == ',' && !escaped {
            items.push(&text[begin..at]);
            begin = at + 1;
        }
        escaped = letter == '\\' && !escaped;
    }
    items.push(&text[begin..]);
    items
}

/// A part of a name or pattern.
enum Piece {
    /// As it stands.
    Plain(char),
    /// Escaped by a backslash.
    Escaped(char),
    /// By its number.
    Byte(u8),
}

fn pieces(text: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        let piece = match (letter, letters.as_str()) {
            ('\\', rest) if rest.starts_with('x') => {
                let digits = rest.get(1..3).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
                let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
                letters.nth(2);
                Piece::Byte(byte.ok_or(r"two hexadecimal digits after \x")?)
            }
            ('\\', _) => Piece::Escaped(letters.next().ok_or(r"a backslash at the end as \\")?),
            _ => Piece::Plain(letter),
        };
        pieces.push(piece);
    }
    Ok(pieces)
}

/// The channel that an item names.
pub(super) fn exact_name(text: &str) -> Result<Vec<u8>, String> {
    /// What is escaped in a name. Other letters mean something in other programs' patterns: no guess is made.
    const ESCAPED: [char; 6] = ['*', '?', '[', ']', '\\', ','];
    let mut name = Vec::with_capacity(text.len());
    for piece in pieces(text)? {
        match piece {
            Piece::Plain(letter @ ('*' | '?' | '[')) => {
                return Err(format!(
                    "names, not patterns; if {letter} is part of a name, write \\{letter}; a dispatcher takes \
                     patterns by --pattern"
                ));
            }
            Piece::Plain(letter) => push(&mut name, letter),
            Piece::Escaped(letter) if ESCAPED.contains(&letter) => push(&mut name, letter),
            Piece::Escaped(_) => return Err(r"names; a backslash in a name is written as \\".to_owned()),
            Piece::Byte(byte) => name.push(byte),
        }
    }
    fits(&name)?;
    Ok(name)
}

/// The pattern that an item gives.
fn pattern(text: &str) -> Result<Glob, String> {
    let mut pattern = Vec::with_capacity(text.len());
    for piece in pieces(text)? {
        match piece {
            Piece::Plain(letter) => push(&mut pattern, letter),
            Piece::Escaped(letter) => {
                pattern.push(b'\\');
                push(&mut pattern, letter);
            }
            Piece::Byte(byte) => {
                // Also within a set, where a backslash would end a range.
                if br"*?[]\^-".contains(&byte) {
                    pattern.push(b'\\');
                }
                pattern.push(byte);
            }
        }
    }
    fits(&pattern)?;
    // At least one side of the comma in `{a,b}` has a brace without the other.
    let count = |brace| text.matches(brace).count();
    if count('{') != count('}') {
        return Err(
            r"patterns of Redis, which have no {a,b}: write each on its own; a brace as \x7b or \x7d".to_owned()
        );
    }
    Glob::parse(&pattern)
}

fn event(text: &str) -> Result<String, String> {
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    if plain { Ok(text.to_owned()) } else { Err(format!("{EVENT_FORM}; several events at once are a --pattern")) }
}

fn fits(name: &[u8]) -> Result<(), String> {
    match name.len() {
        0..=MAX_CHANNEL_BYTES => Ok(()),
        length => Err(format!("names of at most {MAX_CHANNEL_BYTES} bytes, not {length}")),
    }
}

fn push(out: &mut Vec<u8>, letter: char) {
    out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The text that names the channel `name`: the inverse of [`exact_name`].
    fn escaped(name: &[u8]) -> String {
        let mut text = String::new();
        for byte in name {
            match byte {
                b'*' | b'?' | b'[' | b']' | b'\\' | b',' => text.extend(['\\', char::from(*byte)]),
                0x21..0x7f => text.push(char::from(*byte)),
                _ => text.push_str(&format!("\\x{byte:02x}")),
            }
        }
        text
    }

    #[test]
    fn a_pattern_is_no_name_unless_it_is_escaped() {
        assert_eq!(exact_name("messages:published").as_deref(), Ok(&b"messages:published"[..]));
        assert_eq!(exact_name("a]b cé").as_deref(), Ok("a]b cé".as_bytes()));
        assert_eq!(exact_name(r"\*\?\[a\]\\\,\x00\xfF").as_deref(), Ok(&b"*?[a]\\,\0\xff"[..]));
        for (text, says) in
            [("orders.*", r"write \*"), ("a?", r"write \?"), ("[ab]", r"write \["), (r"\\*", r"write \*")]
        {
            assert!(exact_name(text).expect_err(text).contains(says), "{text}");
        }
        for text in [r"a\b", r"a\", r"\x", r"\x1", r"\xg0", r"\x+1", r"\xé"] {
            assert!(exact_name(text).expect_err(text).contains('\\'), "{text}");
        }
    }

    #[test]
    fn commas_separate_unless_they_are_escaped() {
        assert_eq!(split("a,b"), ["a", "b"]);
        assert_eq!(split(r"a\,b,c\\,d"), [r"a\,b", r"c\\", "d"]);
        assert_eq!(split(",a,"), ["", "a", ""]);
    }

    #[test]
    fn a_pattern_reaches_redis_as_it_is_written() {
        let text = |item: &str| pattern(item).expect(item).text().to_vec();
        assert_eq!(text(r"orders.[a-c]\*?*\,"), br"orders.[a-c]\*?*\,");
        assert_eq!(text(r"\x00[\x80-\xff]\x2a"), b"\0[\x80-\xff]\\*");
        assert_eq!(text(r"{orders}.*\x7b"), br"{orders}.*{");
        assert!(pattern(split("orders.{eu,us}")[0]).expect_err("half of it").contains("each on its own"));
        assert!(pattern(r"[a-\xff]").is_err());
        assert!(pattern(r"a\").is_err());
    }

    #[test]
    fn an_event_is_a_plain_name() {
        assert_eq!(event("expired").as_deref(), Ok("expired"));
        for text in ["exp*", "a:b", "é", "a b"] {
            assert!(event(text).expect_err(text).contains("--pattern"));
        }
    }

    proptest! {
        #[test]
        fn every_name_can_be_written(name in prop::collection::vec(any::<u8>(), 1..40)) {
            let text = escaped(&name);
            prop_assert_eq!(split(&text).len(), 1);
            prop_assert_eq!(exact_name(&text), Ok(name));
        }
    }
}
