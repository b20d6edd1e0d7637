//! Decides which copy of a message counts. Redis sends one for each interest that matches. Pure; owned by the listener.
//!
//! It is decided by what all dispatchers of the group have in common, so all count the same.

use crate::ledger::interests::{Interests, Owner};
use crate::ledger::keys::Keys;

/// See the module's text.
#[derive(Default)]
pub(super) struct Copies {
    /// The channel of the last message, and its owner. The copies of one message come one after the other.
    last: (Vec<u8>, Option<Owner>),
    /// Copies that did not count because another interest owns the message.
    overlaps: u64,
}

impl Copies {
    /// Whether this copy counts. Patterns may match the group's own channels, too.
    pub(super) fn count(&mut self, interests: &Interests, keys: &Keys, pattern: Option<&[u8]>, channel: &[u8]) -> bool {
        if self.last.0 != channel {
            self.last.0.clear();
            self.last.0.extend_from_slice(channel);
            self.last.1 = interests.owner(channel);
        }
        if pattern.is_some() && keys.is_own_channel(channel) {
            return false;
        }
        let owned = interests.is_owners(self.last.1, pattern);
        self.overlaps += u64::from(!owned);
        owned
    }

    /// How many copies have not counted since the last call because another interest owns the message.
    pub(super) fn take_overlaps(&mut self) -> u64 {
        std::mem::take(&mut self.overlaps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::interests::Glob;

    #[test]
    fn copies_of_other_interests_are_overlaps_and_the_groups_own_channels_are_not() {
        let globs = ["orders.*", "*"].map(|text| Glob::parse(text.as_bytes()).expect("a pattern")).to_vec();
        let interests = Interests::of(vec![b"orders.eu".to_vec()], globs).expect("good ones");
        let (keys, mut copies) = (Keys::new("messages"), Copies::default());
        let mut count = |pattern: Option<&str>, channel: &str| {
            copies.count(&interests, &keys, pattern.map(str::as_bytes), channel.as_bytes())
        };
        assert!(count(None, "orders.eu") && !count(Some("orders.*"), "orders.eu") && !count(Some("*"), "orders.eu"));
        assert!(count(Some("orders.*"), "orders.us") && !count(Some("*"), "orders.us"));
        assert!(!count(Some("*"), "messages:control") && !count(Some("*"), "messages:shadow:s-012345"));
        assert_eq!((copies.take_overlaps(), copies.take_overlaps()), (3, 0));
    }
}
