//! What a consumer has sent, one value for each thing that a step can wait for. Pure.

use std::fmt;

use crate::wire::{Field, Frame, MessageResult};

/// A name and a value.
pub(super) type Pair = (Vec<u8>, Vec<u8>);

/// A frame, or one id of a frame that answers several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Ready { prefetch: u32, flags: u8, consumer: String },
    Held(Vec<u64>),
    Progress(Vec<u64>),
    Answer { id: u64, answer: Answer },
    Drain,
    Credit(u32),
    Error { code: u16, text: String },
}

/// How a message is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Ack,
    Nack { delay_ms: u32, reason: String },
    Result(Vec<Pair>),
}

/// What a frame from a consumer says, or its name if only a dispatcher may send it.
pub(super) fn heard(frame: &Frame<'_>) -> Result<Vec<Heard>, &'static str> {
    Ok(match frame {
        Frame::Ready { prefetch, flags, consumer } => {
            vec![Heard::Ready { prefetch: *prefetch, flags: flags.0, consumer: (*consumer).to_owned() }]
        }
        Frame::Held(ids) => vec![Heard::Held(ids.iter().map(|id| id.0).collect())],
        Frame::Progress(ids) => vec![Heard::Progress(ids.iter().map(|id| id.0).collect())],
        Frame::Ack(ids) => ids.iter().map(|id| Heard::Answer { id: id.0, answer: Answer::Ack }).collect(),
        Frame::Nack { id, delay, reason } => {
            let answer = Answer::Nack { delay_ms: delay.to_wire(), reason: (*reason).to_owned() };
            vec![Heard::Answer { id: id.0, answer }]
        }
        Frame::Result { id, fields } => {
            vec![Heard::Answer { id: id.0, answer: Answer::Result(pairs(fields)) }]
        }
        Frame::Results(results) => {
            let answer = |result: &MessageResult<'_>| Answer::Result(pairs(&result.fields));
            results.iter().map(|result| Heard::Answer { id: result.id.0, answer: answer(result) }).collect()
        }
        Frame::Credit { prefetch } => vec![Heard::Credit(*prefetch)],
        Frame::Drain => vec![Heard::Drain],
        Frame::Error { code, text } => vec![Heard::Error { code: code.code(), text: (*text).to_owned() }],
        Frame::Lead { .. }
        | Frame::Process { .. }
        | Frame::Deliver { .. }
        | Frame::Part { .. }
        | Frame::Hello(_)
        | Frame::Recorded(_)
        | Frame::Proof(_) => return Err(frame.name()),
    })
}

fn pairs(fields: &[Field<'_>]) -> Vec<Pair> {
    fields.iter().map(|field| (field.name.to_vec(), field.value.to_vec())).collect()
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Answer::Ack => f.write_str("ACK"),
            Answer::Nack { delay_ms, reason } => write!(f, "NACK delay_ms={delay_ms} reason={reason:?}"),
            Answer::Result(fields) => write!(f, "RESULT with {} fields", fields.len()),
        }
    }
}
