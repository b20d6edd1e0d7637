//! Intake: one step adds messages to their destination and moves the cursor over them, if the leader's epoch is still
//! the newest.
//!
//! The step is a script, which compares the epoch and the cursor, or a transaction that watches both, which costs Redis
//! less. A transaction may only follow an intake that succeeded on the same connection, if the epoch has not changed
//! since. Then the cursor is where that intake left it. In every other case (the first batch of a term, a lost reply, a
//! watched key that was written) the script is used. For a stream it always is (`destination` says why).
//!
//! An attempt whose reply was lost may take effect at any time, or never. So each retry of the same batch writes a new
//! cursor, and also succeeds if Redis holds a cursor that an earlier attempt wrote. An earlier attempt that arrives
//! late then finds an unknown cursor and fails. From then on every cursor written, also for a part of the batch, has a
//! higher last id than any cursor in doubt.
//!
//! With `--wait-replicas` an intake that too few replicas confirm is such an attempt, too (`confirming`).

use redis::Value;

use super::attempts::{DonePart, PartlyDone};
use super::bundle;
use super::command::{Command, begin, word, word_of};
use super::core::Ledger;
use super::cursor::Cursor;
use super::resp::Reply;
use super::scripts::{IntakeCall, RewindCall, WithdrawCall};
use super::types::{Arrival, IntakeAnswer};
use super::value::text;
use crate::base::error::Result;
use crate::base::failure::Failure;
use crate::base::id::{Epoch, MessageId};
use crate::base::text::Quoted;

const DOING: &str = "storing messages";

impl Ledger {
    /// How far the channel has been stored. A value that no dispatcher can have written counts as absent.
    pub fn cursor(&mut self) -> Result<Option<Cursor>> {
        let get = Command::of(&["GET", &self.keys.cursor]);
        let reply = self.connection.query("reading the cursor", get).map_err(|error| self.name_the_key(error))?;
        Ok(text(&reply).and_then(|cursor| cursor.parse().ok()))
    }

    /// The cursor in a script's reply.
    pub(super) fn cursor_of(&self, value: &Value) -> Result<Option<Cursor>> {
        match (value, text(value)) {
            (Value::Nil, _) => Ok(None),
            (_, Some(cursor)) if cursor.parse::<Cursor>().is_ok() => Ok(cursor.parse().ok()),
            _ => self.unexpected_reply("reading the cursor", value),
        }
    }

    /// Stores a batch and moves the cursor from `expected` to `next`, in one step. The cursor gets a higher last id
    /// than `next` if an earlier attempt may have written that one or may still write it. A message that can't be
    /// delivered is a batch of its own.
    pub fn intake(
        &mut self,
        epoch: Epoch,
        expected: Option<&Cursor>,
        next: &Cursor,
        batch: &[Arrival],
    ) -> Result<IntakeAnswer> {
        if self.attempts.partly_done.is_some() {
            return self.undo(epoch);
        }
        self.require_waiting()?;
        let next = &self.attempts.cursor_after(next);
        self.attempts.confirmed = None;
        let taken = self.attempt(epoch, expected, next, batch);
        if matches!(taken, Ok(IntakeAnswer::Taken(_)))
            && let Err(error) = self.require_replicas()
        {
            // It has taken effect, but a failover may undo it.
            self.attempts.vouched = None;
            self.attempts.doubt(next.clone());
            return Err(error);
        }
        match &taken {
            Err(error) if error.refusal().is_none() && !error.is_unsent() => self.attempts.doubt(next.clone()),
            // This attempt has no effect.
            Err(_) => {}
            Ok(_) => drop(self.take_doubts()),
        }
        taken
    }

    /// Takes out the cursors that attempts at the present batch may have written, because the caller finds out their
    /// outcome otherwise. None of them is written again.
    pub fn take_doubts(&mut self) -> Vec<Cursor> {
        self.attempts.take_doubts()
    }

