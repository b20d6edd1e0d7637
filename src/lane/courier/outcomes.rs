//! What became of messages: acknowledged, returned by the consumer, recorded by the redistributor, or due
//! for redelivery.
//!
//! Only a [place](crate::lane::places) at a consumer answers. What it says of any other message is a stray answer,
//! which changes nothing. A place that rests on the consumer's word alone, since it named the message in HELD, answers
//! as well; but another consumer may have the message from this leader. So the step that settles such a message raises
//! the recall, and a consumer that would record it without a check has to check.

use std::time::{Duration, Instant};

use super::Courier;
use crate::base::id::{MessageId, wall_clock_us};
use crate::lane::link::Link;
use crate::lane::places::{Place, TakenPlace};
use crate::lane::stats::{LaneStats, add};
use crate::lane::strays;
use crate::lane::table::{Loss, Whereabouts};
use crate::lane::tasks::{CommitTask, News};
use crate::ledger::{Commit, DeliveryNumber, Hold, Pending, Returned, Verdict};
use crate::wire::{ErrorCode, NackDelay};

/// What a result that waits to be recorded costs beside its fields, about.
const COMMIT_BYTES: usize = 96;

/// What a consumer did wrong.
pub(super) type Mistake = (ErrorCode, String);

/// Notes something that a consumer has said of a message that it was not given.
pub(super) fn note_stray(stats: &LaneStats, link: &mut Link, id: MessageId) -> Result<(), Mistake> {
    add(&stats.stray_answers, 1);
    if link.strays.note(id, Instant::now()) {
        return Ok(());
    }
    let problem =
        format!("answers for messages that it does not hold, such as {id}: more than {} a second", strays::PER_SECOND);
    Err((ErrorCode::Unexpected, problem))
}

impl Courier {
    /// The consumer is done with these, and says that they are no longer in the sorted set.
    pub(super) fn acked(&mut self, index: usize, ids: &[MessageId]) -> Result<(), Mistake> {
        let mut outcome = Ok(());
        let mut settled = Vec::with_capacity(ids.len());
        for id in ids {
            let held = self.links.get_mut(index).and_then(|link| link.answer(*id));
            match held {
                Some(held) if self.settle(index, *id, held) => settled.push(*id),
                Some(_) => {}
                None => outcome = outcome.and(self.stray(index, *id)),
            }
        }
        self.note_settled(index, &settled);
        outcome
    }

    /// The results of these were recorded for the consumer.
    fn recorded(&mut self, index: usize, ids: &[MessageId]) {
        let mut settled = Vec::with_capacity(ids.len());
        for id in ids {
            if self.links.get_mut(index).and_then(|link| link.answer(*id)).is_some() {
                self.forget(*id);
                settled.push(*id);
            }
        }
        self.note_settled(index, &settled);
    }

    fn note_settled(&mut self, index: usize, ids: &[MessageId]) {
        let now_us = wall_clock_us();
        // An id is the time of intake, unless the clock was behind; those that follow each other were stored
        // together.
        for together in ids.chunk_by(|id, next| id.0.wrapping_add(1) == next.0) {
            let latency = Duration::from_micros(now_us.saturating_sub(together[0].0));
            self.shared.stats.delivery_latency.observe_many(latency, together.len() as u64);
        }
        add(&self.shared.stats.acked, ids.len());
        if let Some(link) = self.links.get(index) {
            add(&link.figures.acked, ids.len());
        }
        self.figures.note_acked(ids.len());
    }

    /// A consumer that records its results itself is done with a message. Says whether the message is settled by that.
    fn settle(&mut self, index: usize, id: MessageId, held: TakenPlace) -> bool {
        match held.place {
            // From there it is settled, too.
            Place::Elsewhere | Place::NotPending => return false,
            Place::Overdue if matches!(self.table.whereabouts(id), Some(Whereabouts::Sent(_))) => return false,
            // It was not given this message by us. Were its word taken, a message that is still pending would be
            // forgotten.
            Place::Here if held.is_adopted() => self.ask_whether_done(index, id),
            Place::Here | Place::Overdue | Place::Recording => self.forget(id),
        }
        true
    }

    fn forget(&mut self, id: MessageId) {
        self.table.forget(id);
        self.backlog.acked(id);
    }

    /// Has Redis looked at: a message that is still pending goes out again, uncounted.
    fn ask_whether_done(&mut self, index: usize, id: MessageId) {
        let Some(link) = self.links.get(index) else { return };
        let consumer = link.consumer.clone();
        let reason = "acknowledged, and still pending".into();
        let (verdict, delivery) = (Verdict::Unused, DeliveryNumber::Adopted);
        self.give_back_one(Returned { id, verdict, delivery, hold: Hold::Held, consumer, reason }, None);
    }

    /// An answer for a message without a place at this consumer.
    fn stray(&mut self, index: usize, id: MessageId) -> Result<(), Mistake> {
        self.links.get_mut(index).map_or(Ok(()), |link| note_stray(&self.shared.stats, link, id))
    }

