//! Redis's keys and the scripts on them, each in one step, as in `src/ledger/lua`.

use crate::ring::{Cursor, Id, Message};
use crate::rules::{Rule, Rules};

/// The keys. All of them go back together when Redis loses its tail.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Redis {
    pub epoch: u8,
    pub lease: Option<Lease>,
    pub cursor: Option<Cursor>,
    /// The sorted set, in order.
    pub pending: Vec<(Id, Message)>,
    /// For each message, its entries in the result stream.
    pub results: Vec<u8>,
    /// For each message, its dead letters.
    pub dead: Vec<u8>,
    /// No key: which messages have been taken in, as far as Redis can know.
    pub taken: u8,
}

/// Who leads: a dispatcher, by its number, and whether that is the process that runs now under this number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    pub dispatcher: u8,
    /// Its id is one that will not come again.
    pub dead: bool,
    pub epoch: u8,
}

/// A script that was sent.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Script {
    Intake { epoch: u8, expected: Option<CursorKey>, next: CursorKey, batch: Vec<(Id, Message)> },
    Commit { id: Id, message: Message },
    Bury { epoch: u8, id: Id, message: Message },
}

/// A cursor as text, for the comparison.
pub type CursorKey = (u8, u8, Id);

pub fn key(cursor: Cursor) -> CursorKey {
    (cursor.position.marker, cursor.position.offset, cursor.last_id)
}

fn cursor((marker, offset, last_id): CursorKey) -> Cursor {
    Cursor { position: crate::ring::Position { marker, offset }, last_id }
}

/// The answer to a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Done,
    /// A commit or a burial of what was not pending any more.
    Gone,
    Stale,
    /// The cursor is here, not where the leader left it.
    Moved(Option<Cursor>),
}

impl Script {
    /// The epoch of the leader that sent it.
    pub fn epoch(&self) -> Option<u8> {
        match self {
            Script::Intake { epoch, .. } | Script::Bury { epoch, .. } => Some(*epoch),
            Script::Commit { .. } => None,
        }
    }
}

impl Redis {
    pub fn new(messages: u8) -> Redis {
        let none = vec![0; messages as usize];
        Redis { epoch: 0, lease: None, cursor: None, pending: Vec::new(), results: none.clone(), dead: none, taken: 0 }
    }

    pub fn run(&mut self, script: &Script, rules: Rules) -> Answer {
        if rules.has(Rule::Fence) && script.epoch().is_some_and(|epoch| epoch != self.epoch) {
            return Answer::Stale;
        }
        match script {
            Script::Intake { expected, next, batch, .. } => {
                if rules.has(Rule::CursorCompare) && self.cursor.map(key) != *expected {
                    return Answer::Moved(self.cursor);
                }
                for (id, message) in batch {
                    if let Err(place) = self.pending.binary_search(&(*id, *message)) {
                        self.pending.insert(place, (*id, *message));
                    }
                    self.taken |= 1 << message;
                }
                self.cursor = Some(cursor(*next));
                Answer::Done
            }
            Script::Commit { id, message } => {
                // By the id alone: the score is all the script knows.
                let removed = self.remove(*id);
                if removed || !rules.has(Rule::RemovalGatesResult) {
                    self.results[*message as usize] += 1;
                }
                if removed { Answer::Done } else { Answer::Gone }
            }
            Script::Bury { id, message, .. } => {
                if !self.remove(*id) {
                    return Answer::Gone;
                }
                self.dead[*message as usize] += 1;
                Answer::Done
            }
        }
    }

    pub fn holds(&self, id: Id) -> bool {
        self.pending.iter().any(|(pending, _)| *pending == id)
    }

    fn remove(&mut self, id: Id) -> bool {
        let before = self.pending.len();
        self.pending.retain(|(pending, _)| *pending != id);
        self.pending.len() < before
    }

    /// How often a message is recorded, as a result or as a dead letter.
    pub fn recorded(&self, message: Message) -> u8 {
        self.results[message as usize] + self.dead[message as usize]
    }

    /// How often Redis has a message, in whatever form.
    pub fn times(&self, message: Message) -> u8 {
        self.recorded(message) + self.pending.iter().filter(|(_, pending)| *pending == message).count() as u8
    }

    /// Whether Redis has a message, in whatever form.
    pub fn has(&self, message: Message) -> bool {
        self.times(message) > 0
    }
}
