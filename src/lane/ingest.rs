//! Ingest: from the ring into the sorted set, and only then on to the courier.
//!
//! First it finds the place where the last leader stopped: it publishes a marker of the new epoch and waits until that
//! comes back, so that everything published before has arrived, and looks the cursor up in the ring. Then it takes in
//! what has come, batch by batch, in one fenced script each that also moves the cursor; it never waits to fill a batch.
//!
//! A reply that got lost does no harm: the batch is offered again, and the script, which compares the cursor, either
//! takes it or says that the cursor is already behind it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{SendTimeoutError, Sender};

use super::elected::Elected;
use super::precedence::Right;
use super::pulses::{ITERATION_WITHIN, STEP_WITHIN, TermWorker};
use super::retry::{Carried, Killed, Retry};
use super::shared::Shared;
use super::sockets::Waker;
use super::stats::add;
use crate::base::id::{Epoch, MessageId, wall_clock_us};
use crate::base::text::Quoted;
use crate::lane::kill_switch::{KillSwitch, Reason};
use crate::lane::ring::{CURSOR_LOST, Limits, RingPlace, Standing, Taken};
use crate::ledger::resp::EXCERPT_BYTES;
use crate::ledger::subscription::Published;
use crate::ledger::{
    Arrival, Cursor, Gap, Intake, Ledger, MAX_BATCH_BYTES, MAX_BATCH_MESSAGES, Marker, Pending, Position, Splitter,
};
use crate::wire::MAX_BODY_BYTES;

/// How often a marker is published while there is traffic.
const MARKER_EVERY: Duration = Duration::from_millis(100);
/// How often a marker is published otherwise: the others hear by it that this leader reaches them, and it hears that itself.
const IDLE_MARKER_EVERY: Duration = Duration::from_secs(1);
/// How long one look into the ring waits; also how soon the kill switch is noticed.
const PATIENCE: Duration = Duration::from_millis(50);
/// How long the marker that opens the epoch may take to come back before another is published.
const BARRIER_PATIENCE: Duration = Duration::from_secs(1);
const LIMITS: Limits = Limits { messages: MAX_BATCH_MESSAGES, bytes: MAX_BATCH_BYTES };

/// See the module's text.
pub(super) struct Ingest {
    shared: Arc<Shared>,
    epoch: Epoch,
    kill: KillSwitch,
    ledger: Ledger,
    courier: Sender<Vec<Pending>>,
    waker: Waker,
    /// The cursor as Redis has it.
    cursor: Option<Cursor>,
    /// Whether it has vanished from Redis, and is to be written anew.
    vanished: bool,
    /// The reason of a gap, if keys had vanished when this term began.
    lost: Option<&'static str>,
    /// The last id given out.
    last_id: MessageId,
    /// What may be taken in.
    right: Right,
    /// The segment that was live when this dispatcher went for the lease.
    elected_in: u64,
    /// Whether anything was taken in this term.
    advanced: bool,
    markers: u64,
    marked: Instant,
    /// Whether anything came since the last marker.
    unmarked: bool,
    retry: Retry,
}

impl Ingest {
    pub(super) fn new(
        shared: &Arc<Shared>,
        elected: Elected,
        kill: KillSwitch,
        ledger: Ledger,
        courier: Sender<Vec<Pending>>,
        waker: Waker,
    ) -> Ingest {
        let Elected { epoch, cursor, lost, last_id, right, segment, .. } = elected;
        Ingest {
            shared: shared.clone(),
            epoch,
            ledger,
            courier,
            waker,
            last_id,
            right,
            elected_in: segment,
            advanced: false,
            vanished: false,
            cursor,
            lost,
            markers: 0,
            marked: Instant::now(),
            unmarked: false,
            retry: Retry::new(shared, kill.clone(), TermWorker::Ingest).giving_way(),
            kill,
        }
    }

    /// Takes over, takes in until the term ends, and if that is a clean end, what has arrived so far.
    pub(super) fn run(mut self) -> Result<(), Killed> {
        let (mut place, live_segment) = self.take_over()?;
        let Killed = self.take_in_all(&mut place, live_segment);
        if self.kill.reason() == Some(Reason::Shutdown) {
            self.flush(&mut place, live_segment);
        }
        Err(Killed)
    }

    /// The main loop of the worker.
    fn take_in_all(&mut self, place: &mut RingPlace, live_segment: u64) -> Killed {
        while !self.kill.is_set() {
            self.shared.pulses.ingest.beat(ITERATION_WITHIN);
            let mut outcome = self.step(place, live_segment, Instant::now() + PATIENCE);
            if self.marked.elapsed() >= if self.unmarked { MARKER_EVERY } else { IDLE_MARKER_EVERY } {
                outcome = outcome.and_then(|()| self.publish_marker().map(drop));
            }
            if let Err(killed) = outcome {
                return killed;
            }
            self.shared.pulses.intake.beat(STEP_WITHIN);
        }
        Killed
    }