    pub(super) fn nacked(
        &mut self,
        index: usize,
        id: MessageId,
        delay: NackDelay,
        reason: &str,
    ) -> Result<(), Mistake> {
        let Some(link) = self.links.get_mut(index) else { return Ok(()) };
        // While its result is being recorded it has answered.
        let recording = link.places.get(id).is_some_and(|held| held.place == Place::Recording);
        let Some(held) = (!recording).then(|| link.answer(id)).flatten() else { return self.stray(index, id) };
        if held.place != Place::Here {
            // It is settled from elsewhere.
            return Ok(());
        }
        let verdict = match delay {
            NackDelay::Never => Verdict::Rejected,
            // The consumer returns what it has not begun.
            NackDelay::ByBackoff if link.draining && reason.is_empty() => Verdict::Unused,
            _ => Verdict::Failed,
        };
        let delay = match delay {
            NackDelay::AfterMs(ms) => Some(Duration::from_millis(ms.into())),
            NackDelay::ByBackoff | NackDelay::Never => None,
        };
        let (consumer, reason) = (link.consumer.clone(), reason.into());
        let hold = if held.is_adopted() { Hold::Held } else { Hold::Released };
        self.give_back_one(Returned { id, verdict, delivery: held.delivery, hold, consumer, reason }, delay);
        Ok(())
    }

    fn give_back_one(&mut self, returned: Returned, delay: Option<Duration>) {
        self.table.set_away(returned.id);
        self.tasks.push_returned(returned, delay);
    }

    /// A message whose last delivery was lost would go out once more: now that delivery has failed.
    pub(super) fn dead_letter(&mut self, message: &Pending, loss: Loss) {
        let (id, delivery) = (message.id, DeliveryNumber::Known(message.delivery - 1));
        let Loss { consumer, reason } = loss;
        let returned = Returned { id, verdict: Verdict::Failed, delivery, hold: Hold::Held, consumer, reason };
        self.give_back_one(returned, None);
    }

    /// Has a delivery counted that followed a lost one. It comes before all that may yet be said of it.
    pub(super) fn count(&mut self, message: &Pending) {
        self.tasks.push_count(message.id, message.delivery);
    }

    /// Has results recorded for a consumer that has no Redis; its places are free when that is done.
    pub(super) fn commit(&mut self, index: usize, results: impl IntoIterator<Item = Commit>) -> Result<(), Mistake> {
        let mut outcome = Ok(());
        let mut commits = Vec::new();
        let (mut bytes, mut adopted) = (0, false);
        for result in results {
            let Some(link) = self.links.get_mut(index) else { return Ok(()) };
            let held = link.places.get(result.id).copied();
            match held.map(|held| held.place) {
                // Another consumer that has it now has it from us, after this one was given up: the first result is
                // recorded.
                Some(Place::Here | Place::Overdue) => {
                    link.places.record(result.id);
                    adopted |= held.is_some_and(|held| held.is_adopted());
                    bytes += result.bytes() + COMMIT_BYTES;
                    commits.push(result);
                }
                // The other one's result counts: of this one only the consumer's own word says that it has the message
                // at all.
                Some(Place::Elsewhere | Place::NotPending) => drop(link.answer(result.id)),
                Some(Place::Recording) | None => outcome = outcome.and(self.stray(index, result.id)),
            }
        }
        if !commits.is_empty() {
            self.record(index, commits, bytes, adopted);
        }
        outcome
    }

    fn record(&mut self, index: usize, commits: Vec<Commit>, bytes: usize, adopted: bool) {
        let Some(link) = self.links.get_mut(index) else { return };
        link.result_bytes += bytes;
        self.tasks.push_commit(CommitTask { link: index, serial: link.serial, commits, bytes, adopted });
    }

    pub(super) fn hear_redistributor(&mut self) {
        while let Ok(news) = self.news.try_recv() {
            match news {
                News::Page(page) => {
                    let messages: Vec<Pending> = self.backlog.arrived(page).collect();
                    let admitted = messages.into_iter().filter(|message| self.table.admit(message.clone())).count();
                    add(&self.shared.stats.read_back, admitted);
                }
                News::Back(messages) => {
                    for again in messages {
                        self.table.readmit(again);
                    }
                }
                News::Done(ids) => ids.into_iter().for_each(|id| self.done(id)),
                News::Missing(id) => self.missing(id),
                News::NotPending(claims) => self.disbelieve(claims),
                News::Committed { link: index, serial, ids, bytes } => {
                    // A link that was not read may have something in its buffer, where the poller does not see it.
                    self.links.read_paused_again(self.tasks.result_bytes());
                    self.tasks.confirm_commit(bytes);
                    if let Some(link) = self.links.get_same(index, serial) {
                        link.result_bytes -= bytes;
                        self.recorded(index, &ids);
                    }
                }
            }
        }
    }

    /// The redistributor found that a message is no longer pending, or moved it to the dead letters.
    fn done(&mut self, id: MessageId) {
        if self.table.whereabouts(id) == Some(Whereabouts::Away) {
            self.table.forget(id);
        }
    }
}
