//! The question where pending messages are, which an operator's tool asks of the leader, and the answer. Pure.
//!
//! The question is a notice on the control channel. The answer is a text of one line for each message, under a key that
//! expires. Nothing depends on either.

use std::fmt;
use std::str::FromStr;

use crate::base::id::{MessageId, id_in};
use crate::base::text::Escaped;

/// The most ids in a question.
pub const MOST_ASKED: usize = 128;

/// What a question and its answer have in common: a random number, written as 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(pub u64);

impl RequestId {
    /// A new one.
    pub fn generate() -> RequestId {
        RequestId(fastrand::u64(..))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// `<request> <id> <id> …`: where are these? 1 to [`MOST_ASKED`] ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// What names the answer.
    pub request: RequestId,
    /// The messages.
    pub ids: Vec<MessageId>,
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.request)?;
        self.ids.iter().try_for_each(|id| write!(f, " {id}"))
    }
}

impl FromStr for Question {
    type Err = ();

    fn from_str(text: &str) -> Result<Question, ()> {
        let mut words = text.split(' ');
        let request = words.next().and_then(id_in).map(|MessageId(number)| RequestId(number)).ok_or(())?;
        let ids: Option<Vec<MessageId>> = words.map(id_in).take(MOST_ASKED + 1).collect();
        let ids = ids.filter(|ids| (1..=MOST_ASKED).contains(&ids.len())).ok_or(())?;
        Ok(Question { request, ids })
    }
}

/// Where a pending message is, as far as the leader knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// `at <ms> <delivery> <consumer>`: at this consumer, for so long, in this delivery. 0 for a delivery whose number
    /// this leader does not know: the consumer had the message when it was linked.
    At {
        /// Since it was delivered, or since the link was made over which the consumer reported it.
        for_ms: u64,
        /// The number of the delivery.
        delivery: u16,
        /// The consumer's id.
        consumer: String,
    },
    /// `recording <consumer>`: this consumer's result is being recorded.
    Recording {
        /// The consumer's id.
        consumer: String,
    },
    /// `waiting`: in the leader's memory, for a consumer with a free place.
    Waiting,
    /// `behind`: for an earlier message with its key.
    Behind,
    /// `delayed <ms>`: it failed, and is due for its next delivery in so long.
    Delayed {
        /// Until then.
        due_ms: u64,
    },
    /// `settling`: the leader is recording what became of it, or reading it again.
    Settling,
    /// `stored`: only in Redis. The leader has not read it yet.
    Stored,
    /// `unknown`: the leader does not know it. It is done, most likely.
    Unknown,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::At { for_ms, delivery, consumer } => write!(f, "at {for_ms} {delivery} {}", Escaped(consumer)),
            Location::Recording { consumer } => write!(f, "recording {}", Escaped(consumer)),
            Location::Waiting => f.write_str("waiting"),
            Location::Behind => f.write_str("behind"),
            Location::Delayed { due_ms } => write!(f, "delayed {due_ms}"),
            Location::Settling => f.write_str("settling"),
            Location::Stored => f.write_str("stored"),
            Location::Unknown => f.write_str("unknown"),
        }
    }
}

impl FromStr for Location {
    type Err = ();

    fn from_str(text: &str) -> Result<Location, ()> {
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        let number = |digits: &str| digits.parse().map_err(|_| ());
        match (word, rest) {
            ("at", rest) => {
                let (for_ms, rest) = rest.split_once(' ').ok_or(())?;
                let (delivery, consumer) = rest.split_once(' ').ok_or(())?;
                let delivery = delivery.parse().map_err(|_| ())?;
                Ok(Location::At { for_ms: number(for_ms)?, delivery, consumer: consumer.to_owned() })
            }
            ("recording", consumer) => Ok(Location::Recording { consumer: consumer.to_owned() }),
            ("delayed", due) => Ok(Location::Delayed { due_ms: number(due)? }),
            ("waiting", "") => Ok(Location::Waiting),
            ("behind", "") => Ok(Location::Behind),
            ("settling", "") => Ok(Location::Settling),
            ("stored", "") => Ok(Location::Stored),
            ("unknown", "") => Ok(Location::Unknown),
            _ => Err(()),
        }
    }
}

/// The answer to a question: `<id> <location>` for each message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer(pub Vec<(MessageId, Location)>);

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(id, location)| writeln!(f, "{id} {location}"))
    }
}

impl FromStr for Answer {
    type Err = ();

    /// Lines that a later version writes in another form are left out.
    fn from_str(text: &str) -> Result<Answer, ()> {
        let lines = text.lines().take(MOST_ASKED).map(|line| line.split_once(' ').ok_or(()));
        let mut answer = Answer::default();
        for line in lines {
            let (id, location) = line?;
            let id = id_in(id).ok_or(())?;
            answer.0.extend(location.parse().map(|location| (id, location)));
        }
        Ok(answer)
    }
}
