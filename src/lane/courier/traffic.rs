//! What happens on the courier's links: they are read, flushed, pinged and given up.

use std::sync::atomic::Ordering;
use std::time::Instant;

use tungstenite::Bytes;

use super::links::log_strays;
use super::outcomes::Mistake;
use super::{Courier, PATIENCE};
use crate::base::text::Quoted;
use crate::lane::link::{EndReason, Incoming, Link};
use crate::lane::stats::add;
use crate::ledger::{Commit, Verdict, Words};
use crate::wire::{self, ErrorCode, Frame, MessageResult};

/// Messages read from one link in one iteration of the loop.
const READS_PER_ROUND: usize = 64;
/// Bytes read from one link in one iteration, plus the rest of one message, so that no link keeps the others waiting.
const READ_BYTES_PER_ROUND: usize = 1 << 20;

impl Courier {
    pub(super) fn read_links(&mut self, mut keys: Vec<usize>) {
        keys.extend(self.links.take_unread());
        keys.sort_unstable();
        keys.dedup();
        for index in keys {
            if let Err(failure) = self.read_link(index) {
                self.drop_link(index, &failure);
            }
        }
    }

    fn read_link(&mut self, index: usize) -> Result<(), EndReason> {
        let mut read_bytes = 0;
        for _ in 0..READS_PER_ROUND {
            let Some(link) = self.links.get_mut(index) else { return Ok(()) };
            if !link.is_read(self.tasks.result_bytes()) {
                self.links.put_off(index);
                return Ok(());
            }
            let incoming = link.socket.read()?;
            if !matches!(incoming, Incoming::Nothing) {
                link.last_heard = Instant::now();
            }
            match incoming {
                Incoming::Frames(bytes) => {
                    read_bytes += bytes.len();
                    self.handle_frames(index, bytes);
                }
                Incoming::Alive => {}
                Incoming::Bad(code, problem) => {
                    self.bad_frame(index, code, &problem);
                    return Ok(());
                }
                Incoming::Nothing => return Ok(()),
            }
            if read_bytes >= READ_BYTES_PER_ROUND {
                break;
            }
        }
        self.links.read_again(index);
        Ok(())
    }

    pub(super) fn handle_frames(&mut self, index: usize, bytes: Bytes) {
        for frame in wire::frames(&bytes) {
            let outcome = match frame {
                Ok(frame) => self.handle_frame(index, frame),
                Err(error) => Err((error.code(), error.to_string())),
            };
            if let Err((code, problem)) = outcome {
                self.bad_frame(index, code, &problem);
                return;
            }
        }
    }

    fn handle_frame(&mut self, index: usize, frame: Frame<'_>) -> Result<(), Mistake> {
        let Some(link) = self.links.get_mut(index) else { return Ok(()) };
        match frame {
            Frame::Ack(ids) if link.flags.commits() => self.acked(index, &ids)?,
            Frame::Ack(ids) => {
                self.commit(index, ids.into_iter().map(|id| Commit { id, fields: Words::default() }))?;
            }
            Frame::Result { id, fields } => self.results(index, [MessageResult { id, fields }])?,
            Frame::Results(results) if link.confirms() => self.results(index, results)?,
            Frame::Credit { prefetch } if link.confirms() => {
                if !link.draining {
                    link.set_prefetch(prefetch);
                }
            }
            Frame::Nack { id, delay, reason } => self.nacked(index, id, delay, reason)?,
            Frame::Progress(ids) => link.places.report(&ids, Instant::now()),
            Frame::Drain => {
                log::info!("event=consumer-draining consumer={} held={}", Quoted(&link.consumer), link.places.taken());
                link.draining = true;
                link.figures.draining.store(true, Ordering::Relaxed);
            }
            Frame::Error { code, text } => {
                if code == ErrorCode::Replaced {
                    self.links.note_replaced(index);
                }
                let failure = format!("it refused: {code}: {text}");
                self.drop_link(index, &failure);
            }
            Frame::Process { .. }
            | Frame::Deliver { .. }
            | Frame::Part { .. }
            | Frame::Lead { .. }
            | Frame::Proof(_)
            | Frame::Ready { .. }
            | Frame::Held(_)
            | Frame::Results(_)
            | Frame::Hello(_)
            | Frame::Recorded(_)
            | Frame::Credit { .. } => {
                return Err((ErrorCode::Unexpected, format!("{} is not expected now", frame.name())));
            }
        }
        Ok(())
    }

    /// Writes the confirmations of this iteration, before messages are delivered that take the places they free. So
    /// messages held and results kept are never more than the prefetch.
    pub(super) fn write_confirmations(&mut self) {
        for index in 0..self.links.slots() {
            match self.links.get_mut(index).map(Link::write_confirmations) {
                Some(Ok(written)) => add(&self.shared.stats.confirmed, written),
                Some(Err(failure)) => self.drop_link(index, &failure),
                None => {}
            }
        }
    }

    /// Writes the gathered frames.
    pub(super) fn flush_links(&mut self) {
        for index in 0..self.links.slots() {
            let Some(link) = self.links.get_mut(index) else { continue };
            if let Err(failure) = link.flush() {
                self.drop_link(index, &failure);
            }
        }
    }

    /// Pings the consumers, and gives up silent links and overdue messages.
    pub(super) fn tend_links(&mut self) {
        let timeout = self.shared.settings.link_timeout;
        let now = Instant::now();
        let since = now.duration_since(self.tended);
        if since < (timeout / 20).min(PATIENCE) {
            return;
        }
        self.tended = now;
        // After a pause of this process, what arrived meanwhile is read first.
        let judge = since < timeout / 2;
        for index in 0..self.links.slots() {
            let unread = self.links.is_unread(index);
            let Some(link) = self.links.get_mut(index) else { continue };
            log_strays(link.strays.due(now), &link.consumer);
            if !judge {
                link.last_heard = now;
            }
            if !link.is_read(self.tasks.result_bytes()) {
                // The courier does not read this link, so the consumer's silence doesn't count.
                link.excuse(now);
            }
            // A link with unread bytes is not silent.
            let silent = now.saturating_duration_since(link.last_heard) >= timeout && !unread;
            let outcome = if silent {
                Err(format!("nothing arrived for {} ms", timeout.as_millis()))
            } else if link.socket.reads_nothing(2 * timeout, now) {
                Err(format!("it has read nothing for {} ms", 2 * timeout.as_millis()))
            } else {
                link.socket.ping_if_due(timeout / 3, now)
            };
            if let Err(failure) = outcome {
                self.drop_link(index, &failure);
                continue;
            }
            let overdue = link.take_overdue(2 * timeout, now);
            if !overdue.is_empty() {
                let consumer = link.consumer.clone();
                let verdict = if link.draining { Verdict::Unused } else { Verdict::Failed };
                log::warn!("event=overdue consumer={} messages={}", Quoted(&consumer), overdue.len());
                self.give_back(&consumer, overdue, verdict, "the consumer no longer reported it");
            }
        }
    }
}
