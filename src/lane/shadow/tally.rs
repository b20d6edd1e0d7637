//! Counts what a shadow receives, and remembers at which count each marker came. Keeps no payloads.
//!
//! Markers are ignored by the same rule as in a ring, so a position names the same place here as for dispatchers.
//! Bounded: at most [`MAX_MARKERS`] are kept, and usually only those since the cursor's.

use std::collections::VecDeque;

use parking_lot::Mutex;

use crate::base::id::Epoch;
use crate::lane::sink::Sink;
use crate::ledger::subscription::{Length, Published, Seen};
use crate::ledger::{Marker, Position};

/// The most markers that are kept. Beyond it the oldest are forgotten: under load, those from two hours ago.
const MAX_MARKERS: usize = 65_536;

/// See the module's text. Shared by the listener, the sampler and those who show its figures.
#[derive(Debug, Default)]
pub struct Tally(Mutex<Counts>);

/// What was received since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Messages that count.
    pub messages: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
    /// Bytes of the largest payload.
    pub largest: u64,
    /// Whether everything is subscribed to now.
    pub is_subscribed: bool,
}

/// Where a position is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Located {
    /// After so many messages, counted since the start, within the segment with this number.
    At { segment: u64, count: u64 },
    /// Its marker has not come, or the messages after it have not.
    NotYet,
    /// Its marker is one of a dispatcher with other interests, which counts other messages.
    OtherInterests,
}

#[derive(Debug, Default)]
struct Counts {
    received: Received,
    /// The number of the present segment.
    segment: u64,
    /// The markers of this segment, each with the count at its place, or without if its dispatcher has other interests.
    markers: VecDeque<(Marker, Option<u64>)>,
    /// The highest marker of a leader that was seen, and the same of leaders with other interests.
    highest: [Option<(Epoch, u64)>; 2],
}

impl Tally {
    /// What was received so far.
    pub fn received(&self) -> Received {
        self.0.lock().received
    }

    /// Where `position` is.
    pub(super) fn locate(&self, position: &Position) -> Located {
        let counts = self.0.lock();
        match counts.markers.iter().rev().find(|(marker, _)| *marker == position.marker) {
            Some((_, Some(at))) if at.saturating_add(position.offset) <= counts.received.messages => {
                Located::At { segment: counts.segment, count: at + position.offset }
            }
            Some((_, None)) => Located::OtherInterests,
            _ => Located::NotYet,
        }
    }

    /// Forgets the markers before this one, which the cursor has passed.
    pub(super) fn forget_before(&self, marker: &Marker) {
        let markers = &mut self.0.lock().markers;
        if let Some(at) = markers.iter().position(|(known, _)| known == marker) {
            markers.drain(..at);
        }
    }
}

impl Counts {
    /// Adds a marker, unless it is known or a leader's that is not higher than the last.
    fn mark(&mut self, marker: Marker, is_others: bool) -> bool {
        let highest = &mut self.highest[usize::from(is_others)];
        let is_stray = match marker.leader_place() {
            Some(place) => *highest >= Some(place),
            None => self.markers.iter().any(|(known, _)| *known == marker),
        };
        if !is_stray {
            *highest = (*highest).max(marker.leader_place());
            self.markers.push_back((marker, (!is_others).then_some(self.received.messages)));
            if self.markers.len() > MAX_MARKERS {
                self.markers.pop_front();
            }
        }
        !is_stray
    }
}

impl Sink for Tally {
    fn begin_segment(&self) {
        let mut counts = self.0.lock();
        counts.segment += 1;
        counts.markers.clear();
    }

    fn note_joined(&self) {
        self.0.lock().received.is_subscribed = true;
    }

    fn end_segment(&self) {
        let mut counts = self.0.lock();
        counts.received.is_subscribed = false;
        // What follows is another segment, also for a position that is located before it begins.
        counts.markers.clear();
    }

