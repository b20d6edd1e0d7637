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
//! Integers are big-endian. [`Frame`] has one variant for each command and says what its payload holds.
//! Decoding is total: any bytes give frames or a [`WireError`], never a panic, and nothing is allocated that the
//! input did not pay for byte by byte. Bodies and values are borrowed from the message, so that a batch of
//! deliveries is decoded without copying.

use std::fmt;

use byteorder::{BigEndian, ByteOrder, WriteBytesExt};
use thiserror::Error;

use crate::base::id::{Epoch, MessageId};

/// The version of the protocol, the first byte of each frame.
pub const VERSION: u8 = 1;
/// Version, command and payload length.
pub const HEADER_BYTES: usize = 6;
/// The largest message body that is delivered to a consumer.
pub const MAX_BODY_BYTES: usize = 8 << 20;
/// The largest payload of any frame. A RESULT may be larger than the body it came from, hence the room.
pub const MAX_PAYLOAD_BYTES: usize = 12 << 20;
/// The largest WebSocket message either side accepts.
pub const MAX_WS_MESSAGE_BYTES: usize = MAX_PAYLOAD_BYTES + HEADER_BYTES;
/// The most ids one ACK, HELD or PROGRESS frame holds, and so the largest prefetch there is.
pub const MAX_IDS: usize = 65_536;
/// The longest group name, consumer id or reason; senders cut reasons to it.
pub const MAX_TEXT_BYTES: usize = 4_096;

/// Delay of a NACK that says: never again, move it to the dead letters.
pub const REJECT: u32 = u32::MAX;

/// One frame. Borrowed parts point into the message it was decoded from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// D→C: work on this message. `id u64, delivery u16, body`.
    Process {
        /// The message.
        id: MessageId,
        /// 1 for the first delivery, 2 for the first redelivery, …
        delivery: u16,
        /// The payload as it was published.
        body: &'a [u8],
    },
    /// C→D: these are done; their places are free. `id u64…`
    Ack(Vec<MessageId>),
    /// C→D: this one failed. `id u64, delay ms u32, reason`.
    Nack {
        /// The message.
        id: MessageId,
        /// When to deliver again, in milliseconds; 0 leaves it to the dispatcher, [`REJECT`] means never.
        delay_ms: u32,
        /// Why, for people.
        reason: &'a str,
    },
    /// D→C: I lead this group in this epoch; first on every connection. `epoch u64, group`.
    Lead {
        /// The epoch of the leader.
        epoch: Epoch,
        /// The group it leads.
        group: &'a str,
    },
    /// C→D: answers LEAD. `prefetch u32, flags u8, consumer id`.
    Ready {
        /// The most messages the consumer may have in hand.
        prefetch: u32,
        /// What the consumer can do.
        flags: ReadyFlags,
        /// The consumer's name.
        consumer: &'a str,
    },
    /// C→D: what the consumer has in hand, after READY. `id u64…`, may be empty.
    Held(Vec<MessageId>),
    /// C→D: still working on these. `id u64…`
    Progress(Vec<MessageId>),
    /// C→D: the result of a message, from a consumer that has no Redis.
    /// `id u64, field count u16, then for each field: name length u16, name, value length u32, value`.
    Result {
        /// The message.
        id: MessageId,
        /// The fields to record, in order.
        fields: Vec<Field<'a>>,
    },
    /// C→D: send no more.
    Drain,
    /// Both ways: what the other did wrong; the sender then closes. `code u16, text`.
    Error {
        /// What kind of mistake.
        code: ErrorCode,
        /// The details, for people.
        text: &'a str,
    },
}

/// A field of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// The field's name.
    pub name: &'a [u8],
    /// Its value.
    pub value: &'a [u8],
}

/// The flags of READY.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadyFlags(pub u8);

impl ReadyFlags {
    /// The consumer records its results in Redis itself before it ACKs.
    pub const COMMITS: ReadyFlags = ReadyFlags(1);

    /// Whether the consumer records its results itself.
    pub fn commits(self) -> bool {
        self.0 & Self::COMMITS.0 != 0
    }
}

