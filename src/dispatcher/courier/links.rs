//! The courier's links: asked for, taken over from the dialers, read, flushed, tended and dropped.

use std::sync::Arc;
use std::time::Instant;

use tungstenite::Bytes;

use super::{Courier, PATIENCE, Task};
use crate::dispatcher::dialer::{Dial, LinkNews, NewLink};
use crate::dispatcher::link::{Failure, Incoming, Link};
use crate::dispatcher::sockets::Readiness;
use crate::dispatcher::stats::{add, set};
use crate::error::Result;
use crate::id::MessageId;
use crate::ledger::{Commit, MAX_RESULT_FIELDS, Returned, Verdict};
use crate::log::Quoted;
use crate::shutdown::Reason;
use crate::wire::{self, ErrorCode, Field, Frame, REJECT};

/// Messages read from one link in one round of the loop.
const READS_PER_ROUND: usize = 64;
/// Results of consumers without Redis that may wait to be recorded; beyond it no link is read.
const MAX_RESULT_BYTES: usize = 32 << 20;

impl Courier {
    pub(super) fn dial(&self, index: usize) {
        let dial = Dial {
            epoch: self.epoch,
            kill: self.kill.clone(),
            news: self.link_news.0.clone(),
            waker: self.sockets.waker(),
        };
        self.channels.dial.request(index, dial);
    }

    pub(super) fn hear_links(&mut self) -> Result<()> {
        while let Ok(news) = self.link_news.1.try_recv() {
            match news {
                LinkNews::Up(link) => self.add_link(*link)?,
                LinkNews::Unreachable(index) => self.answered[index] = true,
            }
        }
        Ok(())
    }

    fn add_link(&mut self, new: NewLink) -> Result<()> {
        let index = new.index;
        self.serials += 1;
        let leftover = new.leftover.clone();
        let held = new.held.clone();
        let mut link = Link::new(new, self.serials);
        self.sockets.add(link.stream(), index)?;
        for id in &held {
            let adopted = self.table.adopt(*id, index);
            link.adopt(*id, !adopted);
        }
        log::info!(
            "event=consumer-linked consumer={} address={} held={}",
            Quoted(&link.consumer),
            self.shared.config.consumers[index],
            held.len()
        );
        add(&self.shared.stats.links_made, 1);
        self.links[index] = Some(link);
        self.answered[index] = true;
        self.list_members();
        self.handle_frames(index, leftover.into());
        // What came with the answer is in the WebSocket's buffer, where the poller does not see it.
        self.unread.push(index);
        Ok(())
    }

    pub(super) fn drop_link(&mut self, index: usize, why: &str) {
        let Some(mut link) = self.links[index].take() else { return };
        self.sockets.remove(link.stream());
        let verdict = if link.draining { Verdict::Unused } else { Verdict::Failed };
        let held = link.take_attached();
        log::warn!(
            "event=consumer-lost consumer={} draining={} held={} reason={}",
            Quoted(&link.consumer),
            link.draining,
            held.len(),
            Quoted(why)
        );
        add(&self.shared.stats.links_lost, 1);
        let reason = format!("the link to the consumer was lost: {why}");
        self.give_back(&link.consumer, held, verdict, &reason);
        self.list_members();
        self.dial(index);
    }

    /// Hands messages that brought no result to the redistributor.
    fn give_back(&mut self, consumer: &Arc<str>, ids: Vec<(MessageId, u16)>, verdict: Verdict, reason: &str) {
        let returned = ids.into_iter().map(|(id, delivery)| {
            self.table.set_away(id);
            (Returned { id, verdict, delivery, consumer: consumer.clone(), reason: reason.to_owned() }, 0)
        });
        let returned: Vec<_> = returned.collect();
        if !returned.is_empty() {
            self.outbox.push_back(Task::Returned(returned));
        }
    }

    pub(super) fn list_members(&mut self) {
        let members: Vec<String> = self.links.iter().flatten().map(|link| link.consumer.to_string()).collect();
        set(&self.shared.stats.links, members.len() as u64);
        // Only the newest list counts.
        self.outbox.retain(|task| !matches!(task, Task::Members(_)));
        self.outbox.push_back(Task::Members(members));
    }

    pub(super) fn read_links(&mut self, ready: &[Readiness]) {
        let again = std::mem::take(&mut self.unread);
        let readable = ready.iter().filter(|socket| socket.readable).map(|socket| socket.key);
        let mut keys: Vec<usize> = readable.chain(again).collect();
        keys.sort_unstable();
        keys.dedup();
        for index in keys {
            if let Err(failure) = self.read_link(index) {
                self.drop_link(index, &failure);
            }
        }
    }