    fn attempt(
        &mut self,
        epoch: Epoch,
        expected: Option<&Cursor>,
        next: &Cursor,
        batch: &[Arrival],
    ) -> Result<IntakeAnswer> {
        if self.attempts.doubts.is_empty() && self.may_transact(epoch, expected, batch) {
            match self.intake_in_transaction(epoch, expected, next, batch) {
                // A refused transaction has changed nothing. The script may succeed all the same.
                Ok(None) => {}
                Ok(Some(taken)) => {
                    self.vouch(&taken, next);
                    return Ok(taken);
                }
                Err(error) if self.connection.number().is_none() => return Err(error),
                Err(error) => log::debug!("event=transaction-refused reason={}", Quoted(error)),
            }
        }
        self.attempts.vouched = None;
        let taken = self.intake_by_script(epoch, expected, next, batch)?;
        self.vouch(&taken, next);
        Ok(taken)
    }

    fn vouch(&mut self, taken: &IntakeAnswer, next: &Cursor) {
        let number = self.connection.number().filter(|_| matches!(taken, IntakeAnswer::Taken(_)));
        self.attempts.taken_on = number.or(self.attempts.taken_on);
        self.attempts.vouched = number.map(|number| (number, next.clone()));
    }

    /// Whether a transaction may store this batch: the last intake succeeded on this connection, and epoch and cursor
    /// are as it left them.
    fn may_transact(&mut self, epoch: Epoch, expected: Option<&Cursor>, batch: &[Arrival]) -> bool {
        if !self.destination.allows_transactions() {
            return false;
        }
        let is_plain = batch.iter().all(|arrival| arrival.refused.is_none());
        let Some((number, cursor)) = self.attempts.vouched.as_ref().map(|(number, cursor)| (*number, cursor)) else {
            return false;
        };
        if !is_plain || Some(number) != self.connection.number() || expected != Some(cursor) {
            return false;
        }
        let unchanged = [epoch.to_string().into_bytes(), cursor.to_string().into_bytes()];
        if self.fence.values(&self.connection).is_none()
            && let Err(error) = self.fence.arm(&mut self.connection)
        {
            log::debug!("event=transaction-skipped reason={}", Quoted(error));
        }
        self.fence.values(&self.connection).is_some_and(|values| *values == unchanged)
            && self.connection.number() == Some(number)
    }

    fn intake_by_script(
        &mut self,
        epoch: Epoch,
        expected: Option<&Cursor>,
        next: &Cursor,
        batch: &[Arrival],
    ) -> Result<IntakeAnswer> {
        let doubts = &self.attempts.doubts;
        let (doubts_count, width) = (doubts.len() as u64, self.destination.width(batch));
        let call = IntakeCall { my_epoch: epoch, expected, next_cursor: next, doubts: doubts_count, maxlen: 0, width };
        let mut call = self.destination.intake_call(&call, &self.keys);
        doubts.iter().for_each(|doubt| call.push(doubt));
        let mut member = Vec::new();
        for unit in bundle::units(batch) {
            match unit {
                [Arrival { id, body, refused: Some(reason) }] => {
                    assert_eq!(batch.len(), 1, "a message that can't be delivered is a batch of its own");
                    call.push("dead");
                    call.push((id.to_string().as_str(), reason.as_str()));
                    call.push((body.channel().unwrap_or_default(), body.payload()));
                }
                unit => self.destination.push(&mut call, unit, width, &mut member),
            }
        }
        let (reply, confirmed) = self.call_confirmed(DOING, call, self.replicas)?;
        self.attempts.confirmed = confirmed;
        match &reply {
            Value::Array(parts) => match parts.as_slice() {
                [verdict, cursor] if text(verdict) == Some("MOVED") => {
                    let cursor = if text(cursor) == Some("") { None } else { self.cursor_of(cursor)? };
                    Ok(IntakeAnswer::Moved(cursor))
                }
                _ => self.fenced(epoch, DOING, &reply),
            },
            _ if text(&reply) == Some("OK") => Ok(IntakeAnswer::Taken(next.clone())),
            _ => self.unexpected_reply(DOING, &reply),
        }
    }