macro_rules! error_codes {
    ($($(#[$doc:meta])+ $name:ident = $code:literal,)+) => {
        /// Why an ERROR frame was sent.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum ErrorCode {
            $($(#[$doc])+ $name,)+
            /// A code that this version does not know.
            Other(u16),
        }

        impl ErrorCode {
            /// The code on the wire.
            pub fn code(self) -> u16 {
                match self { $(Self::$name => $code,)+ Self::Other(code) => code }
            }
        }

        impl From<u16> for ErrorCode {
            fn from(code: u16) -> Self {
                match code { $($code => Self::$name,)+ other => Self::Other(other) }
            }
        }
    };
}

error_codes! {
    /// The version byte is not one that the receiver speaks.
    Version = 1,
    /// The command byte is unknown.
    Command = 2,
    /// A length over its limit.
    TooLarge = 3,
    /// A payload that is too short, too long or not of its form.
    Malformed = 4,
    /// A valid frame at the wrong time or in the wrong direction.
    Unexpected = 5,
    /// The sender's epoch is older than one the receiver has seen, or not the one that its Redis names.
    Stale = 6,
    /// LEAD named another group.
    Group = 7,
    /// More messages in hand than the prefetch allows.
    OverPrefetch = 8,
    /// The receiver could not ask Redis whether the sender's epoch is true.
    Unavailable = 9,
    /// The connection was replaced by a newer one of the same epoch.
    Replaced = 10,
}

/// How the text of an ERROR 6 begins that tells a leader which epoch was seen.
const SEEN: &str = "seen ";

/// The text of an ERROR 6 for a leader that Redis confirms, and that is behind what was seen all the same.
pub fn seen_text(seen: Epoch, why: &str) -> String {
    format!("{SEEN}{seen}: {why}")
}

/// The epoch that such a [text](seen_text) names.
pub fn seen_epoch(text: &str) -> Option<Epoch> {
    let (number, _) = text.strip_prefix(SEEN)?.split_once(": ")?;
    number.bytes().all(|byte| byte.is_ascii_digit()).then(|| number.parse().ok().map(Epoch))?
}

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

const PROCESS: u8 = 0;
const ACK: u8 = 1;
const NACK: u8 = 2;
const LEAD: u8 = 3;
const READY: u8 = 4;
const HELD: u8 = 5;
const PROGRESS: u8 = 6;
const RESULT: u8 = 7;
const DRAIN: u8 = 8;
const ERROR: u8 = 9;

/// The command's name and the limit of its payload.
fn describe(command: u8) -> Option<(&'static str, usize)> {
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
        _ => return None,
    })
}

impl Frame<'_> {
    /// The command's name, for logs and errors.
    pub fn name(&self) -> &'static str {
        describe(self.command()).expect("every variant has a command").0
    }

    fn command(&self) -> u8 {
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
        }
    }

    /// Appends the frame to `out`.
    ///
    /// The sender keeps the limits; a frame over them is a mistake of ours and is refused by the receiver, also where
    /// a count or length does not even fit its place: such a frame announces a payload that nobody takes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let mut fits = true;
        out.extend_from_slice(&[VERSION, self.command(), 0, 0, 0, 0]);
        match self {
            Frame::Process { id, delivery, body } => {
                put_u64(out, id.0);
                put_u16(out, *delivery);
                out.extend_from_slice(body);
            }
            Frame::Ack(ids) | Frame::Held(ids) | Frame::Progress(ids) => {
                out.reserve(8 * ids.len());
                ids.iter().for_each(|id| put_u64(out, id.0));
            }
            Frame::Nack { id, delay_ms, reason } => {
                put_u64(out, id.0);
                put_u32(out, *delay_ms);
                out.extend_from_slice(cut(reason).as_bytes());
            }
            Frame::Lead { epoch, group } => {
                put_u64(out, epoch.0);
                out.extend_from_slice(group.as_bytes());
            }
            Frame::Ready { prefetch, flags, consumer } => {
                put_u32(out, *prefetch);
                out.push(flags.0);
                out.extend_from_slice(consumer.as_bytes());
            }
            Frame::Result { id, fields } => {
                put_u64(out, id.0);
                fits &= fields.len() <= u16::MAX.into();
                put_u16(out, fields.len() as u16);
                for field in fields {
                    fits &= field.name.len() <= u16::MAX.into() && u32::try_from(field.value.len()).is_ok();
                    put_u16(out, field.name.len() as u16);
                    out.extend_from_slice(field.name);
                    put_u32(out, field.value.len() as u32);
                    out.extend_from_slice(field.value);
                }
            }
            Frame::Drain => {}
            Frame::Error { code, text } => {
                put_u16(out, code.code());
                out.extend_from_slice(cut(text).as_bytes());
            }
        }
        let length = u32::try_from(out.len() - start - HEADER_BYTES).ok().filter(|_| fits).unwrap_or(u32::MAX);
        BigEndian::write_u32(&mut out[start + 2..start + HEADER_BYTES], length);
    }

    /// The frame alone, as a WebSocket message.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode(&mut out);
        out
    }
}

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

/// Splits the first frame off: its command, its payload, and what follows.
fn split_frame(bytes: &[u8]) -> Result<(u8, &[u8], &[u8]), WireError> {
    // The version is judged before anything else: what follows it may look different in another version.
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
    let mut reader = Reader { command: name, rest: payload };
    let frame = match command {
        PROCESS => Frame::Process { id: reader.id()?, delivery: reader.u16()?, body: reader.rest() },
        ACK => Frame::Ack(reader.ids()?),
        NACK => Frame::Nack { id: reader.id()?, delay_ms: reader.u32()?, reason: reader.text()? },
        LEAD => Frame::Lead { epoch: Epoch(reader.u64()?), group: reader.text()? },
        READY => {
            Frame::Ready { prefetch: reader.u32()?, flags: ReadyFlags(reader.take(1)?[0]), consumer: reader.text()? }
        }
        HELD => Frame::Held(reader.ids()?),
        PROGRESS => Frame::Progress(reader.ids()?),
        RESULT => Frame::Result { id: reader.id()?, fields: reader.fields()? },
        DRAIN => Frame::Drain,
        ERROR => Frame::Error { code: ErrorCode::from(reader.u16()?), text: reader.text()? },
        _ => return Err(WireError::Command(command)),
    };
    if reader.rest.is_empty() { Ok(frame) } else { Err(reader.malformed("bytes are left over")) }
}

/// Takes a payload apart from its front.
struct Reader<'a> {
    command: &'static str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
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

    fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
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

    fn fields(&mut self) -> Result<Vec<Field<'a>>, WireError> {
        let count = self.u16()? as usize;
        // Each field takes at least its two lengths: the count alone must not reserve memory.
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

/// The text, cut to [`MAX_TEXT_BYTES`] at a character's border.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_TEXT_BYTES)]
}

// Writing to a Vec cannot fail.
fn put_u16(out: &mut Vec<u8>, value: u16) {
    out.write_u16::<BigEndian>(value).expect("a Vec takes every write");
}

fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.write_u32::<BigEndian>(value).expect("a Vec takes every write");
}

fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.write_u64::<BigEndian>(value).expect("a Vec takes every write");
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?} ({})", self.code())
    }
}

#[cfg(test)]
mod tests;