    /// Takes in what the ring holds at `place` and moves that on.
    fn step(&mut self, place: &mut RingPlace, live_segment: u64, deadline: Instant) -> Result<(), Killed> {
        let known = self.cursor.as_ref().map(|cursor| &cursor.position);
        match self.shared.ring.take(*place, known, LIMITS, deadline) {
            Taken::Nothing => {}
            Taken::Batch { messages, place: following, position } => {
                if self.take_in(place, messages, position)? {
                    self.shared.ring.note_cursor(following, Instant::now());
                    *place = following;
                }
            }
            Taken::Overrun { lost, place: following, position } => {
                self.pass_an_overrun()?;
                let end = position.map_or("unknown".to_owned(), |position| position.to_string());
                self.record_gap("ring-overrun", self.cursor_text(), end, Some(lost))?;
                *place = following;
            }
            // Of older segments what is here is taken in; where our own live one ends another dispatcher has more.
            Taken::Break { place: following, marker } if place.segment() < live_segment => {
                self.pass_a_break()?;
                self.record_gap("subscription-break", self.cursor_text(), marker.to_string(), None)?;
                *place = following;
            }
            Taken::Break { .. } | Taken::Ended => {
                self.kill.set(Reason::SubscriptionLost);
                return Err(Killed);
            }
        }
        Ok(())
    }

    /// Finds the place to go on from, and the segment that is live now.
    fn take_over(&mut self) -> Result<(RingPlace, u64), Killed> {
        let began = Instant::now();
        let live_segment = loop {
            self.shared.pulses.ingest.beat(ITERATION_WITHIN);
            let marker = self.publish_marker()?;
            if let Some(segment) = self.shared.ring.wait_for_marker(&marker, Instant::now() + BARRIER_PATIENCE) {
                break segment;
            }
            if self.kill.is_set() {
                return Err(Killed);
            }
            if !self.shared.ring.stats().live {
                self.kill.set(Reason::SubscriptionLost);
                return Err(Killed);
            }
        };
        // Redis may have restarted since: whether this one may lead has to be seen anew, and the courier may take for done
        // what Redis has forgotten.
        if self.elected_in != live_segment {
            self.kill.set(Reason::SubscriptionLost);
            return Err(Killed);
        }
        let Some(found) = self.shared.ring.resolve(self.cursor.as_ref()) else {
            self.kill.set(Reason::SubscriptionLost);
            return Err(Killed);
        };
        if matches!(found.standing, Standing::Beyond | Standing::Fresh) {
            self.pass_a_break()?;
        }
        if let Some(reason) = found.gap.or(self.lost) {
            let end = self.shared.ring.position(found.place);
            let end = end.map_or_else(|| "unknown".to_owned(), |position| position.to_string());
            self.record_gap(reason, self.cursor_text(), end, None)?;
        }
        let standing = found.standing;
        log::info!("event=taken-over barrier_ms={} standing={standing:?}", began.elapsed().as_millis());
        Ok((found.place, live_segment))
    }

    /// What follows was heard by this dispatcher after a break: the term goes on over it, if it has the right to, or ends.
    fn pass_a_break(&mut self) -> Result<(), Killed> {
        let reason = match self.right {
            // Whoever holds more of what came before it goes on from here first.
            _ if self.advanced => Reason::BeforeBreak,
            Right::Rest => Reason::BeforeBreak,
            Right::Break => return Ok(()),
            Right::BreakIfEldest => {
                let (ledger, own) = (&mut self.ledger, &self.shared.id);
                let others = self.retry.until_done(|| ledger.other_dispatchers(own))?;
                if self.shared.ring.is_eldest(&others) {
                    return Ok(());
                }
                // An elder has heard more of what follows.
                Reason::NotEldest
            }
        };
        self.kill.set(reason);
        Err(Killed)
    }

    /// What follows in the ring comes after messages that it dropped for lack of memory. A dispatcher with more of it, or one
    /// whose reading was not held up, may hold them: it goes first, as at a break.
    fn pass_an_overrun(&mut self) -> Result<(), Killed> {
        self.pass_a_break().inspect_err(|Killed| log::warn!("event=overrun note=\"another dispatcher may hold more\""))
    }

    /// Takes in the messages that follow `place`, moves that on, and hands them on. `false`: not all were taken in; the rest
    /// has to be taken from the ring again.
    fn take_in(&mut self, place: &mut RingPlace, messages: Vec<Published>, position: Position) -> Result<bool, Killed> {
        let now_us = wall_clock_us();
        let mut last_id = self.last_id;
        let batch: Vec<Arrival> = messages
            .into_iter()
            .map(|published| {
                last_id = last_id.next(now_us);
                arrival(last_id, published)
            })
            .collect();
        let all = self.take_in_parts(place, batch, Cursor { position, last_id }, &mut Splitter::default())?;
        // No id is given out twice, and no cursor is written twice: a copy of a step that was undone may yet arrive.
        self.last_id = self.last_id.max(last_id);
        Ok(all)
    }

