//! Counts messages that were not pending any more although they were delivered for the first time, and says so now and
//! then.
//!
//! One such message is nothing: somebody else was first. Many mean that this consumer looks into another Redis than the
//! one that its dispatchers keep messages in, or that somebody has removed the messages. Owned by the committer, which
//! has one for what the script found and one for what was recorded without looking.
//!
//! Guarantees: the first is told at once, all later ones in sum, at most one line in [`SAY_EVERY`]. Limitation: what
//! was not told yet when the consumer stops is told by the counter alone.

use std::time::{Duration, Instant};

use crate::base::id::MessageId;

/// How often it is said.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct NotPending {
    /// What was not said yet: how many, and one of them.
    unsaid: Option<(usize, MessageId)>,
    said: Option<Instant>,
}

impl NotPending {
    /// There are so many more, and this is one of them.
    pub(super) fn add(&mut self, count: usize, example: MessageId) {
        let (before, example) = self.unsaid.unwrap_or((0, example));
        self.unsaid = Some((before + count, example));
    }

    /// How many to tell of now, and one of them.
    pub(super) fn due(&mut self, now: Instant) -> Option<(usize, MessageId)> {
        let is_time = self.said.is_none_or(|said| now.saturating_duration_since(said) >= SAY_EVERY);
        let due = self.unsaid.take_if(|_| is_time)?;
        self.said = Some(now);
        Some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_at_once_and_the_others_in_sum() {
        let (mut told, began) = (NotPending::default(), Instant::now());
        assert_eq!(told.due(began), None);
        told.add(1, MessageId(7));
        assert_eq!(told.due(began), Some((1, MessageId(7))));
        told.add(2, MessageId(8));
        told.add(1, MessageId(10));
        assert_eq!(told.due(began + SAY_EVERY / 2), None);
        assert_eq!(told.due(began + SAY_EVERY), Some((3, MessageId(8))));
        assert_eq!(told.due(began + 2 * SAY_EVERY), None);
    }
}
