//! The messages of the benchmarks: JSON objects of 53 bytes with a UUID as the id.

use oncecast::base::id::MessageId;
use oncecast::ledger::Payload;

/// The size of a payload.
pub const PAYLOAD_BYTES: usize = 53;

/// The messages in one WebSocket message, or in one read of a subscription, under moderate load.
pub const BATCH: usize = 256;

/// The `number`th payload.
pub fn payload(number: u64) -> String {
    let payload = format!("{{\"message_id\":\"01890a5d-ac96-774b-bcce-{number:012x}\"}}");
    assert_eq!(payload.len(), PAYLOAD_BYTES);
    payload
}

/// `count` payloads that share an allocation, like those that arrive in one read.
pub fn payloads(count: usize) -> Vec<Payload> {
    let mut rest = Payload::from((0..count as u64).map(payload).collect::<String>());
    (0..count).map(|_| rest.split_to(PAYLOAD_BYTES)).collect()
}

/// `count` consecutive ids.
pub fn ids(count: usize) -> Vec<MessageId> {
    (0..count as u64).map(|number| MessageId(1_795_641_234_567_890 + number)).collect()
}