    fn read_link(&mut self, index: usize) -> Result<(), Failure> {
        for _ in 0..READS_PER_ROUND {
            let Some(link) = &mut self.links[index] else { return Ok(()) };
            if self.result_bytes >= MAX_RESULT_BYTES {
                // Not its fault: it is read on when the results have been recorded.
                link.last_heard = Instant::now();
                break;
            }
            let incoming = link.read()?;
            if !matches!(incoming, Incoming::Nothing) {
                link.last_heard = Instant::now();
            }
            match incoming {
                Incoming::Frames(bytes) => self.handle_frames(index, bytes),
                Incoming::Alive => {}
                Incoming::Nothing => return Ok(()),
            }
        }
        self.unread.push(index);
        Ok(())
    }

    fn handle_frames(&mut self, index: usize, bytes: Bytes) {
        for frame in wire::frames(&bytes) {
            let outcome = match frame {
                Ok(frame) => self.handle_frame(index, frame),
                Err(error) => Err((error.code(), error.to_string())),
            };
            if let Err((code, problem)) = outcome {
                add(&self.shared.stats.bad_frames, 1);
                if let Some(link) = &mut self.links[index] {
                    link.complain(code, &problem);
                }
                self.drop_link(index, &problem);
                return;
            }
        }
    }

    fn handle_frame(&mut self, index: usize, frame: Frame<'_>) -> Result<(), (ErrorCode, String)> {
        let Some(link) = &mut self.links[index] else { return Ok(()) };
        match frame {
            Frame::Ack(ids) if link.flags.commits() => ids.into_iter().for_each(|id| self.acked(index, id)),
            Frame::Ack(ids) => {
                let commits = ids.into_iter().map(|id| Commit { id, fields: Vec::new() }).collect();
                self.commit(index, commits);
            }
            Frame::Result { id, fields } if fields.len() <= MAX_RESULT_FIELDS => {
                let owned = |field: &Field<'_>| (field.name.to_vec(), field.value.to_vec());
                self.commit(index, vec![Commit { id, fields: fields.iter().map(owned).collect() }]);
            }
            Frame::Result { id, fields } => {
                let reason = format!("a result of {} fields, at most {MAX_RESULT_FIELDS} can be stored", fields.len());
                self.nacked(index, id, REJECT, &reason);
            }
            Frame::Nack { id, delay_ms, reason } => self.nacked(index, id, delay_ms, reason),
            Frame::Progress(ids) => link.progress(&ids, Instant::now()),
            Frame::Drain => {
                log::info!("event=consumer-draining consumer={} held={}", Quoted(&link.consumer), link.held_len());
                link.draining = true;
            }
            Frame::Error { code: ErrorCode::Stale, text } => {
                log::warn!("event=superseded consumer={} text={}", Quoted(&link.consumer), Quoted(text));
                self.kill.set(Reason::Superseded);
            }
            Frame::Error { code, text } => {
                let failure = format!("it refused: {code}: {text}");
                self.drop_link(index, &failure);
            }
            Frame::Process { .. } | Frame::Lead { .. } | Frame::Ready { .. } | Frame::Held(_) => {
                return Err((ErrorCode::Unexpected, format!("{} is not expected now", frame.name())));
            }
        }
        Ok(())
    }

    pub(super) fn flush_links(&mut self) {
        for index in 0..self.links.len() {
            let Some(link) = &mut self.links[index] else { continue };
            let was_congested = link.congested;
            let outcome = link.flush().and_then(|()| {
                if link.congested == was_congested {
                    return Ok(());
                }
                self.sockets.watch(link.stream(), index, true, link.congested).map_err(|error| error.to_string())
            });
            if let Err(failure) = outcome {
                self.drop_link(index, &failure);
            }
        }
    }

    /// Pings, and gives up what is silent.
    pub(super) fn tend_links(&mut self) {
        let timeout = self.shared.config.link_timeout;
        let now = Instant::now();
        if now.duration_since(self.tended) < (timeout / 20).min(PATIENCE) {
            return;
        }
        self.tended = now;
        for index in 0..self.links.len() {
            let Some(link) = &mut self.links[index] else { continue };
            // Unread links have something to say.
            let silent = now.saturating_duration_since(link.last_heard) >= timeout && !self.unread.contains(&index);
            let outcome = if silent {
                Err(format!("nothing came for {} ms", timeout.as_millis()))
            } else {
                link.ping_if_due(timeout / 3, now)
            };
            if let Err(failure) = outcome {
                self.drop_link(index, &failure);
                continue;
            }
            let overdue = link.detach_overdue(2 * timeout, now);
            if !overdue.is_empty() {
                let consumer = link.consumer.clone();
                log::warn!("event=overdue consumer={} messages={}", Quoted(&consumer), overdue.len());
                self.give_back(&consumer, overdue, Verdict::Failed, "the consumer no longer reported it");
            }
        }
    }
}
