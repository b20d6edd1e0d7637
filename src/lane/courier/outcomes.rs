//! What became of messages: acknowledged, returned by the consumer, recorded by the redistributor, or due
//! for redelivery.
//!
//! A consumer's answer counts only if the message has a [place](crate::lane::places) at that consumer. Any other answer
//! is *stray* and changes nothing. For a place known only from HELD, another consumer may hold the message too, from
//! this leader. So settling such a message raises the recall, and the other consumer has to check before it records.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Courier;
use crate::base::id::{MessageId, wall_clock_us};
use crate::lane::bundling::Recorded;
use crate::lane::link::Link;
use crate::lane::places::{Place, TakenPlace};
use crate::lane::replays::Replayed;
use crate::lane::stats::{LaneStats, add};
use crate::lane::strays;
use crate::lane::table::{Loss, MAX_TRACKED, Whereabouts};
use crate::lane::tasks::{CommitTask, RedistributorReply, Task};
use crate::ledger::{Commit, DeliveryNumber, Hold, MAX_RESULT_FIELDS, Page, Pending, Returned, Verdict};
use crate::wire::{ErrorCode, Field, MessageResult, NackDelay};

/// About how many bytes a result that waits to be recorded takes beside its fields.
const COMMIT_BYTES: usize = 96;

/// What a consumer did wrong.
pub(super) type Mistake = (ErrorCode, String);

