//! Fields made from the members of a JSON object: a string as its text, any other value as compact JSON with its digits
//! unchanged. The built-in handlers that read JSON share this. Pure, and handles every input.

use std::borrow::Cow;
use std::fmt;

use serde_core::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::consumer::Outcome;
use crate::ledger::Words;

/// The outcome that an answer describes: the members of a JSON object, in their order. A member that is `null` is left
/// out. `None` if this is not a JSON object, or has a string without a text (a lone surrogate).
pub(super) fn outcome_of_object(json: &[u8]) -> Option<Outcome> {
    let mut members = Members::of(json)?;
    members.retain(|_, value| value != "null");
    members.into_words(json.len()).map(Outcome::from_words)
}

/// The members of a JSON object in order, each name once, borrowed from its text where possible.
pub(super) struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Members<'a> {
    /// `None` if this is not a JSON object. JSON allows a name to occur twice. The last one counts, as in most parsers.
    pub(super) fn of(json: &'a [u8]) -> Option<Members<'a>> {
        let AllMembers(mut members) = serde_json::from_slice(json).ok()?;
        members.sort_by(|(one, _), (other, _)| one.cmp(other));
        members.dedup_by(|next, kept| {
            let same = next.0 == kept.0;
            if same {
                std::mem::swap(next, kept);
            }
            same
        });
        // The values are borrowed from the text, so their addresses are in its order.
        members.sort_unstable_by_key(|(_, value)| value.get().as_ptr());
        Some(Members(members))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Keeps the members for whose name and JSON value this is true.
    pub(super) fn retain(&mut self, keep: impl Fn(&str, &str) -> bool) {
        self.0.retain(|(name, value)| keep(name, value.get()));
    }

    /// Makes the member of this name the first, if there is one.
    pub(super) fn put_first(&mut self, first: &str) {
        if let Some(place) = self.0.iter().position(|(name, _)| name == first) {
            self.0[..=place].rotate_right(1);
        }
    }

    /// The fields, with room for about so many bytes. `None` if there is a string that has no text.
    pub(super) fn into_words(self, room_bytes: usize) -> Option<Words> {
        let mut fields = Words::with_capacity(room_bytes);
        for (name, value) in self.0 {
            fields.push(name.as_bytes());
            fields.push(text_of(value)?);
        }
        Some(fields)
    }
}

/// All members of an object, in order, also if a name occurs twice.
pub(super) struct AllMembers<'a>(pub(super) Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for AllMembers<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = AllMembers<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some((Name(name), value)) = map.next_entry()? {
            members.push((name, value));
        }
        Ok(AllMembers(members))
    }
}

/// The name of a member, borrowed from its text where possible.
pub(super) struct Name<'a>(pub(super) Cow<'a, str>);

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

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(json: &str) -> Option<Vec<String>> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let outcome = outcome_of_object(json.as_bytes())?;
        Some(outcome.fields().map(|(name, value)| format!("{}={}", text(name), text(value))).collect())
    }

    #[test]
    fn the_members_of_an_answer_become_fields_in_their_order() {
        let json = r#" {"z":"a\n\u00e9","a":1.50,"n":{"x": [1, null]},"t":true,"nothing":null,"":"","z2":"\""} "#;
        assert_eq!(
            fields(json).expect("an object"),
            ["z=a\né", "a=1.50", r#"n={"x":[1,null]}"#, "t=true", "=", "z2=\""]
        );
        assert_eq!(fields("{}"), Some(Vec::new()));
    }

    #[test]
    fn the_last_of_several_members_of_one_name_counts() {
        assert_eq!(fields(r#"{"a":1,"b":2,"a":"x"}"#).expect("an object"), ["b=2", "a=x"]);
        assert_eq!(fields(r#"{"a":1,"a":null}"#), Some(Vec::new()));
    }

    #[test]
    fn other_texts_are_no_answers() {
        for text in ["", "null", "[]", "\"x\"", "1", "{", r#"{"a":1} x"#, r#"{"a":"\ud800"}"#, "\u{feff}{}"] {
            assert_eq!(fields(text), None, "{text}");
        }
        assert_eq!(outcome_of_object(b"{\"a\":\"\xff\"}"), None);
    }
}
