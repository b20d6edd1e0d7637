//! What a dispatcher has seen on the channel and may still need: messages, markers and breaks, in order.
//!
//! The listener appends; the leader's intake reads; a standby only keeps, so that it can go on exactly where a dead
//! leader stopped. Every message has a local sequence number. A [`Position`] (marker, messages since it) is turned
//! into a sequence number by looking the marker up: all dispatchers saw it at the same place.
//!
//! Each time the subscription is made anew a *segment* begins. Within a segment nothing is missing; between two of
//! them something may be. A segment begins with its first marker, usually this dispatcher's own join marker: messages
//! that came before it have no name that another dispatcher would understand, and are left to those in sync.
//!
//! Bounded in bytes. Entries go when the cursor has been past them for [`RETAIN`], or, at the limit, oldest first; what is
//! dropped before its intake is counted exactly when the reader comes to it. Small payloads that came together share an
//! allocation, which goes with the last of them; since entries go in order, one such chunk at most is kept for less than all
//! that is in it. Weak at: nothing here is on disk, so a message that only this process had is gone
//! with it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::base::id::Epoch;
use crate::ledger::subscription::{Published, Seen};
use crate::ledger::{Cursor, Marker, Position};

mod resolve;
mod segment;
#[cfg(test)]
mod tests;

pub use self::resolve::{CURSOR_LOST, Resolution, Standing};
use self::segment::Segment;

/// How long entries stay after the cursor has passed them: Redis with `appendfsync everysec` may come back with a
/// cursor that is a second or two old.
pub const RETAIN: Duration = Duration::from_secs(3);
/// How often a place of the cursor is remembered, at most.
const NOTE_EVERY: Duration = Duration::from_millis(100);
/// The most segments that are kept; beyond it the oldest goes, with what is in it.
pub const MAX_SEGMENTS: usize = 64;
/// What an entry costs beside its payload, about: its place in the queue, and what that has to spare.
pub const ENTRY_BYTES: usize = 64;

/// A place in this ring: between two messages of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The number of the segment.
    segment: u64,
    /// The sequence number of the next message.
    next: u64,
}

/// What the reader finds at its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Nothing new within the time given.
    Nothing,
    /// Messages, perhaps none, and the position after them, which is new.
    Batch {
        /// The messages, in order.
        messages: Vec<Published>,
        /// The place after them.
        place: Place,
        /// The same as others call it.
        position: Position,
    },
    /// So many messages were dropped at the byte limit before they were read.
    Overrun {
        /// How many.
        lost: u64,
        /// Where it goes on.
        place: Place,
        /// The same as others call it; `None` if it has no name any more.
        position: Option<Position>,
    },
    /// The segment ended here and another follows.
    Break {
        /// Where it goes on.
        place: Place,
        /// The marker there.
        marker: Marker,
    },
    /// The segment ended here and none follows yet.
    Ended,
}

/// The most one read takes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// In messages.
    pub messages: usize,
    /// In payload bytes; one message is taken whatever its size.
    pub bytes: usize,
}

/// Figures for logs and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingStats {
    /// Bytes in use.
    pub bytes: usize,
    /// Messages held.
    pub messages: usize,
    /// Messages seen since the start.
    pub seen: u64,
    /// Messages dropped at the byte limit that the cursor had not passed.
    pub overrun: u64,
    /// Whether the subscription stands and has a marker.
    pub live: bool,
}

/// See the module's text. Shared by the listener, the election and the intake.
pub struct Ring {
    state: Mutex<State>,
    changed: Condvar,
    limit_bytes: usize,
}

struct State {
    /// The messages, of all segments.
    entries: VecDeque<Published>,
    /// The sequence number of the first entry.
    base: u64,
    bytes: usize,
    segments: VecDeque<Segment>,
    next_segment: u64,
    /// Where the cursor was last known to be.
    known: Option<u64>,
    /// Where it was earlier in the present segment, and when we knew; the first is the oldest kept.
    noted: VecDeque<(Instant, u64)>,
    seen: u64,
    overrun: u64,
    /// The highest marker of a leader that was seen.
    highest: Option<(Epoch, u64)>,
    /// How often somebody asked the reader to look up.
    wakes: u64,
}

impl Ring {
    /// An empty ring that keeps at most `limit_bytes`.
    pub fn new(limit_bytes: usize) -> Ring {
        let state = State {
            entries: VecDeque::new(),
            base: 0,
            bytes: 0,
            segments: VecDeque::new(),
            next_segment: 0,
            known: None,
            noted: VecDeque::new(),
            seen: 0,
            overrun: 0,
            highest: None,
            wakes: 0,
        };
        Ring { state: Mutex::new(state), changed: Condvar::new(), limit_bytes }
    }

