//! How fast messages are published and processed, over the last second. Pure.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::local::Snapshot;

/// The stretch of time that the rates are taken over.
const WINDOW: Duration = Duration::from_secs(1);
/// Looks that follow each other faster than this are left out.
const SHORTEST_STEP: Duration = Duration::from_millis(50);

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Rates {
    seen: VecDeque<(Instant, u64, u64)>,
    markers: Markers,
}

impl Rates {
    /// Takes a snapshot into account.
    pub(super) fn add(&mut self, now: Instant, snapshot: &Snapshot) {
        let markers = self.markers.count(snapshot);
        if self.seen.back().is_some_and(|(last, ..)| now.duration_since(*last) < SHORTEST_STEP) {
            return;
        }
        self.seen.push_back((now, snapshot.publish_calls.saturating_sub(markers), snapshot.processed));
        while self.seen.get(1).is_some_and(|(second, ..)| now.duration_since(*second) >= WINDOW) {
            self.seen.pop_front();
        }
    }

    /// Published and processed.
    pub(super) fn per_second(&self) -> (u64, u64) {
        let Some((first, last)) = self.seen.front().zip(self.seen.back()) else { return (0, 0) };
        let seconds = last.0.duration_since(first.0).as_secs_f64();
        let rate = |from: u64, to: u64| {
            if seconds > 0.0 { (to.saturating_sub(from) as f64 / seconds).round() as u64 } else { 0 }
        };
        (rate(first.1, last.1), rate(first.2, last.2))
    }
}

/// How many markers leaders have published: they are among the calls of PUBLISH, and the cursor says their number.
#[derive(Debug, Default)]
struct Markers {
    /// Those of earlier epochs.
    before: u64,
    epoch: String,
    in_epoch: u64,
}

impl Markers {
    fn count(&mut self, snapshot: &Snapshot) -> u64 {
        let marker = snapshot.cursor.as_ref().and_then(|cursor| cursor.position.marker.as_str().rsplit_once('.'));
        if let Some((epoch, Ok(number))) = marker.map(|(epoch, number)| (epoch, number.parse::<u64>())) {
            if epoch != self.epoch {
                self.before += self.in_epoch;
                self.epoch = epoch.to_owned();
            }
            self.in_epoch = number + 1;
        }
        self.before + self.in_epoch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_are_not_counted_as_messages() {
        let begin = Instant::now();
        let mut rates = Rates::default();
        assert_eq!(rates.per_second(), (0, 0));
        let mut look = |ms, cursor: &str, publish_calls, processed| {
            let cursor = Some(cursor.parse().expect("a cursor"));
            let snapshot = Snapshot { cursor, publish_calls, processed, ..Snapshot::default() };
            rates.add(begin + Duration::from_millis(ms), &snapshot);
            rates.per_second()
        };
        assert_eq!(look(0, "7.4 0 1", 5, 0), (0, 0));
        assert_eq!(look(500, "7.9 3 2", 110, 90), (200, 180));
        assert_eq!(look(1_000, "8.0 0 3", 211, 200), (200, 200));
        // A second later the first look no longer counts.
        assert_eq!(look(1_500, "8.5 0 4", 216, 200), (100, 110));
    }
}
