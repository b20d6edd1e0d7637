//! The commands by their numbers: their names, their largest payloads, and the number of each frame.

use super::frame::Frame;
use super::limits::{MAX_BODY_BYTES, MAX_CHANNEL_BYTES, MAX_IDS, MAX_PAYLOAD_BYTES, MAX_TEXT_BYTES};
use super::proof::PROOF_BYTES;
use crate::base::bundle::MAX_BUNDLE_BYTES;

pub(super) const PROCESS: u8 = 0;
pub(super) const ACK: u8 = 1;
pub(super) const NACK: u8 = 2;
pub(super) const LEAD: u8 = 3;
pub(super) const READY: u8 = 4;
pub(super) const HELD: u8 = 5;
pub(super) const PROGRESS: u8 = 6;
pub(super) const RESULT: u8 = 7;
pub(super) const DRAIN: u8 = 8;
pub(super) const ERROR: u8 = 9;
pub(super) const DELIVER: u8 = 10;
pub(super) const RESULTS: u8 = 11;
pub(super) const HELLO: u8 = 12;
pub(super) const RECORDED: u8 = 13;
pub(super) const CREDIT: u8 = 14;
pub(super) const PROOF: u8 = 15;
pub(super) const PART: u8 = 16;

/// The command's name and the limit of its payload.
pub(super) fn describe(command: u8) -> Option<(&'static str, usize)> {
    Some(match command {
        PROCESS => ("PROCESS", 10 + MAX_BODY_BYTES),
        ACK => ("ACK", 8 * MAX_IDS),
        NACK => ("NACK", 12 + MAX_TEXT_BYTES),
        LEAD => ("LEAD", 8 + MAX_TEXT_BYTES),
        READY => ("READY", 5 + MAX_TEXT_BYTES),
        HELD => ("HELD", 8 * MAX_IDS),
        PROGRESS => ("PROGRESS", 8 * MAX_IDS),
        RESULT => ("RESULT", MAX_PAYLOAD_BYTES),
        DRAIN => ("DRAIN", 0),
        ERROR => ("ERROR", 2 + MAX_TEXT_BYTES),
        DELIVER => ("DELIVER", 12 + MAX_CHANNEL_BYTES + MAX_BODY_BYTES),
        RESULTS => ("RESULTS", MAX_PAYLOAD_BYTES),
        HELLO => ("HELLO", MAX_TEXT_BYTES),
        RECORDED => ("RECORDED", 8 * MAX_IDS),
        CREDIT => ("CREDIT", 4),
        PROOF => ("PROOF", PROOF_BYTES),
        PART => ("PART", 13 + MAX_BUNDLE_BYTES),
        _ => return None,
    })
}

impl Frame<'_> {
    /// The command's name, for logs and errors.
    pub fn name(&self) -> &'static str {
        describe(self.command()).expect("every variant has a command").0
    }

    pub(super) fn command(&self) -> u8 {
        match self {
            Frame::Process { .. } => PROCESS,
            Frame::Ack(_) => ACK,
            Frame::Nack { .. } => NACK,
            Frame::Lead { .. } => LEAD,
            Frame::Ready { .. } => READY,
            Frame::Held(_) => HELD,
            Frame::Progress(_) => PROGRESS,
            Frame::Result { .. } => RESULT,
            Frame::Drain => DRAIN,
            Frame::Error { .. } => ERROR,
            Frame::Deliver { .. } => DELIVER,
            Frame::Results(_) => RESULTS,
            Frame::Hello(_) => HELLO,
            Frame::Recorded(_) => RECORDED,
            Frame::Credit { .. } => CREDIT,
            Frame::Proof(_) => PROOF,
            Frame::Part { .. } => PART,
        }
    }
}
