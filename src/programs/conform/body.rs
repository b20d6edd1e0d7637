//! The bodies of messages: for the conformance handler of docs/CONFORMANCE.md, or ordinary. Pure.

use serde_json::{Map, Value, json};

use super::case::BodySpec;

/// A body of a message whose result is recorded under the name `unique`.
pub(super) fn body(spec: &BodySpec, unique: &str) -> Vec<u8> {
    let mut members = Map::new();
    match &spec.conform {
        None => {
            members.insert("message_id".to_owned(), unique.into());
        }
        Some(outcome) => {
            members.insert("conform".to_owned(), outcome.as_str().into());
            if matches!(outcome.as_str(), "ok" | "slow") {
                members.insert("fields".to_owned(), json!({ "message_id": unique }));
            }
        }
    }
    let numbers = [("ms", spec.ms), ("delay_ms", spec.delay_ms.map(u64::from))];
    for (name, number) in numbers.into_iter().filter_map(|(name, number)| Some((name, number?))) {
        members.insert(name.to_owned(), number.into());
    }
    if let Some(chars) = spec.reason_chars {
        // An odd number of bytes before the first of two makes a cut at an even limit fall into a character.
        members.insert("reason".to_owned(), format!("x{}", "é".repeat(chars)).into());
    }
    filled(members, spec.bytes)
}

/// The object as text of at least `bytes` bytes; exactly so many if it needs a member to fill it.
fn filled(mut members: Map<String, Value>, bytes: Option<usize>) -> Vec<u8> {
    if let Some(bytes) = bytes {
        members.insert("pad".to_owned(), "".into());
        let bare = Value::Object(members.clone()).to_string().len();
        members.insert("pad".to_owned(), "x".repeat(bytes.saturating_sub(bare)).into());
    }
    Value::Object(members).to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_have_the_size_that_is_asked_for() {
        let spec = BodySpec { conform: Some("ok".to_owned()), ms: Some(5), bytes: Some(1_000), ..BodySpec::default() };
        let made = body(&spec, "u-1");
        assert_eq!(made.len(), 1_000);
        let read: Value = serde_json::from_slice(&made).expect("it is JSON");
        assert_eq!(
            (&read["conform"], &read["fields"]["message_id"], &read["ms"]),
            (&json!("ok"), &json!("u-1"), &json!(5))
        );
        assert_eq!(body(&BodySpec::default(), "u-2"), br#"{"message_id":"u-2"}"#);
    }
}
