//! What to do with a batch that did not go through: the same again, in halves, or not at all. Pure.
//!
//! A server, or a proxy or service before it, may not carry a command or a reply of some size: too many words, one word too
//! long, a reply above an output limit. Some say so, some only hang up. A batch is halved until what can't be carried stands
//! alone; all else goes through. Limitation: a message alone is given up only after Redis has named its size, or has hung up
//! [`BREAKS`] times in a row while everything else works; the caller makes sure of the latter.

use crate::error::Error;
use crate::refusal::Refusal;

/// How often in a row a connection must end without a reply before that is held against a message that was alone.
const BREAKS: u32 = 5;

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// The same again, after a pause: the trouble is not about the size.
    Retry,
    /// In two halves, at once.
    Halve,
    /// It is alone and too large.
    TooLarge,
}

/// Judges one batch's failures; a new one for each batch.
#[derive(Clone, Copy, Debug, Default)]
pub struct Splitter {
    breaks: u32,
}

impl Splitter {
    /// A batch of so many messages failed like this.
    pub fn judge(&mut self, error: &Error, messages: usize) -> Split {
        let named = error.refusal() == Some(Refusal::TooLarge);
        self.breaks = if error.is_broken_off() { self.breaks + 1 } else { 0 };
        match messages {
            // Once is what a restart of Redis looks like.
            2.. if named || self.breaks > 1 => Split::Halve,
            0 | 1 if named || self.breaks >= BREAKS => Split::TooLarge,
            _ => Split::Retry,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use redis::make_extension_error;

    use super::*;

    fn error(doing: &'static str, source: redis::RedisError) -> Error {
        Error::Redis { server: "s".to_owned(), doing, hint: String::new(), source }
    }

    fn hung_up(doing: &'static str) -> Error {
        error(doing, io::Error::from(io::ErrorKind::ConnectionReset).into())
    }

    fn refused(text: &str) -> Error {
        error("recording", make_extension_error("ERR".to_owned(), Some(text.to_owned())))
    }

    #[test]
    fn what_redis_names_too_large_is_halved_down_to_the_one_message() {
        let large = refused("Protocol error: invalid bulk length");
        assert_eq!(
            [1_000, 2, 1].map(|count| Splitter::default().judge(&large, count)),
            [Split::Halve, Split::Halve, Split::TooLarge]
        );
    }

    #[test]
    fn a_lost_connection_is_held_against_a_batch_only_when_it_is_lost_again() {
        let mut splitter = Splitter::default();
        assert_eq!(splitter.judge(&hung_up("recording"), 8), Split::Retry);
        assert_eq!(splitter.judge(&hung_up("recording"), 8), Split::Halve);
        let mut alone = Splitter::default();
        let judged: Vec<Split> = (0..BREAKS).map(|_| alone.judge(&hung_up("recording"), 1)).collect();
        assert_eq!(judged.iter().filter(|split| **split == Split::Retry).count() as u32, BREAKS - 1);
        assert_eq!(judged.last(), Some(&Split::TooLarge));
    }

    #[test]
    fn other_trouble_is_waited_out() {
        let mut splitter = Splitter::default();
        for _ in 0..2 * BREAKS {
            for trouble in [refused("max number of clients reached"), hung_up("connecting")] {
                assert_eq!(splitter.judge(&trouble, 1_000), Split::Retry);
                assert_eq!(splitter.judge(&trouble, 1), Split::Retry);
            }
        }
    }
}
