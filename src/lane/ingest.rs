//! Ingest: reads the ring from where the last leader stopped, and stores the messages by means of the intake.
//!
//! First it publishes a marker of the new epoch and waits until the marker comes back over the subscription. By then
//! everything published before the marker has arrived, and ingest resolves the cursor in the ring. Then it stores what
//! has arrived, batch by batch. Each batch is stored in one step that is fenced by the epoch and also moves the cursor.
//! Ingest never waits to fill a batch.
//!
//! A leader that listens to nothing, in a lane that drains, has not heard what is published. So it does not move the
//! cursor, which would then name a place up to which all is stored: the next leader that listens continues where the
//! last one stopped, or records the gap. Only what the ring still holds from before is stored, up to its end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::elected::Elected;
use super::intake::{Intake, ToCourier};
use super::kill_switch::{KillSwitch, Reason};
use super::precedence::Right;
use super::pulses::{ITERATION_WITHIN, STEP_WITHIN};
use super::retry::Killed;
use super::ring::{Limits, RingPlace, Standing, Taken};
use super::shared::Shared;
use crate::base::id::Epoch;
use crate::ledger::{Ledger, MAX_BATCH_BYTES, MAX_BATCH_MESSAGES, Marker, Position};

/// How often a marker is published while there is traffic.
const MARKER_EVERY: Duration = Duration::from_millis(100);
/// How often a marker is published when idle. It shows the other dispatchers, and this one, that the leader's markers
/// arrive.
const IDLE_MARKER_EVERY: Duration = Duration::from_secs(1);
/// How often a marker is published while nothing can be stored before it has come back.
const AWAITED_MARKER_EVERY: Duration = Duration::from_millis(10);
/// How long one read of the ring waits, so also how late the kill switch may be noticed.
const PATIENCE: Duration = Duration::from_millis(50);
/// How long the marker that opens the epoch may take to come back before another is published.
const BARRIER_PATIENCE: Duration = Duration::from_secs(1);
const LIMITS: Limits = Limits { messages: MAX_BATCH_MESSAGES, bytes: MAX_BATCH_BYTES };

/// See the module's text.
pub(super) struct Ingest {
    shared: Arc<Shared>,
    epoch: Epoch,
    kill: KillSwitch,
    intake: Intake,
    /// The reason of a gap, if keys had vanished when this term began.
    lost: Option<&'static str>,
    /// What may be stored.
    right: Right,
    /// The segment that was live when this dispatcher was elected.
    elected_in: u64,
    markers: u64,
    marked: Instant,
    /// Without interests: the end of what the ring holds, at which the cursor is not.
    passed: Option<Position>,
}

impl Ingest {
    pub(super) fn new(
        shared: &Arc<Shared>,
        elected: Elected,
        kill: KillSwitch,
        ledger: Ledger,
        courier: Option<ToCourier>,
    ) -> Ingest {
        let intake = Intake::new(shared, &elected, kill.clone(), ledger, courier);
        let Elected { epoch, lost, right, segment: elected_in, .. } = elected;
        let marked = Instant::now();
        Ingest {
            shared: shared.clone(),
            epoch,
            kill,
            intake,
            lost,
            right,
            elected_in,
            markers: 0,
            marked,
            passed: None,
        }
    }

    /// Takes over and stores messages until the term ends. At a clean end it also stores what has arrived so far.
    pub(super) fn run(mut self) -> Result<(), Killed> {
        let (mut place, live_segment) = self.take_over()?;
        let Killed = self.take_in_all(&mut place, live_segment);
        if matches!(self.kill.reason(), Some(Reason::Shutdown | Reason::HandedOver)) {
            self.finish(&mut place, live_segment);
        }
        Err(Killed)
    }

