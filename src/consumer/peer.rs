//! How the consumer's parts name a dispatcher's connection, and why they end one.

use crate::wire::{ErrorCode, WireError};

/// One connection, numbered in the order of their arrival.
pub(super) type LinkId = u64;

/// Why a connection is closed, as the ERROR frame says it.
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
