//! What a dispatcher has seen: the rules of `oncecast::ring`, without its locks, clocks and byte limits: its oldest
//! message is dropped when the budget says so.
//!
//! Places, segments, resolution and reading follow that module line for line, so that a change there should be made
//! here, too. Time is a tick of the model; a cursor that was seen in an earlier tick can no longer be rolled back.

pub use oncecast::lane::ring::Standing;

use crate::rules::{Rule, Rules};

/// A published message, by its number.
pub type Message = u8;
/// A marker: each published one has a number of its own; a leader's has the bit [`OF_LEADER`] as well.
pub type Marker = u8;
/// Marks the markers of leaders, which rise along the stream. What join markers are called says nothing of their order.
pub const OF_LEADER: u8 = 0x80;
/// A message's id.
pub type Id = u8;

/// A place in the stream as all dispatchers call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    pub marker: Marker,
    pub offset: u8,
}

/// How far the channel has been taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cursor {
    pub position: Position,
    pub last_id: Id,
}

/// What comes over a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Seen {
    Message(Message),
    Marker(Marker),
    /// A join marker, and whose.
    Join(Marker, u8),
}

/// A place in one ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    pub segment: u8,
    pub next: u8,
}

/// A cursor found in a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolution {
    pub place: Place,
    pub standing: Standing,
}

/// What the reader finds at its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    Nothing,
    Batch { messages: Vec<Message>, place: Place, position: Position },
    Overrun(Place),
    Break(Place),
    Ended,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Segment {
    number: u8,
    end: Option<u8>,
    markers: Vec<(Marker, u8)>,
    /// The dispatchers whose join markers are or were in it.
    joined: Vec<u8>,
}

/// See the module's text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ring {
    entries: Vec<Message>,
    base: u8,
    segments: Vec<Segment>,
    next_segment: u8,
    /// In which tick the cursor was seen where.
    noted: Vec<(u8, u8)>,
}

impl Segment {
    fn find(&self, marker: Marker) -> Option<u8> {
        self.markers.iter().rev().find(|(known, _)| *known == marker).map(|(_, next)| *next)
    }

    fn is_anchored(&self) -> bool {
        !self.markers.is_empty()
    }

    fn is_live(&self) -> bool {
        self.is_anchored() && self.end.is_none()
    }

    fn first_place(&self) -> Place {
        Place { segment: self.number, next: self.markers.first().map_or(0, |(_, next)| *next) }
    }

    fn position(&self, next: u8) -> Option<Position> {
        let behind = self.markers.partition_point(|(_, at)| *at <= next).checked_sub(1)?;
        let (marker, at) = self.markers[behind];
        Some(Position { marker, offset: next - at })
    }
}

impl Ring {
    /// The subscription stands.
    pub fn begin_segment(&mut self, rules: Rules) {
        self.end_segment();
        if rules.has(Rule::NotesEndWithTheSubscription) {
            self.noted.clear();
        }
        self.segments.push(Segment { number: self.next_segment, end: None, markers: Vec::new(), joined: Vec::new() });
        self.next_segment += 1;
    }

    /// The subscription dropped.
    pub fn end_segment(&mut self) {
        let tail = self.tail();
        if let Some(last) = self.segments.last_mut() {
            if !last.is_anchored() {
                self.segments.pop();
            } else if last.end.is_none() {
                last.end = Some(tail);
            }
        }
    }

    pub fn append(&mut self, seen: Seen) {
        let tail = self.tail();
        let Some(segment) = self.segments.last_mut().filter(|segment| segment.end.is_none()) else { return };
        match seen {
            Seen::Marker(marker) => segment.markers.push((marker, tail)),
            Seen::Join(marker, who) => {
                segment.markers.push((marker, tail));
                if !segment.joined.contains(&who) {
                    segment.joined.push(who);
                    segment.joined.sort_unstable();
                }
            }
            Seen::Message(message) if segment.is_anchored() => self.entries.push(message),
            Seen::Message(_) => {}
        }
    }

    /// Drops the oldest message for lack of memory.
    pub fn overrun(&mut self) -> Option<Message> {
        let dropped = (!self.entries.is_empty()).then(|| self.entries.remove(0));
        self.base += u8::from(dropped.is_some());
        dropped
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn tail(&self) -> u8 {
        self.base + self.entries.len() as u8
    }

    /// The number of the segment that is live now.
    pub fn live_segment(&self) -> Option<u8> {
        self.segments.last().filter(|segment| segment.is_live()).map(|segment| segment.number)
    }

    /// Whether `marker` has been seen in the present segment.
    pub fn has_seen(&self, marker: Marker) -> bool {
        self.segments.last().is_some_and(|segment| segment.is_live() && segment.find(marker).is_some())
    }

    /// The sequence number of a message that is still here.
    pub fn find(&self, message: Message) -> Option<u8> {
        self.entries.iter().position(|kept| *kept == message).map(|index| self.base + index as u8)
    }

    /// The names of the markers and dispatchers in it.
    pub fn marker_names<'a>(&'a mut self, names: &mut Vec<&'a mut u8>) {
        for segment in &mut self.segments {
            names.extend(segment.markers.iter_mut().map(|(marker, _)| marker));
            names.extend(&mut segment.joined);
        }
    }

