//! A frame as text, as docs/PROTOCOL.md writes it: `NACK id=7 delay_ms=0 reason="no luck"`. Long values are cut.

use std::fmt;

use super::frame::{Field, Frame};
use crate::base::id::MessageId;

/// The most bytes of a value that are shown.
const MAX_SHOWN_BYTES: usize = 120;
/// The most ids of a list, or fields of a result, that are shown.
const MAX_SHOWN: usize = 12;

impl fmt::Display for Frame<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            Frame::Process { id, delivery, body } => {
                write!(f, " id={} delivery={delivery} body={}", id.0, Value(body))
            }
            Frame::Deliver { id, delivery, channel_bytes, joined } => {
                let (channel, body) = joined.split_at((*channel_bytes).into());
                write!(f, " id={} delivery={delivery} channel={} body={}", id.0, Value(channel), Value(body))
            }
            Frame::Part { id, delivery, position, channel_bytes, joined } => {
                let (channel, body) = joined.split_at((*channel_bytes).into());
                write!(f, " id={} delivery={delivery} position={}", id.0, position.number())?;
                if !channel.is_empty() {
                    write!(f, " channel={}", Value(channel))?;
                }
                write!(f, " body={}", Value(body))
            }
            Frame::Ack(ids) | Frame::Held(ids) | Frame::Progress(ids) | Frame::Recorded(ids) => {
                write!(f, " ids=[{}]", Ids(ids))
            }
            Frame::Nack { id, delay, reason } => {
                write!(f, " id={} delay_ms={} reason={}", id.0, delay.to_wire(), Value(reason.as_bytes()))
            }
            Frame::Lead { epoch, group } => write!(f, " epoch={epoch} group={}", Value(group.as_bytes())),
            Frame::Ready { prefetch, flags, consumer } => {
                write!(f, " prefetch={prefetch} flags={} consumer={}", flags.0, Value(consumer.as_bytes()))
            }
            Frame::Result { id, fields } => write!(f, " id={} fields=[{}]", id.0, Fields(fields)),
            Frame::Results(results) => {
                for result in results.iter().take(MAX_SHOWN) {
                    write!(f, " [id={} fields=[{}]]", result.id.0, Fields(&result.fields))?;
                }
                if results.len() > MAX_SHOWN { write!(f, " … ({} results)", results.len()) } else { Ok(()) }
            }
            Frame::Hello(hello) => write!(f, " {hello}"),
            Frame::Credit { prefetch } => write!(f, " prefetch={prefetch}"),
            Frame::Proof(proof) => write!(f, " {proof}"),
            Frame::Drain => Ok(()),
            Frame::Error { code, text } => write!(f, " code={} text={}", code.code(), Value(text.as_bytes())),
        }
    }
}

/// Bytes in quotes, what is not text escaped.
struct Value<'a>(&'a [u8]);

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.0[..self.0.len().min(MAX_SHOWN_BYTES)];
        match std::str::from_utf8(shown) {
            Ok(text) => write!(f, "{text:?}")?,
            Err(_) => write!(f, "\"{}\"", shown.escape_ascii())?,
        }
        if shown.len() < self.0.len() { write!(f, "… ({} bytes)", self.0.len()) } else { Ok(()) }
    }
}

struct Ids<'a>(&'a [MessageId]);

impl fmt::Display for Ids<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, id) in self.0.iter().take(MAX_SHOWN).enumerate() {
            write!(f, "{}{}", if number == 0 { "" } else { ", " }, id.0)?;
        }
        if self.0.len() > MAX_SHOWN { write!(f, ", … ({} ids)", self.0.len()) } else { Ok(()) }
    }
}

struct Fields<'a>(&'a [Field<'a>]);

impl fmt::Display for Fields<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, field) in self.0.iter().take(MAX_SHOWN).enumerate() {
            let comma = if number == 0 { "" } else { ", " };
            write!(f, "{comma}{}={}", field.name.escape_ascii(), Value(field.value))?;
        }
        f.write_str(if self.0.len() > MAX_SHOWN { ", …" } else { "" })
    }
}
