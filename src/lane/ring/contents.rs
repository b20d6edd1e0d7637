//! What a ring holds, and how it grows and shrinks. Pure; owned by the ring's mutex.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::segment::Segment;
use super::types::{Limits, RingPlace, Taken};
use crate::base::id::Epoch;
use crate::ledger::Position;
use crate::ledger::subscription::{Published, Seen};

/// How long entries stay after the cursor has passed them: Redis with `appendfsync everysec` may come back with a
/// cursor that is a second or two old.
pub const RETAIN: Duration = Duration::from_secs(3);
/// How often a place of the cursor is remembered, at most.
const NOTE_EVERY: Duration = Duration::from_millis(100);
/// The most segments that are kept; beyond it the oldest goes, with what is in it.
pub const MAX_SEGMENTS: usize = 64;
/// What an entry costs beside its payload, about: its place in the queue, and what that has to spare.
pub const ENTRY_BYTES: usize = 64;

/// See the module's text.
pub(super) struct Contents {
    /// The messages, of all segments.
    pub(super) entries: VecDeque<Published>,
    /// The sequence number of the first entry.
    pub(super) base: u64,
    pub(super) bytes: usize,
    pub(super) segments: VecDeque<Segment>,
    pub(super) next_segment: u64,
    /// Where the cursor was last known to be.
    pub(super) known: Option<u64>,
    /// Where it was earlier in the present segment, and when we knew; the first is the oldest kept.
    pub(super) noted: VecDeque<(Instant, u64)>,
    pub(super) seen: u64,
    pub(super) overrun: u64,
    /// The highest marker of a leader that was seen.
    pub(super) highest: Option<(Epoch, u64)>,
    /// How often the reader was asked to check its kill switch.
    pub(super) wakes: u64,
}

/// The bytes an entry takes.
fn cost(published: &Published) -> usize {
    let (Published::Message(kept) | Published::Oversize { excerpt: kept, .. }) = published;
    kept.len() + ENTRY_BYTES
}

impl Contents {
    /// Nothing has been seen.
    pub(super) fn new() -> Contents {
        Contents {
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
        }
    }

    pub(super) fn tail(&self) -> u64 {
        self.base + self.entries.len() as u64
    }

    /// A segment begins with the first marker that comes.
    pub(super) fn begin_segment(&mut self) {
        self.end_segment();
        let number = self.next_segment;
        self.next_segment += 1;
        // Redis may have come back with an older cursor, and its age counts from when it is up again.
        self.noted.clear();
        if self.segments.len() == MAX_SEGMENTS {
            self.drop_segment();
        }
        self.segments.push_back(Segment::new(number));
    }

    pub(super) fn end_segment(&mut self) {
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

    pub(super) fn is_stray(&self, seen: &Seen) -> bool {
        let Seen::Marker(marker) = seen else { return false };
        match marker.leader_place() {
            Some(place) => self.highest >= Some(place),
            None => self.segments.iter().any(|segment| segment.find(marker).is_some()),
        }
    }

    pub(super) fn append(&mut self, seen: Seen) {
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
    pub(super) fn keep_to(&mut self, limit_bytes: usize) {
        let known = self.known.unwrap_or(0);
        while self.bytes > limit_bytes {
            if self.base >= known {
                self.overrun += 1;
            }
            self.drop_first();
        }
    }

    pub(super) fn drop_segment(&mut self) {
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

    pub(super) fn note_cursor(&mut self, place: RingPlace, now: Instant) {
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

    pub(super) fn take(&self, place: RingPlace, known: Option<&Position>, limits: Limits) -> Taken {
        let Some(segment) = self.segments.iter().find(|segment| segment.number == place.segment) else {
            return Taken::Ended;
        };
        let end = segment.end.unwrap_or(self.tail());
        if place.next < self.base.min(end) {
            let next = self.base.min(end);
            let position = segment.position(next);
            return Taken::Overrun { lost: next - place.next, place: RingPlace { next, ..place }, position };
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
        // What can't be delivered is taken alone: it goes to the dead letters, in a step of its own.
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
        Taken::Batch { messages, place: RingPlace { next, ..place }, position }
    }
}
