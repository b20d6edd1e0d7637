//! Reading replies that the `redis` package has parsed. Pure.

use redis::Value;

use crate::base::id::MessageId;

/// A string of any kind, if it is UTF-8.
pub(super) fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        Value::Okay => Some("OK"),
        _ => None,
    }
}

/// A score as an id, rounded up because a foreign member may have a score between two ids.
pub(super) fn score(text: &str) -> Option<MessageId> {
    text.parse::<f64>().ok().map(|score| MessageId(score.ceil() as u64))
}
