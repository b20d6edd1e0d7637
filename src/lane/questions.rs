//! Questions of operators' tools where messages are, on their way from the listener to the courier.
//!
//! Every dispatcher hears them, and only a leader answers. Any client may publish on the control channel, and nothing
//! depends on an answer, so few are kept and the others are dropped: the tool asks again or goes without. They are
//! answered at intervals, so that asking costs the leader little, however often it is done. Without questions the
//! courier reads one flag in each iteration.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::ledger::Question;

/// The most questions that are kept.
const MOST_KEPT: usize = 16;
/// The shortest time between two answers.
const EVERY: Duration = Duration::from_millis(100);
/// Nobody waits for an answer any more after this time.
const OUTDATED_AFTER: Duration = Duration::from_secs(3);

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Questions {
    heard: Mutex<Heard>,
    /// Read by the courier in each iteration, without the lock.
    any: AtomicBool,
}

#[derive(Debug, Default)]
struct Heard {
    questions: Vec<(Question, Instant)>,
    /// When some were last taken.
    taken: Option<Instant>,
}

impl Questions {
    /// These were asked.
    pub(super) fn note(&self, questions: Vec<Question>) {
        let now = Instant::now();
        let mut heard = self.heard.lock();
        heard.questions.retain(|(_, at)| now.saturating_duration_since(*at) < OUTDATED_AFTER);
        let room = MOST_KEPT - heard.questions.len();
        heard.questions.extend(questions.into_iter().take(room).map(|question| (question, now)));
        self.any.store(true, Ordering::Release);
    }

    /// Takes the questions that should be answered now.
    pub(super) fn take(&self, now: Instant) -> Vec<Question> {
        if !self.any.load(Ordering::Acquire) {
            return Vec::new();
        }
        let mut heard = self.heard.lock();
        if heard.taken.is_some_and(|taken| now.saturating_duration_since(taken) < EVERY) {
            return Vec::new();
        }
        heard.taken = Some(now);
        self.any.store(false, Ordering::Release);
        let current = |(question, at): (Question, Instant)| {
            (now.saturating_duration_since(at) < OUTDATED_AFTER).then_some(question)
        };
        std::mem::take(&mut heard.questions).into_iter().filter_map(current).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::MessageId;
    use crate::ledger::RequestId;

    fn question(number: u64) -> Question {
        Question { request: RequestId(number), ids: vec![MessageId(number)] }
    }

    #[test]
    fn few_are_kept_and_answered_at_intervals() {
        let questions = Questions::default();
        let begin = Instant::now();
        assert_eq!(questions.take(begin), []);
        questions.note((0..100).map(question).collect());
        questions.note(vec![question(100)]);
        let now = Instant::now();
        assert_eq!(questions.take(now), (0..MOST_KEPT as u64).map(question).collect::<Vec<_>>());
        questions.note(vec![question(7)]);
        assert_eq!(questions.take(now + EVERY / 2), []);
        assert_eq!(questions.take(now + EVERY), [question(7)]);
        assert_eq!(questions.take(now + 2 * EVERY), []);
    }

    #[test]
    fn a_leader_does_not_answer_what_was_asked_long_before_its_term() {
        let questions = Questions::default();
        questions.note(vec![question(1)]);
        assert_eq!(questions.take(Instant::now() + OUTDATED_AFTER), []);
    }
}
