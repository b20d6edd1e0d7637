//! Why bytes are not a frame.

use thiserror::Error;

use super::error_code::ErrorCode;
use super::limits::{HEADER_BYTES, VERSION};

/// Why bytes are not a frame.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WireError {
    /// The message ends inside a frame's header.
    #[error("frame header cut short: {got} of {HEADER_BYTES} bytes")]
    ShortHeader {
        /// Bytes that were left.
        got: usize,
    },
    /// The version byte is unknown.
    #[error("protocol version {0} is not supported, this side speaks version {VERSION}")]
    Version(u8),
    /// The command byte is unknown.
    #[error("unknown command {0}")]
    Command(u8),
    /// The payload length is over the limit.
    #[error("{command}: payload length {length} is over the limit of {limit} bytes")]
    TooLarge {
        /// The command's name.
        command: &'static str,
        /// The length announced.
        length: usize,
        /// The limit for this command.
        limit: usize,
    },
    /// The message ends inside a frame's payload.
    #[error("{command}: payload cut short: {got} of {length} bytes")]
    ShortPayload {
        /// The command's name.
        command: &'static str,
        /// The length announced.
        length: usize,
        /// Bytes that were there.
        got: usize,
    },
    /// The payload is not of the form that the command asks for.
    #[error("{command}: {problem}")]
    Malformed {
        /// The command's name.
        command: &'static str,
        /// What is wrong.
        problem: &'static str,
    },
}

impl WireError {
    /// The code that the answering ERROR frame carries.
    pub fn code(&self) -> ErrorCode {
        match self {
            WireError::Version(_) => ErrorCode::Version,
            WireError::Command(_) => ErrorCode::Command,
            WireError::TooLarge { .. } => ErrorCode::TooLarge,
            WireError::ShortHeader { .. } | WireError::ShortPayload { .. } | WireError::Malformed { .. } => {
                ErrorCode::Malformed
            }
        }
    }
}