    /// The subscription stands: a segment begins with the first marker that comes.
    pub fn begin_segment(&self) {
        let mut state = self.state.lock();
        state.end_segment();
        let number = state.next_segment;
        state.next_segment += 1;
        // Redis may have come back with an older cursor, and its age counts from when it stands again.
        state.noted.clear();
        if state.segments.len() == MAX_SEGMENTS {
            state.drop_segment();
        }
        state.segments.push_back(Segment::new(number));
    }

    /// The subscription dropped.
    pub fn end_segment(&self) {
        self.state.lock().end_segment();
        self.changed.notify_all();
    }

    /// Appends what the listener saw, in order. Gives the number of markers that it ignored: known ones, and leaders' that
    /// do not rise, by which a place would get a second name.
    pub fn append(&self, seen: impl IntoIterator<Item = Seen>) -> usize {
        let mut state = self.state.lock();
        let mut ignored = 0;
        for seen in seen {
            if state.is_stray(&seen) {
                ignored += 1;
            } else {
                state.append(seen);
            }
        }
        state.keep_to(self.limit_bytes);
        drop(state);
        self.changed.notify_all();
        ignored
    }

    /// Finds a cursor in this ring. `None`: there is no subscription, or its first marker has not come yet.
    pub fn resolve(&self, cursor: Option<&Cursor>) -> Option<Resolution> {
        self.state.lock().resolve(cursor.map(|cursor| &cursor.position))
    }

    /// Whether everybody of `others` has joined since our present subscription stands, so that whatever any of them holds of
    /// theirs is here as well.
    pub fn is_eldest(&self, others: &[String]) -> bool {
        let state = self.state.lock();
        let live = state.segments.back().filter(|segment| segment.is_live());
        live.is_some_and(|segment| others.iter().all(|who| segment.has_joined(who)))
    }

    /// Remembers that the cursor had come to `place`, and lets go of what has been behind it for long enough.
    pub fn note_cursor(&self, place: Place, now: Instant) {
        self.state.lock().note_cursor(place, now);
    }

    /// What others call a place; `None` if it has no name any more.
    pub fn position(&self, place: Place) -> Option<Position> {
        let state = self.state.lock();
        state.segments.iter().find(|segment| segment.number == place.segment)?.position(place.next)
    }

    /// The number of the present segment, if it has a marker.
    pub fn live_segment(&self) -> Option<u64> {
        self.state.lock().segments.back().filter(|segment| segment.is_live()).map(|segment| segment.number)
    }

    /// Waits until `marker` has been seen in the present segment. Gives its segment's number, or `None` if the
    /// subscription ended or the time is over.
    pub fn wait_for_marker(&self, marker: &Marker, deadline: Instant) -> Option<u64> {
        let mut state = self.state.lock();
        loop {
            let segment = state.segments.back().filter(|segment| !segment.ended)?;
            if segment.find(marker).is_some() {
                return Some(segment.number);
            }
            if self.changed.wait_until(&mut state, deadline).timed_out() {
                return None;
            }
        }
    }

    /// Reads on from `place`, waiting for something new until `deadline`. `known` is the position the reader has;
    /// a newer name for the same place counts as something new, so that the cursor moves on to it.
    pub fn take(&self, place: Place, known: Option<&Position>, limits: Limits, deadline: Instant) -> Taken {
        let mut state = self.state.lock();
        let wakes = state.wakes;
        loop {
            match state.take(place, known, limits) {
                Taken::Nothing if wakes == state.wakes => {}
                taken => return taken,
            }
            if self.changed.wait_until(&mut state, deadline).timed_out() {
                return Taken::Nothing;
            }
        }
    }

    /// Wakes whoever waits, to look at its kill switch.
    pub fn wake(&self) {
        self.state.lock().wakes += 1;
        self.changed.notify_all();
    }

    /// The sequence number that the next message will have.
    pub fn tail(&self) -> u64 {
        self.state.lock().tail()
    }

    /// Figures for logs and metrics.
    pub fn stats(&self) -> RingStats {
        let state = self.state.lock();
        RingStats {
            bytes: state.bytes,
            messages: state.entries.len(),
            seen: state.seen,
            overrun: state.overrun,
            live: state.segments.back().is_some_and(Segment::is_live),
        }
    }
}

/// The bytes an entry takes.
fn cost(published: &Published) -> usize {
    let (Published::Message(kept) | Published::Oversize { excerpt: kept, .. }) = published;
    kept.len() + ENTRY_BYTES
}

impl Place {
    /// The number of the segment it lies in.
    pub fn segment(self) -> u64 {
        self.segment
    }

    /// The sequence number of the next message.
    pub fn sequence(self) -> u64 {
        self.next
    }

    /// The place so many messages further on in its segment.
    pub fn after(self, messages: usize) -> Place {
        Place { next: self.next + messages as u64, ..self }
    }
}

impl State {
    fn tail(&self) -> u64 {
        self.base + self.entries.len() as u64
    }

    fn end_segment(&mut self) {
        let tail = self.tail();
        if let Some(last) = self.segments.back_mut() {
            if last.is_anchored() {
                last.end(tail);
            } else {
                // Nothing in it has a name: it is as if it had never been.
                self.segments.pop_back();
            }
        }
    }

