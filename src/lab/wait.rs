//! Waiting for a condition, with a deadline.

use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use crate::base::error::{Error, Result};

/// The pause between two polls: the first, and the longest it grows to.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(25);

/// Polls `condition` until it returns a value, at most for `within`.
///
/// `Ok(None)` means "not yet"; an `Err` ends the wait at once. After the deadline the error names `what` was awaited.
pub fn wait_until<T>(
    within: Duration,
    what: impl fmt::Display,
    mut condition: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let begin = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        if let Some(value) = condition()? {
            return Ok(value);
        }
        if begin.elapsed() >= within {
            return Err(Error::Failed(format!("waited {within:?} for {what}")));
        }
        thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_with_the_value_the_error_or_the_deadline() {
        let mut polls = 0;
        let value = wait_until(Duration::from_secs(5), "three polls", || {
            polls += 1;
            Ok((polls == 3).then_some(polls))
        });
        assert_eq!(value.unwrap(), 3);
        let broken: Result<()> = wait_until(Duration::from_secs(5), "nothing", || Err(Error::Failed("broken".into())));
        assert_eq!(broken.unwrap_err().to_string(), "broken");
        let never: Result<()> = wait_until(Duration::from_millis(5), "the impossible", || Ok(None));
        assert_eq!(never.unwrap_err().to_string(), "waited 5ms for the impossible");
    }
}
