//! The newest dead letters as a status shows them: without their payloads, which stay in Redis.

use redis::Value;

use super::core::Ledger;
use super::scripts::LettersCall;
use super::value::text;
use crate::base::error::Result;

/// About the most bytes that Redis reads for it, beyond one letter. Payloads may be large.
const MOST_BYTES: u64 = 1 << 20;
/// The most bytes of each field.
const MOST_TEXT: u64 = 300;

/// A dead letter without its payload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LetterHead {
    /// When it was written, in milliseconds since 1970.
    pub at_ms: u64,
    /// The message's id.
    pub id: String,
    /// The channel, if it is recorded.
    pub channel: Option<String>,
    /// The beginning of the reason.
    pub reason: String,
    /// How often the message was delivered.
    pub deliveries: String,
    /// The consumer that it was last at; empty for none.
    pub consumer: String,
}

impl Ledger {
    /// The newest dead letters, the newest first: at most `most`, and fewer if they are large.
    pub fn newest_letters(&mut self, most: usize) -> Result<Vec<LetterHead>> {
        const DOING: &str = "reading the newest dead letters";
        let call = LettersCall { most_letters: most as u64, most_bytes: MOST_BYTES, most_text: MOST_TEXT };
        let reply = self.call(DOING, call.on(&self.keys))?;
        let Value::Array(letters) = &reply else { return self.unexpected_reply(DOING, &reply) };
        Ok(letters.iter().filter_map(head_of).collect())
    }
}

fn head_of(letter: &Value) -> Option<LetterHead> {
    let Value::Array(parts) = letter else { return None };
    let [entry, id, channel, reason, deliveries, consumer] = parts.as_slice() else { return None };
    let lossy = |value: &Value| match value {
        Value::BulkString(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        _ => None,
    };
    Some(LetterHead {
        at_ms: text(entry)?.split('-').next()?.parse().ok()?,
        id: lossy(id).unwrap_or_default(),
        channel: lossy(channel),
        reason: lossy(reason).unwrap_or_default(),
        deliveries: lossy(deliveries).unwrap_or_default(),
        consumer: lossy(consumer).unwrap_or_default(),
    })
}