    fn append(&self, seen: Vec<Seen>) -> usize {
        let mut counts = self.0.lock();
        let mut ignored = 0;
        for seen in seen {
            match seen {
                Seen::Published(published) => counts.received.add(payload_bytes(&published)),
                Seen::Marker(marker) => ignored += usize::from(!counts.mark(marker, false)),
                Seen::OtherInterests(marker, _) => ignored += usize::from(!counts.mark(marker, true)),
            }
        }
        ignored
    }
}

impl Received {
    fn add(&mut self, bytes: u64) {
        self.messages += 1;
        self.bytes += bytes;
        self.largest = self.largest.max(bytes);
    }
}

fn payload_bytes(published: &Published) -> u64 {
    match published {
        Published::Message(body) | Published::Oversize { excerpt: body, length: Length::Channel(_) } => {
            body.payload().len() as u64
        }
        Published::Oversize { length: Length::Payload(bytes), .. } => *bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Body;

    fn message(bytes: usize) -> Seen {
        Seen::Published(Published::Message(Body::copied(Some(b"channel"), &vec![b'x'; bytes])))
    }

    fn marker(epoch: u64, number: u64) -> Marker {
        Marker::of_leader(Epoch(epoch), number)
    }

    fn position(marker: Marker, offset: u64) -> Position {
        Position { marker, offset }
    }

    #[test]
    fn messages_are_counted_with_the_bytes_of_their_payloads() {
        let tally = Tally::default();
        tally.begin_segment();
        tally.note_joined();
        let oversize =
            Published::Oversize { excerpt: Body::copied(None, b"beginning"), length: Length::Payload(9_000_000) };
        assert_eq!(tally.append(vec![message(3), message(0), Seen::Published(oversize), message(5)]), 0);
        let received = Received { messages: 4, bytes: 9_000_008, largest: 9_000_000, is_subscribed: true };
        assert_eq!(tally.received(), received);
        tally.end_segment();
        assert_eq!(tally.received(), Received { is_subscribed: false, ..received });
    }

    #[test]
    fn a_position_is_located_by_its_marker_once_it_was_heard() {
        let tally = Tally::default();
        tally.begin_segment();
        tally.append(vec![message(1), Seen::Marker(marker(7, 1)), message(1), message(1)]);
        let at = |count| Located::At { segment: 1, count };
        assert_eq!(tally.locate(&position(marker(7, 1), 0)), at(1));
        assert_eq!(tally.locate(&position(marker(7, 1), 2)), at(3));
        assert_eq!(tally.locate(&position(marker(7, 1), 3)), Located::NotYet, "the third has not come");
        assert_eq!(tally.locate(&position(marker(7, 2), 0)), Located::NotYet);
        tally.append(vec![Seen::Marker(marker(7, 2)), Seen::OtherInterests(marker(8, 1), 5)]);
        assert_eq!(tally.locate(&position(marker(7, 2), 0)), at(3));
        assert_eq!(tally.locate(&position(marker(8, 1), 0)), Located::OtherInterests);
        tally.forget_before(&marker(7, 2));
        assert_eq!(tally.locate(&position(marker(7, 1), 0)), Located::NotYet);
        assert_eq!(tally.locate(&position(marker(7, 2), 0)), at(3));
        tally.end_segment();
        assert_eq!(tally.locate(&position(marker(7, 2), 0)), Located::NotYet);
    }

    #[test]
    fn markers_that_a_ring_would_ignore_are_ignored() {
        let tally = Tally::default();
        tally.begin_segment();
        let join: Marker = "d0-012345.1".parse().expect("a marker");
        tally.append(vec![Seen::Marker(join.clone()), Seen::Marker(marker(7, 2)), message(1)]);
        let strays = [join, marker(7, 2), marker(7, 1), marker(6, 9)];
        assert_eq!(tally.append(strays.map(Seen::Marker).to_vec()), 4);
        assert_eq!(tally.locate(&position(marker(7, 2), 0)), Located::At { segment: 1, count: 0 });
        assert_eq!(
            tally.append(vec![Seen::OtherInterests(marker(6, 9), 5)]),
            0,
            "those of others have an order of their own"
        );
        assert_eq!(tally.append(vec![Seen::Marker(marker(8, 0))]), 0);
    }
}
