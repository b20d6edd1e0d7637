//! Redis's keys and the scripts on them, each in one step, as in `src/ledger/lua`. If a command is refused, what its
//! script did before stays done.

use crate::refusals::{Command, Refusal};
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
    /// The dead letters, in order of ids. `None`: nobody replays any.
    pub letters: Option<Vec<(Id, Message)>>,
    /// An operator has paused the group.
    pub paused: bool,
    /// The nonces with which messages were put back.
    pub put_back: Vec<u8>,
    /// The messages that lie in a recorded gap. `None`: gaps are not remembered.
    pub gaps: Option<u8>,
    /// Not a key: the messages that have been stored, as far as Redis can know.
    pub taken: u8,
}

/// The holder of the lease: a dispatcher, by its number, and whether it has restarted since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    pub dispatcher: u8,
    /// The process that acquired it is gone, and its id does not come back.
    pub dead: bool,
    pub epoch: u8,
    /// It ends only by expiring: its holder's subscription was not counted.
    pub by_time: bool,
}

/// Messages with an id above `up_to` that the leader of this term delivered may be recorded without a check that they
/// are still pending.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Recall {
    /// Messages above this id were delivered once at most, by the leader that stored them.
    pub up_to: Id,
    /// The term that began last.
    pub epoch: u8,
    /// Whether it began after Redis last started, so that Redis has lost nothing of it.
    pub current: bool,
}

/// A script or a transaction that was sent.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Script {
    /// With `doubt`: the cursor that a transaction of unknown outcome would have written for the same batch.
    Intake {
        epoch: u8,
        expected: Option<CursorKey>,
        next: CursorKey,
        batch: Vec<(Id, Message)>,
        doubt: Option<CursorKey>,
    },
    /// The intake as a transaction: it compares nothing, but does nothing if a key that its connection watches was
    /// written since.
    IntakeExec { epoch: u8, next: CursorKey, batch: Vec<(Id, Message)>, clean: bool },
    /// With `recall`: a transaction of unknown outcome came before it, which must no longer succeed.
    Commit { id: Id, message: Message, recall: bool },
    /// The commit as a transaction: the result is stored whether or not the message is pending.
    CommitExec { id: Id, message: Message, clean: bool },
    /// With `recall`: a consumer may still hold the message.
    DeadLetter { epoch: u8, id: Id, message: Message, recall: bool },
    /// The result of a consumer without Redis, recorded by the leader.
    Record { epoch: u8, id: Id, message: Message, consumer: u8 },
    /// Puts back a message that was removed and whose result was refused.
    PutBack { id: Id, message: Message, nonce: u8 },
    /// Moves the cursor back to before a batch whose members were refused.
    Rewind { epoch: u8, moved: CursorKey, back: Option<CursorKey>, batch: Vec<(Id, Message)> },
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
    /// A commit or a dead letter for a message that was no longer pending.
    Gone,
    Stale,
    /// A transaction did nothing: a watched key was written.
    Void,
    /// The cursor is here, not where the leader left it.
    Moved(Option<Cursor>),
    /// A command was refused.
    Refused,
    /// A transaction was executed except for one command: a message was removed and its result refused, or the cursor
    /// moved and the members refused.
    Partly,
}

impl Script {
    /// The epoch of the leader that sent it.
    pub fn epoch(&self) -> Option<u8> {
        match self {
            Script::Intake { epoch, .. }
            | Script::IntakeExec { epoch, .. }
            | Script::DeadLetter { epoch, .. }
            | Script::Record { epoch, .. }
            | Script::Rewind { epoch, .. } => Some(*epoch),
            Script::Commit { .. } | Script::CommitExec { .. } | Script::PutBack { .. } => None,
        }
    }

    pub fn is_transaction(&self) -> bool {
        matches!(self, Script::IntakeExec { .. } | Script::CommitExec { .. })
    }

