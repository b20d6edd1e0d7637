//! Which messages are kept in order: the dispatcher's setting `--order-key`.
//!
//! Pure. A key is read from a message's channel or payload. Messages with equal keys are delivered one after the other.
//! A message in which the key is not found has none and is not ordered. The cost is bounded: of JSON only the part
//! before the key is read, and a payload over [`MOST_JSON_BYTES`] is not read at all, so it has no key.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde_core::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::ledger::Body;

/// The largest payload that is searched for a JSON value.
pub const MOST_JSON_BYTES: usize = 1 << 20;
/// The longest separator.
const MOST_SEPARATOR_BYTES: usize = 16;
/// The longest pointer.
const MOST_POINTER_BYTES: usize = 1_024;

/// Where the key of a message is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OrderKey {
    /// The channel that the message was published on. In a group of one channel all messages have one key.
    Channel,
    /// A string, number or boolean in a payload of JSON.
    Json(Pointer),
    /// What stands in the payload before the first of these bytes.
    Prefix(String),
}

/// A JSON pointer (RFC 6901): the names and indexes that lead to a value, from the outermost on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer(Vec<String>);

/// The error for an invalid key. It names the valid forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoOrderKey(&'static str);

const FORMS: NoOrderKey =
    NoOrderKey("channel, json:POINTER such as json:/customer/id, or prefix:SEPARATOR such as prefix:: for a colon");
const POINTER: NoOrderKey = NoOrderKey(
    "a JSON pointer of at most 1024 bytes that begins with a slash, such as json:/customer/id, with ~1 for a slash in \
     a name and ~0 for a tilde",
);
const SEPARATOR: NoOrderKey = NoOrderKey("a separator of 1 to 16 bytes, such as prefix:: for a colon");

impl OrderKey {
    /// The key of a message, if it has one. A string's key is its text, and a number's its digits as they are written,
    /// so `"7"` and `7` are one key, `7` and `7.0` are two.
    pub fn of<'a>(&self, body: &'a Body) -> Option<Cow<'a, [u8]>> {
        match self {
            OrderKey::Channel => Some(Cow::Borrowed(body.channel().unwrap_or_default())),
            OrderKey::Json(pointer) => pointer.find(body.payload()).map(|text| match text {
                Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
                Cow::Owned(text) => Cow::Owned(text.into_bytes()),
            }),
            OrderKey::Prefix(separator) => {
                let payload = body.payload();
                let mut windows = payload.windows(separator.len());
                let end = windows.position(|window| window == separator.as_bytes())?;
                Some(Cow::Borrowed(&payload[..end]))
            }
        }
    }
}

impl FromStr for OrderKey {
    type Err = NoOrderKey;

    fn from_str(text: &str) -> Result<OrderKey, NoOrderKey> {
        match text.split_once(':') {
            None if text == "channel" => Ok(OrderKey::Channel),
            Some(("json", pointer)) => pointer.parse().map(OrderKey::Json),
            Some(("prefix", separator)) if (1..=MOST_SEPARATOR_BYTES).contains(&separator.len()) => {
                Ok(OrderKey::Prefix(separator.to_owned()))
            }
            Some(("prefix", _)) => Err(SEPARATOR),
            _ => Err(FORMS),
        }
    }
}

impl fmt::Display for OrderKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OrderKey::Channel => f.write_str("channel"),
            OrderKey::Json(pointer) => write!(f, "json:{pointer}"),
            OrderKey::Prefix(separator) => write!(f, "prefix:{separator}"),
        }
    }
}

impl Pointer {
    /// The text of the value that this leads to, if it is a string, a number or a boolean.
    fn find<'a>(&self, payload: &'a [u8]) -> Option<Cow<'a, str>> {
        if payload.len() > MOST_JSON_BYTES {
            return None;
        }
        let mut found = None;
        let mut json = serde_json::Deserializer::from_slice(payload);
        // Once the value is found the rest is not read, which counts as an error here.
        let _ = Search { path: &self.0, found: &mut found }.deserialize(&mut json);
        let text = found?.get();
        match text.as_bytes().first()? {
            b'"' => serde_json::from_str(text).ok().map(|Text(text)| text),
            b'{' | b'[' | b'n' => None,
            _ => Some(Cow::Borrowed(text)),
        }
    }
}

impl FromStr for Pointer {
    type Err = NoOrderKey;

    fn from_str(text: &str) -> Result<Pointer, NoOrderKey> {
        let rest = text.strip_prefix('/').filter(|_| text.len() <= MOST_POINTER_BYTES).ok_or(POINTER)?;
        let name = |part: &str| {
            let is_escape = |rest: &str| rest.starts_with(['0', '1']);
            let valid = part.split('~').skip(1).all(is_escape);
            valid.then(|| part.replace("~1", "/").replace("~0", "~")).ok_or(POINTER)
        };
        rest.split('/').map(name).collect::<Result<_, _>>().map(Pointer)
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|name| write!(f, "/{}", name.replace('~', "~0").replace('/', "~1")))
    }
}

/// A string of JSON, borrowed unless it has escapes.
struct Text<'a>(Cow<'a, str>);

impl<'de> serde_core::Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Text<'de>, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Either)
    }
}

/// Reads JSON up to the value that `path` leads to, and puts it into `found`. Of several members with one name the
/// first counts.
struct Search<'p, 'a> {
    path: &'p [String],
    found: &'p mut Option<&'a RawValue>,
}

impl<'de> DeserializeSeed<'de> for Search<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.path.is_empty() {
            *self.found = Some(serde_core::Deserialize::deserialize(deserializer)?);
            return Ok(());
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Search<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or an array")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut members: M) -> Result<(), M::Error> {
        while let Some(Text(name)) = members.next_key()? {
            if name == self.path[0] {
                members.next_value_seed(Search { path: &self.path[1..], found: self.found })?;
                return Err(M::Error::custom("it is found"));
            }
            members.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut elements: S) -> Result<(), S::Error> {
        let name = &self.path[0];
        let plain = name == "0" || !name.starts_with(['0', '+']);
        let Some(index) = name.parse::<usize>().ok().filter(|_| plain) else {
            return Err(S::Error::custom("no index"));
        };
        for _ in 0..index {
            if elements.next_element::<IgnoredAny>()?.is_none() {
                return Ok(());
            }
        }
        elements.next_element_seed(Search { path: &self.path[1..], found: self.found })?;
        Err(S::Error::custom("it is found"))
    }
}

#[cfg(test)]
mod tests;
