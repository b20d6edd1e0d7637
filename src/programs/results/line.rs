//! A result as a line of JSON. Pure.

use data_encoding::BASE64;
use serde_json::{Map, Value, json};

use crate::ledger::LaneNumber;
use crate::ledger::reading::Entry;
use crate::process::log::Timestamp;
use crate::programs::status::json_text;

/// The line, with its end.
pub(super) fn line(lane: LaneNumber, entry: &Entry) -> String {
    let mut fields = Map::new();
    for (name, value) in &entry.fields {
        let value = value_of(value);
        match fields.entry(String::from_utf8_lossy(name)) {
            serde_json::map::Entry::Vacant(first) => drop(first.insert(value)),
            serde_json::map::Entry::Occupied(mut earlier) => match earlier.get_mut() {
                Value::Array(values) => values.push(value),
                only => *only = json!([only.take(), value]),
            },
        }
    }
    let at = Timestamp(entry.at_ms().saturating_mul(1_000)).to_string();
    json_text(&json!({ "lane": lane, "entry": entry.id, "at": at, "fields": fields })) + "\n"
}

fn value_of(value: &[u8]) -> Value {
    match std::str::from_utf8(value) {
        Ok(text) => text.into(),
        Err(_) => json!({ "base64": BASE64.encode(value) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_an_entry_is_lost() {
        let field = |name: &str, value: &[u8]| (name.as_bytes().to_vec(), value.to_vec());
        let fields =
            vec![field("a", b"1"), field("b", b"\xff"), field("a", b"2"), field("a", b"3"), field("c", b"\x1b[31m")];
        let shown = line(3, &Entry { id: "1000-2".to_owned(), fields });
        let expected = "{\"lane\":3,\"entry\":\"1000-2\",\"at\":\"1970-01-01T00:00:01.000Z\",\"fields\":{\
                        \"a\":[\"1\",\"2\",\"3\"],\"b\":{\"base64\":\"/w==\"},\"c\":\"\\u001b[31m\"}}\n";
        assert_eq!(shown, expected);
    }
}
