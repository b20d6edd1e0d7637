//! Where a cursor lies in a ring, and how well the ring can continue from there. Pure.

use super::contents::Contents;
use super::segment::Segment;
use super::types::RingPlace;
use crate::ledger::Position;

/// A cursor found in a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolution {
    /// Where to continue.
    pub place: RingPlace,
    /// How well.
    pub standing: Standing,
    /// Why messages between the cursor and the place may be missing, if they may.
    pub gap: Option<&'static str>,
}

/// How well a ring can continue from a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Everything after the cursor is here.
    InSync,
    /// Messages after the cursor are here; later there is a break.
    Continues,
    /// Nothing here follows the cursor without a break.
    Beyond,
    /// There is no cursor, and we never knew one.
    Fresh,
}

/// No dispatcher was subscribed, or none that lives.
const NOT_SUBSCRIBED: &str = "not-subscribed";
/// Redis has lost the cursor, and who knows what else.
pub const CURSOR_LOST: &str = "cursor-lost";

impl Contents {
    /// Finds a cursor. `None`: there is no subscription, or its first marker has not come yet.
    pub(super) fn resolve(&self, position: Option<&Position>) -> Option<Resolution> {
        let live = self.segments.back().filter(|segment| segment.is_live())?;
        let (place, gap) = match (position, self.known) {
            (Some(position), _) => self.locate(position, live),
            (None, Some(sequence)) => (self.place_at(sequence)?, Some(CURSOR_LOST)),
            (None, None) => (self.segments.iter().find(|segment| segment.is_anchored())?.first_place(), None),
        };
        let end = self.segments.iter().find(|segment| segment.number == place.segment)?.end.unwrap_or(self.tail());
        let standing = if position.is_none() && self.known.is_none() {
            Standing::Fresh
        } else if gap == Some(NOT_SUBSCRIBED) || place.next < self.base {
            // Something between the cursor and the place is missing here; another may have it.
            Standing::Beyond
        } else if place.segment == live.number {
            Standing::InSync
        } else if place.next < end {
            Standing::Continues
        } else {
            Standing::Beyond
        };
        Some(Resolution { place, standing, gap })
    }

    fn locate(&self, position: &Position, live: &Segment) -> (RingPlace, Option<&'static str>) {
        let holder = self.segments.iter().rev().find_map(|segment| Some((segment, segment.find(&position.marker)?)));
        let Some((segment, marked)) = holder else {
            return (self.beginning_after(position).unwrap_or(live.first_place()), Some(NOT_SUBSCRIBED));
        };
        let next = marked.saturating_add(position.offset);
        match segment.end {
            None if next <= self.tail() => (RingPlace { segment: segment.number, next }, None),
            // A cursor beyond what we saw: only if Redis delivered to others what it did not deliver to us.
            None => (RingPlace { segment: segment.number, next: self.tail() }, Some(NOT_SUBSCRIBED)),
            Some(end) if next <= end => (RingPlace { segment: segment.number, next }, None),
            Some(_) => {
                let following = self.segments.iter().find(|later| later.number > segment.number && later.is_anchored());
                (following.unwrap_or(live).first_place(), Some(NOT_SUBSCRIBED))
            }
        }
    }

    /// The beginning of the first segment that lies after a position whose marker is none we know. Leaders' markers
    /// rise, and a place is always named by the last marker before it: a segment with a later marker begins after the
    /// position.
    ///
    /// A cursor older than the ring is one that went back, with a Redis that lost more than the ring keeps.
    fn beginning_after(&self, position: &Position) -> Option<RingPlace> {
        let wanted = position.marker.leader_place()?;
        let later = |segment: &&Segment| segment.markers().any(|marker| marker.leader_place() > Some(wanted));
        let segment = self.segments.iter().find(later)?;
        let RingPlace { next, .. } = segment.first_place();
        Some(RingPlace { next: next.max(self.base.min(segment.end.unwrap_or(u64::MAX))), segment: segment.number })
    }

    /// The place of a message. At a break it is the place before the break.
    fn place_at(&self, sequence: u64) -> Option<RingPlace> {
        let reaches = |segment: &&Segment| segment.is_anchored() && segment.end.is_none_or(|end| sequence <= end);
        let segment = self.segments.iter().find(reaches)?;
        Some(RingPlace { segment: segment.number, next: sequence.max(segment.start()?) })
    }
}