/// Notes an answer for a message that has no place at the consumer.
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
    /// Handles ACK: the consumer is done with these messages, and they are no longer in the sorted set.
    pub(super) fn acked(&mut self, index: usize, ids: &[MessageId]) -> Result<(), Mistake> {
        let mut outcome = Ok(());
        let mut settled = Vec::with_capacity(ids.len());
        let mut recorded = Recorded::default();
        for id in ids {
            let held = self.links.get_mut(index).and_then(|link| link.finish(*id));
            held.iter().for_each(|held| recorded.add(*id, held));
            match held {
                Some(held) if self.settle(index, *id, held) => settled.push(*id),
                Some(_) => {}
                None => outcome = outcome.and(self.stray(index, *id)),
            }
        }
        self.note_settled(index, &settled);
        self.shared.bundling.note_recorded(&recorded);
        outcome
    }

    /// Redis has answered for the results of these, and has each of them or needs it no more.
    fn recorded(&mut self, index: usize, ids: &[MessageId]) {
        let mut settled = Vec::with_capacity(ids.len());
        for id in ids {
            self.confirm(index, *id);
            if self.links.get_mut(index).and_then(|link| link.finish(*id)).is_some() {
                self.forget(*id);
                settled.push(*id);
            }
        }
        self.note_settled(index, &settled);
    }

    fn note_settled(&mut self, index: usize, ids: &[MessageId]) {
        let now_us = wall_clock_us();
        // An id is the time of intake, unless the clock was behind. Consecutive ids were stored together.
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

    /// A consumer that records its results itself is done with a message. Returns whether that settles the message.
    fn settle(&mut self, index: usize, id: MessageId, held: TakenPlace) -> bool {
        match held.place {
            // The consumer that counts as its holder settles it.
            Place::Elsewhere | Place::NotPending => return false,
            Place::Overdue if matches!(self.table.whereabouts(id), Some(Whereabouts::Sent(_))) => return false,
            // This leader did not deliver the message to it. If its ACK were believed, a message that is still pending
            // could be forgotten.
            Place::Here if held.is_adopted() => self.ask_whether_done(index, id),
            Place::Here | Place::Overdue | Place::Recording => self.forget(id),
        }
        true
    }

    fn forget(&mut self, id: MessageId) {
        self.table.forget(id);
        self.backlog.acked(id);
    }

    /// Asks Redis whether a message is done. If it is still pending it is delivered again, uncounted.
    fn ask_whether_done(&mut self, index: usize, id: MessageId) {
        let Some(link) = self.links.get(index) else { return };
        let consumer = link.consumer.clone();
        let reason = "acknowledged, and still pending".into();
        let (verdict, delivery) = (Verdict::Unused, DeliveryNumber::Adopted);
        self.give_back_one(Returned { id, verdict, delivery, hold: Hold::Held, consumer, reason }, None);
    }

    /// An answer for a message without a place at this consumer.
    fn stray(&mut self, index: usize, id: MessageId) -> Result<(), Mistake> {
        let Some(link) = self.links.get_mut(index) else { return Ok(()) };
        if link.excuses(id) { Ok(()) } else { note_stray(&self.shared.stats, link, id) }
    }

    fn confirm(&mut self, index: usize, id: MessageId) {
        if let Some(link) = self.links.get_mut(index) {
            link.confirm(id);
        }
    }

    /// Handles results of a consumer without Redis. One with too many fields counts as a NACK.
    pub(super) fn results<'a>(
        &mut self,
        index: usize,
        results: impl IntoIterator<Item = MessageResult<'a>>,
    ) -> Result<(), Mistake> {
        let mut too_long = Vec::new();
        let mut outcome = self.commit(
            index,
            results.into_iter().filter_map(|MessageResult { id, fields }| {
                if fields.len() > MAX_RESULT_FIELDS {
                    too_long.push((id, fields.len()));
                    return None;
                }
                let fields = fields.iter().flat_map(|Field { name, value }| [name, value]).collect();
                Some(Commit { id, fields })
            }),
        );
        for (id, fields) in too_long {
            let reason = format!("a result of {fields} fields, at most {MAX_RESULT_FIELDS} can be stored");
            // If another result is being recorded, that one's confirmation names the id.
            let recording = self.is_recording(index, id);
            outcome = outcome.and(self.nacked(index, id, NackDelay::Never, &reason));
            if !recording {
                self.confirm(index, id);
            }
        }
        outcome
    }

    fn is_recording(&self, index: usize, id: MessageId) -> bool {
        let held = self.links.get(index).and_then(|link| link.places.get(id));
        held.is_some_and(|held| held.place == Place::Recording)
    }

    pub(super) fn nacked(
        &mut self,
        index: usize,
        id: MessageId,
        delay: NackDelay,
        reason: &str,
    ) -> Result<(), Mistake> {
        // If its result is being recorded, it has answered already.
        let recording = self.is_recording(index, id);
        let Some(link) = self.links.get_mut(index) else { return Ok(()) };
        let Some(held) = (!recording).then(|| link.answer(id)).flatten() else { return self.stray(index, id) };
        if held.place != Place::Here {
            // Another consumer counts as its holder and settles it.
            return Ok(());
        }
        let verdict = match delay {
            NackDelay::Never => Verdict::Rejected,
            // A draining consumer returns the messages that it has not begun.
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

    /// A message that Redis keeps in a bundle is about to go to a consumer that records results itself and knows no
    /// bundles. Settling it takes the bundle apart, and then it is delivered.
    pub(super) fn take_out_of_bundle(&mut self, message: &Pending) {
        let (id, delivery) = (message.id, DeliveryNumber::Known(message.delivery));
        self.taken_out = Some(id);
        let (consumer, reason) = (Arc::from(""), Arc::from("it was in a bundle"));
        let hold = Hold::Released;
        self.give_back_one(Returned { id, verdict: Verdict::Unused, delivery, hold, consumer, reason }, None);
    }

    fn give_back_one(&mut self, returned: Returned, delay: Option<Duration>) {
        self.table.set_away(returned.id);
        self.tasks.push_returned(returned, delay);
    }

    /// Moves a message to the dead letters whose last allowed delivery was lost. The lost delivery counts as failed
    /// now, because the next one would be one too many.
    pub(super) fn dead_letter(&mut self, message: &Pending, loss: Loss) {
        let (id, delivery) = (message.id, DeliveryNumber::Known(message.delivery - 1));
        let Loss { consumer, reason } = loss;
        let returned = Returned { id, verdict: Verdict::Failed, delivery, hold: Hold::Held, consumer, reason };
        self.give_back_one(returned, None);
    }

    /// Counts a delivery that followed a lost one. The task is queued before any that settles the message.
    pub(super) fn count(&mut self, message: &Pending) {
        self.tasks.push_count(message.id, message.delivery);
    }

    /// Queues results of a consumer without Redis to be recorded. The places become free when that is done.
    pub(super) fn commit(&mut self, index: usize, results: impl IntoIterator<Item = Commit>) -> Result<(), Mistake> {
        let mut outcome = Ok(());
        let mut commits = Vec::new();
        let (mut bytes, mut adopted) = (0, false);
        for result in results {
            let Some(link) = self.links.get_mut(index) else { return Ok(()) };
            let held = link.places.get(result.id).copied();
            match held.map(|held| held.place) {
                // If another consumer holds it by now, this leader delivered it there after giving up this delivery.
                // The first result is recorded.
                Some(Place::Here | Place::Overdue) => {
                    link.record(result.id);
                    adopted |= held.is_some_and(|held| held.is_adopted());
                    bytes += result.bytes() + COMMIT_BYTES;
                    commits.push(result);
                }
                // The other consumer's result counts. Only this consumer's HELD says that it has the message at all.
                Some(Place::Elsewhere | Place::NotPending) => {
                    link.answer(result.id);
                    link.confirm(result.id);
                }
                // The confirmation of the result that is being recorded names the id, and no other may come before it.
                Some(Place::Recording) => outcome = outcome.and(self.stray(index, result.id)),
                None => {
                    link.confirm(result.id);
                    outcome = outcome.and(self.stray(index, result.id));
                }
            }
        }
        if !commits.is_empty() {
            self.record(index, commits, bytes, adopted);
        }
        outcome
    }

    pub(super) fn record(&mut self, index: usize, commits: Vec<Commit>, bytes: usize, adopted: bool) {
        let Some(link) = self.links.get_mut(index) else { return };
        link.result_bytes += bytes;
        self.tasks.push_commit(CommitTask { link: index, serial: link.serial, commits, bytes, adopted });
    }

    pub(super) fn hear_redistributor(&mut self) {
        while let Ok(reply) = self.replies.try_recv() {
            match reply {
                RedistributorReply::Page(page) if self.awaits_again() => self.read_again(page),
                RedistributorReply::Page(page) => self.read_back(page),
                RedistributorReply::Back(messages) => {
                    for again in messages {
                        self.table.readmit(again);
                    }
                }
                RedistributorReply::Done(ids) => ids.into_iter().for_each(|id| self.done(id)),
                RedistributorReply::Replayed(replayed) => self.replayed(replayed),
                RedistributorReply::Settings(known) => self.keep_to(&known),
                RedistributorReply::Missing(id) => self.missing(id),
                RedistributorReply::NotPending(claims) => self.drop_not_pending(claims),
                RedistributorReply::Committed { link: index, serial, ids, bytes } => {
                    self.links.read_put_off();
                    self.tasks.confirm_commit(bytes);
                    if let Some(link) = self.links.get_same(index, serial) {
                        link.result_bytes -= bytes;
                        self.recorded(index, &ids);
                    }
                }
            }
        }
    }

    /// Takes in a page of the backlog.
    pub(super) fn read_back(&mut self, page: Page) {
        let (messages, delayed) = self.backlog.arrived(page);
        self.keep_waiting(&delayed);
        let admitted = messages.into_iter().filter(|message| self.table.admit(message.clone())).count();
        add(&self.shared.stats.read_back, admitted);
        self.check_frontier();
    }

    /// What must still wait goes back to the redistributor, by id only.
    pub(super) fn keep_waiting(&mut self, delayed: &[(Pending, Duration)]) {
        let unknown = delayed.iter().filter(|(message, _)| self.table.admit_away(message));
        let again: Vec<_> = unknown.map(|(message, wait)| (message.id, *wait)).collect();
        if !again.is_empty() {
            self.tasks.push(Task::Again(again));
        }
    }

    /// Handles messages that were replayed from the dead letters. A consumer may still hold such a message from before
    /// it died, so it counts as one that earlier leaders delivered.
    fn replayed(&mut self, replayed: Replayed) {
        let ids = match replayed {
            Replayed::Some(ids) => ids,
            Replayed::Many => {
                self.inherit(self.shared.highest_id());
                self.backlog.read_again(MessageId::ZERO);
                return self.check_frontier();
            }
        };
        ids.iter().for_each(|id| self.inherit(*id));
        if self.table.is_ordered() {
            return self.replayed_in_order(&ids);
        }
        let mut again = Vec::new();
        for id in ids {
            if self.table.whereabouts(id).is_some() || self.backlog.covers(id) {
                // It is known to be pending again, or about to be read.
                continue;
            }
            if self.table.len() < MAX_TRACKED {
                self.table.set_away(id);
                again.push((id, Duration::ZERO));
            } else {
                self.backlog.read_again(id);
            }
        }
        if !again.is_empty() {
            log::info!("event=replayed messages={} first_id={}", again.len(), again[0].0);
            self.tasks.push(Task::Again(again));
        }
    }

    fn inherit(&mut self, id: MessageId) {
        self.inherited = self.inherited.max(id);
        self.table.inherit(id);
    }

    /// The redistributor found that a message is no longer pending, or moved it to the dead letters.
    fn done(&mut self, id: MessageId) {
        if self.table.whereabouts(id) == Some(Whereabouts::Away) {
            self.table.forget(id);
        }
    }
}
