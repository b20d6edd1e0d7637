//! Encodes frames.

use byteorder::{BigEndian, ByteOrder, WriteBytesExt};

use super::frame::{Field, Frame, MessageResult};
use super::limits::{HEADER_BYTES, MAX_TEXT_BYTES, VERSION};
use crate::base::id::MessageId;
use crate::base::text::beginning;

impl Frame<'_> {
    /// Appends the frame to `out`.
    ///
    /// The sender must keep the limits. The receiver refuses a frame over them. If a count or length does not even fit
    /// its place, the frame announces a payload that every receiver refuses.
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
            Frame::Deliver { id, delivery, channel_bytes, joined } => {
                put_u64(out, id.0);
                put_u16(out, *delivery);
                put_u16(out, *channel_bytes);
                out.extend_from_slice(joined);
            }
            Frame::Part { id, delivery, position, channel_bytes, joined } => {
                put_u64(out, id.0);
                put_u16(out, *delivery);
                out.push(position.number());
                put_u16(out, *channel_bytes);
                out.extend_from_slice(joined);
            }
            Frame::Ack(ids) | Frame::Held(ids) | Frame::Progress(ids) | Frame::Recorded(ids) => {
                out.reserve(8 * ids.len());
                ids.iter().for_each(|id| put_u64(out, id.0));
            }
            Frame::Nack { id, delay, reason } => {
                put_u64(out, id.0);
                put_u32(out, delay.to_wire());
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
            Frame::Result { id, fields } => fits &= put_result(out, *id, fields),
            Frame::Results(results) => {
                for MessageResult { id, fields } in results {
                    fits &= put_result(out, *id, fields);
                }
            }
            Frame::Hello(settings) => out.extend_from_slice(settings.as_bytes()),
            Frame::Credit { prefetch } => put_u32(out, *prefetch),
            Frame::Proof(proof) => out.extend_from_slice(&proof.0),
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

/// Appends a result. Returns whether its counts and lengths fit their places.
fn put_result(out: &mut Vec<u8>, id: MessageId, fields: &[Field<'_>]) -> bool {
    put_u64(out, id.0);
    let mut fits = fields.len() <= u16::MAX.into();
    put_u16(out, fields.len() as u16);
    for field in fields {
        fits &= field.name.len() <= u16::MAX.into() && u32::try_from(field.value.len()).is_ok();
        put_u16(out, field.name.len() as u16);
        out.extend_from_slice(field.name);
        put_u32(out, field.value.len() as u32);
        out.extend_from_slice(field.value);
    }
    fits
}

/// The text, cut to [`MAX_TEXT_BYTES`] without splitting a character.
fn cut(text: &str) -> &str {
    beginning(text, MAX_TEXT_BYTES)
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
