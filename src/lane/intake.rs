//! The intake: stores batches of published messages in Redis and passes them on to the courier, if there is one. The
//! part of ingest that moves the cursor.
//!
//! A batch that is too large for Redis or a proxy is stored in halves; a message that is too large alone becomes a dead
//! letter. A lost reply does no harm: the batch is offered again, and the script, which compares the cursor, either
//! stores it or reports that it was stored before.
//!
//! Owned by ingest, on its thread.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{SendTimeoutError, Sender};

use super::elected::Elected;
use super::kill_switch::{KillSwitch, Reason};
use super::pulses::{ITERATION_WITHIN, TermWorker};
use super::retry::{Carried, Killed, Retry};
use super::ring::{CURSOR_LOST, RingPlace};
use super::shared::Shared;
use super::sockets::Waker;
use super::stats::{add, set};
use crate::base::error::Error;
use crate::base::id::{Epoch, MessageId, wall_clock_us};
use crate::base::text::Quoted;
use crate::ledger::bundle;
use crate::ledger::resp::EXCERPT_BYTES;
use crate::ledger::subscription::{Length, Published};
use crate::ledger::{Arrival, Cursor, Gap, IntakeAnswer, Ledger, Pending, Position, ServerChange, Splitter};
use crate::wire::{MAX_BODY_BYTES, MAX_CHANNEL_BYTES};

/// How long one attempt to pass messages to the courier waits, so also how late the kill switch may be noticed.
const PATIENCE: Duration = Duration::from_millis(50);

/// See the module's text.
pub(super) struct Intake {
    shared: Arc<Shared>,
    epoch: Epoch,
    kill: KillSwitch,
    pub(super) ledger: Ledger,
    pub(super) retry: Retry,
    courier: Option<ToCourier>,
    /// The cursor as Redis has it.
    cursor: Option<Cursor>,
    /// Whether the cursor has vanished from Redis and must be written anew.
    vanished: bool,
    /// The last id assigned.
    last_id: MessageId,
    /// Whether the last term began on another server.
    servers: Option<Box<ServerChange>>,
    /// Whether anything was stored this term.
    pub(super) advanced: bool,
    /// Whether anything was stored since the last marker.
    pub(super) unmarked: bool,
}

/// Where messages go once they are stored. Without consumers they go nowhere.
pub(super) struct ToCourier {
    pub(super) arrivals: Sender<Vec<Pending>>,
    pub(super) waker: Waker,
}

impl Intake {
    /// The intake of a term that has stored nothing yet.
    pub(super) fn new(
        shared: &Arc<Shared>,
        elected: &Elected,
        kill: KillSwitch,
        ledger: Ledger,
        courier: Option<ToCourier>,
    ) -> Intake {
        set(&shared.stats.lacks_replicas, 0);
        Intake {
            shared: shared.clone(),
            epoch: elected.epoch,
            ledger,
            retry: Retry::new(shared, kill.clone(), TermWorker::Ingest).ending_when_denied(),
            kill,
            courier,
            cursor: elected.cursor.clone(),
            vanished: false,
            last_id: elected.last_id,
            servers: elected.servers.clone(),
            advanced: false,
            unmarked: false,
        }
    }

    /// The cursor as Redis has it.
    pub(super) fn cursor(&self) -> Option<&Cursor> {
        self.cursor.as_ref()
    }

    /// Stores the messages that follow `place`, advances `place`, and passes the messages to the courier. `false`: not
    /// all were stored, and the rest must be read from the ring again.
    pub(super) fn take_in(
        &mut self,
        place: &mut RingPlace,
        messages: Vec<Published>,
        position: Position,
    ) -> Result<bool, Killed> {
        let now_us = wall_clock_us();
        let mut last_id = self.last_id;
        let mut batch: Vec<Arrival> = messages
            .into_iter()
            .map(|published| {
                last_id = last_id.next(self.epoch, now_us);
                arrival(last_id, published)
            })
            .collect();
        if self.courier.is_some() && self.shared.bundling.suits(batch.len()) {
            bundle::form(&mut batch);
        }
        let all = self.take_in_parts(place, batch, Cursor { position, last_id }, &mut Splitter::default())?;
        // No id is assigned twice and no cursor is written twice, because a copy of a step that was undone may still
        // arrive.
        self.last_id = self.last_id.max(last_id);
        Ok(all)
    }

