//! What an order by key keeps of each key, and of the sweep that reads keys again. Pure.

use std::collections::VecDeque;
use std::hash::Hasher;

use crate::base::id::{IdSet, MessageId};
use crate::ledger::Pending;

/// The messages of one key. Almost all lines have one message in hand and no more, so what else there is is boxed.
#[derive(Default)]
pub(super) struct Line {
    pub(super) in_hand: u32,
    pub(super) rest: Option<Box<Rest>>,
}

#[derive(Default)]
pub(super) struct Rest {
    /// By id.
    pub(super) parked: VecDeque<Pending>,
    pub(super) cut: Option<Cut>,
}

impl Line {
    pub(super) fn cut(&self) -> Option<Cut> {
        self.rest.as_ref().and_then(|rest| rest.cut)
    }
}

/// The hasher of a map by key. The keys are hashes already.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("a key is one u64")
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// From where on a key's messages are left to Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    /// All messages of the key below this id are tracked or done.
    pub(super) from: MessageId,
    /// The last sweep that the key took part in, or the one during which it was cut.
    pub(super) sweep: u64,
    /// Whether it still takes part in that sweep.
    pub(super) open: bool,
    /// It found no room, and none of its messages has ended since.
    pub(super) stalled: bool,
}

#[derive(Default)]
pub(super) struct Rereading {
    pub(super) sweeps: u64,
    pub(super) sweep: Option<Sweep>,
    /// The sweep for which a page was asked for that has not arrived, and where that page ends.
    pub(super) awaited: Option<(u64, MessageId)>,
    /// Messages that ended since then: the page may still show them.
    pub(super) ended: IdSet,
}

pub(super) struct Sweep {
    pub(super) number: u64,
    /// It began after this id.
    pub(super) after: MessageId,
    /// It has read everything up to here.
    pub(super) at: MessageId,
    /// Where the page ends that is handed over, if it is read to its end.
    pub(super) page_end: MessageId,
    /// The keys that take part.
    pub(super) open: Vec<u64>,
}

impl Rereading {
    /// Whether the sweep reads the key's messages.
    pub(super) fn is_read(&self, cut: &Cut) -> bool {
        match &self.sweep {
            Some(sweep) if sweep.number == cut.sweep => cut.open,
            Some(sweep) => sweep.after < cut.from,
            None => false,
        }
    }

    /// A message has ended.
    pub(super) fn note_end(&mut self, id: MessageId) {
        if self.awaited.is_some() {
            self.ended.insert(id);
        }
    }
}
