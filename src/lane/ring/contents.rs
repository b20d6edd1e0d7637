//! What a ring holds, within its byte limit, and for how long. Pure; owned by the ring's mutex.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::resolve::{CURSOR_LOST, Resolution, Standing};
use super::segment::Segment;
use super::timeline::{Found, Timeline};
use super::types::{Limits, RingPlace, Taken};
use crate::base::id::Epoch;
use crate::ledger::subscription::{Published, Seen};
use crate::ledger::{Marker, Position};

/// How long entries are kept after the cursor has passed them: Redis with `appendfsync everysec` may come back with a
/// cursor that is a second or two old.
pub const RETAIN: Duration = Duration::from_secs(3);
/// How often a place of the cursor is remembered, at most.
const NOTE_EVERY: Duration = Duration::from_millis(100);
/// The most segments that are kept. Beyond it the oldest is dropped, with the messages in it.
pub const MAX_SEGMENTS: usize = 64;
/// The most dispatchers that are remembered to have joined. Beyond it the oldest are forgotten. A forgotten
/// dispatcher is treated as older than this one.
const MAX_JOINED: usize = 256;
/// How many times the limits an undivided stretch may have. A longer one is divided.
const UNDIVIDED_LIMITS: usize = 16;
/// About what an entry costs beside its payload: its place in the queue, and the queue's spare room.
pub const ENTRY_BYTES: usize = 64;

/// See the module's text.
pub(super) struct Contents {
    /// The messages and the markers between them.
    pub(super) timeline: Timeline<Marker, Published>,
    pub(super) bytes: usize,
    /// The dispatchers whose join markers have come since the last segment began.
    joined: VecDeque<String>,
    /// Where the cursor was last known to be.
    known: Option<u64>,
    /// Where it was earlier in the last segment, and when that was known. The first is the oldest kept.
    noted: VecDeque<(Instant, u64)>,
    pub(super) seen: u64,
    pub(super) overrun: u64,
    /// The highest markers of leaders that were seen.
    highest: Highest,
    /// The same of leaders with other interests.
    highest_other: Highest,
    /// How often the reader was woken although there is nothing to read.
    pub(super) wakes: u64,
}

/// The highest markers of leaders. They rise along the stream of one server. After a failover another server's may be
/// lower.
#[derive(Clone, Copy, Default)]
struct Highest {
    /// Of all.
    ever: Option<(Epoch, u64)>,
    /// Of those since the last segment began.
    in_segment: Option<(Epoch, u64)>,
}

impl Highest {
    fn note(&mut self, place: Option<(Epoch, u64)>) {
        self.ever = self.ever.max(place);
        self.in_segment = self.in_segment.max(place);
    }
}

/// The bytes an entry takes.
fn cost(published: &Published) -> usize {
    let (Published::Message(kept) | Published::Oversize { excerpt: kept, .. }) = published;
    kept.bytes() + ENTRY_BYTES
}

impl Contents {
    /// Nothing has been seen.
    pub(super) fn new() -> Contents {
        Contents {
            timeline: Timeline::default(),
            bytes: 0,
            joined: VecDeque::new(),
            known: None,
            noted: VecDeque::new(),
            seen: 0,
            overrun: 0,
            highest: Highest::default(),
            highest_other: Highest::default(),
            wakes: 0,
        }
    }

    /// A segment begins with the first marker that comes.
    pub(super) fn begin_segment(&mut self) {
        self.timeline.begin_segment();
        self.joined.clear();
        (self.highest.in_segment, self.highest_other.in_segment) = (None, None);
        // Redis may have come back with an older cursor, and its age counts from when it is up again.
        self.noted.clear();
        if self.timeline.segments.len() > MAX_SEGMENTS {
            self.drop_segment();
        }
    }

    pub(super) fn is_stray(&self, seen: &Seen) -> bool {
        let (marker, highest) = match seen {
            Seen::Marker(marker) => (marker, self.highest),
            Seen::OtherInterests(marker, _) => (marker, self.highest_other),
            Seen::Published(_) => return false,
        };
        let is_known = || {
            let has =
                |segment: &Segment<Marker>| segment.find(marker).is_some() || segment.find_other(marker).is_some();
            self.timeline.segments.iter().any(has)
        };
        match marker.leader_place() {
            Some(place) => highest.in_segment >= Some(place) || highest.ever >= Some(place) && is_known(),
            None => is_known(),
        }
    }

    pub(super) fn append(&mut self, seen: Seen) {
        let Some(segment) = self.timeline.growing() else { return };
        match seen {
            Seen::Marker(marker) => {
                self.highest.note(marker.leader_place());
                self.note_joined(&marker);
                self.timeline.mark(marker);
            }
            Seen::Published(published) if segment.is_anchored() => {
                self.seen += 1;
                self.bytes += cost(&published);
                self.timeline.push(published);
            }
            Seen::Published(_) => {}
            Seen::OtherInterests(marker, interests) => {
                self.highest_other.note(marker.leader_place());
                self.note_joined(&marker);
                // The reader publishes a marker at once.
                self.wakes += u64::from(marker.joined().is_some());
                self.timeline.mark_other(marker, interests);
            }
        }
    }

    /// Whether a dispatcher's join marker has come since the last segment began.
    pub(super) fn has_joined(&self, who: &str) -> bool {
        self.joined.iter().any(|known| known == who)
    }