    /// Stores a batch, in halves if it is too large. A message that is too large alone becomes a dead letter.
    fn take_in_parts(
        &mut self,
        place: &mut RingPlace,
        mut batch: Vec<Arrival>,
        next: Cursor,
        splitter: &mut Splitter,
    ) -> Result<bool, Killed> {
        match self.offer(&next, &batch, splitter)? {
            Carried::Done(None) => Ok(false),
            Carried::Done(Some(cursor)) => {
                *place = place.after(batch.len());
                self.note_taken(batch, cursor);
                Ok(true)
            }
            Carried::Halve => match self.find_taken(&batch)? {
                Found::Nothing => self.take_in_halves(place, batch, next, splitter),
                Found::Undone => Ok(false),
                Found::Taken(cursor) => {
                    *place = place.after(batch.len());
                    self.note_taken(batch, cursor);
                    Ok(true)
                }
            },
            Carried::TooLarge(reason) => {
                for arrival in &mut batch {
                    log::warn!(
                        "event=too-large id={} bytes={} moved_to={} reason={}",
                        arrival.id,
                        arrival.body.payload().len(),
                        self.ledger.keys().dead,
                        Quoted(&reason)
                    );
                    *arrival = without_its_end(arrival, &reason);
                }
                self.take_in_parts(place, batch, next, &mut Splitter::default())
            }
        }
    }

    fn take_in_halves(
        &mut self,
        place: &mut RingPlace,
        mut batch: Vec<Arrival>,
        next: Cursor,
        splitter: &mut Splitter,
    ) -> Result<bool, Killed> {
        // A half may be smaller than a bundle.
        bundle::dissolve(&mut batch);
        let middle = place.after(batch.len() / 2);
        let rest = batch.split_off(batch.len() / 2);
        let Some(position) = self.shared.ring.position(middle) else {
            // The ring no longer has the marker of that place. The next term finds another name for it.
            self.kill.set(Reason::CursorMoved);
            return Err(Killed);
        };
        let last_id = batch.last().map_or(self.last_id, |arrival| arrival.id);
        Ok(self.take_in_parts(place, batch, Cursor { position, last_id }, splitter)?
            && self.take_in_parts(place, rest, next, splitter)?)
    }

    /// Without interests and without a cursor: nobody listens, so the first leader that does records a gap since now.
    pub(super) fn begin_unheard(&mut self) -> Result<(), Killed> {
        let next = Cursor::unheard_since(self.last_id.0.max(wall_clock_us()));
        if let Carried::Done(Some(cursor)) = self.offer(&next, &[], &mut Splitter::default())? {
            self.note_taken(Vec::new(), cursor);
            self.advanced = false;
        }
        Ok(())
    }

    /// Before a batch is offered in halves, finds out whether an attempt at the whole batch has taken effect after all;
    /// otherwise the cursor would go back. If one has, this moves the cursor, so that an attempt that arrives late
    /// finds a cursor that it does not know. An attempt that takes effect after this check shows as a cursor that has
    /// moved.
    fn find_taken(&mut self, batch: &[Arrival]) -> Result<Found, Killed> {
        let doubts = self.ledger.take_doubts();
        if doubts.is_empty() {
            return Ok(Found::Nothing);
        }
        let ledger = &mut self.ledger;
        let Some(found) = self.retry.until_done(|| ledger.cursor())?.filter(|found| doubts.contains(found)) else {
            return Ok(Found::Nothing);
        };
        if let Some(last) = batch.iter().rev().find(|arrival| arrival.refused.is_none())
            && !self.retry.until_done(|| ledger.is_stored(last.id))?
        {
            // A transaction moved the cursor, but its members were refused. Move the cursor back before anything else
            // happens.
            let (epoch, to) = (self.epoch, self.cursor.as_ref());
            self.retry.until_done(|| ledger.rewind(epoch, &found, to))?;
            return Ok(Found::Undone);
        }
        self.cursor = Some(found.clone());
        // The new cursor has a higher last id than any attempt.
        match self.offer(&found, &[], &mut Splitter::default())? {
            Carried::Done(Some(cursor)) => Ok(Found::Taken(cursor)),
            _ => {
                self.kill.set(Reason::CursorMoved);
                Err(Killed)
            }
        }
    }

