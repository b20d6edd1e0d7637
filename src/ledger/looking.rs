//! Looks at pending messages for an operator's tool, and asks the leader where they are. Changes nothing, needs no
//! lease, and reads a bounded part at a time.

use std::time::Duration;

use redis::Value;

use super::command::Command;
use super::core::Ledger;
use super::limits::{MAX_BATCH_BYTES, MAX_BATCH_MESSAGES};
use super::member::{self, Body};
use super::question::{Answer, Question, RequestId};
use super::scripts::{AnswerCall, LookCall};
use super::value::{score, text};
use crate::base::error::Result;
use crate::base::id::{Epoch, MessageId};

/// How long an answer may be read.
const ANSWER_TTL: Duration = Duration::from_secs(30);

/// A pending message as Redis has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Looked {
    /// Its id.
    pub id: MessageId,
    /// The number of its present or next delivery, as far as it was counted.
    pub delivery: u64,
    /// When it is due again, in milliseconds since 1970, if Redis knows that.
    pub due_ms: Option<u64>,
    /// How often it was replayed from the dead letters.
    pub replays: u64,
    /// The bytes of its payload.
    pub bytes: u64,
    /// Its channel, if that is recorded, and its payload, which is empty unless it was asked for.
    pub body: Body,
}

/// A page of pending messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LookedPage {
    /// The id or score up to which it was read; `None` at the end.
    pub read_up_to: Option<MessageId>,
    /// The messages.
    pub messages: Vec<Looked>,
    /// Members that no dispatcher wrote.
    pub foreign: u64,
}

impl Ledger {
    /// Looks at the next messages with `after < id <= up_to`, oldest first, without their payloads: at most `most`, and
    /// fewer if they are large.
    pub fn look(&mut self, after: MessageId, up_to: MessageId, most: usize) -> Result<LookedPage> {
        self.look_at(after, up_to, most.clamp(1, MAX_BATCH_MESSAGES) as u64, false)
    }

    /// A pending message with its payload, if it is pending.
    pub fn look_whole(&mut self, id: MessageId) -> Result<Option<Looked>> {
        let after = MessageId(id.0.saturating_sub(1));
        let page = self.look_at(after, id, 1, true)?;
        Ok(page.messages.into_iter().find(|looked| looked.id == id))
    }

    fn look_at(&mut self, after: MessageId, up_to: MessageId, most_messages: u64, whole: bool) -> Result<LookedPage> {
        const DOING: &str = "looking at pending messages";
        let call = LookCall { after, up_to, most_messages, most_bytes: MAX_BATCH_BYTES as u64, whole };
        let reply = self.call_reading(DOING, |ledger| call.on(&ledger.keys))?;
        let Value::Array(parts) = &reply else { return self.unexpected_reply(DOING, &reply) };
        let [read_up_to, Value::Int(passed), triples @ ..] = parts.as_slice() else {
            return self.unexpected_reply(DOING, &reply);
        };
        let (read_up_to, foreign) = (text(read_up_to).and_then(score), passed.unsigned_abs());
        let mut page = LookedPage { read_up_to, foreign, messages: Vec::new() };
        for triple in triples.chunks_exact(3) {
            match looked(triple) {
                Some(looked) => page.messages.push(looked),
                None => page.foreign += 1,
            }
        }
        Ok(page)
    }

    /// The server's clock, in microseconds since 1970.
    pub fn clock_us(&mut self) -> Result<u64> {
        const DOING: &str = "reading the server's clock";
        let reply = self.connection.query(DOING, Command::of(&["TIME"]))?;
        let Value::Array(parts) = &reply else { return self.unexpected_reply(DOING, &reply) };
        let numbers: Option<Vec<u64>> = parts.iter().map(|part| text(part)?.parse().ok()).collect();
        match numbers.as_deref() {
            Some([seconds, us]) => Ok(seconds.saturating_mul(1_000_000).saturating_add(*us)),
            _ => self.unexpected_reply(DOING, &reply),
        }
    }

    /// Whether a dispatcher leads.
    pub fn is_led(&mut self) -> Result<bool> {
        let get = Command::of(&["GET", &self.keys.leader]);
        self.connection.query("asking who leads", get).map(|leader| leader != Value::Nil)
    }

    /// Asks the leader. Returns the number of connections that hear it: none if no dispatcher runs.
    pub fn ask(&mut self, question: &Question) -> Result<u64> {
        const DOING: &str = "asking where messages are";
        let notice = format!("where {question}");
        match self.connection.query(DOING, Command::of(&["PUBLISH", &self.keys.control, &notice]))? {
            Value::Int(heard) => Ok(heard.unsigned_abs()),
            other => self.unexpected_reply(DOING, &other),
        }
    }

    /// The answer to a question, once it is there.
    pub fn answer_to(&mut self, request: RequestId) -> Result<Option<Answer>> {
        let get = Command::of(&["GET", &self.keys.answer_to(request)]);
        let reply = self.connection.query("reading where messages are", get)?;
        Ok(text(&reply).and_then(|answer| answer.parse().ok()))
    }

    /// Writes the answer of the leader to a question.
    pub fn write_answer(&mut self, epoch: Epoch, request: RequestId, answer: &Answer) -> Result<()> {
        let text = answer.to_string();
        let call = AnswerCall { my_epoch: epoch, ttl_ms: ANSWER_TTL, text: &text }.on(&self.keys);
        self.call_for_ok(epoch, "answering where messages are", call.key(&self.keys.answer_to(request)))
    }
}

/// A message from its member or the beginning of that, the bytes of its payload, and what `attempts` has for it.
fn looked(triple: &[Value]) -> Option<Looked> {
    let [Value::BulkString(member), Value::Int(bytes), attempts] = triple else { return None };
    let (id, body) = member::decode(member)?;
    let attempts = text(attempts).unwrap_or_default();
    let mut words = attempts.split(' ').peekable();
    let number = words.next().unwrap_or_default();
    let due = words.next_if(|word| word.starts_with('@')).and_then(|due| due[1..].parse().ok());
    // The wait of which that time is the end.
    words.next_if(|word| word.starts_with('+'));
    let replays = words.next().unwrap_or_default();
    Some(Looked {
        id,
        delivery: number.parse().unwrap_or(1),
        due_ms: due,
        replays: replays.parse().unwrap_or_default(),
        bytes: bytes.unsigned_abs(),
        body,
    })
}
