//! A stretch of the stream without a break, and the markers in it. Pure.

use std::collections::VecDeque;

use super::types::RingPlace;
use crate::base::id::Epoch;
use crate::ledger::Marker;

/// The most markers a segment keeps. Beyond it the oldest are dropped, and a cursor that names one of them is unknown.
const MAX_MARKERS: usize = 65_536;

/// The most markers of dispatchers with other interests: under load, those of some seven minutes.
const MAX_OTHERS: usize = 4_096;

/// What a segment must know about a marker. [`Marker`] is one; the model in `tests/model` uses numbers instead.
pub trait Mark: Eq {
    /// Orders the markers of leaders, which rise along the stream.
    type LeaderPlace: Ord + Clone + std::fmt::Debug + std::hash::Hash;

    /// `None` for the join marker of a dispatcher: nothing is known about its order.
    fn leader_place(&self) -> Option<Self::LeaderPlace>;
}

impl Mark for Marker {
    type LeaderPlace = (Epoch, u64);

    fn leader_place(&self) -> Option<(Epoch, u64)> {
        Marker::leader_place(self)
    }
}

/// See the module's text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Segment<M: Mark> {
    /// Rises from segment to segment.
    pub number: u64,
    /// The sequence number after its last message, once the segment has ended.
    pub end: Option<u64>,
    /// In order, each with the sequence number of the message that follows it.
    pub markers: VecDeque<(M, u64)>,
    /// The latest markers of dispatchers with other interests. They count other messages, so such a marker names its
    /// own place only.
    pub others: VecDeque<OtherMarker<M>>,
    /// The last leader's marker that was dropped from them.
    pub forgotten_other: Option<M::LeaderPlace>,
    /// Where a dispatcher with other interests joined, until a marker of our interests follows: the sequence number of
    /// the message after its join marker. A leader stores nothing beyond it, because that dispatcher could not tell how
    /// far the cursor has passed its join marker.
    pub unmarked_join: Option<u64>,
    /// The last stretch from such a join to the next marker of our interests. A place between the two is named by a
    /// marker from before the join, so the cursor passes the stretch in one step.
    pub undivided: Option<(u64, u64)>,
}

/// A marker of a dispatcher with other interests.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OtherMarker<M> {
    /// The marker.
    pub marker: M,
    /// Distinguishes the interests of its dispatcher.
    pub interests: u64,
    /// The sequence number of the message that follows it.
    pub next: u64,
    /// The same of the next marker of the same interests, once that has come. All places that their dispatchers name by
    /// this marker are before it.
    pub until: Option<u64>,
}

impl<M: Mark> Segment<M> {
    /// A segment without markers.
    pub fn new(number: u64) -> Segment<M> {
        Segment {
            number,
            end: None,
            markers: VecDeque::new(),
            others: VecDeque::new(),
            forgotten_other: None,
            unmarked_join: None,
            undivided: None,
        }
    }

    /// Whether it has a marker. Without one, no place in it has a name.
    pub fn is_anchored(&self) -> bool {
        !self.markers.is_empty()
    }

    /// Adds a marker after all messages before `next`.
    pub fn mark(&mut self, marker: M, next: u64) {
        if let Some(join) = self.unmarked_join.take() {
            self.undivided = Some((join, next));
        }
        self.markers.push_back((marker, next));
        if self.markers.len() > MAX_MARKERS {
            self.markers.pop_front();
        }
    }

    /// Adds a marker of a dispatcher with other interests. Before the first own marker it would name a place at which
    /// not all subscriptions may have been made yet.
    pub fn mark_other(&mut self, marker: M, interests: u64, next: u64) {
        if !self.is_anchored() {
            return;
        }
        if let Some(last) = self.others.iter_mut().rev().find(|known| known.interests == interests) {
            last.until.get_or_insert(next);
        }
        if marker.leader_place().is_none() {
            self.unmarked_join.get_or_insert(next);
        }
        self.others.push_back(OtherMarker { marker, interests, next, until: None });
        if self.others.len() > MAX_OTHERS {
            // The markers of leaders rise, and those that join have no place.
            let forgotten = self.others.pop_front().and_then(|known| known.marker.leader_place());
            self.forgotten_other = forgotten.or(self.forgotten_other.take());
        }
    }

    /// The place of the first marker that is kept of dispatchers with other interests, if `place` is the place of an
    /// earlier one that was forgotten.
    pub fn after_forgotten(&self, place: &M::LeaderPlace) -> Option<u64> {
        let forgotten = self.forgotten_other.as_ref()? >= place;
        self.others.front().filter(|_| forgotten).map(|known| known.next)
    }

    /// A marker of a dispatcher with other interests.
    pub fn find_other(&self, marker: &M) -> Option<&OtherMarker<M>> {
        self.others.iter().rev().find(|known| known.marker == *marker)
    }

    /// The sequence number of the message that follows a marker.
    pub fn find(&self, marker: &M) -> Option<u64> {
        self.markers.iter().rev().find(|(known, _)| known == marker).map(|(_, next)| *next)
    }

    /// Whether it lies after the place of a marker that is not in it: its leaders' markers are later, and none is
    /// earlier. With earlier ones as well it was received on another server than that marker: leaders' markers rise
    /// along the stream of one server, so that one would be between them. After a failover both the old primary and the
    /// new one may have leaders.
    pub fn lies_after(&self, place: &M::LeaderPlace) -> bool {
        let first = self.markers.iter().find_map(|(marker, _)| marker.leader_place());
        self.has_later(place) && first.is_none_or(|first| first > *place)
    }

    /// Whether it has a leader's marker that is later than `place`.
    pub fn has_later(&self, place: &M::LeaderPlace) -> bool {
        let others = self.others.iter().map(|known| &known.marker);
        let mut markers = self.markers.iter().map(|(marker, _)| marker).chain(others);
        markers.any(|marker| marker.leader_place().as_ref() > Some(place))
    }

    /// The sequence number of the first message that follows a marker.
    pub fn start(&self) -> Option<u64> {
        self.markers.front().map(|(_, next)| *next)
    }

    /// The place of its first marker.
    pub fn first_place(&self) -> RingPlace {
        RingPlace { segment: self.number, next: self.start().unwrap_or_default() }
    }

    /// The last marker before the message `next`, and the number of messages between the two.
    pub fn name(&self, next: u64) -> Option<(&M, u64)> {
        let behind = self.markers.partition_point(|(_, at)| *at <= next).checked_sub(1)?;
        let (marker, at) = &self.markers[behind];
        Some((marker, next - at))
    }

    /// Forgets the markers that name no place from `keep_from` on.
    pub fn forget_before(&mut self, keep_from: u64) {
        while self.markers.get(1).is_some_and(|(_, at)| *at < keep_from) {
            self.markers.pop_front();
        }
    }
}