    /// A batch is in Redis: advances the cursor here and passes the batch to the courier.
    fn note_taken(&mut self, batch: Vec<Arrival>, next: Cursor) {
        self.vanished = false;
        self.advanced = true;
        self.last_id = next.last_id;
        self.shared.note_id(next.last_id);
        self.cursor = Some(next);
        if batch.is_empty() {
            return;
        }
        self.unmarked = true;
        let refusals = batch.iter().filter_map(|arrival| Some((arrival.id, arrival.refused.as_ref()?)));
        let refused = refusals.clone().count();
        add(&self.shared.stats.taken_in, batch.len());
        add(&self.shared.stats.bundled, batch.iter().filter(|arrival| arrival.body.position().is_some()).count());
        add(&self.shared.stats.oversize, refused);
        self.shared.stats.deaths.lock().note(refused, Instant::now());
        for (id, reason) in refusals {
            log::warn!("event=oversize id={id} moved_to={} reason={}", self.ledger.keys().dead, Quoted(reason));
        }
        if self.courier.is_none() {
            return;
        }
        let deliverable = batch.into_iter().filter(|arrival| arrival.refused.is_none());
        self.pass_on(deliverable.map(|Arrival { id, body, .. }| Pending { id, delivery: 1, body }).collect());
    }

    /// Offers a batch to Redis until it is known to be stored or too large. `Done(None)`: it was refused, and may be
    /// offered again only with new ids.
    fn offer(
        &mut self,
        next: &Cursor,
        batch: &[Arrival],
        splitter: &mut Splitter,
    ) -> Result<Carried<Option<Cursor>>, Killed> {
        let (epoch, mut expected) = (self.epoch, self.cursor.as_ref());
        if self.vanished {
            expected = None;
        }
        let stats = &self.shared.stats;
        let attempt = |ledger: &mut Ledger| {
            let taken = ledger.intake(epoch, expected, next, batch);
            let lacks_replicas = matches!(taken, Err(Error::Unreplicated { .. }));
            add(&stats.unreplicated, usize::from(lacks_replicas));
            set(&stats.lacks_replicas, u64::from(lacks_replicas));
            taken
        };
        let carried = if batch.iter().any(|arrival| arrival.refused.is_some()) {
            // Nothing smaller could be sent instead, so it is retried, whatever the reason for the refusal.
            let ledger = &mut self.ledger;
            Carried::Done(self.retry.until_done(|| attempt(ledger))?)
        } else {
            self.retry.carry(&mut self.ledger, splitter, batch.len(), attempt)?
        };
        match carried {
            Carried::Done(IntakeAnswer::Taken(cursor)) => Ok(Carried::Done(Some(cursor))),
            // The key has vanished, or another client overwrote it, while Redis kept running. Only this leader moves
            // the cursor, so its last value is known.
            Carried::Done(IntakeAnswer::Moved(None)) if self.ledger.is_uninterrupted() && !self.vanished => {
                let cursor = self.cursor_text();
                self.record_gap(CURSOR_LOST, cursor.clone(), cursor, None)?;
                self.vanished = true;
                self.offer(next, batch, splitter)
            }
            Carried::Done(IntakeAnswer::Moved(found)) => {
                let found = found.map_or("none".to_owned(), |cursor| cursor.to_string());
                log::warn!("event=cursor-moved expected={} found={}", Quoted(self.cursor_text()), Quoted(found));
                self.kill.set(Reason::CursorMoved);
                Err(Killed)
            }
            Carried::Done(IntakeAnswer::Rewound(reason)) => {
                log::warn!("event=redis-trouble worker=ingest messages={} error={}", batch.len(), Quoted(reason));
                Ok(Carried::Done(None))
            }
            Carried::Halve => Ok(Carried::Halve),
            Carried::TooLarge(reason) => Ok(Carried::TooLarge(reason)),
        }
    }

