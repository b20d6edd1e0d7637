//! Judges answers: whether each message got one, on the right connection, of the kind that its body asks for.

use std::time::Duration;

use super::case::{Case, Local, Wanted};
use super::heard::{Answer, Heard};
use super::report::{Failure, Stop};
use super::stage::Stage;

impl Stage<'_> {
    /// Waits until each of these messages is answered on this connection, and checks the answers.
    pub(super) fn expect_answers(
        &mut self,
        case: &Case,
        link: &str,
        locals: &[Local],
        wanted: &Wanted,
    ) -> Result<(), Stop> {
        let begin = self.transcript.len();
        let slowest = locals.iter().filter_map(|local| case.bodies.get(local)?.ms).max().unwrap_or_default();
        let limit = self.target.timeout + Duration::from_millis(slowest);
        for local in locals {
            let id = self.ids[local];
            let found = self.wait(limit, |stage| stage.first(link, |heard| answer_for(heard, id)))?;
            let Some(answer) = found else {
                let elsewhere = self.entries.iter().find(|entry| answer_for(&entry.heard, id).is_some());
                let got = match elsewhere {
                    Some(entry) => format!("the answer on {}", entry.link),
                    None => self.since(begin, link),
                };
                return Err(Failure::new(format!("{} for {id} on {link}", name(wanted)), got).into());
            };
            self.check(*local, &answer, wanted)?;
        }
        Ok(())
    }

    /// Waits for ERROR with this code and the end of the connection, or an answer for each message.
    pub(super) fn expect_answers_or_error(
        &mut self,
        case: &Case,
        link: &str,
        locals: &[Local],
        code: u16,
    ) -> Result<(), Stop> {
        let ids: Vec<u64> = locals.iter().map(|local| self.ids[local]).collect();
        let begin = self.transcript.len();
        let error = |stage: &mut Stage<'_>| {
            let is_done = ids.iter().all(|id| stage.answered_on(link, *id));
            let error = stage.first(link, |heard| match heard {
                Heard::Error { code, .. } => Some(*code),
                _ => None,
            });
            error.map(Some).or_else(|| is_done.then_some(None))
        };
        match self.wait(self.target.timeout, error)? {
            Some(None) => self.expect_answers(case, link, locals, &Wanted::Any),
            Some(Some(found)) if found == code => self.expect_end(link),
            _ => {
                let expected = format!("an answer for each message, or ERROR code={code}");
                Err(Failure::new(expected, self.since(begin, link)).into())
            }
        }
    }

    fn answered_on(&self, link: &str, id: u64) -> bool {
        self.entries.iter().any(|entry| entry.link == link && answer_for(&entry.heard, id).is_some())
    }

    /// No answer for these messages may come for so long, nor one that has come without being waited for.
    pub(super) fn expect_no_answer(&mut self, locals: &[Local], limit: Duration) -> Result<(), Stop> {
        let ids: Vec<u64> = locals.iter().map(|local| self.ids[local]).collect();
        let found = self.wait(limit, |stage| {
            let unused = stage.entries.iter().filter(|entry| !entry.used);
            let mut answers = unused.filter_map(|entry| match &entry.heard {
                Heard::Answer { id, answer } if ids.contains(id) && !is_returned(answer) => {
                    Some(format!("{answer} for {id} on {}", entry.link))
                }
                _ => None,
            });
            answers.next()
        })?;
        match found {
            None => Ok(()),
            Some(got) => Err(Failure::new(format!("no answer for {ids:?}"), got).into()),
        }
    }

    fn check(&mut self, local: Local, answer: &Answer, wanted: &Wanted) -> Result<(), Stop> {
        let id = self.ids[&local];
        let records = self.target.facts.records;
        let fits = match (wanted, answer) {
            (_, Answer::Nack { reason, .. }) if reason.is_empty() => false,
            (Wanted::Any, _) => true,
            (Wanted::Nothing, Answer::Ack) => true,
            (Wanted::Nothing, Answer::Result(fields)) => fields.is_empty(),
            (Wanted::Result, Answer::Ack) => records,
            (Wanted::Result, Answer::Result(fields)) => {
                let unique = self.unique(local);
                fields.iter().any(|(name, value)| name == b"message_id" && *value == unique.as_bytes())
            }
            (Wanted::Nack { delays }, Answer::Nack { delay_ms, .. }) => delays.is_empty() || delays.contains(delay_ms),
            _ => false,
        };
        if !fits {
            return Err(Failure::new(format!("{} for {id}", name(wanted)), answer.to_string()).into());
        }
        if records && self.group.is_used() && *answer == Answer::Ack && self.group.is_pending(id)?.0 {
            let got = "ACK, while the message is still pending";
            return Err(Failure::new(format!("ACK for {id} after Redis has recorded the result"), got).into());
        }
        Ok(())
    }

    /// The value by which the result of a message is found.
    pub(super) fn unique(&self, local: Local) -> String {
        format!("conform-{}", self.ids[&local])
    }
}

fn answer_for(heard: &Heard, wanted: u64) -> Option<Answer> {
    match heard {
        Heard::Answer { id, answer } if *id == wanted => Some(answer.clone()),
        _ => None,
    }
}

/// Whether this is a NACK for a message that no handler has begun, as after DRAIN.
fn is_returned(answer: &Answer) -> bool {
    matches!(answer, Answer::Nack { delay_ms: 0, reason } if reason.is_empty())
}

fn name(wanted: &Wanted) -> String {
    match wanted {
        Wanted::Any => "an answer".to_owned(),
        Wanted::Result => "the result".to_owned(),
        Wanted::Nothing => "ACK or a RESULT without fields".to_owned(),
        Wanted::Nack { delays } if delays.is_empty() => "NACK with a reason".to_owned(),
        Wanted::Nack { delays } => format!("NACK with a reason and delay_ms in {delays:?}"),
    }
}
