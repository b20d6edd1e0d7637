//! A problem is logged once, however many parts of a program meet it.
//!
//! When a server cannot be reached or refuses the login, every thread with a connection of its own sees it. The first
//! one logs it, with backoff; the others stay silent while the problem lasts. Only failures to open a connection and to
//! get a first reply on it are merged. A failure on a working connection is logged by the part that used it.
//!
//! Any thread may call it; the mutex is held for a comparison.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::base::backoff::Backoff;
use crate::base::error::Error;
use crate::base::refusal::Refusal;
use crate::base::text::Quoted;

/// A part that has not reported its failure again for this long counts as recovered or ended.
const REPORTED_FOR: Duration = Duration::from_secs(10);

/// See the module's text.
#[derive(Debug, Default)]
pub struct Troubles(Mutex<Option<Reported>>);

#[derive(Debug)]
struct Reported {
    what: String,
    by: &'static str,
    at: Instant,
}

impl Troubles {
    /// `part` has failed with `error`; it calls this for each failure. When `backoff` allows it, the failure is logged
    /// as `event`. A failure that affects all parts alike is logged as `redis-trouble`, by one part only.
    pub fn report(&self, part: &'static str, event: &'static str, error: &Error, backoff: &mut Backoff) {
        let (event, ours) = match common_cause(error) {
            None => (event, true),
            Some(cause) => ("redis-trouble", self.is_ours(part, cause, Instant::now())),
        };
        if ours && backoff.should_log() {
            log::warn!("event={event} error={}", Quoted(error));
        }
    }

    /// Whether no other part reports it.
    fn is_ours(&self, part: &'static str, what: String, now: Instant) -> bool {
        let mut reported = self.0.lock();
        let by_another = reported.as_ref().is_some_and(|reported| {
            reported.what == what && reported.by != part && now.saturating_duration_since(reported.at) < REPORTED_FOR
        });
        if !by_another {
            *reported = Some(Reported { what, by: part, at: now });
        }
        !by_another
    }
}

/// The cause, if the error is one that affects all parts alike.
fn common_cause(error: &Error) -> Option<String> {
    if error.refusal() == Some(Refusal::Login) {
        // The text differs from command to command.
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
    fn one_part_reports_it_until_it_stops() {
        let troubles = Troubles::default();
        let begin = Instant::now();
        let second = Duration::from_secs(1);
        let is_ours = |part, what: &str, after| troubles.is_ours(part, what.to_owned(), begin + after);
        assert!(is_ours("election", "refused", Duration::ZERO));
        assert!(!is_ours("listener", "refused", Duration::ZERO));
        assert!(is_ours("election", "refused", REPORTED_FOR), "it lasts, whether or not it is logged");
        assert!(!is_ours("listener", "refused", REPORTED_FOR + second));
        assert!(is_ours("listener", "refused", 2 * REPORTED_FOR + second), "the other one is silent");
        assert!(is_ours("election", "wrong password", 2 * REPORTED_FOR + second), "another problem");
    }
}