    /// Passes a batch that is in the sorted set to the courier. If the term ends meanwhile, the next leader finds it
    /// there.
    fn pass_on(&mut self, mut batch: Vec<Pending>) {
        let Some(ToCourier { arrivals, waker }) = &self.courier else { return };
        while let Err(SendTimeoutError::Timeout(unsent)) = arrivals.send_timeout(batch, PATIENCE) {
            self.shared.pulses.ingest.beat(ITERATION_WITHIN);
            if self.kill.is_set() {
                return;
            }
            batch = unsent;
        }
        waker.wake();
    }

    /// Records a gap, and logs it.
    pub(super) fn record_gap(
        &mut self,
        reason: &'static str,
        begin: String,
        end: String,
        count: Option<u64>,
    ) -> Result<(), Killed> {
        let shown = count.map_or("unknown".to_owned(), |count| count.to_string());
        log::warn!("event=gap reason={reason} begin={} end={} count={shown}", Quoted(&begin), Quoted(&end));
        add(&self.shared.stats.gaps, 1);
        let gap = Gap { reason, dispatcher: self.shared.id.clone(), begin, end, count, servers: self.servers.clone() };
        let ledger = &mut self.ledger;
        self.retry.until_done(|| ledger.record_gap(self.epoch, &gap))
    }

    /// The cursor, for the log.
    pub(super) fn cursor_text(&self) -> String {
        self.cursor.as_ref().map_or("none".to_owned(), Cursor::to_string)
    }
}

/// What became of attempts with an unknown outcome.
enum Found {
    /// None of them has taken effect.
    Nothing,
    /// A part of one had taken effect and was undone. The batch may be offered again only with new ids.
    Undone,
    /// One has taken effect, and the cursor is here now.
    Taken(Cursor),
}

/// A published message as it is stored.
fn arrival(id: MessageId, published: Published) -> Arrival {
    match published {
        Published::Message(body) => Arrival { id, body, refused: None },
        Published::Oversize { excerpt, length } => {
            let (what, bytes, limit) = match length {
                Length::Channel(bytes) => ("channel's name", bytes, MAX_CHANNEL_BYTES),
                Length::Payload(bytes) => ("payload", bytes, MAX_BODY_BYTES),
            };
            let reason =
                format!("{what} of {bytes} bytes is over the limit of {limit} bytes, only its beginning is kept");
            Arrival { id, body: excerpt, refused: Some(reason) }
        }
    }
}

/// A message that is too large to be stored, shortened for the dead letters.
fn without_its_end(arrival: &Arrival, reason: &str) -> Arrival {
    let length = arrival.body.payload().len();
    Arrival {
        id: arrival.id,
        body: arrival.body.cut_to(EXCERPT_BYTES),
        refused: Some(format!("payload of {length} bytes can't be stored, only its beginning is kept: {reason}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Body;

    #[test]
    fn an_oversize_message_is_refused_with_its_length() {
        let refused = arrival(
            MessageId(7),
            Published::Oversize { excerpt: Body::copied(None, b"abc"), length: Length::Payload(9_000_000) },
        );
        assert_eq!(refused.body.payload(), b"abc");
        assert!(refused.refused.is_some_and(|reason| reason.contains("9000000")));
    }
}