    /// The main loop of the worker.
    fn take_in_all(&mut self, place: &mut RingPlace, live_segment: u64) -> Killed {
        while !self.kill.is_set() {
            self.shared.pulses.ingest.beat(ITERATION_WITHIN);
            let patience = PATIENCE.min(self.marker_interval().saturating_sub(self.marked.elapsed()));
            let mut outcome = self.step(place, live_segment, LIMITS, Instant::now() + patience);
            if self.marked.elapsed() >= self.marker_interval() {
                outcome = outcome.and_then(|()| self.publish_marker().map(drop));
            }
            if let Err(killed) = outcome {
                return killed;
            }
            self.shared.pulses.intake.beat(STEP_WITHIN);
        }
        Killed
    }

    /// How long after the last marker the next one is due.
    fn marker_interval(&self) -> Duration {
        match self.intake.unmarked {
            _ if self.shared.ring.awaits_marker() => AWAITED_MARKER_EVERY,
            true => MARKER_EVERY,
            false => IDLE_MARKER_EVERY,
        }
    }

    /// Stores what the ring holds at `place` and advances that.
    fn step(
        &mut self,
        place: &mut RingPlace,
        live_segment: u64,
        limits: Limits,
        deadline: Instant,
    ) -> Result<(), Killed> {
        let known = self.passed.as_ref().or_else(|| self.intake.cursor().map(|cursor| &cursor.position));
        match self.shared.ring.take(*place, known, limits, deadline) {
            Taken::Nothing => {}
            Taken::Batch { messages, position, .. } if messages.is_empty() && !self.shared.listens() => {
                self.passed = Some(position);
            }
            Taken::Batch { messages, place: following, position } => {
                if self.intake.take_in(place, messages, position)? {
                    self.shared.ring.note_cursor(following, Instant::now());
                    *place = following;
                }
            }
            Taken::Overrun { lost, place: following, position } => {
                self.pass_an_overrun()?;
                let end = position.map_or("unknown".to_owned(), |position| position.to_string());
                self.intake.record_gap("ring-overrun", self.intake.cursor_text(), end, Some(lost))?;
                *place = following;
            }
            // Older segments are stored as far as they go. Where the live segment ends, another dispatcher has more.
            Taken::Break { place: following, marker } if place.segment() < live_segment => {
                self.pass_a_break()?;
                self.intake.record_gap("subscription-break", self.intake.cursor_text(), marker.to_string(), None)?;
                *place = following;
            }
            Taken::Break { .. } | Taken::Ended => {
                self.kill.set(Reason::SubscriptionLost);
                return Err(Killed);
            }
        }
        Ok(())
    }

    /// Finds the place to continue from, and the segment that is live now.
    fn take_over(&mut self) -> Result<(RingPlace, u64), Killed> {
        let began = Instant::now();
        let live_segment = loop {
            self.shared.pulses.ingest.beat(ITERATION_WITHIN);
            let marker = self.publish_marker()?;
            if let Some(marked) = self.shared.ring.wait_for_marker(&marker, Instant::now() + BARRIER_PATIENCE) {
                break marked.segment();
            }
            if self.kill.is_set() {
                return Err(Killed);
            }
            if !self.shared.ring.stats().live {
                self.kill.set(Reason::SubscriptionLost);
                return Err(Killed);
            }
        };
        // Redis may have restarted since the election. So the right to lead must be decided anew. Also, the courier
        // might treat messages that Redis lost as done.
        if self.elected_in != live_segment {
            self.kill.set(Reason::SubscriptionLost);
            return Err(Killed);
        }
        let Some(found) = self.shared.resolve(self.intake.cursor()) else {
            self.kill.set(Reason::SubscriptionLost);
            return Err(Killed);
        };
        if matches!(found.standing, Standing::Beyond | Standing::Fresh) {
            self.pass_a_break()?;
        }
        if let Some(reason) = found.gap.or(self.lost) {
            let end = self.shared.ring.position(found.place);
            let end = end.map_or_else(|| "unknown".to_owned(), |position| position.to_string());
            self.intake.record_gap(reason, self.intake.cursor_text(), end, None)?;
        }
        if self.intake.cursor().is_none() && !self.shared.listens() {
            self.intake.begin_unheard()?;
        }
        let standing = found.standing;
        log::info!("event=taken-over barrier_ms={} standing={standing:?}", began.elapsed().as_millis());
        Ok((found.place, live_segment))
    }

