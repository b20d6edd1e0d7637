//! Panics as log lines. By default, the thread that panics writes to standard error itself. It would block whenever
//! standard error is blocked, and log collectors could not attribute a line without a level and an instance.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::{self, PanicHookInfo};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::base::text::Quoted;

/// The most panics that are logged in a [`WINDOW`]: a handler may panic on each message.
const MAX_LOGGED: u64 = 10;
/// The length of a window, in which panics are counted together.
const WINDOW: Duration = Duration::from_secs(3);

static RECENT: Mutex<Recent> = Mutex::new(Recent { since: None, panics: 0 });

/// The panics in the current window.
struct Recent {
    since: Option<Instant>,
    panics: u64,
}

/// Makes panics appear in the log from now on.
pub(super) fn install() {
    panic::set_hook(Box::new(|info| {
        let suppressed = RECENT.lock().count(Instant::now());
        match suppressed {
            Some(0) => log_panic(info),
            Some(suppressed) => {
                log::error!("event=panics-suppressed panics={suppressed}");
                log_panic(info);
            }
            None => {}
        }
    }));
}

fn log_panic(info: &PanicHookInfo<'_>) {
    let current = thread::current();
    let name = current.name().unwrap_or("unnamed");
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        log::error!("event=panic thread={} problem={} backtrace={}", Quoted(name), Quoted(info), Quoted(backtrace));
    } else {
        log::error!("event=panic thread={} problem={}", Quoted(name), Quoted(info));
    }
}

impl Recent {
    /// Counts a panic. `None`: it is suppressed. Otherwise it is logged, with the number of panics suppressed before
    /// it.
    fn count(&mut self, now: Instant) -> Option<u64> {
        let within = self.since.is_some_and(|since| now.saturating_duration_since(since) < WINDOW);
        if within {
            self.panics += 1;
            return (self.panics <= MAX_LOGGED).then_some(0);
        }
        let suppressed = self.panics.saturating_sub(MAX_LOGGED);
        *self = Recent { since: Some(now), panics: 1 };
        Some(suppressed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_some_of_many_panics_are_logged() {
        let mut recent = Recent { since: None, panics: 0 };
        let begin = Instant::now();
        let all: Vec<Option<u64>> = (0..MAX_LOGGED + 3).map(|_| recent.count(begin)).collect();
        assert_eq!(all.iter().filter(|suppressed| **suppressed == Some(0)).count() as u64, MAX_LOGGED);
        assert_eq!(recent.count(begin + WINDOW), Some(3));
        assert_eq!(recent.count(begin + WINDOW), Some(0));
    }
}
