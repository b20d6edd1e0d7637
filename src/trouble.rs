//! One trouble is told once, however many parts of a program meet it.
//!
//! A server that is not there, or does not let us in, is met by every thread with a connection of its own. The first one
//! tells it and goes on to tell it now and then; the others are silent while it does. Only failures to open a connection, and
//! to get a first answer on it, are put together: what breaks a connection that stood concerns the part that used it.
//!
//! Any thread may ask; the mutex is held for a comparison.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::backoff::SAY_EVERY;
use crate::error::Error;
use crate::log::Quoted;
use crate::refusal::Refusal;

/// Whoever has not repeated a trouble for so long has overcome it, or is gone.
const TOLD_FOR: Duration = SAY_EVERY.saturating_mul(2);

/// See the module's text.
#[derive(Debug, Default)]
pub struct Troubles(Mutex<Option<Told>>);

#[derive(Debug)]
struct Told {
    what: String,
    by: &'static str,
    at: Instant,
}

impl Troubles {
    /// Logs that `part` has met `error`: as `event`; as `redis-trouble` if it is met by all parts alike,
    /// unless another part has.
    pub fn tell(&self, part: &'static str, event: &'static str, error: &Error) {
        match common_cause(error) {
            None => log::warn!("event={event} error={}", Quoted(error)),
            Some(cause) => {
                if self.is_news(part, cause, Instant::now()) {
                    log::warn!("event=redis-trouble error={}", Quoted(error));
                }
            }
        }
    }

    fn is_news(&self, part: &'static str, what: String, now: Instant) -> bool {
        let mut told = self.0.lock();
        let known = told.as_ref().is_some_and(|told| {
            told.what == what && told.by != part && now.saturating_duration_since(told.at) < TOLD_FOR
        });
        if !known {
            *told = Some(Told { what, by: part, at: now });
        }
        !known
    }
}

/// What keeps all parts from their work alike, if that is what is wrong.
fn common_cause(error: &Error) -> Option<String> {
    if error.refusal() == Some(Refusal::Login) {
        // Each command has words of its own for it.
        return Some("login".to_owned());
    }
    if error.is_unanswered() {
        return Some("no answer".to_owned());
    }
    error.is_unsent().then(|| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_part_tells_it_until_it_tells_no_more() {
        let troubles = Troubles::default();
        let begin = Instant::now();
        let is_news = |part, what: &str, after| troubles.is_news(part, what.to_owned(), begin + after);
        assert!(is_news("election", "refused", Duration::ZERO));
        assert!(!is_news("listener", "refused", Duration::ZERO));
        assert!(is_news("election", "refused", SAY_EVERY), "it goes on");
        assert!(!is_news("listener", "refused", TOLD_FOR));
        assert!(is_news("listener", "refused", SAY_EVERY + TOLD_FOR), "the other one is silent");
        assert!(is_news("election", "wrong password", SAY_EVERY + TOLD_FOR), "another trouble");
    }
}