    /// Whether an attempt that moved the cursor also stored this message. The script stores before it moves the cursor;
    /// a transaction may have been refused in part.
    pub fn is_stored(&mut self, id: MessageId) -> Result<bool> {
        if self.destination.allows_transactions() { self.is_pending(id) } else { Ok(true) }
    }

    /// `None`: the epoch or the cursor was written, and nothing was done.
    fn intake_in_transaction(
        &mut self,
        epoch: Epoch,
        expected: Option<&Cursor>,
        next: &Cursor,
        batch: &[Arrival],
    ) -> Result<Option<IntakeAnswer>> {
        let keys = &self.keys;
        let added = usize::from(!batch.is_empty());
        let (mut unadded, mut unmoved) = (None, None);
        let executed = self.fence.transact(
            &mut self.connection,
            DOING,
            added + 1,
            |out| {
                if !batch.is_empty() {
                    let mut head = Vec::new();
                    begin(out, 2 + 2 * bundle::units(batch).count());
                    word(out, "ZADD");
                    word(out, &keys.pending);
                    for unit in bundle::units(batch) {
                        let score = bundle::encode_head(unit, &mut head);
                        word(out, score.to_string());
                        word_of(out, std::iter::once(&head[..]).chain(bundle::bodies(unit)));
                    }
                }
                begin(out, 3);
                word(out, "SET");
                word(out, &keys.cursor);
                word(out, next.to_string());
            },
            |at, reply| {
                if let Reply::Error(text) = reply {
                    *if at < added { &mut unadded } else { &mut unmoved } = Some(text.to_vec());
                }
            },
        )?;
        self.attempts.confirmed = self.fence.take_confirmed();
        if !executed {
            // The script finds out which key was written.
            self.fence.disarm();
            return Ok(None);
        }
        let part = match (&unadded, &unmoved, batch) {
            (None, None, _) => return Ok(Some(IntakeAnswer::Taken(next.clone()))),
            // The key holds another type. The cursor has moved over messages that were not added: move it back first.
            (Some(_), None, _) => DonePart::Cursor { from: next.clone(), to: expected.cloned() },
            // The right was revoked just now. The added members count as not stored, so they are removed.
            (None, Some(_), [first, ..]) => DonePart::Members { first: first.id, last: batch[batch.len() - 1].id },
            // Nothing was written, and the script's reply gives the reason.
            (_, Some(_), _) => return Ok(None),
        };
        let failure = Failure::of_reply(unadded.or(unmoved).as_deref().unwrap_or_default());
        let refusal = self.connection.refusal(DOING, failure);
        let reason = self.name_the_key(refusal).to_string();
        self.attempts.partly_done = Some(PartlyDone { part, reason });
        self.undo(epoch).map(Some)
    }

    /// Moves the cursor back over messages that are not in Redis. Repeating the call does no harm.
    pub fn rewind(&mut self, epoch: Epoch, from: &Cursor, to: Option<&Cursor>) -> Result<()> {
        self.attempts.vouched = None;
        let call = RewindCall { my_epoch: epoch, moved: from, before: to }.on(&self.keys);
        self.call_for_ok(epoch, "moving the cursor back", call)
    }

    /// Undoes the part of an intake that a transaction has done.
    fn undo(&mut self, epoch: Epoch) -> Result<IntakeAnswer> {
        let Some(PartlyDone { part, reason }) = self.attempts.partly_done.clone() else {
            return Ok(IntakeAnswer::Moved(None));
        };
        match part {
            DonePart::Cursor { from, to } => self.rewind(epoch, &from, to.as_ref())?,
            DonePart::Members { first, last } => {
                self.attempts.vouched = None;
                let call = WithdrawCall { my_epoch: epoch, first, last }.on(&self.keys);
                self.call_for_ok(epoch, "removing members again", call)?;
            }
        }
        self.attempts.partly_done = None;
        Ok(IntakeAnswer::Rewound(reason))
    }
}
