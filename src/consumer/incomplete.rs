//! Results that wait for the others of their bundle.
//!
//! Redis removes a bundle as one member if the results of all its messages are recorded together. Handlers finish them
//! one after the other, so results are kept here until the last one has come, for at most [`HOLD`]. After that, and if
//! a message of the bundle has no result, those that are there are recorded by the script, which takes the bundle
//! apart. Pure; owned by an outlet's mutex.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::finished::{Finished, Ready};
use crate::base::bundle::{BUNDLE_MESSAGES, BundlePosition};
use crate::base::id::MessageId;
use crate::ledger::MAX_BATCH_BYTES;

/// How long a result waits for the others of its bundle. Longer than a fast handler takes for all of them, also if it
/// is interrupted on a machine that is fully used. Messages are bundled only where they arrive by the hundred and most
/// are recorded whole, so a slow handler's results are late by so much now and then.
const HOLD: Duration = Duration::from_millis(10);

/// See the module's text.
#[derive(Default)]
pub(super) struct Incomplete {
    /// By the first id of the bundle.
    bundles: BTreeMap<MessageId, Begun>,
    bytes: usize,
}

/// A bundle of which some results are there.
struct Begun {
    since: Instant,
    /// A bit for each position whose result is there.
    there: u16,
    results: Vec<Finished>,
}

const _: () = assert!(BUNDLE_MESSAGES <= u16::BITS as usize);

impl Incomplete {
    /// Whether results wait.
    pub(super) fn is_empty(&self) -> bool {
        self.bundles.is_empty()
    }

    /// How many results wait.
    pub(super) fn len(&self) -> usize {
        self.bundles.values().map(|begun| begun.results.len()).sum()
    }

    /// Takes in a result. Returns what need not wait: the whole bundle if this was the last result of it, or the result
    /// itself if its message is in no bundle.
    pub(super) fn add(&mut self, finished: Finished, now: Instant) -> Option<Ready> {
        let place = |position: BundlePosition| Some((position, position.first_of(finished.commit.id)?));
        let Some((position, first)) = finished.body.position().and_then(place) else {
            return Some(Ready::One(finished));
        };
        let begun = self.bundles.entry(first).or_insert_with(|| Begun {
            since: now,
            there: 0,
            results: Vec::with_capacity(BUNDLE_MESSAGES),
        });
        let bit = 1 << position.number();
        if begun.there & bit != 0 {
            // From a run of this message that was given up, and from a later one.
            return Some(Ready::One(finished));
        }
        begun.there |= bit;
        self.bytes += finished.commit.bytes();
        begun.results.push(finished);
        let is_whole = begun.results.len() == BUNDLE_MESSAGES;
        is_whole.then(|| Ready::Bundle(self.take(first)))
    }

    /// When results must be recorded, whatever else comes.
    pub(super) fn due(&self) -> Option<Instant> {
        self.bundles.values().map(|begun| begun.since + HOLD).min()
    }

    /// Takes out the results that have waited for long enough, or all if they are large.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<Finished> {
        let all = self.bytes > MAX_BATCH_BYTES;
        let due = self.bundles.iter().filter(|(_, begun)| all || begun.since + HOLD <= now);
        let due: Vec<MessageId> = due.map(|(first, _)| *first).collect();
        due.into_iter().flat_map(|first| self.take(first)).collect()
    }

    /// Takes out everything.
    pub(super) fn take_all(&mut self) -> Vec<Finished> {
        std::mem::take(self).bundles.into_values().flat_map(|begun| begun.results).collect()
    }

    fn take(&mut self, first: MessageId) -> Vec<Finished> {
        let Some(begun) = self.bundles.remove(&first) else { return Vec::new() };
        self.bytes -= begun.results.iter().map(|finished| finished.commit.bytes()).sum::<usize>();
        begun.results
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::budget::Budget;
    use crate::base::id::Epoch;
    use crate::ledger::{Body, Commit};

    /// A result of `bytes` bytes for the message at this position of the bundle that begins with `first`.
    fn result(first: u64, position: u8, bytes: usize) -> Finished {
        let mut body = Body::copied(None, b"x");
        body.set_position(BundlePosition::new(position));
        let id = MessageId(first + u64::from(position));
        let fields = [vec![0; bytes], Vec::new()].into_iter().collect();
        let _shares = [1, 2].map(|_| Budget::new(0).take(0));
        Finished { commit: Commit { id, fields }, body, number: 1, epoch: Epoch(1), link: 1, _shares }
    }

    fn ids(results: Vec<Finished>) -> Vec<u64> {
        results.into_iter().map(|finished| finished.commit.id.0).collect()
    }

    /// What is ready after this result.
    fn added(incomplete: &mut Incomplete, finished: Finished, now: Instant) -> Vec<u64> {
        match incomplete.add(finished, now) {
            None | Some(Ready::Look) => Vec::new(),
            Some(Ready::One(finished)) => ids(vec![finished]),
            Some(Ready::Bundle(results)) => ids(results),
        }
    }

    #[test]
    fn a_bundle_waits_for_its_last_result_and_others_do_not() {
        let (mut incomplete, now) = (Incomplete::default(), Instant::now());
        for position in (1..16).rev() {
            assert!(added(&mut incomplete, result(100, position, 1), now).is_empty());
        }
        assert_eq!(added(&mut incomplete, result(200, 16, 1), now), [216], "it is in no bundle");
        assert_eq!(added(&mut incomplete, result(100, 3, 1), now), [103], "it is here already");
        assert_eq!(incomplete.len(), 15);
        let mut whole = added(&mut incomplete, result(100, 0, 1), now);
        whole.sort_unstable();
        assert_eq!(whole, (100..116).collect::<Vec<_>>());
        assert_eq!((incomplete.is_empty(), incomplete.bytes, incomplete.due()), (true, 0, None));
    }

    #[test]
    fn results_do_not_wait_for_ever() {
        let (mut incomplete, now) = (Incomplete::default(), Instant::now());
        added(&mut incomplete, result(100, 0, 1), now);
        let later = now + HOLD / 2;
        added(&mut incomplete, result(200, 0, 1), later);
        assert_eq!(incomplete.due(), Some(now + HOLD));
        assert_eq!(ids(incomplete.take_due(later)), [0; 0]);
        assert_eq!(ids(incomplete.take_due(now + HOLD)), [100]);
        assert_eq!(incomplete.due(), Some(later + HOLD));
        added(&mut incomplete, result(300, 0, MAX_BATCH_BYTES), later);
        assert_eq!(ids(incomplete.take_due(later)), [200, 300], "they are large");
        added(&mut incomplete, result(400, 0, 1), later);
        assert_eq!(ids(incomplete.take_all()), [400]);
        assert_eq!((incomplete.len(), incomplete.bytes), (0, 0));
    }
}
