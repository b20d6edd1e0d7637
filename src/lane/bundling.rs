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
//! Nothing depends on this for being right: what is in a bundle is recorded once, whoever receives it. Shared by the
//! courier, which notes links and ACKs, and ingest, which asks.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use super::link::Link;
use crate::base::bundle::BUNDLE_MESSAGES;
use crate::base::id::MessageId;
use crate::lane::places::TakenPlace;

/// The fewest messages in a batch that are bundled.
const MANY: usize = 4 * BUNDLE_MESSAGES;
/// How many messages in whole bundles save as much as one message costs whose bundle is taken apart. It is more than
/// measured, so that where bundles don't pay, few are made.
const COST_OF_A_PART: i64 = 8;
/// The most that whole bundles are remembered, in messages.
const MOST_CREDIT: i64 = 4_096;
/// The most that costs are remembered. Each message that is stored alone makes up for one, so after so many messages at
/// the latest bundles are tried again.
const MOST_DEBT: i64 = 100_000;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Bundling {
    is_on: bool,
    /// Whether all linked consumers remove bundles as a whole.
    understood: AtomicBool,
    /// What bundles have saved lately, in messages, less what they have cost. Below 0 none are made.
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
        self.understood.store(links.all(Link::removes_bundles), Ordering::Relaxed);
    }

    /// A consumer has recorded the results of these messages together.
    pub(super) fn note_recorded(&self, recorded: &Recorded) {
        if recorded.bundled > 0 {
            let whole = (recorded.whole * BUNDLE_MESSAGES) as i64;
            self.change(whole - COST_OF_A_PART * (recorded.bundled as i64 - whole));
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

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::base::bundle::BundlePosition;
    use crate::lane::places::Places;
    use crate::lane::tests::message;

    /// What an ACK says of messages with these ids, of which those from 100 on are bundled.
    fn acked(ids: impl Iterator<Item = u64>) -> Recorded {
        let (mut places, mut recorded, now) = (Places::new(1_000, false), Recorded::default(), Instant::now());
        for id in ids {
            let mut message = message(id, 1);
            let position = id.checked_sub(100).and_then(|at| BundlePosition::new((at % 16) as u8));
            message.body.set_position(position);
            places.give(&message, now);
            recorded.add(message.id, &places.answer(message.id).expect("it was given"));
        }
        recorded
    }

    #[test]
    fn bundles_count_as_whole_if_they_are_acknowledged_together() {
        let told = |recorded: Recorded| (recorded.bundled, recorded.whole);
        assert_eq!(told(acked([1, 2, 3].into_iter())), (0, 0));
        assert_eq!(told(acked((100..148).chain([5]))), (48, 3));
        assert_eq!(told(acked((98..131).chain(132..150))), (49, 2), "a part of the second is missing");
        assert_eq!(told(acked((101..116).chain([100]))), (16, 0), "these did not come as one range");
        assert_eq!(told(acked((100..108).chain([5]).chain(108..116))), (16, 0));
    }

    #[test]
    fn bundles_are_made_as_long_as_most_are_recorded_whole() {
        let bundling = Bundling::new(true);
        assert!(bundling.suits(MANY) && !bundling.suits(MANY - 1));
        (0..1_000).for_each(|_| bundling.note_recorded(&acked(100..116)));
        // A few that are not change nothing.
        (0..30).for_each(|_| bundling.note_recorded(&acked(100..110)));
        assert!(bundling.suits(MANY));
        (0..1_000).for_each(|_| bundling.note_recorded(&acked(100..110)));
        assert!(!bundling.suits(MANY));
        // After a while they are tried again.
        let tried = (0..100_000).take_while(|_| !bundling.suits(MANY)).count();
        assert!((50..=1 + MOST_DEBT as usize / MANY).contains(&tried), "{tried}");
    }

    #[test]
    fn bundles_need_consumers_that_remove_them_whole() {
        let bundling = Bundling::new(true);
        let (mut link, _peer) = crate::lane::tests::link(8);
        bundling.note_links([&link].into_iter());
        assert!(!bundling.suits(MANY));
        link.flags = link.flags.and(crate::wire::ReadyFlags::BUNDLES);
        bundling.note_links([&link].into_iter());
        assert!(bundling.suits(MANY));
        bundling.note_links(std::iter::empty());
        assert!(bundling.suits(MANY), "nobody is there who would mind");
        assert!(!Bundling::new(false).suits(MANY), "the settings forbid it");
    }
}
