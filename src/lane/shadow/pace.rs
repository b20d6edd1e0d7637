//! How much a shadow receives in a second. Pure; owned by the sampler.

use std::time::{Duration, Instant};

use super::tally::Received;

/// The shortest time that a pace is computed over.
const LEAST_SPAN: Duration = Duration::from_millis(800);

/// What is received in a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pace {
    /// Messages in the last second.
    pub messages: f64,
    /// Bytes of payloads in the last second.
    pub bytes: f64,
    /// Messages in the busiest second so far.
    pub busiest: f64,
}

/// See the module's text.
pub(super) struct PaceMeter {
    pace: Pace,
    last: (Instant, Received),
}

impl PaceMeter {
    pub(super) fn starting(now: Instant) -> PaceMeter {
        PaceMeter { pace: Pace::default(), last: (now, Received::default()) }
    }

    /// The pace now; computed anew if enough time has passed.
    pub(super) fn measure(&mut self, received: Received, now: Instant) -> Pace {
        let (before, last) = self.last;
        let span = now.saturating_duration_since(before);
        if span >= LEAST_SPAN {
            let per_s = |now: u64, before: u64| now.saturating_sub(before) as f64 / span.as_secs_f64();
            let messages = per_s(received.messages, last.messages);
            let busiest = self.pace.busiest.max(messages);
            self.pace = Pace { messages, bytes: per_s(received.bytes, last.bytes), busiest };
            self.last = (now, received);
        }
        self.pace
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_computed_over_about_a_second_and_the_busiest_is_kept() {
        let begin = Instant::now();
        let mut meter = PaceMeter::starting(begin);
        let received = |messages| Received { messages, bytes: 100 * messages, ..Received::default() };
        let mut after = |ms, messages| meter.measure(received(messages), begin + Duration::from_millis(ms));
        assert_eq!(after(100, 50), Pace::default(), "too early");
        assert_eq!(after(1_000, 500), Pace { messages: 500.0, bytes: 50_000.0, busiest: 500.0 });
        assert_eq!(after(3_000, 700), Pace { messages: 100.0, bytes: 10_000.0, busiest: 500.0 });
    }
}
