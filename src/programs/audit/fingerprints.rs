//! Ids as 128-bit fingerprints, and look-ups in sorted lists of them. Pure.

use std::hash::{DefaultHasher, Hasher};

/// The fingerprint of an id.
pub(super) type Fingerprint = u128;

/// Two hashes of the standard library, with fixed keys and different prefixes.
pub(super) fn fingerprint(id: &[u8]) -> Fingerprint {
    let half = |begin: u64| {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(begin);
        hasher.write(id);
        u128::from(hasher.finish())
    };
    half(0x6f6e_6365) << 64 | half(0x6361_7374)
}

/// The fingerprints that occur more than once in a sorted list, each with its number of occurrences.
pub(super) fn repeated(sorted: &[Fingerprint]) -> impl Iterator<Item = (Fingerprint, u64)> {
    sorted.chunk_by(|a, b| a == b).filter(|run| run.len() > 1).map(|run| (run[0], run.len() as u64))
}

/// Looks up ascending fingerprints in a sorted list, in one pass through it.
pub(super) struct Walk<'a> {
    rest: &'a [Fingerprint],
}

impl Walk<'_> {
    pub(super) fn new(sorted: &[Fingerprint]) -> Walk<'_> {
        Walk { rest: sorted }
    }

    /// Whether the list has this fingerprint, which must not be less than the one of the call before.
    pub(super) fn has(&mut self, print: Fingerprint) -> bool {
        while let Some((first, rest)) = self.rest.split_first() {
            if *first >= print {
                return *first == print;
            }
            self.rest = rest;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_differ_in_both_halves() {
        let (a, b) = (fingerprint(b"id-1"), fingerprint(b"id-2"));
        assert_eq!(a, fingerprint(b"id-1"));
        assert!(a >> 64 != b >> 64 && a as u64 != b as u64 && a >> 64 != u128::from(a as u64));
    }

    #[test]
    fn sorted_lists_are_compared() {
        assert_eq!(repeated(&[1, 1, 2, 3, 3, 3, 4]).collect::<Vec<_>>(), [(1, 2), (3, 3)]);
        assert_eq!(repeated(&[]).count(), 0);
        let mut walk = Walk::new(&[2, 4, 4, 6]);
        let found: Vec<_> = [0, 2, 2, 3, 4, 6, 7, 7].into_iter().filter(|print| walk.has(*print)).collect();
        assert_eq!(found, [2, 2, 4, 6]);
        assert!(!Walk::new(&[]).has(1));
    }
}
