//! Reading through an outage: what an operator's tool does while Redis is unreachable.

use std::thread;
use std::time::{Duration, Instant};

use crate::base::backoff::Backoff;
use crate::base::error::{Error, Result};
use crate::base::refusal::Refusal;
use crate::base::text::Quoted;
use crate::ledger::Ledger;

/// How long a tool waits for Redis.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// The waits between attempts: the first and the longest.
const WAITS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Repeats a step that may be repeated while Redis is unreachable, for at most `patience`.
pub fn patiently<T>(
    ledger: &mut Ledger,
    patience: Duration,
    mut step: impl FnMut(&mut Ledger) -> Result<T>,
) -> Result<T> {
    let mut backoff = Backoff::new(WAITS.0, WAITS.1);
    let begin = Instant::now();
    loop {
        match step(ledger) {
            Err(error) if may_pass(&error) && begin.elapsed() < patience => {
                if backoff.should_log() {
                    log::warn!("event=redis-trouble error={}", Quoted(error));
                }
                thread::sleep(backoff.next_wait());
            }
            outcome => return outcome,
        }
    }
}

/// Whether repeating may help, unlike with a wrong password, a missing right or command, or a key of another type.
pub fn may_pass(error: &Error) -> bool {
    use Refusal::{NoCluster, TooLarge, UnknownCommand, WrongType};
    let lasting =
        error.is_denied() || matches!(error.refusal(), Some(WrongType | TooLarge | UnknownCommand | NoCluster));
    matches!(error, Error::Redis { .. }) && !lasting
}
