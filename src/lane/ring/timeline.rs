//! The messages in a ring, in order, the segments they belong to, and the markers that name places among them. Pure.
//!
//! It knows nothing about bytes, time, or where the cursor is. The model in `tests/model` runs this code, with small
//! numbers as markers and messages; therefore the types of both are parameters.

use std::collections::{VecDeque, vec_deque};

use super::segment::{Mark, Segment};
use super::types::RingPlace;

/// See the module's text. `M` is a marker, `E` a message.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Timeline<M: Mark, E> {
    /// The messages of all segments.
    pub entries: VecDeque<E>,
    /// The sequence number of the first entry.
    pub base: u64,
    /// Only the last one grows. Each but the last has a marker and has ended.
    pub segments: VecDeque<Segment<M>>,
    /// The number that the next segment will have.
    pub next_segment: u64,
}

/// What a reader finds at a place.
pub enum Found<'a, M, E> {
    /// The messages from there to the end of the segment, perhaps none yet.
    Messages(vec_deque::Iter<'a, E>),
    /// The messages there were dropped. It continues at this place of the same segment.
    Overrun(RingPlace),
    /// The segment ended there, and another one begins at this place, with this marker.
    Break(RingPlace, &'a M),
    /// The segment ended there and none follows yet.
    Ended,
}

impl<M: Mark, E> Default for Timeline<M, E> {
    fn default() -> Timeline<M, E> {
        Timeline { entries: VecDeque::new(), base: 0, segments: VecDeque::new(), next_segment: 0 }
    }
}

impl<M: Mark, E> Timeline<M, E> {
    /// The sequence number that the next message will have.
    pub fn tail(&self) -> u64 {
        self.base + self.entries.len() as u64
    }

    /// The last segment, unless it has ended.
    pub fn growing(&self) -> Option<&Segment<M>> {
        self.segments.back().filter(|segment| segment.end.is_none())
    }

    /// The growing segment, if it has a marker.
    pub fn live(&self) -> Option<&Segment<M>> {
        self.growing().filter(|segment| segment.is_anchored())
    }

    /// The segment in which a place lies.
    pub fn segment_of(&self, place: RingPlace) -> Option<&Segment<M>> {
        self.segments.iter().find(|segment| segment.number == place.segment)
    }

    /// The first segment with a marker after the one with this number.
    pub fn following(&self, number: u64) -> Option<&Segment<M>> {
        self.segments.iter().find(|later| later.number > number && later.is_anchored())
    }

    /// The sequence number after the last message of a segment.
    pub fn end_of(&self, segment: &Segment<M>) -> u64 {
        segment.end.unwrap_or(self.tail())
    }

    /// Ends the last segment and begins another.
    pub fn begin_segment(&mut self) {
        self.end_segment();
        self.segments.push_back(Segment::new(self.next_segment));
        self.next_segment += 1;
    }

    /// Ends the last segment. Without a marker nothing in it has a name, so it is removed.
    pub fn end_segment(&mut self) {
        let tail = self.tail();
        match self.segments.back_mut() {
            Some(last) if last.is_anchored() => last.end = last.end.or(Some(tail)),
            Some(_) => drop(self.segments.pop_back()),
            None => {}
        }
    }

    /// Adds a marker to the growing segment, if there is one.
    pub fn mark(&mut self, marker: M) {
        let tail = self.tail();
        if let Some(segment) = self.segments.back_mut().filter(|segment| segment.end.is_none()) {
            segment.mark(marker, tail);
        }
    }

    /// Adds a marker of a dispatcher with other interests to the growing segment, if there is one.
    pub fn mark_other(&mut self, marker: M, interests: u64) {
        let tail = self.tail();
        if let Some(segment) = self.segments.back_mut().filter(|segment| segment.end.is_none()) {
            segment.mark_other(marker, interests, tail);
        }
    }

    /// Adds a message. There must be a live segment.
    pub fn push(&mut self, entry: E) {
        debug_assert!(self.live().is_some(), "a message outside of segments has no name");
        self.entries.push_back(entry);
    }

    /// Drops the first message.
    pub fn drop_first(&mut self) -> Option<E> {
        let first = self.entries.pop_front()?;
        self.base += 1;
        Some(first)
    }

    /// Drops what no reader needs that begins at `keep_from` or later: messages, which are passed to `dropped`,
    /// segments and markers.
    pub fn forget_before(&mut self, keep_from: u64, dropped: impl FnMut(E)) {
        let count = keep_from.min(self.tail()).saturating_sub(self.base);
        self.entries.drain(..count as usize).for_each(dropped);
        self.base += count;
        while self.segments.len() > 1 && self.segments[0].end.is_some_and(|end| end < keep_from) {
            self.segments.pop_front();
        }
        for segment in &mut self.segments {
            segment.forget_before(keep_from);
        }
    }

    /// The name of a place: a marker and the number of messages since it. `None` if it has no name any more.
    pub fn name(&self, place: RingPlace) -> Option<(&M, u64)> {
        self.segment_of(place)?.name(place.next)
    }

    /// What a reader finds at `place`.
    pub fn at(&self, place: RingPlace) -> Found<'_, M, E> {
        let Some(segment) = self.segment_of(place) else { return Found::Ended };
        let end = self.end_of(segment);
        let kept_from = self.base.min(end);
        if place.next < kept_from {
            return Found::Overrun(RingPlace { next: kept_from, ..place });
        }
        if place.next == end && segment.end.is_some() {
            let following = self.following(segment.number);
            let marked = following.and_then(|later| Some((later.first_place(), &later.markers.front()?.0)));
            return marked.map_or(Found::Ended, |(first, marker)| Found::Break(first, marker));
        }
        // In a segment that has ended no marker can follow, and nothing must be left behind.
        let stop = segment.unmarked_join.filter(|_| segment.end.is_none()).unwrap_or(end).max(place.next);
        Found::Messages(self.entries.range((place.next - self.base) as usize..(stop - self.base) as usize))
    }
}
