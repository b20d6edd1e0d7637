//! What a dispatcher has received. The ring is the program's own [`Timeline`], with numbers as markers and messages:
//! segments, markers, finding a cursor, reading, and dropping what is old are the code of `src/lane/ring`.
//!
//! Written here a second time, because the code's version depends on time or holds texts: which places of the cursor
//! are remembered ([`Ring::note_cursor`]; time is a tick of the model, and a cursor that was seen in an earlier tick
//! can no longer be rolled back), and which dispatchers have joined ([`Ring::is_eldest`]). There is no byte limit: the
//! oldest message is dropped when the budget says so. Not in the model are the limits of segments, markers and batches,
//! the cursor that a dispatcher remembers when Redis has none, and markers that are ignored.

use oncecast::lane::ring::{Found, Mark, Timeline};
pub use oncecast::lane::ring::{Resolution, RingPlace, Standing};

use crate::rules::{Rule, Rules};

/// A published message, by its number.
pub type Message = u8;
/// A marker: each published one has a number of its own; a leader's has the bit [`OF_LEADER`] as well.
pub type Marker = u8;
/// Set in the markers of leaders, which rise along the stream. Join markers are not ordered.
pub const OF_LEADER: u8 = 0x80;
/// A message's id.
pub type Id = u8;

/// A place in the stream as all dispatchers call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    pub marker: Marker,
    pub offset: u8,
}

/// How far the channel has been stored.
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
    /// A join marker, and the dispatcher that joined.
    Join(Marker, u8),
}

/// What the reader finds at its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    Nothing,
    Batch { messages: Vec<Message>, place: RingPlace, position: Position },
    Overrun(RingPlace),
    Break(RingPlace),
    Ended,
}

/// A marker as the ring's code knows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Name(Marker);

impl Mark for Name {
    type LeaderPlace = u8;

    fn leader_place(&self) -> Option<u8> {
        (self.0 & OF_LEADER != 0).then_some(self.0)
    }
}

/// See the module's text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ring {
    timeline: Timeline<Name, Message>,
    /// The dispatchers whose join markers have come since the last segment began, sorted.
    joined: Vec<u8>,
    /// In which tick the cursor was seen where.
    noted: Vec<(u8, u64)>,
    /// Whether a segment counts as later than a marker if any of its markers is.
    any_is_later: bool,
}

impl Ring {
    /// The subscription is made.
    pub fn begin_segment(&mut self, rules: Rules) {
        self.timeline.begin_segment();
        self.joined.clear();
        self.any_is_later = !rules.has(Rule::EarlierMarkersExclude);
        if rules.has(Rule::NotesEndWithTheSubscription) {
            self.noted.clear();
        }
    }

    /// The subscription dropped.
    pub fn end_segment(&mut self) {
        self.timeline.end_segment();
    }

    pub fn append(&mut self, seen: Seen) {
        match seen {
            Seen::Marker(marker) => self.timeline.mark(Name(marker)),
            Seen::Join(marker, who) => {
                self.timeline.mark(Name(marker));
                if let Err(index) = self.joined.binary_search(&who) {
                    self.joined.insert(index, who);
                }
            }
            Seen::Message(message) if self.timeline.live().is_some() => self.timeline.push(message),
            Seen::Message(_) => {}
        }
    }

    /// Drops the oldest message for lack of memory.
    pub fn overrun(&mut self) -> Option<Message> {
        self.timeline.drop_first()
    }

    pub fn is_empty(&self) -> bool {
        self.timeline.entries.is_empty()
    }

    /// The number of the segment that is live now.
    pub fn live_segment(&self) -> Option<u64> {
        self.timeline.live().map(|segment| segment.number)
    }

    /// Whether `marker` has been seen in the present segment.
    pub fn has_seen(&self, marker: Marker) -> bool {
        self.timeline.growing().is_some_and(|segment| segment.find(&Name(marker)).is_some())
    }