    /// Notes the dispatcher whose join marker this is.
    fn note_joined(&mut self, marker: &Marker) {
        if let Some(who) = marker.joined().filter(|who| !self.has_joined(who)) {
            self.joined.push_back(who.to_owned());
            if self.joined.len() > MAX_JOINED {
                self.joined.pop_front();
            }
        }
    }

    /// Drops messages from the front until the limit is kept.
    pub(super) fn keep_to(&mut self, limit_bytes: usize) {
        while self.bytes > limit_bytes {
            self.drop_first();
        }
    }

    fn drop_segment(&mut self) {
        let Some(end) = self.timeline.segments.pop_front().and_then(|segment| segment.end) else { return };
        while self.timeline.base < end.min(self.timeline.tail()) {
            self.drop_first();
        }
    }

    /// Drops the first message, and counts it unless the cursor had passed it.
    fn drop_first(&mut self) {
        self.overrun += u64::from(self.timeline.base >= self.known.unwrap_or(0));
        if let Some(first) = self.timeline.drop_first() {
            self.bytes -= cost(&first);
        }
    }

    pub(super) fn note_cursor(&mut self, place: RingPlace, now: Instant) {
        let sequence = place.next;
        self.known = Some(sequence);
        // What is known about an older segment may be from before Redis lost its tail.
        if self.timeline.segments.back().is_none_or(|last| last.number != place.segment) {
            return;
        }
        // After a loss of data Redis came back with an older cursor: what was known beyond it no longer holds.
        while self.noted.back().is_some_and(|(_, noted)| *noted > sequence) {
            self.noted.pop_back();
        }
        if self.noted.back().is_none_or(|(noted, _)| now.duration_since(*noted) >= NOTE_EVERY) {
            self.noted.push_back((now, sequence));
        }
        // Keep the newest of the old places as the front; drop those before it.
        let is_old = |noted: &(Instant, u64)| now.duration_since(noted.0) >= RETAIN;
        while self.noted.get(1).is_some_and(is_old) {
            self.noted.pop_front();
        }
        if let Some((_, keep_from)) = self.noted.front().copied().filter(is_old) {
            self.timeline.forget_before(keep_from, |dropped| self.bytes -= cost(&dropped));
        }
    }

    pub(super) fn has_unstored(&self) -> bool {
        !self.timeline.entries.is_empty() && self.timeline.tail() > self.known.unwrap_or(0)
    }

    /// What others call a place.
    pub(super) fn position(&self, place: RingPlace) -> Option<Position> {
        let (marker, offset) = self.timeline.name(place)?;
        Some(Position { marker: marker.clone(), offset })
    }

    /// Where a cursor at `position` lies.
    pub(super) fn resolve(&self, position: Option<&Position>) -> Option<Resolution> {
        self.timeline.resolve(position.map(|position| (&position.marker, position.offset)), self.known)
    }

    /// The same for a dispatcher that listens to nothing.
    pub(super) fn resolve_without_interests(&self, position: Option<&Position>) -> Option<Resolution> {
        let found = self.resolve(position)?;
        let (segment, next) = (self.timeline.live()?.number, self.timeline.tail());
        if found.place.next < next {
            return Some(found);
        }
        let place = RingPlace { segment, next };
        let gap = found.gap.filter(|gap| *gap == CURSOR_LOST);
        let standing = if found.standing == Standing::InSync { Standing::InSync } else { Standing::Idle };
        Some(Resolution { place, standing, gap, follows: Some(place) })
    }

    pub(super) fn take(&self, place: RingPlace, known: Option<&Position>, limits: Limits) -> Taken {
        let available = match self.timeline.at(place) {
            Found::Messages(available) => available,
            Found::Overrun(next) => {
                let position = self.position(next);
                return Taken::Overrun { lost: next.next - place.next, place: next, position };
            }
            Found::Break(place, marker) => return Taken::Break { place, marker: marker.clone() },
            Found::Ended => return Taken::Ended,
        };
        // Limitation: a long stretch, and one with a message over its limit, which is taken alone, is divided.
        let (join, marker) = self.timeline.segment_of(place).and_then(|segment| segment.undivided).unwrap_or_default();
        let whole = if (join..marker).contains(&place.next) { (marker - place.next) as usize } else { 0 };
        let whole = whole.min(limits.messages * UNDIVIDED_LIMITS);
        let most_bytes = |taken| if taken < whole { limits.bytes * UNDIVIDED_LIMITS } else { limits.bytes };
        let (mut bytes, mut taken) = (0, 0);
        // What can't be delivered is taken alone: it goes to the dead letters, in a step of its own.
        let mut alone = false;
        let fits = |published: &&Published| {
            let oversize = matches!(published, Published::Oversize { .. });
            let fits = bytes == 0 || (bytes + cost(published) <= most_bytes(taken) && !alone && !oversize);
            (bytes, taken) = (bytes + cost(published), taken + 1);
            alone |= oversize;
            fits
        };
        let most = limits.messages.max(whole);
        let mut messages: Vec<Published> = available.take(most).take_while(fits).cloned().collect();
        if place.next < join && (join + 1..marker).contains(&place.after(messages.len()).next) {
            messages.truncate((join - place.next) as usize);
        }
        let place = place.after(messages.len());
        let Some(position) = self.position(place) else { return Taken::Ended };
        if messages.is_empty() && known == Some(&position) {
            return Taken::Nothing;
        }
        Taken::Batch { messages, place, position }
    }
}