    /// What follows in the ring arrived after a break. `Ok`: the term may continue past the break. `Err`: it ends here.
    fn pass_a_break(&mut self) -> Result<(), Killed> {
        let reason = match self.right {
            // Another dispatcher may hold more of what came before the break, and leads next.
            _ if self.intake.advanced => Reason::BeforeBreak,
            Right::Rest => Reason::BeforeBreak,
            Right::Break => return Ok(()),
            Right::BreakIfEldest => {
                let (ledger, own) = (&mut self.intake.ledger, &self.shared.id);
                let others = self.intake.retry.until_done(|| ledger.other_dispatchers(own))?;
                if self.shared.ring.is_eldest(&others) {
                    return Ok(());
                }
                // An older dispatcher has received more of what follows.
                Reason::NotEldest
            }
        };
        self.kill.set(reason);
        Err(Killed)
    }

    /// What follows in the ring comes after messages that the ring dropped for lack of memory. Another dispatcher may
    /// still hold them, so it goes first, as at a break.
    fn pass_an_overrun(&mut self) -> Result<(), Killed> {
        self.pass_a_break().inspect_err(|Killed| log::warn!("event=overrun note=\"another dispatcher may hold more\""))
    }

    /// Publishes the next marker. Each retry uses a new marker, because the previous one may have been published.
    fn publish_marker(&mut self) -> Result<Marker, Killed> {
        let (ledger, markers, epoch) = (&mut self.intake.ledger, &mut self.markers, self.epoch);
        let interests = &self.shared.settings.interests;
        let hearing = &self.shared.listener.hearing;
        let marker = self.intake.retry.until_done(|| {
            let number = *markers;
            let marker = Marker::of_leader(epoch, number);
            *markers += 1;
            hearing.expect_marker(epoch, number);
            let published = ledger.publish_marker(epoch, &marker, interests);
            match published {
                Ok(()) => hearing.confirm_marker(epoch, number),
                Err(_) => hearing.forget_marker(epoch, number),
            }
            published.map(|()| marker)
        })?;
        self.marked = Instant::now();
        self.intake.unmarked = false;
        Ok(marker)
    }

    /// Before a clean end: publishes a last marker, and stores what arrived before it. So a lone dispatcher leaves
    /// nothing behind, and the cursor is at a marker. There it also has a meaning for dispatchers with other interests,
    /// which count other messages.
    fn finish(&mut self, place: &mut RingPlace, live_segment: u64) {
        let ring = self.shared.ring.clone();
        let published = self.publish_marker().ok();
        let patience = BARRIER_PATIENCE.min(self.shared.settings.lease_ttl / 2);
        let marked = published.and_then(|marker| ring.wait_for_marker(&marker, Instant::now() + patience));
        if marked.is_none() {
            log::warn!(
                "event=no-last-marker note=\"its last marker did not come back; only dispatchers that listen to the \
                 same continue exactly here\""
            );
        }
        // Messages that arrive later are not waited for.
        let end = marked.map_or_else(|| ring.tail(), RingPlace::sequence);
        loop {
            let before = (*place, self.intake.cursor_text());
            let left = end.saturating_sub(place.sequence());
            let at_marker = self.intake.cursor().is_some_and(|cursor| cursor.position.offset == 0);
            if left == 0 && (at_marker || marked.is_none() || !self.shared.listens()) {
                return;
            }
            let limits = Limits { messages: LIMITS.messages.min(left as usize), ..LIMITS };
            let outcome = self.step(place, live_segment, limits, Instant::now());
            if outcome.is_err() || before == (*place, self.intake.cursor_text()) {
                log::warn!(
                    "event=not-taken-in messages={left} note=\"kept while this process runs; then lost unless another \
                     dispatcher in sync has them\""
                );
                return;
            }
        }
    }
}
