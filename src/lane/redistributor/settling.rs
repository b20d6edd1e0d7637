//! How the redistributor settles messages: it counts failed deliveries, moves messages to the dead letters, sets the
//! time of the next delivery, and records results for consumers without Redis.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Redistributor;
use crate::base::backoff::exponential;
use crate::base::id::MessageId;
use crate::base::log_sum::Sum;
use crate::base::text::Quoted;
use crate::lane::dead_letters::DeadLetters;
use crate::lane::retry::{Carried, Killed};
use crate::lane::stats::add;
use crate::lane::table::{Line, Loss};
use crate::lane::tasks::{CommitTask, RedistributorReply};
use crate::ledger::{
    Commit, DeliveryNumber, Hold, Ledger, Raise, Returned, Settled, Settlement, Settling, Splitter, Verdict, batches,
    parts,
};

/// After a lost link, the wait before the third delivery; each later one waits twice as long.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
/// After a lost link, the longest wait.
const MOST_BACKOFF: Duration = Duration::from_secs(30);

/// How long a message waits before its next delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wait {
    total: Duration,
    /// How much of that Redis keeps, so that the next leader waits for the rest of it.
    kept: Duration,
}

impl Wait {
    /// In whole milliseconds, which Redis keeps.
    fn kept(wait: Duration) -> Wait {
        let wait = Duration::from_millis(wait.as_micros().div_ceil(1_000) as u64);
        Wait { total: wait, kept: wait }
    }
}

impl Redistributor {
    /// Settles messages that came back without a result.
    pub(super) fn settle_all(&mut self, returned: &[(Returned, Option<Duration>)]) -> Result<(), Killed> {
        parts(returned, size).try_for_each(|returned| self.settle(returned))
    }

    /// Counts failed deliveries or moves messages to the dead letters, and sets the time of each redelivery.
    fn settle(&mut self, returned: &[(Returned, Option<Duration>)]) -> Result<(), Killed> {
        let numbers = self.find_numbers(returned.iter().map(|(returned, _)| returned))?;
        // Chosen once, so that a repeated call has the same.
        let waits: Vec<Wait> = returned
            .iter()
            .zip(&numbers)
            .map(|((returned, asked), number)| self.wait_after(*number, *asked, returned.verdict))
            .collect();
        let batch: Vec<Settling<'_>> = returned
            .iter()
            .zip(numbers)
            .zip(&waits)
            .map(|(((returned, _), delivery), wait)| Settling { returned, delivery, wait: wait.kept })
            .collect();
        let (ledger, epoch, most) = (&mut self.ledger, self.epoch, self.shared.settings.max_deliveries);
        let Settlement { settled, refused } = self.retry.until_done(|| ledger.settle(epoch, most, &batch))?;
        let now = Instant::now();
        let mut done = Vec::new();
        let mut dead = 0;
        for (((returned, _), wait), settled) in returned.iter().zip(waits).zip(settled) {
            match settled {
                Settled::Gone => done.push(returned.id),
                Settled::DeadLettered => {
                    dead += 1;
                    self.dead_letters.note(returned.id, &returned.reason, now);
                    done.push(returned.id);
                }
                Settled::Refused => self.refused_letters.keep(returned.clone()),
                Settled::Again(delivery) => {
                    let loss = (returned.verdict == Verdict::Lost)
                        .then(|| Loss { consumer: returned.consumer.clone(), reason: returned.reason.clone() });
                    let line = Line::of(loss.as_ref(), delivery);
                    self.waiting(line).delayed.insert((now + wait.total, returned.id), loss.map(Box::new));
                }
            }
        }
        let letters = self.refused_letters.len();
        self.refused_letters.note(refused.as_ref(), || format!("event=dead-letters-refused messages={letters}"));
        add(&self.shared.stats.dead_lettered, dead);
        self.shared.stats.deaths.lock().note(dead, now);
        self.tell(RedistributorReply::Done(done))
    }

    /// How long a message waits after the delivery with this number. `asked`: the delay that its consumer asked for, if
    /// any.
    fn wait_after(&self, delivery: u16, asked: Option<Duration>, verdict: Verdict) -> Wait {
        let next = delivery.saturating_add(1);
        match (asked, verdict) {
            (Some(asked), _) => Wait::kept(asked),
            (None, Verdict::Failed) => Wait::kept(self.shared.settings.retry.wait_with_jitter(next, fastrand::f64())),
            // This says little about the message, and is short. A new leader need not know it.
            (None, Verdict::Lost) => Wait { total: backoff(next), kept: Duration::ZERO },
            (None, Verdict::Unused | Verdict::Rejected) => Wait::kept(Duration::ZERO),
        }
    }