    /// Whether it is a transaction that is discarded because one of its commands is refused.
    fn is_discarded(&self, refused: Option<Refusal>, rules: Rules) -> bool {
        let Some(Refusal { command, inside }) = refused else { return false };
        match self {
            _ if command == Command::Multi => self.is_transaction() && rules.has(Rule::MultiConfirmed),
            Script::CommitExec { .. } => !inside && matches!(command, Command::XAdd | Command::ZRem),
            Script::IntakeExec { batch, .. } => match command {
                Command::ZAdd => !inside && !batch.is_empty(),
                _ => !inside && command == Command::Set,
            },
            _ => false,
        }
    }

    /// Whether it is a transaction that will do nothing.
    pub fn is_void(&self) -> bool {
        matches!(self, Script::IntakeExec { clean: false, .. } | Script::CommitExec { clean: false, .. })
    }
}

impl Redis {
    pub fn new(messages: u8, replays: bool, gaps: bool) -> Redis {
        let none = vec![0; messages as usize];
        Redis {
            epoch: 0,
            lease: None,
            cursor: None,
            recall: Recall::default(),
            pending: Vec::new(),
            results: none.clone(),
            dead: none,
            letters: replays.then(Vec::new),
            paused: false,
            put_back: Vec::new(),
            gaps: gaps.then_some(0),
            taken: 0,
        }
    }

    pub fn run(&mut self, script: &Script, refused: Option<Refusal>, rules: Rules) -> Answer {
        let refuses = |command| refused.is_some_and(|refusal| refusal.command == command);
        if script.is_discarded(refused, rules) {
            return Answer::Refused;
        }
        // Without MULTI the commands are executed one by one, whatever is watched.
        if script.is_void() && !refuses(Command::Multi) {
            return Answer::Void;
        }
        if rules.has(Rule::Fence) && !script.is_transaction() && script.epoch().is_some_and(|of| of != self.epoch) {
            return Answer::Stale;
        }
        match script {
            Script::Intake { next, batch, .. } => match self.compare(script, rules) {
                Err(moved) => moved,
                Ok(is_there) => self.take_in(if is_there { &[] } else { batch }, *next, &refuses, rules),
            },
            Script::IntakeExec { next, batch, .. } => {
                let added = batch.is_empty() || !refuses(Command::ZAdd);
                self.add(if added { batch } else { &[] });
                if refuses(Command::Set) {
                    return Answer::Refused;
                }
                self.cursor = Some(cursor(*next));
                if added { Answer::Done } else { Answer::Partly }
            }
            Script::Commit { id, message, recall } => {
                if *recall {
                    self.raise_recall(*id);
                }
                if !rules.has(Rule::RemovalGatesResult) && !self.holds(*id) {
                    self.results[*message as usize] += 1;
                }
                self.replace(*id, &refuses, rules, |redis| redis.results[*message as usize] += 1)
            }
            Script::CommitExec { id, message, .. } => {
                if !refuses(Command::ZRem) {
                    self.remove(*id);
                }
                if refuses(Command::XAdd) {
                    return Answer::Partly;
                }
                self.results[*message as usize] += 1;
                if refuses(Command::ZRem) { Answer::Refused } else { Answer::Done }
            }
            Script::DeadLetter { id, message, recall, .. } => {
                if *recall {
                    self.raise_recall(*id);
                }
                self.replace(*id, &refuses, rules, |redis| redis.bury(*id, *message))
            }
            Script::Record { id, message, .. } => {
                self.replace(*id, &refuses, rules, |redis| redis.results[*message as usize] += 1)
            }
            Script::PutBack { nonce, .. } if rules.has(Rule::PutBackOnce) && self.put_back.contains(nonce) => {
                Answer::Done
            }
            Script::PutBack { .. } if refuses(Command::ZAdd) => Answer::Refused,
            Script::PutBack { id, message, nonce } => {
                self.put_back.push(*nonce);
                self.add(&[(*id, *message)]);
                self.raise_recall(*id);
                Answer::Done
            }
            Script::Rewind { moved, .. } if self.cursor.map(key) != Some(*moved) => Answer::Done,
            Script::Rewind { .. } if refuses(Command::Set) => Answer::Refused,
            Script::Rewind { back, .. } => {
                self.cursor = back.map(cursor);
                Answer::Done
            }
        }
    }