    /// The sequence number of a message that is still here.
    pub fn find(&self, message: Message) -> Option<u64> {
        let index = self.timeline.entries.iter().position(|kept| *kept == message);
        index.map(|index| self.timeline.base + index as u64)
    }

    /// The names of the markers and dispatchers in it.
    pub fn marker_names<'a>(&'a mut self, names: &mut Vec<&'a mut u8>) {
        let markers = self.timeline.segments.iter_mut().flat_map(|segment| &mut segment.markers);
        names.extend(markers.map(|(Name(marker), _)| marker));
        names.extend(&mut self.joined);
    }

    /// Finds a cursor. `None`: there is no subscription, or its first marker has not come yet.
    pub fn resolve(&self, cursor: Option<Cursor>) -> Option<Resolution> {
        match cursor {
            Some(Cursor { position: Position { marker, offset }, .. }) => {
                let found = self.timeline.resolve(Some((&Name(marker), offset.into())), None)?;
                Some(self.with_any_later(&Name(marker), found))
            }
            None => self.timeline.resolve(None, None),
        }
    }

    /// Where a marker that is not here would be found if segments from another server counted.
    fn with_any_later(&self, marker: &Name, found: Resolution) -> Resolution {
        let mut segments = self.timeline.segments.iter();
        let is_here = segments.clone().any(|segment| segment.find(marker).is_some());
        let later = marker.leader_place().and_then(|wanted| segments.find(|segment| segment.has_later(&wanted)));
        match later.filter(|_| self.any_is_later && !is_here) {
            Some(segment) => Resolution { place: segment.first_place(), standing: Standing::Beyond, ..found },
            None => found,
        }
    }

    /// Where a read would begin now, or, without a subscription, once there is one.
    pub fn first_after(&self, cursor: Cursor) -> Option<u64> {
        let last = self.timeline.segments.back()?;
        let Position { marker, offset } = cursor.position;
        let (place, gap) = self.timeline.locate(&Name(marker), offset.into(), last);
        (gap.is_none() || last.end.is_none() || place.segment() != last.number).then_some(place.sequence())
    }

    /// Whether all of `others` have joined since the present subscription was made.
    pub fn is_eldest(&self, mut others: impl Iterator<Item = u8>) -> bool {
        self.timeline.live().is_some() && others.all(|who| self.joined.contains(&who))
    }

    pub fn take(&self, place: RingPlace, known: Option<Position>) -> Taken {
        let messages = match self.timeline.at(place) {
            Found::Messages(messages) => messages,
            Found::Overrun(following) => return Taken::Overrun(following),
            Found::Break(following, _) => return Taken::Break(following),
            Found::Ended => return Taken::Ended,
        };
        let place = place.after(messages.len());
        let Some((Name(marker), offset)) = self.timeline.name(place) else { return Taken::Ended };
        let position = Position { marker: *marker, offset: offset as u8 };
        if messages.len() == 0 && known == Some(position) {
            return Taken::Nothing;
        }
        Taken::Batch { messages: messages.copied().collect(), place, position }
    }

    /// Remembers that the cursor was at `place`, and drops what it passed in an earlier tick.
    pub fn note_cursor(&mut self, place: RingPlace, tick: u8, rules: Rules) {
        if rules.has(Rule::NotesEndWithTheSubscription) && self.live_segment() != Some(place.segment()) {
            return;
        }
        let sequence = place.sequence();
        while self.noted.last().is_some_and(|(_, noted)| *noted > sequence) {
            self.noted.pop();
        }
        match self.noted.last_mut() {
            Some((noted_in, noted)) if *noted_in == tick => *noted = sequence,
            Some((_, noted)) if *noted == sequence => {}
            _ => self.noted.push((tick, sequence)),
        }
        let is_old = |noted: &(u8, u64)| noted.0 < tick || !rules.has(Rule::OnlyAnOldCursorTrims);
        while self.noted.get(1).is_some_and(is_old) {
            self.noted.remove(0);
        }
        if let Some((_, keep_from)) = self.noted.first().copied().filter(is_old) {
            self.timeline.forget_before(keep_from, drop);
        }
    }
}
