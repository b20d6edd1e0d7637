//! The number by which the consumer's parts refer to a dispatcher's connection, and the reason why they end one.

use crate::wire::{ErrorCode, WireError};

/// The number of a connection. Connections are numbered in order of arrival.
pub(super) type LinkId = u64;

/// Why a connection is closed, as stated in the ERROR frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: ErrorCode,
    pub(super) text: String,
}

impl Refusal {
    pub(super) fn new(code: ErrorCode, text: impl Into<String>) -> Refusal {
        Refusal { code, text: text.into() }
    }
}

impl From<WireError> for Refusal {
    fn from(error: WireError) -> Refusal {
        Refusal::new(error.code(), error.to_string())
    }
}