    /// Whether the members of a batch are there already, and only the cursor has to be moved. `Err`: the cursor is
    /// elsewhere.
    fn compare(&self, script: &Script, rules: Rules) -> Result<bool, Answer> {
        let Script::Intake { expected, next, batch, doubt, .. } = script else {
            unreachable!("only an intake compares")
        };
        let at = self.cursor.map(key);
        let is_there = batch.last().is_none_or(|(id, _)| self.holds(*id));
        match rules.has(Rule::DoubtNamesItsOwnCursor) {
            _ if at == *expected || !rules.has(Rule::CursorCompare) => Ok(false),
            true if doubt.is_some() && at == *doubt => Ok(is_there || !rules.has(Rule::DoubtChecksMembers)),
            false if at == Some(*next) && !is_there => Ok(false),
            _ => Err(Answer::Moved(self.cursor)),
        }
    }

    fn take_in(
        &mut self,
        batch: &[(Id, Message)],
        next: CursorKey,
        refuses: &impl Fn(Command) -> bool,
        rules: Rules,
    ) -> Answer {
        if rules.has(Rule::CursorProven) && refuses(Command::Set) {
            return Answer::Refused;
        }
        let refused = !batch.is_empty() && refuses(Command::ZAdd);
        if !rules.has(Rule::CursorMovedLast) && !refuses(Command::Set) {
            self.cursor = Some(cursor(next));
        }
        if refused {
            return Answer::Refused;
        }
        self.add(batch);
        if refuses(Command::Set) {
            return Answer::Refused;
        }
        self.cursor = Some(cursor(next));
        Answer::Done
    }

    fn add(&mut self, batch: &[(Id, Message)]) {
        for (id, message) in batch {
            if let Err(place) = self.pending.binary_search(&(*id, *message)) {
                self.pending.insert(place, (*id, *message));
            }
            self.taken |= 1 << message;
        }
    }

    /// Stores the outcome of a pending message, and removes it. By the id alone: the scripts know only the score.
    fn replace(
        &mut self,
        id: Id,
        refuses: &impl Fn(Command) -> bool,
        rules: Rules,
        store: impl FnOnce(&mut Redis),
    ) -> Answer {
        if rules.has(Rule::RemovalProven) && refuses(Command::ZRem) {
            return Answer::Refused;
        }
        if !self.holds(id) {
            return Answer::Gone;
        }
        if rules.has(Rule::ResultBeforeRemoval) {
            if refuses(Command::XAdd) {
                return Answer::Refused;
            }
            store(self);
            if refuses(Command::ZRem) {
                return Answer::Refused;
            }
            self.remove(id);
        } else {
            if refuses(Command::ZRem) {
                return Answer::Refused;
            }
            self.remove(id);
            if refuses(Command::XAdd) {
                return Answer::Refused;
            }
            store(self);
        }
        Answer::Done
    }

    fn bury(&mut self, id: Id, message: Message) {
        self.dead[message as usize] += 1;
        if let Some(letters) = &mut self.letters {
            letters.push((id, message));
            letters.sort_unstable();
        }
    }

    /// A dead letter's message is pending again.
    pub fn replay(&mut self, id: Id) {
        let letters = self.letters.as_mut().expect("there are letters");
        let at = letters.iter().position(|(letter, _)| *letter == id).expect("there is this one");
        let letter = letters.remove(at);
        self.dead[letter.1 as usize] -= 1;
        self.add(&[letter]);
        self.raise_recall(id);
    }

    /// If this changes nothing it is not written, so that watching connections stay armed.
    pub fn raise_recall(&mut self, to: Id) {
        self.recall.up_to = self.recall.up_to.max(to);
    }

    pub fn holds(&self, id: Id) -> bool {
        self.pending.iter().any(|(pending, _)| *pending == id)
    }

    fn remove(&mut self, id: Id) {
        self.pending.retain(|(pending, _)| *pending != id);
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
