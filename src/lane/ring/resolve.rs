//! Where a cursor lies in a ring, and how well the ring can continue from there. Pure.

use super::segment::{Mark, OtherMarker, Segment};
use super::timeline::Timeline;
use super::types::RingPlace;

/// A cursor found in a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolution {
    /// Where to continue.
    pub place: RingPlace,
    /// How well.
    pub standing: Standing,
    /// Why messages between the cursor and the place may be missing, if they may.
    pub gap: Option<&'static str>,
    /// The latest place that the cursor has passed for sure, if everything after that is here. This is `place`; if
    /// the last leader had other interests, it is the place of the cursor's marker.
    pub follows: Option<RingPlace>,
}

/// How well a ring can continue from a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Everything after the cursor is here.
    InSync,
    /// Messages after the cursor are here; later there is a break.
    Continues,
    /// This dispatcher listens to nothing, and nothing here is still to be stored. Others may hold something.
    Idle,
    /// Nothing here follows the cursor without a break.
    Beyond,
    /// There is no cursor, and this dispatcher never knew one.
    Fresh,
}

/// No dispatcher was subscribed, or none that is still running.
const NOT_SUBSCRIBED: &str = "not-subscribed";
/// The last leader had other interests, and did not end at a marker.
const OTHER_INTERESTS: &str = "other-interests";
/// Redis has lost the cursor, and perhaps more.
pub const CURSOR_LOST: &str = "cursor-lost";

impl<M: Mark, E> Timeline<M, E> {
    /// Finds a cursor, given as the name of its place. `known` is where it was last known to be. `None`: there is no
    /// subscription, or its first marker has not come yet.
    pub fn resolve(&self, name: Option<(&M, u64)>, known: Option<u64>) -> Option<Resolution> {
        let live = self.live()?;
        let (place, gap) = match (name, known) {
            (Some((marker, offset)), _) => self.locate(marker, offset, live),
            (None, Some(sequence)) => (self.place_at(sequence)?, Some(CURSOR_LOST)),
            (None, None) => (self.segments.iter().find(|segment| segment.is_anchored())?.first_place(), None),
        };
        let end = self.end_of(self.segment_of(place)?);
        let standing = if name.is_none() && known.is_none() {
            Standing::Fresh
        } else if matches!(gap, Some(NOT_SUBSCRIBED | OTHER_INTERESTS)) || place.next < self.base {
            // Something between the cursor and the place is missing here; another dispatcher may have it.
            Standing::Beyond
        } else if place.segment == live.number {
            Standing::InSync
        } else if place.next < end {
            Standing::Continues
        } else {
            Standing::Beyond
        };
        let mut resolution = Resolution { place, standing, gap, follows: None };
        resolution.follows = self.follows(name, &resolution, live);
        Some(resolution)
    }

    /// The place that is `offset` messages after `marker`, or where to continue if it is not here: then with the reason
    /// why messages may be missing. `live` is the segment to continue in if nothing older follows the cursor.
    pub fn locate(&self, marker: &M, offset: u64, live: &Segment<M>) -> (RingPlace, Option<&'static str>) {
        let holder = self.segments.iter().rev().find_map(|segment| Some((segment, segment.find(marker)?)));
        let Some((segment, marked)) = holder else {
            if let Some(found) = self.locate_other(marker, offset, live) {
                return found;
            }
            return (self.beginning_after(marker).unwrap_or(live.first_place()), Some(NOT_SUBSCRIBED));
        };
        let next = marked.saturating_add(offset);
        match segment.end {
            None if next <= self.tail() => (RingPlace { segment: segment.number, next }, None),
            // A cursor beyond what we saw: only if Redis delivered to others what it did not deliver to us.
            None => (RingPlace { segment: segment.number, next: self.tail() }, Some(NOT_SUBSCRIBED)),
            Some(end) if next <= end => (RingPlace { segment: segment.number, next }, None),
            Some(_) => (self.following(segment.number).unwrap_or(live).first_place(), Some(NOT_SUBSCRIBED)),
        }
    }

    /// The place of a cursor that a leader with other interests has written. At its marker the place is known. After it
    /// the cursor counts other messages: then all up to the next marker of the same interests counts as passed, so that
    /// nothing is stored twice.
    fn locate_other(&self, marker: &M, offset: u64, live: &Segment<M>) -> Option<(RingPlace, Option<&'static str>)> {
        let found = |segment: &Segment<M>, next| RingPlace { segment: segment.number, next };
        if let Some((segment, known)) = self.find_other(marker) {
            return Some(match (offset, known.until) {
                (0, _) => (found(segment, known.next), None),
                (_, Some(until)) => (found(segment, until), Some(OTHER_INTERESTS)),
                // It may have stored everything that is here.
                (_, None) => (found(live, self.tail()), Some(OTHER_INTERESTS)),
            });
        }
        let wanted = marker.leader_place()?;
        let after =
            |segment: &Segment<M>| Some((found(segment, segment.after_forgotten(&wanted)?), Some(OTHER_INTERESTS)));
        self.segments.iter().find_map(after)
    }

    fn find_other(&self, marker: &M) -> Option<(&Segment<M>, &OtherMarker<M>)> {
        self.segments.iter().rev().find_map(|segment| Some((segment, segment.find_other(marker)?)))
    }

    /// The latest place that a cursor has passed for sure, if everything after that is here.
    fn follows(&self, name: Option<(&M, u64)>, resolution: &Resolution, live: &Segment<M>) -> Option<RingPlace> {
        let place = match (resolution.standing, resolution.gap, name) {
            (Standing::InSync, ..) => resolution.place,
            (_, Some(OTHER_INTERESTS), Some((marker, _))) => {
                let (segment, known) = self.find_other(marker)?;
                RingPlace { segment: segment.number, next: known.next }
            }
            _ => return None,
        };
        Some(place).filter(|place| place.segment == live.number && place.next >= self.base)
    }

    /// The beginning of the first segment that lies after a marker that is not here. A place is always named by the
    /// last marker before it, so such a segment begins after the place.
    ///
    /// A cursor older than the whole ring usually means that Redis came back with data older than the ring.
    fn beginning_after(&self, marker: &M) -> Option<RingPlace> {
        let wanted = marker.leader_place()?;
        let segment = self.segments.iter().find(|segment| segment.lies_after(&wanted))?;
        let RingPlace { next, .. } = segment.first_place();
        Some(RingPlace { next: next.max(self.base.min(segment.end.unwrap_or(u64::MAX))), segment: segment.number })
    }

    /// The place of a message. At a break it is the place before the break.
    fn place_at(&self, sequence: u64) -> Option<RingPlace> {
        let reaches = |segment: &&Segment<M>| segment.is_anchored() && segment.end.is_none_or(|end| sequence <= end);
        let segment = self.segments.iter().find(reaches)?;
        Some(RingPlace { segment: segment.number, next: sequence.max(segment.start()?) })
    }
}
