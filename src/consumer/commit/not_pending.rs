//! Counts first deliveries that were no longer pending when they were to be recorded, and limits how often they are
//! logged.
//!
//! One such message is harmless: another consumer recorded it first. Many mean that this consumer uses a different
//! Redis than its dispatchers, or that the messages were removed by other means. The committer owns two of these
//! counts: one for messages that the script found missing, one for messages recorded without a check.
//!
//! Guarantees: The first is logged immediately. Later ones are logged as a count, at most one line per [`LOG_EVERY`].
//! Limitation: messages that are not yet logged when the consumer stops appear only in the metric.

use std::time::{Duration, Instant};

use crate::base::id::MessageId;

/// The shortest interval between two log lines.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct NotPending {
    /// The messages not logged yet: how many, and one of them.
    unlogged: Option<(usize, MessageId)>,
    logged: Option<Instant>,
}

impl NotPending {
    /// Adds `count` messages, of which `example` is one.
    pub(super) fn add(&mut self, count: usize, example: MessageId) {
        let (before, example) = self.unlogged.unwrap_or((0, example));
        self.unlogged = Some((before + count, example));
    }

    /// How many messages to log now, and one of them.
    pub(super) fn due(&mut self, now: Instant) -> Option<(usize, MessageId)> {
        let is_time = self.logged.is_none_or(|logged| now.saturating_duration_since(logged) >= LOG_EVERY);
        let due = self.unlogged.take_if(|_| is_time)?;
        self.logged = Some(now);
        Some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_logged_at_once_and_the_others_as_a_count() {
        let (mut count, began) = (NotPending::default(), Instant::now());
        assert_eq!(count.due(began), None);
        count.add(1, MessageId(7));
        assert_eq!(count.due(began), Some((1, MessageId(7))));
        count.add(2, MessageId(8));
        count.add(1, MessageId(10));
        assert_eq!(count.due(began + LOG_EVERY / 2), None);
        assert_eq!(count.due(began + LOG_EVERY), Some((3, MessageId(8))));
        assert_eq!(count.due(began + 2 * LOG_EVERY), None);
    }
}
