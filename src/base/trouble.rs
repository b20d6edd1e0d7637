//! One trouble is told once, however many parts of a program meet it.
//!
//! A server that is not there, or does not let us in, is met by every thread with a connection of its own. The first
//! one tells it, at growing intervals; the others are silent for as long as it meets it. Only failures to open a
//! connection, and to get a first answer on it, are put together: what breaks a connection that stood concerns the part
//! that used it.
//!
//! Any thread may ask; the mutex is held for a comparison.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::base::backoff::Backoff;
use crate::base::error::Error;
use crate::base::refusal::Refusal;
use crate::base::text::Quoted;

/// Whoever has not met a trouble again for so long has overcome it, or is gone.
const TOLD_FOR: Duration = Duration::from_secs(10);

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
    /// `part` has met `error`, as often as it has failed. It is logged when `backoff` says that it is time: as `event`,
    /// or, if it is met by all parts alike, as `redis-trouble`, and then by one part.
    pub fn tell(&self, part: &'static str, event: &'static str, error: &Error, backoff: &mut Backoff) {
        let (event, ours) = match common_cause(error) {
            None => (event, true),
            Some(cause) => ("redis-trouble", self.is_ours(part, cause, Instant::now())),
        };
        if ours && backoff.should_say() {
            log::warn!("event={event} error={}", Quoted(error));
        }
    }

    /// Whether no other part tells it.
    fn is_ours(&self, part: &'static str, what: String, now: Instant) -> bool {
        let mut told = self.0.lock();
        let by_another = told.as_ref().is_some_and(|told| {
            told.what == what && told.by != part && now.saturating_duration_since(told.at) < TOLD_FOR
        });
        if !by_another {
            *told = Some(Told { what, by: part, at: now });
        }
        !by_another
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
        let second = Duration::from_secs(1);
        let is_ours = |part, what: &str, after| troubles.is_ours(part, what.to_owned(), begin + after);
        assert!(is_ours("election", "refused", Duration::ZERO));
        assert!(!is_ours("listener", "refused", Duration::ZERO));
        assert!(is_ours("election", "refused", TOLD_FOR), "it goes on, whether or not it says so");
        assert!(!is_ours("listener", "refused", TOLD_FOR + second));
        assert!(is_ours("listener", "refused", 2 * TOLD_FOR + second), "the other one is silent");
        assert!(is_ours("election", "wrong password", 2 * TOLD_FOR + second), "another trouble");
    }
}
