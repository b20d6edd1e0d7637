//! Gathers dead letters and their reasons for the log.
//!
//! Pure; time is passed in. A dead letter is logged within [`LOG_WITHIN`], whether or not more follow. Each of the
//! first few reasons gets a line with the number of dead letters and the id of one of them. All other reasons share a
//! line.

use std::time::{Duration, Instant};

use crate::base::id::MessageId;
use crate::base::log_sum::{LogPace, LogSum, Sum};

/// How long a dead letter waits to be logged together with others.
const LOG_WITHIN: Duration = Duration::from_secs(1);
/// The most reasons with a line of their own.
const MOST_REASONS: usize = 4;
/// How many characters of a reason are logged and compared.
const MOST_REASON_CHARS: usize = 160;
/// Stands for all reasons beyond those.
const OTHER_REASONS: &str = "(other reasons)";

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct DeadLetterLog(Vec<(Box<str>, LogSum<MessageId>)>);

/// Messages that were dead-lettered for one reason.
pub(super) type DeadLetters = (Box<str>, Sum<MessageId>);

impl DeadLetterLog {
    /// This message was dead-lettered for this reason.
    pub(super) fn note(&mut self, id: MessageId, reason: &str, now: Instant) {
        let reason = match reason.char_indices().nth(MOST_REASON_CHARS) {
            Some((end, _)) => &reason[..end],
            None => reason,
        };
        let is_known = |reason: &str| self.0.iter().any(|(known, _)| **known == *reason);
        let reason = if self.0.len() >= MOST_REASONS && !is_known(reason) { OTHER_REASONS } else { reason };
        if !is_known(reason) {
            self.0.push((reason.into(), LogSum::new(LogPace::Gather(LOG_WITHIN), now)));
        }
        let sum = self.0.iter_mut().find(|(known, _)| **known == *reason);
        sum.into_iter().for_each(|(_, sum)| sum.add(id, now));
    }

    /// What to log now, oldest first.
    pub(super) fn due(&mut self, now: Instant) -> Vec<DeadLetters> {
        self.drain(|sum| sum.due(now))
    }

    /// All that has not been logged.
    pub(super) fn rest(&mut self) -> Vec<DeadLetters> {
        self.drain(LogSum::rest)
    }

    fn drain(&mut self, take: impl Fn(&mut LogSum<MessageId>) -> Option<Sum<MessageId>>) -> Vec<DeadLetters> {
        let mut taken = Vec::new();
        self.0.retain_mut(|(reason, sum)| match take(sum) {
            Some(sum) => {
                taken.push((std::mem::take(reason), sum));
                false
            }
            None => true,
        });
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(letters: Vec<DeadLetters>) -> Vec<(u64, String, u64)> {
        letters.into_iter().map(|(reason, sum)| (sum.count, reason.into(), sum.example.0)).collect()
    }

    #[test]
    fn a_dead_letter_is_logged_within_a_second_also_if_none_follows() {
        let mut log = DeadLetterLog::default();
        let begin = Instant::now();
        assert!(log.due(begin + LOG_WITHIN).is_empty(), "there was none");
        for id in 1..=13 {
            log.note(MessageId(id), "no such customer", begin + Duration::from_millis(id * 50));
        }
        assert!(log.due(begin + LOG_WITHIN).is_empty(), "counted from the first");
        let due = log.due(begin + Duration::from_millis(50) + LOG_WITHIN);
        assert_eq!(lines(due), [(13, "no such customer".to_owned(), 13)]);
        assert!(log.due(begin + 2 * LOG_WITHIN).is_empty(), "logged once");
        log.note(MessageId(14), "another", begin + 2 * LOG_WITHIN);
        assert!(log.due(begin + 2 * LOG_WITHIN).is_empty(), "a new second begins");
        assert_eq!(lines(log.rest()), [(1, "another".to_owned(), 14)]);
    }

    #[test]
    fn each_of_a_few_reasons_has_its_own_count_and_example() {
        let mut log = DeadLetterLog::default();
        let now = Instant::now();
        for id in 0..100 {
            log.note(MessageId(id), &format!("no such customer: {}", id % 10), now);
        }
        let lines = lines(log.rest());
        assert_eq!(lines.len(), MOST_REASONS + 1);
        assert_eq!(lines[1], (10, "no such customer: 1".to_owned(), 91));
        assert_eq!(lines[MOST_REASONS], (60, OTHER_REASONS.to_owned(), 99));
    }

    #[test]
    fn long_reasons_are_cut_at_a_character() {
        let mut log = DeadLetterLog::default();
        let now = Instant::now();
        log.note(MessageId(1), &format!("{}a", "ü".repeat(MOST_REASON_CHARS)), now);
        log.note(MessageId(2), &format!("{}b", "ü".repeat(MOST_REASON_CHARS)), now);
        assert_eq!(lines(log.rest()), [(2, "ü".repeat(MOST_REASON_CHARS), 2)]);
    }
}
