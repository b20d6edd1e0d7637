//! The number by which the consumer's parts refer to a dispatcher's connection, and the reason why they end one.

use crate::wire::{ErrorCode, WireError};

/// The number of a connection. Connections are numbered in order of arrival.
pub(super) type LinkId = u64;

/// Why a connection is closed, as stated in the ERROR frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CloseReason {
    pub(super) code: ErrorCode,
    pub(super) text: String,
}

impl CloseReason {
    pub(super) fn new(code: ErrorCode, text: impl Into<String>) -> CloseReason {
        CloseReason { code, text: text.into() }
    }
}

impl From<WireError> for CloseReason {
    fn from(error: WireError) -> CloseReason {
        CloseReason::new(error.code(), error.to_string())
    }
}