    /// Takes a batch in, whole, or in halves where it can't be carried whole; a message that can't be carried at all is
    /// buried.
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
            Carried::Halve => {
                match self.find_taken(&batch)? {
                    Found::Nothing => {}
                    Found::Undone => return Ok(false),
                    Found::Taken(cursor) => {
                        *place = place.after(batch.len());
                        self.note_taken(batch, cursor);
                        return Ok(true);
                    }
                }
                let middle = place.after(batch.len() / 2);
                let rest = batch.split_off(batch.len() / 2);
                let Some(position) = self.shared.ring.position(middle) else {
                    // Its marker is gone: the next term finds another name for that place.
                    self.kill.set(Reason::CursorMoved);
                    return Err(Killed);
                };
                let last_id = batch.last().map_or(self.last_id, |arrival| arrival.id);
                Ok(self.take_in_parts(place, batch, Cursor { position, last_id }, splitter)?
                    && self.take_in_parts(place, rest, next, splitter)?)
            }
            Carried::TooLarge(reason) => {
                for arrival in &mut batch {
                    log::warn!(
                        "event=too-large id={} bytes={} moved_to={} reason={}",
                        arrival.id,
                        arrival.payload.len(),
                        self.ledger.keys().dead,
                        Quoted(&reason)
                    );
                    *arrival = without_its_end(arrival, &reason);
                }
                self.take_in_parts(place, batch, next, &mut Splitter::default())
            }
        }
    }

    /// Before a batch is offered in halves: whether an attempt at the whole of it has taken effect after all. The cursor would
    /// go back otherwise. It has been moved on then, so that an attempt that arrives late finds none that it knows. One that
    /// takes effect after this look shows as a cursor that has moved.
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
            && !self.retry.until_done(|| ledger.is_pending(last.id))?
        {
            // A transaction that moved the cursor, and whose members were refused: back, before anything else can happen.
            let (epoch, to) = (self.epoch, self.cursor.as_ref());
            self.retry.until_done(|| ledger.rewind(epoch, &found, to))?;
            return Ok(Found::Undone);
        }
        self.cursor = Some(found.clone());
        // It says a higher last id than any attempt.
        match self.offer(&found, &[], &mut Splitter::default())? {
            Carried::Done(Some(cursor)) => Ok(Found::Taken(cursor)),
            _ => {
                self.kill.set(Reason::CursorMoved);
                Err(Killed)
            }
        }
    }

    /// A batch is in Redis: moves on and hands it to the courier.
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
        let refused = batch.iter().filter(|arrival| arrival.refused.is_some()).count();
        add(&self.shared.stats.taken_in, batch.len());
        add(&self.shared.stats.oversize, refused);
        self.shared.stats.deaths.lock().note(refused, Instant::now());
        if refused > 0 {
            log::warn!(
                "event=oversize messages={refused} limit_bytes={MAX_BODY_BYTES} moved_to={}",
                self.ledger.keys().dead
            );
        }
        let deliverable = batch.into_iter().filter(|arrival| arrival.refused.is_none());
        self.hand_on(deliverable.map(|Arrival { id, payload, .. }| Pending { id, delivery: 1, payload }).collect());
    }

    /// Offers a batch to Redis until it is known to have been taken, or to be too large. `Done(None)`: it was refused, and
    /// may be offered again only with other ids.
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
        let attempt = |ledger: &mut Ledger| ledger.intake(epoch, expected, next, batch);
        let carried = if batch.iter().any(|arrival| arrival.refused.is_some()) {
            // Nothing smaller could be sent in its stead: whatever it is refused for is waited out.
            let ledger = &mut self.ledger;
            Carried::Done(self.retry.until_done(|| attempt(ledger))?)
        } else {
            self.retry.carry(&mut self.ledger, splitter, batch.len(), attempt)?
        };
        match carried {
            Carried::Done(Intake::Taken(cursor)) => Ok(Carried::Done(Some(cursor))),
            // The key has vanished, or somebody wrote something else there, while Redis went on: nobody but this leader moves the
            // cursor, so where it was is known.
            Carried::Done(Intake::Moved(None)) if self.ledger.is_uninterrupted() && !self.vanished => {
                let cursor = self.cursor_text();
                self.record_gap(CURSOR_LOST, cursor.clone(), cursor, None)?;
                self.vanished = true;
                self.offer(next, batch, splitter)
            }
            Carried::Done(Intake::Moved(found)) => {
                let found = found.map_or("none".to_owned(), |cursor| cursor.to_string());
                log::warn!("event=cursor-moved expected={} found={}", Quoted(self.cursor_text()), Quoted(found));
                self.kill.set(Reason::CursorMoved);
                Err(Killed)
            }
            Carried::Done(Intake::Rewound(reason)) => {
                log::warn!("event=redis-trouble worker=ingest messages={} error={}", batch.len(), Quoted(reason));
                Ok(Carried::Done(None))
            }
            Carried::Halve => Ok(Carried::Halve),
            Carried::TooLarge(reason) => Ok(Carried::TooLarge(reason)),
        }
    }

    /// Hands a batch that is in the sorted set to the courier. If the term ends meanwhile, the next leader finds it there.
    fn hand_on(&mut self, mut batch: Vec<Pending>) {
        while let Err(SendTimeoutError::Timeout(unsent)) = self.courier.send_timeout(batch, PATIENCE) {
            self.shared.pulses.ingest.beat(ITERATION_WITHIN);
            if self.kill.is_set() {
                return;
            }
            batch = unsent;
        }
        self.waker.wake();
    }

    /// Publishes the next marker. A repeated attempt uses a new one: the first may have come through.
    fn publish_marker(&mut self) -> Result<Marker, Killed> {
        let (ledger, markers, epoch) = (&mut self.ledger, &mut self.markers, self.epoch);
        let channel = &self.shared.settings.channel;
        let hearing = &self.shared.listener.hearing;
        let marker = self.retry.until_done(|| {
            let number = *markers;
            let marker = Marker::of_leader(epoch, number);
            *markers += 1;
            hearing.expect_marker(epoch, number);
            let published = ledger.publish_marker(epoch, &marker, channel);
            match published {
                Ok(()) => hearing.confirm_marker(epoch, number),
                Err(_) => hearing.forget_marker(epoch, number),
            }
            published.map(|()| marker)
        })?;
        self.marked = Instant::now();
        self.unmarked = false;
        Ok(marker)
    }

    fn record_gap(
        &mut self,
        reason: &'static str,
        begin: String,
        end: String,
        count: Option<u64>,
    ) -> Result<(), Killed> {
        let shown = count.map_or("unknown".to_owned(), |count| count.to_string());
        log::warn!("event=gap reason={reason} begin={} end={} count={shown}", Quoted(&begin), Quoted(&end));
        add(&self.shared.stats.gaps, 1);
        let gap = Gap { reason, dispatcher: self.shared.id.clone(), begin, end, count };
        let ledger = &mut self.ledger;
        self.retry.until_done(|| ledger.record_gap(self.epoch, &gap))
    }

    /// Before a clean end: takes in what has arrived so far, so that a lone dispatcher leaves nothing behind.
    fn flush(&mut self, place: &mut RingPlace, live_segment: u64) {
        // What keeps arriving is not waited for.
        let tail = self.shared.ring.tail();
        while place.sequence() < tail {
            let before = *place;
            if self.step(place, live_segment, Instant::now()).is_err() || *place == before {
                let left = tail - place.sequence();
                log::warn!(
                    "event=not-taken-in messages={left} note=\"lost unless another dispatcher in sync has them\""
                );
                return;
            }
        }
    }

    fn cursor_text(&self) -> String {
        self.cursor.as_ref().map_or("none".to_owned(), Cursor::to_string)
    }
}