    fn is_stray(&self, seen: &Seen) -> bool {
        let Seen::Marker(marker) = seen else { return false };
        match marker.leader_place() {
            Some(place) => self.highest >= Some(place),
            None => self.segments.iter().any(|segment| segment.find(marker).is_some()),
        }
    }

    fn append(&mut self, seen: Seen) {
        let tail = self.tail();
        let Some(segment) = self.segments.back_mut().filter(|segment| !segment.ended) else { return };
        match seen {
            Seen::Marker(marker) => {
                self.highest = self.highest.max(marker.leader_place());
                segment.mark(marker, tail);
            }
            Seen::Published(published) if segment.is_anchored() => {
                self.seen += 1;
                self.bytes += cost(&published);
                self.entries.push_back(published);
            }
            Seen::Published(_) => {}
            Seen::Elsewhere(marker) => segment.note_joined(&marker),
        }
    }

    /// Drops from the front until the limit is kept.
    fn keep_to(&mut self, limit_bytes: usize) {
        let known = self.known.unwrap_or(0);
        while self.bytes > limit_bytes {
            if self.base >= known {
                self.overrun += 1;
            }
            self.drop_first();
        }
    }

    fn drop_segment(&mut self) {
        let Some(end) = self.segments.pop_front().and_then(|segment| segment.end) else { return };
        let known = self.known.unwrap_or(0);
        while self.base < end.min(self.tail()) {
            self.overrun += u64::from(self.base >= known);
            self.drop_first();
        }
    }

    fn drop_first(&mut self) {
        if let Some(first) = self.entries.pop_front() {
            self.bytes -= cost(&first);
            self.base += 1;
        }
    }

    fn note_cursor(&mut self, place: Place, now: Instant) {
        let sequence = place.next;
        self.known = Some(sequence);
        // News of an older segment may be of before Redis lost its tail.
        if self.segments.back().is_none_or(|last| last.number != place.segment) {
            return;
        }
        // After a loss of data Redis came back with an older cursor: what we knew beyond it is not so any more.
        while self.noted.back().is_some_and(|(_, noted)| *noted > sequence) {
            self.noted.pop_back();
        }
        if self.noted.back().is_none_or(|(noted, _)| now.duration_since(*noted) >= NOTE_EVERY) {
            self.noted.push_back((now, sequence));
        }
        // Of the places that are old enough the newest counts; it stays, as the oldest kept.
        let is_old = |noted: &(Instant, u64)| now.duration_since(noted.0) >= RETAIN;
        while self.noted.get(1).is_some_and(is_old) {
            self.noted.pop_front();
        }
        let Some((_, keep_from)) = self.noted.front().copied().filter(is_old) else { return };
        while self.base < keep_from.min(self.tail()) {
            self.drop_first();
        }
        // Segments that ended before it can't be asked for again; of the others, markers that can't be.
        while self.segments.len() > 1 && self.segments[0].end.is_some_and(|end| end < keep_from) {
            self.segments.pop_front();
        }
        for segment in &mut self.segments {
            segment.forget_before(keep_from);
        }
    }

    fn take(&self, place: Place, known: Option<&Position>, limits: Limits) -> Taken {
        let Some(segment) = self.segments.iter().find(|segment| segment.number == place.segment) else {
            return Taken::Ended;
        };
        let end = segment.end.unwrap_or(self.tail());
        if place.next < self.base.min(end) {
            let next = self.base.min(end);
            let position = segment.position(next);
            return Taken::Overrun { lost: next - place.next, place: Place { next, ..place }, position };
        }
        if place.next == end && segment.end.is_some() {
            let following = self.segments.iter().find(|later| later.number > place.segment && later.is_anchored());
            return match following.and_then(|later| Some((later.first_place(), later.first_marker()?))) {
                Some((place, marker)) => Taken::Break { place, marker },
                None => Taken::Ended,
            };
        }
        let first = (place.next - self.base) as usize;
        let available = (end - place.next) as usize;
        let mut bytes = 0;
        // What can't be delivered is taken alone: it is buried, in a step of its own.
        let mut alone = false;
        let fits = |published: &&Published| {
            let oversize = matches!(published, Published::Oversize { .. });
            let fits = bytes == 0 || (bytes + cost(published) <= limits.bytes && !alone && !oversize);
            bytes += cost(published);
            alone |= oversize;
            fits
        };
        let last = first + available.min(limits.messages);
        let messages: Vec<Published> = self.entries.range(first..last).take_while(fits).cloned().collect();
        let next = place.next + messages.len() as u64;
        let Some(position) = segment.position(next) else { return Taken::Ended };
        if messages.is_empty() && known == Some(&position) {
            return Taken::Nothing;
        }
        Taken::Batch { messages, place: Place { next, ..place }, position }
    }
}
