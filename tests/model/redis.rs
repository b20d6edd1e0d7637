//! Redis's keys and the scripts on them, each in one step, as in `src/ledger/lua`.

use crate::ring::{Cursor, Id, Message};
use crate::rules::{Rule, Rules};

/// The keys. All of them go back together when Redis loses its tail.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Redis {
    pub epoch: u8,
    pub lease: Option<Lease>,
    pub cursor: Option<Cursor>,
    pub recall: Recall,
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

/// What may be recorded without asking whether it is still pending: what has an id above, and was handed out in this term.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Recall {
    /// Of all messages above, each was handed out once at most, by the leader that took it in.
    pub up_to: Id,
    /// The term that began last.
    pub epoch: u8,
    /// Whether it began in this incarnation of Redis, which therefore has lost nothing of it.
    pub current: bool,
}

/// A script or a transaction that was sent.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Script {
    Intake {
        epoch: u8,
        expected: Option<CursorKey>,
        next: CursorKey,
        batch: Vec<(Id, Message)>,
    },
    /// The intake as a transaction: nothing is compared, but it does nothing if one of the keys that its connection
    /// watches was written since.
    IntakeExec {
        epoch: u8,
        next: CursorKey,
        batch: Vec<(Id, Message)>,
        clean: bool,
    },
    /// With `recall`: of unknown outcome was a transaction before it, which must not take place any more.
    Commit {
        id: Id,
        message: Message,
        recall: bool,
    },
    /// The commit as a transaction: the result is stored whether or not the message is pending.
    CommitExec {
        id: Id,
        message: Message,
        clean: bool,
    },
    /// With `recall`: somebody may still have it in hand.
    Bury {
        epoch: u8,
        id: Id,
        message: Message,
        recall: bool,
    },
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
    /// A transaction did nothing: what its connection watches was written.
    Void,
    /// The cursor is here, not where the leader left it.
    Moved(Option<Cursor>),
}

impl Script {
    /// The epoch of the leader that sent it.
    pub fn epoch(&self) -> Option<u8> {
        match self {
            Script::Intake { epoch, .. } | Script::IntakeExec { epoch, .. } | Script::Bury { epoch, .. } => {
                Some(*epoch)
            }
            Script::Commit { .. } | Script::CommitExec { .. } => None,
        }
    }

    /// Whether it is a transaction that will do nothing.
    pub fn is_void(&self) -> bool {
        matches!(self, Script::IntakeExec { clean: false, .. } | Script::CommitExec { clean: false, .. })
    }
}

impl Redis {
    pub fn new(messages: u8) -> Redis {
        let none = vec![0; messages as usize];
        Redis {
            epoch: 0,
            lease: None,
            cursor: None,
            recall: Recall::default(),
            pending: Vec::new(),
            results: none.clone(),
            dead: none,
            taken: 0,
        }
    }

    pub fn run(&mut self, script: &Script, rules: Rules) -> Answer {
        if script.is_void() {
            return Answer::Void;
        }
        let compares = !matches!(script, Script::IntakeExec { .. });
        if rules.has(Rule::Fence) && compares && script.epoch().is_some_and(|epoch| epoch != self.epoch) {
            return Answer::Stale;
        }
        match script {
            Script::Intake { expected, next, batch, .. } => {
                if rules.has(Rule::CursorCompare) && self.cursor.map(key) != *expected {
                    return Answer::Moved(self.cursor);
                }
                self.take_in(batch, *next)
            }
            Script::IntakeExec { next, batch, .. } => self.take_in(batch, *next),
            Script::Commit { id, message, recall } => {
                if *recall {
                    self.raise_recall(*id);
                }
                // By the id alone: the score is all the script knows.
                let removed = self.remove(*id);
                if removed || !rules.has(Rule::RemovalGatesResult) {
                    self.results[*message as usize] += 1;
                }
                if removed { Answer::Done } else { Answer::Gone }
            }
            Script::CommitExec { id, message, .. } => {
                self.remove(*id);
                self.results[*message as usize] += 1;
                Answer::Done
            }
            Script::Bury { id, message, recall, .. } => {
                if *recall {
                    self.raise_recall(*id);
                }
                if !self.remove(*id) {
                    return Answer::Gone;
                }
                self.dead[*message as usize] += 1;
                Answer::Done
            }
        }
    }

    fn take_in(&mut self, batch: &[(Id, Message)], next: CursorKey) -> Answer {
        for (id, message) in batch {
            if let Err(place) = self.pending.binary_search(&(*id, *message)) {
                self.pending.insert(place, (*id, *message));
            }
            self.taken |= 1 << message;
        }
        self.cursor = Some(cursor(next));
        Answer::Done
    }

    /// Not written if that changes nothing: whoever watches goes on.
    pub fn raise_recall(&mut self, to: Id) {
        self.recall.up_to = self.recall.up_to.max(to);
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
