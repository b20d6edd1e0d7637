//! Bundles: so many messages with consecutive ids that Redis keeps as one member of the sorted set.
//!
//! Pure values; any thread may use them. `ledger/member.rs` says how a bundle is written, docs/ARCHITECTURE.md why
//! there are bundles and what keeps them whole.

use crate::base::id::MessageId;

/// The messages of a bundle. Always as many, so that the number of messages follows from the number of bundles.
pub const BUNDLE_MESSAGES: usize = 16;

/// The most bytes of their channels and payloads. Larger ones would cost Redis more to take apart than bundles save.
pub const MAX_BUNDLE_BYTES: usize = 16 << 10;

/// Which message of its bundle a message is, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BundlePosition(u8);

impl BundlePosition {
    /// `None`: a bundle has fewer messages.
    pub fn new(position: u8) -> Option<BundlePosition> {
        (usize::from(position) < BUNDLE_MESSAGES).then_some(BundlePosition(position))
    }

    /// All of a bundle, in order.
    pub fn all() -> impl Iterator<Item = BundlePosition> {
        (0..BUNDLE_MESSAGES as u8).map(BundlePosition)
    }

    /// The number on the wire.
    pub fn number(self) -> u8 {
        self.0
    }

    /// Whether the bundle begins with this message.
    pub fn is_first(self) -> bool {
        self.0 == 0
    }

    /// The id with which the bundle begins in which message `id` has this position; `None` if there can't be one.
    pub fn first_of(self, id: MessageId) -> Option<MessageId> {
        id.0.checked_sub(self.0.into()).map(MessageId)
    }
}

/// How many messages at the beginning of `messages` are one whole bundle: all or none.
pub fn whole<T>(messages: &[T], message: impl Fn(&T) -> (MessageId, Option<BundlePosition>)) -> usize {
    let Some(part) = messages.get(..BUNDLE_MESSAGES) else { return 0 };
    let first = message(&part[0]).0;
    let ids = (first.0..).map(MessageId);
    let expected = ids.zip(BundlePosition::all().map(Some));
    if part.iter().map(&message).eq(expected) { BUNDLE_MESSAGES } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_is_whole_if_all_its_messages_follow_one_another() {
        let message = |message: &(u64, u8)| (MessageId(message.0), BundlePosition::new(message.1));
        let mut messages: Vec<(u64, u8)> = (0..16).map(|at| (100 + u64::from(at), at)).collect();
        assert_eq!(whole(&messages, message), 16);
        assert_eq!(whole(&messages[1..], message), 0);
        assert_eq!(whole(&messages[..15], message), 0);
        messages[7].1 = 16;
        assert_eq!(whole(&messages, message), 0, "it is kept alone");
        messages[7] = (108, 7);
        assert_eq!(whole(&messages, message), 0);
    }

    #[test]
    fn a_position_names_the_first_message() {
        let position = BundlePosition::new(15).expect("the last one");
        assert_eq!(position.first_of(MessageId(115)), Some(MessageId(100)));
        assert_eq!(position.first_of(MessageId(14)), None);
        assert_eq!(BundlePosition::new(16), None);
    }
}
