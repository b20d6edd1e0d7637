//! What became of messages: acknowledged, handed back, recorded by the redistributor, or going out again.

use std::time::Duration;

use super::links::MAX_RESULT_BYTES;
use super::{CommitTask, Courier, News, Task};
use crate::dispatcher::link::Held;
use crate::dispatcher::stats::add;
use crate::dispatcher::table::{Loss, Whereabouts};
use crate::id::{MessageId, wall_clock_us};
use crate::ledger::{Commit, Pending, Returned, Verdict};
use crate::wire::REJECT;

/// What a result that waits to be recorded costs beside its fields, about.
const COMMIT_BYTES: usize = 96;

impl Courier {
    /// The consumer is done with these, and they are no longer in the sorted set.
    pub(super) fn acked(&mut self, index: usize, ids: &[MessageId]) {
        let stats = self.shared.clone();
        let stats = &stats.stats;
        let now_us = wall_clock_us();
        let mut acked = 0;
        // An id is the time of intake, unless the clock was behind; those that follow each other were taken in together.
        for together in ids.chunk_by(|id, next| id.0.wrapping_add(1) == next.0) {
            let settled = together.iter().filter(|id| self.settle(index, **id)).count();
            let latency = Duration::from_micros(now_us.saturating_sub(together[0].0));
            stats.delivery_latency.observe_many(latency, settled as u64);
            acked += settled;
        }
        add(&stats.acked, acked);
        if let Some(link) = &self.links[index] {
            add(&link.figures.acked, acked);
        }
        self.acked_unsaid += acked as u64;
    }

    /// A message is done. Says whether that is news.
    fn settle(&mut self, index: usize, id: MessageId) -> bool {
        let held = self.links[index].as_mut().and_then(|link| link.let_go(id));
        // Something that went elsewhere meanwhile is acknowledged from there, too; then its place there is free.
        if held.as_ref().is_none_or(Held::is_detached)
            && matches!(self.table.whereabouts(id), Some(Whereabouts::Sent(_)))
        {
            return false;
        }
        let known = self.table.forget(id);
        self.backlog.acked(id);
        // Else it was never handed out, or was settled long ago.
        known || held.is_some()
    }

    pub(super) fn nacked(&mut self, index: usize, id: MessageId, delay_ms: u32, reason: &str) {
        let Some(link) = &mut self.links[index] else { return };
        // One that counts as being elsewhere is settled from there.
        let Some(held) = link.let_go(id).filter(|held| !held.is_detached()) else { return };
        let verdict = if delay_ms == REJECT { Verdict::Rejected } else { Verdict::Failed };
        let delay_ms = if delay_ms == REJECT { 0 } else { delay_ms };
        let consumer = link.consumer.clone();
        self.give_back_one(
            Returned { id, verdict, delivery: held.delivery, let_go: true, consumer, reason: reason.into() },
            delay_ms,
        );
    }

    fn give_back_one(&mut self, returned: Returned, delay_ms: u32) {
        self.table.set_away(returned.id);
        match self.outbox.back_mut() {
            Some(Task::Returned(waiting)) => waiting.push((returned, delay_ms)),
            _ => self.outbox.push_back(Task::Returned(vec![(returned, delay_ms)])),
        }
    }

    /// A message whose last delivery was lost would go out once more: now that delivery has failed.
    pub(super) fn bury(&mut self, message: &Pending, loss: Loss) {
        let (id, delivery) = (message.id, message.delivery - 1);
        let Loss { consumer, reason } = loss;
        let returned = Returned { id, verdict: Verdict::Failed, delivery, let_go: false, consumer, reason };
        self.give_back_one(returned, 0);
    }

    /// Has a delivery counted that followed a lost one. It comes before all that may yet be said of it.
    pub(super) fn count(&mut self, message: &Pending) {
        let sent = (message.id, message.delivery);
        match self.outbox.back_mut() {
            Some(Task::Count(waiting)) => waiting.push(sent),
            _ => self.outbox.push_back(Task::Count(vec![sent])),
        }
    }

    /// Has results recorded for a consumer that has no Redis; its places are free when that is done.
    pub(super) fn commit(&mut self, index: usize, commits: Vec<Commit>) {
        let Some(link) = &self.links[index] else { return };
        let serial = link.serial;
        let bytes = commits.iter().map(|commit| commit.bytes() + COMMIT_BYTES).sum();
        let foreign = commits.iter().map(|commit| commit.id).filter(|id| !link.holds(*id)).max();
        self.result_bytes += bytes;
        match self.outbox.back_mut() {
            Some(Task::Commit(waiting)) if waiting.link == index && waiting.serial == serial => {
                waiting.commits.extend(commits);
                waiting.foreign = waiting.foreign.max(foreign);
                waiting.bytes += bytes;
            }
            _ => self.outbox.push_back(Task::Commit(CommitTask { link: index, serial, commits, foreign, bytes })),
        }
    }

    pub(super) fn hear_redistributor(&mut self) {
        while let Ok(news) = self.channels.news.try_recv() {
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
                News::Committed { link, serial, ids, bytes } => {
                    if self.result_bytes >= MAX_RESULT_BYTES {
                        // Links were not read: there may be something in their buffers, where the poller does not see it.
                        self.unread = (0..self.links.len()).collect();
                    }
                    self.result_bytes -= bytes;
                    if self.links[link].as_ref().is_some_and(|link| link.serial == serial) {
                        self.acked(link, &ids);
                    }
                }
            }
        }
    }

    /// The redistributor found that a message is no longer pending, or buried it.
    fn done(&mut self, id: MessageId) {
        if self.table.whereabouts(id) == Some(Whereabouts::Away) {
            self.table.forget(id);
        }
    }
}
