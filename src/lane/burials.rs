//! Which messages were buried and why, gathered for the log.
//!
//! Pure; time is passed in. What is buried is told within [`SAY_WITHIN`], whether or not more follows: how many, for each
//! of a few reasons, each with the id of one that was buried for it. More reasons than that are told in sum.

use std::time::{Duration, Instant};

use crate::base::id::MessageId;

/// How long a burial waits to be told together with others.
const SAY_WITHIN: Duration = Duration::from_secs(1);
/// The most reasons that are told one by one.
const MOST_REASONS: usize = 4;
/// Of a reason this much is told, and makes it different from others.
const MOST_REASON_CHARS: usize = 160;
/// What stands for all reasons beyond those.
const OTHER_REASONS: &str = "(other reasons)";

/// Messages that were buried for one reason.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Burial {
    pub(super) messages: usize,
    pub(super) reason: Box<str>,
    /// One of them: the first.
    pub(super) example: MessageId,
}

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Burials {
    /// When the first was buried that has not been told.
    since: Option<Instant>,
    untold: Vec<Burial>,
}

impl Burials {
    /// This message was buried for this reason.
    pub(super) fn note(&mut self, id: MessageId, reason: &str, now: Instant) {
        self.since.get_or_insert(now);
        let reason = match reason.char_indices().nth(MOST_REASON_CHARS) {
            Some((end, _)) => &reason[..end],
            None => reason,
        };
        let is_full = self.untold.len() >= MOST_REASONS;
        let known = self.untold.iter().position(|burial| *burial.reason == *reason);
        let reason = if known.is_none() && is_full { OTHER_REASONS } else { reason };
        match self.untold.iter_mut().find(|burial| *burial.reason == *reason) {
            Some(burial) => burial.messages += 1,
            None => self.untold.push(Burial { messages: 1, reason: reason.into(), example: id }),
        }
    }

    /// What is to be told now, in the order in which it began.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Burial> {
        match self.since {
            Some(since) if now.saturating_duration_since(since) >= SAY_WITHIN => self.take(),
            _ => Vec::new(),
        }
    }

    /// All that has not been told.
    pub(super) fn take(&mut self) -> Vec<Burial> {
        self.since = None;
        std::mem::take(&mut self.untold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(burials: Vec<Burial>) -> Vec<(usize, String, u64)> {
        burials.into_iter().map(|burial| (burial.messages, burial.reason.into(), burial.example.0)).collect()
    }

    #[test]
    fn what_is_buried_is_told_within_a_second_also_if_nothing_follows() {
        let mut burials = Burials::default();
        let begin = Instant::now();
        assert!(burials.due(begin + SAY_WITHIN).is_empty(), "nothing was buried");
        for id in 1..=13 {
            burials.note(MessageId(id), "no such customer", begin + Duration::from_millis(id * 50));
        }
        assert!(burials.due(begin + SAY_WITHIN).is_empty(), "counted from the first");
        let due = burials.due(begin + Duration::from_millis(50) + SAY_WITHIN);
        assert_eq!(told(due), [(13, "no such customer".to_owned(), 1)]);
        assert!(burials.due(begin + 2 * SAY_WITHIN).is_empty(), "told once");
        burials.note(MessageId(14), "another", begin + 2 * SAY_WITHIN);
        assert!(burials.due(begin + 2 * SAY_WITHIN).is_empty(), "a new second begins");
        assert_eq!(told(burials.take()), [(1, "another".to_owned(), 14)]);
    }

    #[test]
    fn each_reason_has_its_own_count_and_example_and_there_are_few() {
        let mut burials = Burials::default();
        let now = Instant::now();
        for id in 0..100 {
            burials.note(MessageId(id), &format!("no such customer: {}", id % 10), now);
        }
        let told = told(burials.take());
        assert_eq!(told.len(), MOST_REASONS + 1);
        assert_eq!(told[1], (10, "no such customer: 1".to_owned(), 1));
        assert_eq!(told[MOST_REASONS], (60, OTHER_REASONS.to_owned(), 4));
    }

    #[test]
    fn long_reasons_are_cut_at_a_character() {
        let mut burials = Burials::default();
        let now = Instant::now();
        burials.note(MessageId(1), &format!("{}a", "ü".repeat(MOST_REASON_CHARS)), now);
        burials.note(MessageId(2), &format!("{}b", "ü".repeat(MOST_REASON_CHARS)), now);
        assert_eq!(told(burials.take()), [(2, "ü".repeat(MOST_REASON_CHARS), 1)]);
    }
}