/// What came of attempts of unknown outcome.
enum Found {
    /// None of them has taken effect.
    Nothing,
    /// A part of one had taken effect, and was taken back: the batch may be offered again only with other ids.
    Undone,
    /// One has taken effect, and the cursor is here now.
    Taken(Cursor),
}

/// A published message as it is taken in.
fn arrival(id: MessageId, published: Published) -> Arrival {
    match published {
        Published::Message(payload) => Arrival { id, payload, refused: None },
        Published::Oversize { excerpt, length } => {
            let reason = format!(
                "payload of {length} bytes is over the limit of {MAX_BODY_BYTES} bytes, only its beginning is kept"
            );
            Arrival { id, payload: excerpt, refused: Some(reason) }
        }
    }
}

/// A message that can't be carried whole, as it is buried.
fn without_its_end(arrival: &Arrival, reason: &str) -> Arrival {
    let length = arrival.payload.len();
    Arrival {
        id: arrival.id,
        payload: arrival.payload.slice(..length.min(EXCERPT_BYTES)),
        refused: Some(format!("payload of {length} bytes can't be stored, only its beginning is kept: {reason}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_oversize_message_is_refused_with_its_length() {
        let refused = arrival(MessageId(7), Published::Oversize { excerpt: b"abc"[..].into(), length: 9_000_000 });
        assert_eq!(&refused.payload[..], b"abc");
        assert!(refused.refused.is_some_and(|reason| reason.contains("9000000")));
    }
}
