//! TEMPORARY.
use std::borrow::Cow;
use std::fmt;

use serde_core::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::consumer::Outcome;

pub(super) fn fields_of(bytes: &[u8]) -> Option<Outcome> {
    let Members(members) = serde_json::from_slice(bytes).ok()?;
    let mut outcome = Outcome::new();
    for (name, value) in members {
        outcome = outcome.field(name.as_bytes(), text_of(value)?);
    }
    Some(outcome)
}

pub(super) fn body_outcome(bytes: &[u8]) -> Outcome {
    if bytes.is_empty() {
        return Outcome::new();
    }
    fields_of(bytes).unwrap_or_else(|| Outcome::new().field("body", bytes))
}

/// The members of an object in order, borrowed from its text where possible.
pub(super) struct Members<'a>(pub(super) Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some((Name(name), value)) = map.next_entry()? {
            members.push((name, value));
        }
        Ok(Members(members))
    }
}

struct Name<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(NameVisitor)
    }
}

struct NameVisitor;

impl<'de> Visitor<'de> for NameVisitor {
    type Value = Name<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
        Ok(Name(Cow::Borrowed(name)))
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(Name(Cow::Owned(name.to_owned())))
    }
}

/// A string's text, or compact JSON; `None` for a string that has no text (a lone surrogate).
fn text_of(value: &RawValue) -> Option<Cow<'_, [u8]>> {
    let json = value.get();
    match json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(text) if !text.contains('\\') => Some(Cow::Borrowed(text.as_bytes())),
        Some(_) => serde_json::from_str::<String>(json).ok().map(|text| Cow::Owned(text.into_bytes())),
        None => Some(Cow::Owned(compact(json.as_bytes()))),
    }
}

/// Valid JSON without the white space between its tokens. Numbers stay as they are, however many digits they have.
fn compact(json: &[u8]) -> Vec<u8> {
    let (mut in_string, mut escaped) = (false, false);
    json.iter()
        .copied()
        .filter(|&byte| {
            if in_string {
                in_string = escaped || byte != b'"';
                escaped = !escaped && byte == b'\\';
                return true;
            }
            in_string = byte == b'"';
            !byte.is_ascii_whitespace()
        })
        .collect()
}
