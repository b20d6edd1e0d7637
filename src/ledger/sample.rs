//! Reads what a shadow compares: how far a group has stored its channel, and how many messages it has stored.
//!
//! A message that is stored is pending, an entry of the stream, or a dead letter. A pending one becomes a result or a
//! dead letter. Each of these steps happens whole, and storing messages moves the cursor by as many. So between two
//! samples the cursor moves by as many messages as the sum of the counts rises, unless messages were lost, stored twice
//! or removed. Only a message whose handler returned no fields leaves no entry.

use redis::Value;

use super::core::Ledger;
use super::cursor::Cursor;
use super::script::ScriptCall;
use super::scripts::SampleCall;
use crate::base::error::Result;

/// The state of a group at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Redis's clock, in milliseconds since 1970.
    pub redis_ms: u64,
    /// How far the channel has been stored.
    pub cursor: Option<Cursor>,
    /// How many messages and gaps there are.
    pub counts: GroupCounts,
}

/// How many messages a group has stored, by what became of them, and how many gaps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupCounts {
    /// Messages without a result.
    pub pending: u64,
    /// Results that were ever recorded.
    pub results: u64,
    /// Dead letters that were ever added.
    pub dead: u64,
    /// How many of them were replayed: those are pending again, or have become something else since.
    pub replayed: u64,
    /// Entries that were ever added to the stream that the group delivers to.
    pub stream: u64,
    /// Gaps that were ever recorded.
    pub gaps: u64,
    /// Whether deleted entries are counted as well. Servers before Redis 7 only know how many there are.
    pub exact: bool,
}

impl GroupCounts {
    /// All messages that were ever stored, except those of handlers that returned no fields. Negative if the dead
    /// letters were deleted with the count of what was ever added.
    pub fn stored(&self) -> i64 {
        let signed = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        signed(self.pending + self.results + self.dead + self.stream).saturating_sub(signed(self.replayed))
    }
}

impl Ledger {
    /// Reads the group's state in one step. Writes nothing.
    pub fn sample(&mut self) -> Result<Sample> {
        const DOING: &str = "reading how far the group has stored the channel";
        let call = |ledger: &Ledger| -> ScriptCall {
            let call = SampleCall {}.on(&ledger.keys);
            ledger.keys.stream.iter().fold(call, |call, stream| call.key(stream))
        };
        let reply = self.call_reading(DOING, call)?;
        match sample_of(&reply) {
            Some(sample) => Ok(sample),
            None => self.unexpected_reply(DOING, &reply),
        }
    }
}

fn sample_of(reply: &Value) -> Option<Sample> {
    let Value::Array(parts) = reply else { return None };
    let [now_ms, cursor, numbers @ ..] = parts.as_slice() else { return None };
    let number = |value: &Value| match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        _ => None,
    };
    let numbers: Vec<u64> = numbers.iter().map(number).collect::<Option<_>>()?;
    let [pending, results, dead, gaps, stream, replayed, exact] = numbers[..] else { return None };
    let cursor = match cursor {
        Value::BulkString(text) => std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()),
        _ => None,
    };
    let counts = GroupCounts { pending, results, dead, replayed, stream, gaps, exact: exact == 1 };
    Some(Sample { redis_ms: number(now_ms)?, cursor, counts })
}
