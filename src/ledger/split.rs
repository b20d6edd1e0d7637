//! What to do with a batch that failed: retry it, split it in halves, or give it up. Pure.
//!
//! A server, or a proxy in front of it, may refuse a command or a reply because of its size: too many words, one word
//! too long, a reply above an output limit. Some report that, others only close the connection. A batch is halved until
//! the message that is too large is alone; all others succeed.
//!
//! A closed connection does not prove that the size was the reason: behind a proxy an outage looks the same. So a
//! closed connection counts only if another command is answered after it. Limitation: a message alone is given up only
//! after Redis has named its size, or after [`BREAKS`] closed connections in a row.

use crate::base::error::Error;
use crate::base::refusal::Refusal;

/// How many connections in a row must end without a reply before a message that was alone counts as too large.
const BREAKS: u32 = 5;

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// Retry after a pause: the problem is not the size.
    Retry,
    /// Try two halves at once.
    Halve,
    /// The message is alone and too large.
    TooLarge,
}

/// Judges the failures of one batch and of its parts. Each batch needs a new one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Splitter {
    breaks: u32,
}

impl Splitter {
    /// A part with this many messages is about to be tried. A message alone is judged only by its own failures, not by
    /// those of its batch.
    pub fn begin(&mut self, messages: usize) {
        if messages <= 1 {
            self.breaks = 0;
        }
    }

    /// A part with this many messages failed with `error`. `is_answered` checks whether the server answers at all.
    pub fn judge(&mut self, error: &Error, messages: usize, is_answered: impl FnOnce() -> bool) -> Split {
        let named = error.refusal() == Some(Refusal::TooLarge);
        self.breaks = if error.is_broken_off() && is_answered() { self.breaks + 1 } else { 0 };
        match messages {
            // A restart of Redis closes the connection once, so one closed connection is not enough.
            2.. if named || self.breaks > 1 => Split::Halve,
            0 | 1 if named || self.breaks >= BREAKS => Split::TooLarge,
            _ => Split::Retry,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::base::error::Step;
    use crate::base::failure::Failure;

    const RECORDING: Step = Step::Command("recording");

    fn error(step: Step, cause: Failure) -> Error {
        Error::Redis { server: "s".to_owned(), step, hint: None, cause }
    }

    fn hung_up(step: Step) -> Error {
        error(step, io::Error::from(io::ErrorKind::ConnectionReset).into())
    }

    fn refused(text: &str) -> Error {
        error(RECORDING, Failure::of_reply(format!("ERR {text}").as_bytes()))
    }

    #[test]
    fn batches_that_redis_calls_too_large_are_halved_down_to_one_message() {
        let large = refused("Protocol error: invalid bulk length");
        assert_eq!(
            [1_000, 2, 1].map(|count| Splitter::default().judge(&large, count, || true)),
            [Split::Halve, Split::Halve, Split::TooLarge]
        );
    }

    #[test]
    fn one_lost_connection_does_not_split_a_batch_but_two_do() {
        let mut splitter = Splitter::default();
        assert_eq!(splitter.judge(&hung_up(RECORDING), 8, || true), Split::Retry);
        assert_eq!(splitter.judge(&hung_up(RECORDING), 8, || true), Split::Halve);
        // Failures of the batch count for its halves, but not for a message alone.
        splitter.begin(4);
        assert_eq!(splitter.judge(&hung_up(RECORDING), 4, || true), Split::Halve);
        for _ in 0..2 {
            splitter.begin(1);
            let judged: Vec<Split> = (0..BREAKS).map(|_| splitter.judge(&hung_up(RECORDING), 1, || true)).collect();
            assert_eq!(judged.iter().filter(|split| **split == Split::Retry).count() as u32, BREAKS - 1);
            assert_eq!(judged.last(), Some(&Split::TooLarge));
        }
    }

    #[test]
    fn a_server_that_does_not_answer_is_waited_for() {
        let mut splitter = Splitter::default();
        for round in 0..4 * BREAKS {
            // It comes back now and then, for a moment.
            let is_back = round % 2 == 0;
            assert_eq!(splitter.judge(&hung_up(RECORDING), 8, || is_back), Split::Retry);
        }
        let mut alone = Splitter::default();
        for round in 0..4 * BREAKS {
            let is_back = round % BREAKS != 0;
            assert_eq!(alone.judge(&hung_up(RECORDING), 1, || is_back), Split::Retry);
        }
    }

    #[test]
    fn other_failures_are_retried() {
        let mut splitter = Splitter::default();
        for _ in 0..2 * BREAKS {
            for trouble in
                [refused("max number of clients reached"), hung_up(Step::Connecting), hung_up(Step::LoadingScript)]
            {
                assert_eq!(splitter.judge(&trouble, 1_000, || true), Split::Retry);
                assert_eq!(splitter.judge(&trouble, 1, || true), Split::Retry);
            }
        }
    }
}
