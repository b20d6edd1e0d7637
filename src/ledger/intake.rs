//! Taking messages in: the members added and the cursor moved over them, in one step that carries the leader's epoch.
//!
//! The step is a script, which compares the epoch and the cursor, or a transaction under a watch on both, which costs
//! Redis less. A transaction may follow only on an intake that succeeded on the same connection, and behind which the
//! epoch was ours: then the cursor stood where we had left it. After anything else (the first batch of a term, a lost
//! reply, a key that was written) the script looks.

use redis::Value;

use super::command::{begin, number, word};
use super::connection::error_of;
use super::resp::Reply;
use super::script::ScriptCall;
use super::{Arrival, Cursor, INTAKE, Intake, Ledger, REWIND, member, text};
use crate::error::Result;
use crate::id::Epoch;

const DOING: &str = "taking messages in";

impl Ledger {
    /// Takes a batch in and moves the cursor from `expected` to `next`, in one step.
    pub fn intake(
        &mut self,
        epoch: Epoch,
        expected: Option<&Cursor>,
        next: &Cursor,
        batch: &[Arrival],
    ) -> Result<Intake> {
        if let Some(astray) = self.astray.clone() {
            self.rewind(epoch, &astray)?;
        }
        let is_plain = batch.iter().all(|arrival| arrival.refused.is_none());
        let is_ours = self.fence.value(&self.connection).is_some_and(|said| said == epoch.to_string().as_bytes());
        if is_plain && is_ours && self.intake_in_transaction(epoch, expected, next, batch)? {
            return Ok(Intake::Taken);
        }
        let taken = self.intake_by_script(epoch, expected, next, batch)?;
        if taken == Intake::Taken
            && let Err(error) = self.fence.arm(&mut self.connection)
        {
            // The script does as well.
            log::debug!("event=no-watch reason={}", crate::log::Quoted(error));
        }
        Ok(taken)
    }

    fn intake_by_script(
        &mut self,
        epoch: Epoch,
        expected: Option<&Cursor>,
        next: &Cursor,
        batch: &[Arrival],
    ) -> Result<Intake> {
        let keys = self.keys.clone();
        let keys_used = [keys.epoch.as_str(), &keys.cursor, &keys.pending, &keys.dead];
        let deliverable = || batch.iter().filter(|arrival| arrival.refused.is_none());
        let mut call = ScriptCall::new(&keys_used)
            .show(epoch)
            .show(expected.map(Cursor::to_string).unwrap_or_default())
            .show(next)
            .show(deliverable().count());
        let mut member = Vec::new();
        for Arrival { id, payload, .. } in deliverable() {
            call.push_number(id.0);
            call.push_bytes(member::encode(*id, payload, &mut member));
        }
        for Arrival { id, payload, refused } in batch {
            if let Some(reason) = refused {
                call.push_shown(id);
                call.push_bytes(reason);
                call.push_bytes(payload);
            }
        }
        let reply = self.call(DOING, &INTAKE, call)?;
        match &reply {
            Value::Array(parts) => match parts.as_slice() {
                [verdict, cursor] if text(verdict) == Some("MOVED") => {
                    let cursor = if text(cursor) == Some("") { None } else { self.cursor_of(cursor)? };
                    Ok(Intake::Moved(cursor))
                }
                _ => self.fenced(epoch, DOING, &reply),
            },
            _ if text(&reply) == Some("OK") => Ok(Intake::Taken),
            _ => self.surprise(DOING, &reply),
        }
    }

    /// Says whether the batch is taken; if not, the epoch or the cursor was written and nothing took place.
    fn intake_in_transaction(
        &mut self,
        epoch: Epoch,
        expected: Option<&Cursor>,
        next: &Cursor,
        batch: &[Arrival],
    ) -> Result<bool> {
        let keys = &self.keys;
        let added = usize::from(!batch.is_empty());
        let mut failed = None;
        let executed = self.fence.transact(
            &mut self.connection,
            DOING,
            added + 1,
            |out| {
                if !batch.is_empty() {
                    let mut member = Vec::new();
                    begin(out, 2 + 2 * batch.len());
                    word(out, "ZADD");
                    word(out, &keys.pending);
                    for Arrival { id, payload, .. } in batch {
                        number(out, id.0);
                        word(out, member::encode(*id, payload, &mut member));
                    }
                }
                begin(out, 3);
                word(out, "SET");
                word(out, &keys.cursor);
                word(out, next.to_string());
            },
            |_, reply| {
                if let Reply::Error(text) = reply {
                    failed = Some(text.to_vec());
                }
            },
        )?;
        if !executed {
            // Whatever was written: the script has to look first.
            self.fence.disarm();
        }
        let Some(failed) = failed else { return Ok(executed) };
        // The key holds something else. The cursor has moved over what is nowhere: back, before anything else.
        let astray = Astray { from: next.clone(), to: expected.cloned() };
        self.astray = Some(astray.clone());
        self.rewind(epoch, &astray)?;
        let refusal = self.connection.refusal(DOING, error_of(&failed));
        Err(self.name_the_key(refusal))
    }

    /// Moves the cursor back.
    fn rewind(&mut self, epoch: Epoch, astray: &Astray) -> Result<()> {
        let keys = self.keys.clone();
        let call = ScriptCall::new(&[&keys.epoch, &keys.cursor])
            .show(epoch)
            .show(&astray.from)
            .show(astray.to.as_ref().map(Cursor::to_string).unwrap_or_default());
        self.call_for_ok(epoch, "moving the cursor back", &REWIND, call)?;
        self.astray = None;
        Ok(())
    }
}

/// A cursor that moved over messages which could not be added.
#[derive(Clone)]
pub(super) struct Astray {
    from: Cursor,
    to: Option<Cursor>,
}
