//! A stretch of the stream without a break, and the markers in it.

use std::collections::VecDeque;

use super::types::RingPlace;
use crate::ledger::{Marker, Position};

/// The most markers a segment keeps; beyond it the oldest go, and a cursor that names one is unknown to us.
const MAX_MARKERS: usize = 65_536;

/// The most dispatchers that are remembered to have joined; beyond it the oldest go and count as older than we are.
const MAX_JOINED: usize = 256;

/// See the module's text.
pub(super) struct Segment {
    pub(super) number: u64,
    /// The sequence number after its last message, once it has ended.
    pub(super) end: Option<u64>,
    pub(super) ended: bool,
    /// In order: each with the sequence number of the message that follows it.
    markers: VecDeque<(Marker, u64)>,
    /// The dispatchers whose join markers are or were in it.
    joined: VecDeque<String>,
}

impl Segment {
    pub(super) fn new(number: u64) -> Segment {
        Segment { number, end: None, ended: false, markers: VecDeque::new(), joined: VecDeque::new() }
    }

    /// Whether it has a marker, and so places in it have names.
    pub(super) fn is_anchored(&self) -> bool {
        !self.markers.is_empty()
    }

    /// Whether it is anchored and still growing.
    pub(super) fn is_live(&self) -> bool {
        self.is_anchored() && !self.ended
    }

    pub(super) fn end(&mut self, tail: u64) {
        if !self.ended {
            self.ended = true;
            self.end = Some(tail);
        }
    }

    pub(super) fn mark(&mut self, marker: Marker, next: u64) {
        self.note_joined(&marker);
        self.markers.push_back((marker, next));
        if self.markers.len() > MAX_MARKERS {
            self.markers.pop_front();
        }
    }

    /// The markers that are kept, in order.
    pub(super) fn markers(&self) -> impl Iterator<Item = &Marker> {
        self.markers.iter().map(|(marker, _)| marker)
    }

    /// Whether a dispatcher's join marker is or was in it.
    pub(super) fn has_joined(&self, who: &str) -> bool {
        self.joined.iter().any(|known| known == who)
    }

    /// Notes the dispatcher whose join marker this is.
    pub(super) fn note_joined(&mut self, marker: &Marker) {
        if let Some(who) = marker.joined().filter(|who| !self.has_joined(who)) {
            self.joined.push_back(who.to_owned());
            if self.joined.len() > MAX_JOINED {
                self.joined.pop_front();
            }
        }
    }

    /// The sequence number of the message that follows a marker.
    pub(super) fn find(&self, marker: &Marker) -> Option<u64> {
        self.markers.iter().rev().find(|(known, _)| known == marker).map(|(_, next)| *next)
    }

    pub(super) fn start(&self) -> Option<u64> {
        self.markers.front().map(|(_, next)| *next)
    }

    pub(super) fn first_marker(&self) -> Option<Marker> {
        self.markers.front().map(|(marker, _)| marker.clone())
    }

    pub(super) fn first_place(&self) -> RingPlace {
        RingPlace { segment: self.number, next: self.start().unwrap_or_default() }
    }

    /// The name of the place before the message `next`: by the last marker before it.
    pub(super) fn position(&self, next: u64) -> Option<Position> {
        let behind = self.markers.partition_point(|(_, at)| *at <= next).checked_sub(1)?;
        let (marker, at) = &self.markers[behind];
        Some(Position { marker: marker.clone(), offset: next - at })
    }

    /// Forgets markers that no place from `keep_from` on is named by.
    pub(super) fn forget_before(&mut self, keep_from: u64) {
        while self.markers.get(1).is_some_and(|(_, at)| *at < keep_from) {
            self.markers.pop_front();
        }
    }
}
