//! The newest gaps and dead letters as JSON. Pure.

use serde_json::{Value, json};

use crate::base::id::MessageId;
use crate::ledger::Cursor;
use crate::ledger::letters::LetterHead;
use crate::ledger::reading::RecordedGap;
use crate::process::log::Timestamp;

/// The gaps, in their order.
pub(super) fn gaps(gaps: &[RecordedGap]) -> Value {
    gaps.iter().map(gap_to_json).collect()
}

/// The dead letters, in their order, without payloads.
pub(super) fn letters(letters: &[LetterHead]) -> Value {
    letters.iter().map(letter_to_json).collect()
}

fn gap_to_json(gap: &RecordedGap) -> Value {
    json!({
        "time": Timestamp(gap.at_ms * 1_000).to_string(),
        "since": begun(gap).map(|since| since.to_string()),
        "reason": gap.reason,
        "dispatcher": gap.dispatcher,
        "messages": gap.count,
    })
}

fn letter_to_json(letter: &LetterHead) -> Value {
    json!({
        "id": letter.id,
        "time": Timestamp(letter.at_ms.saturating_mul(1_000)).to_string(),
        "channel": letter.channel,
        "reason": letter.reason,
        "deliveries": letter.deliveries.parse::<u64>().ok(),
        "consumer": Some(&letter.consumer).filter(|consumer| !consumer.is_empty()),
    })
}

/// When the last message before a gap was stored, as its id says. Ids may be ahead of the clock, by seconds after Redis
/// lost data; a gap never begins after it was found.
pub(super) fn begun(gap: &RecordedGap) -> Option<Timestamp> {
    let last_id = gap.begin.parse::<Cursor>().ok()?.last_id;
    (last_id > MessageId::ZERO).then_some(Timestamp(last_id.0.min(gap.at_ms.saturating_mul(1_000))))
}
