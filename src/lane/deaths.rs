//! Counts the messages that became dead letters recently, over a sliding window.
//!
//! Pure; time is passed in. The window is divided into slots, so the count covers the window plus at most one slot.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The window in which dead letters are counted.
pub const DEATHS_WINDOW: Duration = Duration::from_secs(600);
/// The length of a slot.
const SLOT: Duration = Duration::from_secs(10);

/// See the module's text.
#[derive(Debug, Default)]
pub struct Deaths {
    /// When each slot began, and its count. At most one more slot than fit into the window.
    slots: VecDeque<(Instant, u64)>,
}

impl Deaths {
    /// `count` messages became dead letters now.
    pub fn note(&mut self, count: usize, now: Instant) {
        if count == 0 {
            return;
        }
        self.forget_old(now);
        match self.slots.back_mut() {
            Some((begin, counted)) if now.saturating_duration_since(*begin) < SLOT => *counted += count as u64,
            _ => self.slots.push_back((now, count as u64)),
        }
    }

    /// How many there were within the window.
    pub fn recent(&mut self, now: Instant) -> u64 {
        self.forget_old(now);
        self.slots.iter().map(|(_, counted)| counted).sum()
    }

    fn forget_old(&mut self, now: Instant) {
        let is_old = |(begin, _): &(Instant, u64)| now.saturating_duration_since(*begin) > DEATHS_WINDOW + SLOT;
        while self.slots.front().is_some_and(is_old) {
            self.slots.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dead_letters_older_than_the_window_do_not_count() {
        let mut deaths = Deaths::default();
        let begin = Instant::now();
        deaths.note(0, begin);
        assert_eq!(deaths.recent(begin), 0);
        deaths.note(3, begin);
        deaths.note(4, begin + DEATHS_WINDOW / 2);
        assert_eq!(deaths.recent(begin + DEATHS_WINDOW), 7);
        assert_eq!(deaths.recent(begin + DEATHS_WINDOW + 2 * SLOT), 4);
        assert_eq!(deaths.recent(begin + 3 * DEATHS_WINDOW), 0);
    }

    #[test]
    fn it_stays_small_however_many_die() {
        let mut deaths = Deaths::default();
        let begin = Instant::now();
        let times = (0..1_000_000).map(|n| begin + Duration::from_millis(n));
        let last = times.clone().next_back().expect("there are some");
        times.for_each(|now| deaths.note(1, now));
        assert!(deaths.slots.len() as u64 <= DEATHS_WINDOW.as_secs() / SLOT.as_secs() + 2);
        let recent = Duration::from_millis(deaths.recent(last));
        assert!(DEATHS_WINDOW <= recent && recent <= DEATHS_WINDOW + 2 * SLOT, "one each millisecond: {recent:?}");
    }
}
