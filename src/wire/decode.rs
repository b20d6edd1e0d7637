//! Decodes frames. Handles every input, and copies no bodies, values or texts.

use byteorder::{BigEndian, ByteOrder};

use super::command::{
    ACK, CREDIT, DELIVER, DRAIN, ERROR, HELD, HELLO, LEAD, NACK, PART, PROCESS, PROGRESS, PROOF, READY, RECORDED,
    RESULT, RESULTS, describe,
};
use super::error::WireError;
use super::error_code::ErrorCode;
use super::frame::{Field, Frame, MessageResult, NackDelay, ReadyFlags};
use super::limits::{HEADER_BYTES, MAX_CHANNEL_BYTES, MAX_IDS, VERSION};
use super::proof::{PROOF_BYTES, Proof};
use crate::base::bundle::BundlePosition;
use crate::base::id::{Epoch, MessageId};

/// The frames of a WebSocket message, in order; ends after the first error.
pub fn frames(message: &[u8]) -> Frames<'_> {
    Frames { rest: message }
}

/// See [`frames`].
#[derive(Clone, Debug)]
pub struct Frames<'a> {
    rest: &'a [u8],
}

impl<'a> Frames<'a> {
    /// The bytes that have not been decoded yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<Frame<'a>, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        match split_frame(self.rest) {
            Ok((command, payload, rest)) => {
                self.rest = rest;
                let frame = decode_payload(command, payload);
                if frame.is_err() {
                    self.rest = &[];
                }
                Some(frame)
            }
            Err(error) => {
                self.rest = &[];
                Some(Err(error))
            }
        }
    }
}

/// Splits off the first frame: its command, its payload, and the rest.
fn split_frame(bytes: &[u8]) -> Result<(u8, &[u8], &[u8]), WireError> {
    // The version is checked first, because the rest may have another layout in another version.
    if bytes[0] != VERSION {
        return Err(WireError::Version(bytes[0]));
    }
    if bytes.len() < HEADER_BYTES {
        return Err(WireError::ShortHeader { got: bytes.len() });
    }
    let (name, limit) = describe(bytes[1]).ok_or(WireError::Command(bytes[1]))?;
    let length = BigEndian::read_u32(&bytes[2..HEADER_BYTES]) as usize;
    if length > limit {
        return Err(WireError::TooLarge { command: name, length, limit });
    }
    let rest = &bytes[HEADER_BYTES..];
    if rest.len() < length {
        return Err(WireError::ShortPayload { command: name, length, got: rest.len() });
    }
    Ok((bytes[1], &rest[..length], &rest[length..]))
}

fn decode_payload(command: u8, payload: &[u8]) -> Result<Frame<'_>, WireError> {
    let (name, _) = describe(command).ok_or(WireError::Command(command))?;
    let mut reader = PayloadReader { command: name, rest: payload };
    let frame = match command {
        PROCESS => Frame::Process { id: reader.id()?, delivery: reader.u16()?, body: reader.rest() },
        DELIVER => {
            let (id, delivery, channel_bytes) = (reader.id()?, reader.u16()?, reader.u16()?);
            Frame::Deliver { id, delivery, channel_bytes, joined: reader.joined(channel_bytes)? }
        }
        PART => {
            let (id, delivery, position) = (reader.id()?, reader.u16()?, reader.position()?);
            let channel_bytes = reader.u16()?;
            let joined = if channel_bytes == 0 { reader.rest() } else { reader.joined(channel_bytes)? };
            Frame::Part { id, delivery, position, channel_bytes, joined }
        }
        ACK => Frame::Ack(reader.ids()?),
        NACK => Frame::Nack { id: reader.id()?, delay: NackDelay::of_wire(reader.u32()?), reason: reader.text()? },
        LEAD => Frame::Lead { epoch: Epoch(reader.u64()?), group: reader.text()? },
        READY => {
            Frame::Ready { prefetch: reader.u32()?, flags: ReadyFlags(reader.take(1)?[0]), consumer: reader.text()? }
        }
        HELD => Frame::Held(reader.ids()?),
        PROGRESS => Frame::Progress(reader.ids()?),
        RESULT => Frame::Result { id: reader.id()?, fields: reader.fields()? },
        RESULTS => Frame::Results(reader.results()?),
        DRAIN => Frame::Drain,
        ERROR => Frame::Error { code: ErrorCode::from(reader.u16()?), text: reader.text()? },
        HELLO => Frame::Hello(reader.text()?),
        RECORDED => Frame::Recorded(reader.ids()?),
        CREDIT => Frame::Credit { prefetch: reader.u32()? },
        PROOF => Frame::Proof(reader.proof()?),
        _ => return Err(WireError::Command(command)),
    };
    if reader.rest.is_empty() { Ok(frame) } else { Err(reader.malformed("bytes are left over")) }
}