    /// Finds a cursor. `None`: there is no subscription, or its first marker has not come yet.
    pub fn resolve(&self, cursor: Option<Cursor>) -> Option<Resolution> {
        let live = self.segments.last().filter(|segment| segment.is_live())?;
        let Some(Cursor { position, .. }) = cursor else {
            let place = self.segments.iter().find(|segment| segment.is_anchored())?.first_place();
            return Some(Resolution { place, standing: Standing::Fresh });
        };
        let (place, is_found) = self.locate(position, live);
        let end = self.segments.iter().find(|segment| segment.number == place.segment)?.end.unwrap_or(self.tail());
        let standing = if !is_found || place.next < self.base {
            Standing::Beyond
        } else if place.segment == live.number {
            Standing::InSync
        } else if place.next < end {
            Standing::Continues
        } else {
            Standing::Beyond
        };
        Some(Resolution { place, standing })
    }

    fn locate(&self, position: Position, live: &Segment) -> (Place, bool) {
        let marked = |segment| Some((segment, Segment::find(segment, position.marker)?));
        let Some((segment, marked)) = self.segments.iter().rev().find_map(marked) else {
            return (self.beginning_after(position.marker).unwrap_or(live.first_place()), false);
        };
        let next = marked + position.offset;
        match segment.end {
            None if next <= self.tail() => (Place { segment: segment.number, next }, true),
            None => (Place { segment: segment.number, next: self.tail() }, false),
            Some(end) if next <= end => (Place { segment: segment.number, next }, true),
            Some(_) => {
                let following = self.segments.iter().find(|later| later.number > segment.number && later.is_anchored());
                (following.unwrap_or(live).first_place(), false)
            }
        }
    }

    /// The beginning of the first segment that lies after a leader's marker that is none we know.
    fn beginning_after(&self, marker: Marker) -> Option<Place> {
        let is_later =
            |(other, _): &(Marker, u8)| marker & OF_LEADER != 0 && *other & OF_LEADER != 0 && *other > marker;
        let segment = self.segments.iter().find(|segment| segment.markers.iter().any(is_later))?;
        let Place { next, segment: number } = segment.first_place();
        Some(Place { next: next.max(self.base.min(segment.end.unwrap_or(u8::MAX))), segment: number })
    }

    /// From where on this ring would be read, were it read now; if the subscription does not stand, from where it will.
    pub fn first_after(&self, cursor: Cursor) -> Option<u8> {
        let last = self.segments.last()?;
        let (place, is_found) = self.locate(cursor.position, last);
        (is_found || last.end.is_none() || place.segment != last.number).then_some(place.next)
    }

    /// Whether all of `others` have joined since the present subscription stands.
    pub fn is_eldest(&self, others: impl IntoIterator<Item = u8>) -> bool {
        let live = self.segments.last().filter(|segment| segment.is_live());
        live.is_some_and(|segment| others.into_iter().all(|who| segment.joined.contains(&who)))
    }

    pub fn take(&self, place: Place, known: Option<Position>) -> Taken {
        let Some(segment) = self.segments.iter().find(|segment| segment.number == place.segment) else {
            return Taken::Ended;
        };
        let end = segment.end.unwrap_or(self.tail());
        if place.next < self.base.min(end) {
            return Taken::Overrun(Place { next: self.base.min(end), ..place });
        }
        if place.next == end && segment.end.is_some() {
            let following = self.segments.iter().find(|later| later.number > place.segment && later.is_anchored());
            return following.map_or(Taken::Ended, |later| Taken::Break(later.first_place()));
        }
        let messages = self.entries[(place.next - self.base) as usize..(end - self.base) as usize].to_vec();
        let next = place.next + messages.len() as u8;
        let Some(position) = segment.position(next) else { return Taken::Ended };
        if messages.is_empty() && known == Some(position) {
            return Taken::Nothing;
        }
        Taken::Batch { messages, place: Place { next, ..place }, position }
    }

    /// Remembers that the cursor was at `place`, and lets go of what it passed in an earlier tick.
    pub fn note_cursor(&mut self, place: Place, tick: u8, rules: Rules) {
        if rules.has(Rule::NotesEndWithTheSubscription) && self.live_segment() != Some(place.segment) {
            return;
        }
        let sequence = place.next;
        while self.noted.last().is_some_and(|(_, noted)| *noted > sequence) {
            self.noted.pop();
        }
        match self.noted.last_mut() {
            Some((noted_in, noted)) if *noted_in == tick => *noted = sequence,
            Some((_, noted)) if *noted == sequence => {}
            _ => self.noted.push((tick, sequence)),
        }
        let is_old = |noted: &(u8, u8)| noted.0 < tick || !rules.has(Rule::OnlyAnOldCursorTrims);
        while self.noted.get(1).is_some_and(is_old) {
            self.noted.remove(0);
        }
        let Some((_, keep_from)) = self.noted.first().copied().filter(is_old) else { return };
        let dropped = keep_from.min(self.tail()).saturating_sub(self.base);
        self.entries.drain(..dropped as usize);
        self.base += dropped;
        while self.segments.len() > 1 && self.segments[0].end.is_some_and(|end| end < keep_from) {
            self.segments.remove(0);
        }
        for segment in &mut self.segments {
            while segment.markers.get(1).is_some_and(|(_, at)| *at < keep_from) {
                segment.markers.remove(0);
            }
        }
    }
}
