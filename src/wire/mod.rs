//! The frames between dispatchers and consumers: pure encoding and decoding, no IO.
//!
//! A WebSocket binary message holds one or more whole frames, one after the other:
//!
//! ```text
//!  0         1         2                                     6
//! +---------+---------+-------------------------------------+------------------+
//! | version | command | payload length, u32 big-endian      | payload          |
//! +---------+---------+-------------------------------------+------------------+
//! ```
//!
//! Integers are big-endian. [`Frame`] has one variant for each command and says what its payload holds. Decoding is
//! total: any bytes yield frames or a [`WireError`], never a panic, and memory is allocated only in proportion to the
//! input's length. Bodies and values are borrowed from the message, so a batch of deliveries is decoded without
//! copying.
//!
//! [`Nonces`] makes and checks the proofs by which both ends of a link show that they know its secret.

mod command;
mod decode;
mod encode;
mod error;
mod error_code;
mod frame;
mod limits;
mod proof;
mod shown;

pub use self::decode::{Frames, frames};
pub use self::error::WireError;
pub use self::error_code::{ErrorCode, seen_epoch, seen_text};
pub use self::frame::{Field, Frame, MessageResult, NackDelay, ReadyFlags};
pub use self::limits::{
    HEADER_BYTES, MAX_BODY_BYTES, MAX_CHANNEL_BYTES, MAX_IDS, MAX_PAYLOAD_BYTES, MAX_TEXT_BYTES, MAX_WS_MESSAGE_BYTES,
    SUBPROTOCOL_1, SUBPROTOCOL_2, VERSION,
};
pub use self::proof::{MAX_SECRETS, NONCE_BYTES, NONCE_HEADER, Nonce, Nonces, PROOF_HEADER, Proof, proofs_in};

#[cfg(test)]
mod tests;
