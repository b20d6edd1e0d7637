//! What a dispatcher has received from the channel and may still need: messages, markers and breaks, in order.
//!
//! The listener appends. The leader's ingest reads. A standby only keeps, so that it can continue exactly where a dead
//! leader stopped. Every message has a local sequence number. A [`Position`] (marker, messages since it) is turned
//! into a sequence number by finding the marker: all dispatchers received it at the same place.
//!
//! Each new subscription begins a *segment*. Within a segment nothing is missing; between two of them something may be.
//! A segment begins with its first marker, usually this dispatcher's own join marker: messages that came before it have
//! no name that another dispatcher would understand, and are left to those in sync.
//!
//! Bounded in bytes. Entries are dropped when the cursor has been past them for [`RETAIN`], or, at the limit, oldest
//! first. Messages that are dropped before their intake are counted exactly when the reader comes to them. Small
//! payloads that came together share an allocation, which is freed with the last of them. Since entries are dropped in
//! order, at most one such allocation is kept for only a part of its payloads. Limitation: nothing here is on disk, so
//! a message that only this process received is lost with it.
//!
//! [`Timeline`] has the order and the names of places, `contents` the limits in bytes and time, and this file the lock.

use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use self::contents::Contents;
use super::sink::Sink;
use crate::ledger::subscription::Seen;
use crate::ledger::{Cursor, Marker, Position};

mod contents;
mod resolve;
mod segment;
#[cfg(test)]
mod tests;
mod timeline;
mod types;

pub use self::contents::{ENTRY_BYTES, MAX_SEGMENTS, RETAIN};
pub use self::resolve::{CURSOR_LOST, Resolution, Standing};
pub use self::segment::{Mark, Segment};
pub use self::timeline::{Found, Timeline};
pub use self::types::{Limits, RingPlace, RingStats, Taken};

/// See the module's text. Shared by the listener, the election and ingest.
pub struct Ring {
    contents: Mutex<Contents>,
    changed: Condvar,
    limit_bytes: usize,
}

impl Ring {
    /// An empty ring that keeps at most `limit_bytes`.
    pub fn new(limit_bytes: usize) -> Ring {
        Ring { contents: Mutex::new(Contents::new()), changed: Condvar::new(), limit_bytes }
    }

    /// There is a new subscription: a segment begins with the first marker that comes.
    pub fn begin_segment(&self) {
        self.contents.lock().begin_segment();
    }

    /// The subscription dropped.
    pub fn end_segment(&self) {
        self.contents.lock().timeline.end_segment();
        self.changed.notify_all();
    }

    /// Appends what the listener received, in order. Returns the number of markers that it ignored: duplicates, and
    /// leaders' markers that are not higher than the last of their segment. A duplicate would name two places, and the
    /// order of leaders' markers shows which places lie before a segment.
    pub fn append(&self, seen: impl IntoIterator<Item = Seen>) -> usize {
        let mut contents = self.contents.lock();
        let mut ignored = 0;
        for seen in seen {
            if contents.is_stray(&seen) {
                ignored += 1;
            } else {
                contents.append(seen);
            }
        }
        contents.keep_to(self.limit_bytes);
        drop(contents);
        self.changed.notify_all();
        ignored
    }

    /// Finds a cursor in this ring. `None`: there is no subscription, or its first marker has not come yet.
    pub fn resolve(&self, cursor: Option<&Cursor>) -> Option<Resolution> {
        self.contents.lock().resolve(cursor.map(|cursor| &cursor.position))
    }

    /// The same for a dispatcher that listens to nothing: it lacks nothing, unless the ring still holds what follows.
    pub fn resolve_without_interests(&self, cursor: Option<&Cursor>) -> Option<Resolution> {
        self.contents.lock().resolve_without_interests(cursor.map(|cursor| &cursor.position))
    }

    /// Whether all of `others` have joined since the present subscription was made, so that everything they have
    /// received over theirs is here as well.
    pub fn is_eldest(&self, others: &[String]) -> bool {
        let contents = self.contents.lock();
        contents.timeline.live().is_some() && others.iter().all(|who| contents.has_joined(who))
    }

    /// Remembers that the cursor was at `place`, and drops what has been behind it for long enough.
    pub fn note_cursor(&self, place: RingPlace, now: Instant) {
        self.contents.lock().note_cursor(place, now);
    }

    /// What others call a place; `None` if it has no name any more.
    pub fn position(&self, place: RingPlace) -> Option<Position> {
        self.contents.lock().position(place)
    }

    /// The number of the present segment, if it has a marker.
    pub fn live_segment(&self) -> Option<u64> {
        self.contents.lock().timeline.live().map(|segment| segment.number)
    }

    /// Waits until `marker` has come in the present segment. Returns its place, or `None` if the subscription ended or
    /// the deadline has passed.
    pub fn wait_for_marker(&self, marker: &Marker, deadline: Instant) -> Option<RingPlace> {
        let mut contents = self.contents.lock();
        loop {
            let segment = contents.timeline.growing()?;
            if let Some(next) = segment.find(marker) {
                return Some(RingPlace { segment: segment.number, next });
            }
            if self.changed.wait_until(&mut contents, deadline).timed_out() {
                return None;
            }
        }
    }

    /// Reads from `place`, and waits for something new until `deadline`. `known` is the position that the reader has. A
    /// newer name for the same place counts as something new, so that the cursor moves to it.
    pub fn take(&self, place: RingPlace, known: Option<&Position>, limits: Limits, deadline: Instant) -> Taken {
        let mut contents = self.contents.lock();
        let wakes = contents.wakes;
        loop {
            match contents.take(place, known, limits) {
                Taken::Nothing if wakes == contents.wakes => {}
                taken => return taken,
            }
            if self.changed.wait_until(&mut contents, deadline).timed_out() {
                return Taken::Nothing;
            }
        }
    }

    /// Wakes all waiting threads, to check their kill switches.
    pub fn wake(&self) {
        self.contents.lock().wakes += 1;
        self.changed.notify_all();
    }

    /// Whether a dispatcher with other interests has joined and no marker of this dispatcher's interests has come
    /// since: the reader gets nothing beyond that place until one has.
    pub fn awaits_marker(&self) -> bool {
        self.contents.lock().timeline.live().is_some_and(|segment| segment.unmarked_join.is_some())
    }

    /// The sequence number that the next message will have.
    pub fn tail(&self) -> u64 {
        self.contents.lock().timeline.tail()
    }

    /// Whether it holds messages that the cursor has not passed, as far as is known.
    pub fn has_unstored(&self) -> bool {
        self.contents.lock().has_unstored()
    }

    /// Figures for logs and metrics.
    pub fn stats(&self) -> RingStats {
        let contents = self.contents.lock();
        RingStats {
            bytes: contents.bytes,
            messages: contents.timeline.entries.len(),
            seen: contents.seen,
            overrun: contents.overrun,
            live: contents.timeline.live().is_some(),
        }
    }
}

impl Sink for Ring {
    fn begin_segment(&self) {
        Ring::begin_segment(self);
    }

    fn end_segment(&self) {
        Ring::end_segment(self);
    }

    fn append(&self, seen: Vec<Seen>) -> usize {
        Ring::append(self, seen)
    }
}
