//! Events that may occur thousands of times a second, logged as a count with one example.
//!
//! A thread adds events as they occur, and checks from time to time whether a line is due. Pure; time is passed in.

use std::time::{Duration, Instant};

use super::rate_limit::RateLimit;

/// When a line is due.
#[derive(Clone, Copy, Debug)]
pub enum LogPace {
    /// The first lines immediately, later ones at a limited rate.
    Lines {
        /// Lines that are written immediately.
        at_once: u32,
        /// Lines a second after that.
        per_s: u32,
    },
    /// A line is due this long after the first event that it counts.
    Gather(Duration),
}

/// See the module's text.
#[derive(Debug)]
pub struct LogSum<T> {
    limit: Limit,
    /// Events not logged yet.
    sum: Option<Sum<T>>,
}

/// The content of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sum<T> {
    /// How many events.
    pub count: u64,
    /// The latest of them.
    pub example: T,
}

#[derive(Debug)]
enum Limit {
    Lines(RateLimit),
    /// How long, and since when.
    Gather(Duration, Instant),
}

impl<T> LogSum<T> {
    /// Nothing has happened yet.
    pub fn new(pace: LogPace, now: Instant) -> LogSum<T> {
        let limit = match pace {
            LogPace::Lines { at_once, per_s } => Limit::Lines(RateLimit::new(at_once, per_s, now)),
            LogPace::Gather(time) => Limit::Gather(time, now),
        };
        LogSum { limit, sum: None }
    }

    /// Counts an event.
    pub fn add(&mut self, example: T, now: Instant) {
        if let (Limit::Gather(_, since), None) = (&mut self.limit, &self.sum) {
            *since = now;
        }
        let count = self.sum.take().map_or(0, |sum| sum.count) + 1;
        self.sum = Some(Sum { count, example });
    }

    /// What to log now, if anything.
    pub fn due(&mut self, now: Instant) -> Option<Sum<T>> {
        self.sum.as_ref()?;
        let due = match &mut self.limit {
            Limit::Lines(lines) => lines.take(now),
            Limit::Gather(time, since) => now.saturating_duration_since(*since) >= *time,
        };
        if due { self.sum.take() } else { None }
    }

    /// Events not logged yet, due or not.
    pub fn rest(&mut self) -> Option<Sum<T>> {
        self.sum.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_few_lines_come_at_once_and_then_one_a_second() {
        let start = Instant::now();
        let mut sum = LogSum::new(LogPace::Lines { at_once: 5, per_s: 1 }, start);
        assert_eq!(sum.due(start), None);
        let mut note = |number, now| {
            sum.add(number, now);
            sum.due(now)
        };
        let lines: Vec<_> = (0..1_000).filter_map(|number| note(number, start)).collect();
        assert_eq!(lines.iter().map(|line| line.count).collect::<Vec<_>>(), [1; 5]);
        assert_eq!(note(1_000, start + SECOND), Some(Sum { count: 996, example: 1_000 }));
        assert_eq!(note(1_001, start + SECOND), None);
        assert_eq!((sum.rest(), sum.rest()), (Some(Sum { count: 1, example: 1_001 }), None));
    }

    #[test]
    fn gathered_events_are_due_some_time_after_the_first() {
        let start = Instant::now();
        let mut sum = LogSum::new(LogPace::Gather(SECOND), start);
        for later in [10, 11] {
            sum.add(later, start + later * SECOND / 10);
        }
        assert_eq!(sum.due(start + SECOND + SECOND / 2), None, "the time counts from the first");
        assert_eq!(sum.due(start + 2 * SECOND), Some(Sum { count: 2, example: 11 }));
        sum.add(12, start + 3 * SECOND);
        assert_eq!(sum.due(start + 3 * SECOND), None, "a new time begins");
    }
}
