//! Ids of messages, epochs and dispatchers.
//!
//! They are newtypes, so that an epoch can't be taken for a message id. Pure values; any thread may use them.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::time::{SystemTime, UNIX_EPOCH};

/// The largest id. Scores of sorted sets are doubles, which are exact up to 2^53.
pub const MAX_MESSAGE_ID: u64 = (1 << 53) - 1;

/// The largest id that is accepted from Redis. Ids follow the clock, which stays below half of [`MAX_MESSAGE_ID`]. A
/// higher id was made by another program, and continuing from it could exhaust the ids.
pub const MAX_BELIEVED_ID: u64 = (1 << 53) / 4 * 3;

/// How many consecutive ids belong to epochs of one parity: those of about a millisecond. The next as many belong to
/// those of the other.
const ID_BLOCK: u64 = 1024;

/// A message's id: the time of its intake in microseconds since 1970, made strictly increasing.
///
/// Unique within a group, ordered by intake, and below 2^53 so that it is also the message's score.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub u64);

impl MessageId {
    /// The id before all others: no message has been stored yet.
    #[doc(hidden)]
    pub const ZERO: MessageId = MessageId(0);

    /// The next id that a leader of this epoch assigns after `self`: the wall clock's time if that is higher, else
    /// `self` plus one; about a millisecond later if ids of that millisecond belong to epochs of the other parity.
    ///
    /// So ids rise even if the clock is set back, and leaders of epochs with different parity never assign the same id.
    /// Epochs at a server and at the one that replaces it after a failover differ in parity (`ledger/lua/acquire.lua`).
    #[doc(hidden)]
    pub fn next(self, epoch: Epoch, now_us: u64) -> MessageId {
        let least = now_us.min(MAX_MESSAGE_ID / 2).max(self.0 + 1);
        let is_own = least / ID_BLOCK % 2 == epoch.0 % 2;
        MessageId(if is_own { least } else { (least / ID_BLOCK + 1) * ID_BLOCK })
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A message's id as it is written: 16 hexadecimal digits, in lower case.
#[doc(hidden)]
pub fn id_in(digits: &str) -> Option<MessageId> {
    let plain = digits.len() == 16 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    plain.then(|| u64::from_str_radix(digits, 16).ok().map(MessageId)).flatten()
}

/// A map keyed by message ids, for look-ups that are made for every message.
///
/// The hash keeps consecutive ids side by side. Consecutive messages are used together, so memory that was touched for
/// one is in the cache for the next. With many messages in flight that matters more than the cost of hashing: with the
/// standard hasher each look-up fetches its memory anew. The hash does not protect against ids chosen to collide. Only
/// consumers can send ids, and they are trusted.
pub type IdMap<V> = HashMap<MessageId, V, BuildHasherDefault<IdHasher>>;

/// A set of messages; see [`IdMap`].
pub type IdSet = HashSet<MessageId, BuildHasherDefault<IdHasher>>;

/// The hasher of an [`IdMap`]; only for ids.
#[derive(Clone, Copy, Debug, Default)]
pub struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write_u64(&mut self, id: u64) {
        /// 2^64 divided by the golden ratio: odd, and without a pattern.
        const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
        /// 65 ms in microseconds. Each such period begins at a different place in the map, so that ids at regular
        /// intervals don't collide.
        const TIME_BITS: u32 = 16;
        /// The map takes the place from the low bits of the hash, and compares the high bits before it compares ids.
        const TAG: u64 = 0x7f << 57;
        let begin = (id >> TIME_BITS).wrapping_mul(FACTOR) >> 32;
        let tag = id.wrapping_mul(FACTOR) & TAG;
        self.0 = tag | (id.wrapping_add(begin) & !TAG);
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("an id is one u64");
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// A term of leadership. Higher is newer; 0 means "none yet".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

impl Epoch {
    /// Whether this epoch is possible when Redis's clock is at `now_ms`, in milliseconds since 1970. Epochs follow that
    /// clock, so one far ahead of it is false.
    pub fn is_plausible(self, now_ms: u64) -> bool {
        const MOST_AHEAD_MS: u64 = 24 * 3600 * 1000;
        self.0 <= now_ms.saturating_add(MOST_AHEAD_MS)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A dispatcher process: its configured name and a random suffix made at each start.
///
/// The suffix distinguishes a restarted dispatcher from its dead predecessor. An id has no spaces, because spaces
/// separate the words of the lease and of notices.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DispatcherId(String);

impl DispatcherId {
    /// A new id for a process that starts.
    pub fn generate(name: &str) -> DispatcherId {
        DispatcherId(format!("{name}-{:06x}", fastrand::u32(..1 << 24)))
    }

    /// Whether a text has the form of a dispatcher's id.
    pub fn is_one(text: &str) -> bool {
        let suffix = text.rsplit_once('-').map(|(_, suffix)| suffix);
        let made_here = suffix
            .is_some_and(|suffix| suffix.len() == 6 && suffix.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')));
        made_here && DispatcherId::may_be_named(text)
    }

    /// Whether a dispatcher may have this name. Channels under `alive:` belong to the group `<group>:alive`.
    pub fn may_be_named(name: &str) -> bool {
        !name.starts_with("alive:")
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DispatcherId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Microseconds since 1970 by this machine's wall clock; 0 for a clock before that.
pub fn wall_clock_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_micros() as u64)
}

#[cfg(test)]
mod tests {
    use std::hash::Hash;

    use super::*;

    const EVEN: Epoch = Epoch(6);
    const ODD: Epoch = Epoch(7);

    #[test]
    fn ids_rise_even_when_the_clock_does_not() {
        let first = MessageId::ZERO.next(EVEN, 1_000);
        assert_eq!(first, MessageId(1_000));
        assert_eq!(first.next(EVEN, 1_000), MessageId(1_001));
        assert_eq!(first.next(EVEN, 5), MessageId(1_001));
        assert_eq!(first.next(EVEN, 2_500), MessageId(2_500));
    }

    #[test]
    fn leaders_of_epochs_with_another_parity_assign_other_ids() {
        let ids = |epoch: Epoch| {
            let times = (0..3 * ID_BLOCK).map(|us| 1_764_000_000_000_000 + us / 3);
            let next = |last: &mut MessageId, us| {
                *last = last.next(epoch, us);
                Some(*last)
            };
            times.scan(MessageId::ZERO, next).collect::<HashSet<_>>()
        };
        let (even, odd) = (ids(EVEN), ids(ODD));
        assert!(even.len() == 3 * ID_BLOCK as usize && even.is_disjoint(&odd));
        assert_eq!(even, ids(Epoch(EVEN.0 + 2)));
        for us in [1_764_000_000_000_000, 1_764_000_000_001_024] {
            let ahead = [EVEN, ODD].map(|epoch| MessageId::ZERO.next(epoch, us).0 - us);
            assert!(ahead.contains(&0) && ahead.iter().all(|ahead| *ahead <= ID_BLOCK), "{ahead:?}");
        }
    }

    #[test]
    fn ids_stay_in_the_exact_range_whatever_the_clock_says() {
        assert!(MessageId::ZERO.next(ODD, u64::MAX).0 < MAX_MESSAGE_ID);
    }

    fn hashes(ids: impl Iterator<Item = u64>) -> Vec<u64> {
        let hash = |id| {
            let mut hasher = IdHasher::default();
            MessageId(id).hash(&mut hasher);
            hasher.finish()
        };
        ids.map(hash).collect()
    }

    /// The low bits select the place in a map, the high ones are the tag that is compared there.
    #[test]
    fn ids_spread_over_a_map_whatever_their_intervals() {
        const PLACES: u64 = 8_192;
        let first = 1_764_000_000_000_000;
        for step in [1, 2, 5, 8, 1_000, 1 << 12, 1 << 16, 1_000_000] {
            let hashes = hashes((0..PLACES / 2).map(|number| first + number * step));
            let most_at = |part: &dyn Fn(u64) -> u64, parts: u64| {
                let mut counts = vec![0; parts as usize];
                hashes.iter().for_each(|hash| counts[part(*hash) as usize] += 1);
                counts.into_iter().max().expect("there are parts")
            };
            // The map probes 16 places at once.
            let most = most_at(&|hash| hash % PLACES / 16, PLACES / 16);
            assert!(most <= 64, "{most} beside each other, step {step}");
            let most = most_at(&|hash| hash >> 57, 128);
            assert!(most <= 128, "{most} with one tag, step {step}");
        }
    }

    #[test]
    fn consecutive_ids_are_side_by_side() {
        let first = 1_764_000_000_000_000 >> 16 << 16;
        let hashes = hashes(first..first + 1_000);
        assert!(hashes.windows(2).all(|pair| pair[1].wrapping_sub(pair[0]) % (1 << 32) == 1));
    }

    #[test]
    fn dispatchers_with_one_name_have_different_ids() {
        assert_ne!(DispatcherId::generate("d0"), DispatcherId::generate("d0"));
    }
}
