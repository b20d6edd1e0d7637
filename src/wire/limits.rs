//! The protocol's version and its limits.

/// The version of the protocol, the first byte of each frame.
pub const VERSION: u8 = 1;
/// The WebSocket subprotocol without RESULTS, HELLO, RECORDED and CREDIT. No subprotocol means the same.
pub const SUBPROTOCOL_1: &str = "oncecast.1";
/// The WebSocket subprotocol with these frames.
pub const SUBPROTOCOL_2: &str = "oncecast.2";
/// Version, command and payload length.
pub const HEADER_BYTES: usize = 6;
/// The largest message body that is delivered to a consumer.
pub const MAX_BODY_BYTES: usize = 8 << 20;
/// The longest name of a channel that is delivered with its message.
pub const MAX_CHANNEL_BYTES: usize = 4_096;
/// The largest payload of any frame. It is larger than a body because a RESULT may be larger than the body that it came
/// from.
pub const MAX_PAYLOAD_BYTES: usize = 12 << 20;
/// The largest WebSocket message either side accepts.
pub const MAX_WS_MESSAGE_BYTES: usize = MAX_PAYLOAD_BYTES + HEADER_BYTES;
/// The most ids in one ACK, HELD, PROGRESS or RECORDED frame, the most results in one RESULTS, and so the largest
/// prefetch.
pub const MAX_IDS: usize = 65_536;
/// The longest group name, consumer id, reason or HELLO. Senders cut reasons to this length.
pub const MAX_TEXT_BYTES: usize = 4_096;