    /// Looks up the delivery numbers of adopted messages. This is a call of its own: a call that read a number and
    /// raised it would count twice when repeated.
    fn find_numbers<'a>(&mut self, batch: impl Iterator<Item = &'a Returned> + Clone) -> Result<Vec<u16>, Killed> {
        let adopted = |returned: &&Returned| returned.delivery == DeliveryNumber::Adopted;
        let ids: Vec<MessageId> = batch.clone().filter(adopted).map(|returned| returned.id).collect();
        let ledger = &mut self.ledger;
        let found = if ids.is_empty() { Vec::new() } else { self.retry.until_done(|| ledger.deliveries(&ids))? };
        let mut found = found.into_iter();
        let number_of = |returned: &'a Returned| match returned.delivery {
            DeliveryNumber::Known(number) => number,
            DeliveryNumber::Adopted => found.next().expect("the ledger returns one for each id"),
        };
        Ok(batch.map(number_of).collect())
    }

    fn dead_letter(&mut self, id: MessageId, reason: Arc<str>) -> Result<(), Killed> {
        let (verdict, delivery) = (Verdict::Rejected, DeliveryNumber::Adopted);
        self.settle(&[(Returned { id, verdict, delivery, hold: Hold::Held, consumer: "".into(), reason }, None)])
    }

    /// Moves a message that can't be read from Redis to the dead letters.
    pub(super) fn dead_letter_unreadable(&mut self, id: MessageId, reason: &str) -> Result<(), Killed> {
        log::warn!("event=too-large id={id} moved_to={} reason={}", self.ledger.keys().dead, Quoted(reason));
        self.dead_letter(id, format!("it can't be read from Redis: {reason}").into())
    }

    /// Retries refused dead letters. If the first ones are refused again, the others are not tried.
    pub(super) fn retry_refused_letters(&mut self) -> Result<(), Killed> {
        let returned: Vec<_> = self.refused_letters.due().into_iter().map(|letter| (letter, None)).collect();
        let mut rest = returned.as_slice();
        while let Some(part) = parts(rest, size).next().filter(|_| self.refused_letters.len() == 0) {
            self.settle(part)?;
            rest = &rest[part.len()..];
        }
        if !rest.is_empty() {
            self.refused_letters.put_back(rest.iter().map(|(letter, _)| letter.clone()));
        }
        Ok(())
    }

    pub(super) fn log_dead_letters(&self, letters: Vec<DeadLetters>) {
        let dead = &self.ledger.keys().dead;
        for (reason, Sum { count: messages, example }) in letters {
            let reason = Quoted(reason);
            log::warn!("event=dead-letters messages={messages} stream={dead} reason={reason} example={example}");
        }
    }

    /// Records results for a consumer without Redis. Results that are too large go to the dead letters.
    pub(super) fn commit(&mut self, task: CommitTask) -> Result<(), Killed> {
        let ids = task.commits.iter().map(|commit| commit.id).collect();
        let raise = if task.adopted { Raise::Recorded } else { Raise::Nothing };
        for batch in batches(&task.commits, |commit| commit) {
            self.commit_parts(batch, raise, &mut Splitter::default())?;
        }
        self.tell(RedistributorReply::Committed { link: task.link, serial: task.serial, ids, bytes: task.bytes })
    }

    fn commit_parts(&mut self, batch: &[Commit], raise: Raise, splitter: &mut Splitter) -> Result<(), Killed> {
        let epoch = self.epoch;
        let commit = |ledger: &mut Ledger| ledger.commit(Some(epoch), None, raise, batch);
        match self.retry.carry(&mut self.ledger, splitter, batch.len(), commit)? {
            Carried::Done(_) => Ok(()),
            Carried::Halve => {
                let (first, second) = batch.split_at(batch.len() / 2);
                self.commit_parts(first, raise, splitter)?;
                self.commit_parts(second, raise, splitter)
            }
            Carried::TooLarge(reason) => {
                let dead_letter = |commit: &Commit| {
                    self.dead_letter(commit.id, format!("its result can't be stored: {reason}").into())
                };
                batch.iter().try_for_each(dead_letter)
            }
        }
    }
}

/// The size of a message in the step that settles it: bytes and words.
fn size((returned, _): &(Returned, Option<Duration>)) -> (usize, usize) {
    (returned.consumer.len() + returned.reason.len(), Returned::WORDS)
}

/// How long a message whose delivery was lost waits before delivery number `delivery`; the second is immediate. A lost
/// consumer says little about its messages. The few that kill consumers wait in the line of suspects.
fn backoff(delivery: u16) -> Duration {
    match delivery.checked_sub(3) {
        None => Duration::ZERO,
        Some(doublings) => exponential(FIRST_BACKOFF, MOST_BACKOFF, u32::from(doublings)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_delivery_goes_out_at_once_and_later_ones_wait() {
        assert_eq!(backoff(2), Duration::ZERO);
        assert!(backoff(3) >= Duration::from_millis(75) && backoff(3) <= Duration::from_millis(125));
        assert!(backoff(u16::MAX) <= Duration::from_secs(38));
    }
}
