//! Panics as log lines. The default is to write them to standard error from the thread that panics, which would wait
//! there if nobody reads; and a line without a level and an instance is one that no collector finds.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::{self, PanicHookInfo};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Quoted;

/// The most panics that are told in a [`WINDOW`]: a handler may panic on each message.
const MOST_TOLD: u64 = 10;
/// How long panics are counted together.
const WINDOW: Duration = Duration::from_secs(3);

static TOLD: Mutex<Told> = Mutex::new(Told { since: None, panics: 0 });

/// The panics of the present window.
struct Told {
    since: Option<Instant>,
    panics: u64,
}

/// From now on panics are logged.
pub(super) fn install() {
    panic::set_hook(Box::new(|info| {
        let untold = TOLD.lock().count(Instant::now());
        match untold {
            Some(0) => tell(info),
            Some(untold) => {
                log::error!("event=panics-untold panics={untold}");
                tell(info);
            }
            None => {}
        }
    }));
}

fn tell(info: &PanicHookInfo<'_>) {
    let current = thread::current();
    let name = current.name().unwrap_or("unnamed");
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        log::error!("event=panic thread={} problem={} backtrace={}", Quoted(name), Quoted(info), Quoted(backtrace));
    } else {
        log::error!("event=panic thread={} problem={}", Quoted(name), Quoted(info));
    }
}

impl Told {
    /// Counts a panic; gives how many before it were not told if it is to be told itself.
    fn count(&mut self, now: Instant) -> Option<u64> {
        let within = self.since.is_some_and(|since| now.saturating_duration_since(since) < WINDOW);
        if within {
            self.panics += 1;
            return (self.panics <= MOST_TOLD).then_some(0);
        }
        let untold = self.panics.saturating_sub(MOST_TOLD);
        *self = Told { since: Some(now), panics: 1 };
        Some(untold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_panics_some_are_told_and_the_others_counted() {
        let mut told = Told { since: None, panics: 0 };
        let begin = Instant::now();
        let all: Vec<Option<u64>> = (0..MOST_TOLD + 3).map(|_| told.count(begin)).collect();
        assert_eq!(all.iter().filter(|told| **told == Some(0)).count() as u64, MOST_TOLD);
        assert_eq!(told.count(begin + WINDOW), Some(3));
        assert_eq!(told.count(begin + WINDOW), Some(0));
    }
}