/// Reads a payload from its front.
struct PayloadReader<'a> {
    command: &'static str,
    rest: &'a [u8],
}

impl<'a> PayloadReader<'a> {
    fn malformed(&self, problem: &'static str) -> WireError {
        WireError::Malformed { command: self.command, problem }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or_else(|| self.malformed("payload too short"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn u16(&mut self) -> Result<u16, WireError> {
        self.take(2).map(BigEndian::read_u16)
    }

    fn u32(&mut self) -> Result<u32, WireError> {
        self.take(4).map(BigEndian::read_u32)
    }

    fn u64(&mut self) -> Result<u64, WireError> {
        self.take(8).map(BigEndian::read_u64)
    }

    fn id(&mut self) -> Result<MessageId, WireError> {
        self.u64().map(MessageId)
    }

    fn position(&mut self) -> Result<BundlePosition, WireError> {
        let position = BundlePosition::new(self.take(1)?[0]);
        position.ok_or_else(|| self.malformed("no bundle has so many messages"))
    }

    fn proof(&mut self) -> Result<Proof, WireError> {
        let bytes = self.take(PROOF_BYTES)?;
        Ok(Proof(bytes.try_into().expect("as many were taken")))
    }

    fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    fn joined(&mut self, channel_bytes: u16) -> Result<&'a [u8], WireError> {
        match usize::from(channel_bytes) {
            1..=MAX_CHANNEL_BYTES if usize::from(channel_bytes) <= self.rest.len() => Ok(self.rest()),
            1..=MAX_CHANNEL_BYTES => Err(self.malformed("payload too short")),
            _ => Err(self.malformed("the channel's name is empty or too long")),
        }
    }

    fn text(&mut self) -> Result<&'a str, WireError> {
        std::str::from_utf8(self.rest()).map_err(|_| self.malformed("text is not UTF-8"))
    }

    fn ids(&mut self) -> Result<Vec<MessageId>, WireError> {
        let bytes = self.rest();
        if !bytes.len().is_multiple_of(8) {
            return Err(self.malformed("the list of ids is not a multiple of 8 bytes"));
        }
        Ok(bytes.chunks_exact(8).map(|id| MessageId(BigEndian::read_u64(id))).collect())
    }

    fn result(&mut self) -> Result<MessageResult<'a>, WireError> {
        Ok(MessageResult { id: self.id()?, fields: self.fields()? })
    }

    /// One result or more, up to the payload's end.
    fn results(&mut self) -> Result<Vec<MessageResult<'a>>, WireError> {
        let mut results = vec![self.result()?];
        while !self.rest.is_empty() {
            if results.len() == MAX_IDS {
                return Err(self.malformed("too many results"));
            }
            results.push(self.result()?);
        }
        Ok(results)
    }

    fn fields(&mut self) -> Result<Vec<Field<'a>>, WireError> {
        let count = self.u16()? as usize;
        // Each field takes at least its two lengths. The count alone must not reserve memory.
        if count > self.rest.len() / 6 {
            return Err(self.malformed("more fields announced than the payload can hold"));
        }
        let mut fields = Vec::with_capacity(count);
        for _ in 0..count {
            let name_length = self.u16()? as usize;
            let name = self.take(name_length)?;
            let value_length = self.u32()? as usize;
            let value = self.take(value_length)?;
            fields.push(Field { name, value });
        }
        Ok(fields)
    }
}
