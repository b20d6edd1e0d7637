//! Whether ingest stores messages in bundles now.
//!
//! A bundle costs Redis less than its messages alone, if all their results are recorded together. If they are not, it
//! is taken apart, which costs more. So messages are bundled only
//!
//! - if many arrive together: with few, bundles would save nothing, and their results would wait for each other;
//! - if every linked consumer records results itself and removes bundles as a whole;
//! - as long as most bundles are recorded as a whole. The courier sees that in the ACKs. If most are not, as with slow
//!   handlers, none are made for a while; then a few show whether that has changed.
//!
//! Nothing depends on this for being right: what is in a bundle is recorded once, whoever receives it. Written by the
//! courier, read by ingest.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use super::link::Link;
use crate::base::bundle::BUNDLE_MESSAGES;
use crate::base::id::MessageId;
use crate::lane::places::TakenPlace;

/// The fewest messages in a batch that are bundled.
const MANY: usize = 4 * BUNDLE_MESSAGES;
/// The most that whole bundles are remembered, in messages.
const MOST_CREDIT: i64 = 4_096;
/// The most that others are remembered. Each message that arrives alone makes up for one, so that after so many others
/// bundles are tried again.
const MOST_DEBT: i64 = 100_000;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Bundling {
    is_on: bool,
    /// Whether all linked consumers remove bundles as a whole.
    understood: AtomicBool,
    /// Messages recorded in whole bundles, less those of others, within bounds. Below 0 none are made.
    credit: AtomicI64,
}

impl Bundling {
    /// `is_on`: whether the settings allow bundles.
    pub(super) fn new(is_on: bool) -> Bundling {
        Bundling { is_on, understood: AtomicBool::new(true), credit: AtomicI64::new(0) }
    }

    /// Whether a batch of so many messages is bundled.
    pub(super) fn suits(&self, messages: usize) -> bool {
        let pays = self.credit.load(Ordering::Relaxed) >= 0;
        if self.is_on && !pays {
            self.change(messages as i64);
        }
        self.is_on && pays && messages >= MANY && self.understood.load(Ordering::Relaxed)
    }

    /// These consumers are linked.
    pub(super) fn note_links<'a>(&self, mut links: impl Iterator<Item = &'a Link>) {
        self.understood.store(links.all(|link| link.flags.commits() && link.flags.takes_bundles()), Ordering::Relaxed);
    }

    /// A consumer has recorded the results of these messages together.
    pub(super) fn note_recorded(&self, recorded: &Recorded) {
        if recorded.bundled > 0 {
            let whole = (recorded.whole * BUNDLE_MESSAGES) as i64;
            self.change(2 * whole - recorded.bundled as i64);
        }
    }

    /// Only the courier and ingest change it, and what one of them overwrites matters little.
    fn change(&self, by: i64) {
        let changed = self.credit.load(Ordering::Relaxed) + by;
        self.credit.store(changed.clamp(-MOST_DEBT, MOST_CREDIT), Ordering::Relaxed);
    }
}

/// The messages of one ACK that were in bundles.
#[derive(Debug, Default)]
pub(super) struct Recorded {
    bundled: usize,
    whole: usize,
    /// How many messages of a bundle have come so far, and the next id.
    begun: Option<(usize, MessageId)>,
}

impl Recorded {
    /// The next message of the ACK, and the place that it had.
    pub(super) fn add(&mut self, id: MessageId, held: &TakenPlace) {
        let Some(position) = held.position else {
            self.begun = None;
            return;
        };
        self.bundled += 1;
        let begun = match self.begun {
            _ if position.is_first() => 1,
            Some((count, next)) if next == id && usize::from(position.number()) == count => count + 1,
            _ => 0,
        };
        self.whole += usize::from(begun == BUNDLE_MESSAGES);
        self.begun = (begun > 0).then(|| (begun, MessageId(id.0.wrapping_add(1))));
    }
}
