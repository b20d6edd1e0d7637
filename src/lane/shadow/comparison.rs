//! Compares what a shadow heard with what the group stored. Pure.
//!
//! Between two samples, the cursor has moved over a number of messages that the shadow counted itself: *heard*. The
//! counts of what the group stored have risen by another: *stored*. They are equal unless messages were lost, stored
//! twice, or removed by something other than the group. Both are differences between the first and the latest sample of
//! a *stretch*, so what is only half done in one sample disappears with the next. A stretch ends when two samples can't
//! be compared any more; the totals of earlier stretches are added.

use std::fmt;
use std::time::Duration;

use super::tally::Located;
use crate::ledger::GroupCounts;

/// The totals of all stretches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Messages that this shadow heard, between the first and the last cursor of each stretch.
    pub heard: u64,
    /// By how many messages the group's counts rose meanwhile. Negative if more were removed than added.
    pub stored: i64,
    /// Gaps that the group recorded meanwhile.
    pub gaps: u64,
    /// The time between the samples, by Redis's clock.
    pub time: Duration,
}

/// Why a comparison began anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// The shadow's own subscription dropped.
    Subscription,
    /// A leader with other interests stored messages.
    OtherInterests,
    /// The cursor went back before where the comparison began: Redis lost data.
    CursorWentBack,
    /// Fewer entries were ever added to a stream than before: it was deleted or replaced.
    StreamReplaced,
}

/// See the module's text.
#[derive(Clone, Debug, Default)]
pub(super) struct Comparison {
    /// Of the stretches that have ended.
    ended: Totals,
    /// The first and the latest sample of the present stretch.
    stretch: Option<(Point, Point)>,
    restarts: u64,
    last_restart: Option<Restart>,
}

/// A sample whose cursor was located.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Point {
    pub(super) segment: u64,
    pub(super) position: u64,
    pub(super) counts: GroupCounts,
    pub(super) redis_ms: u64,
}

impl Totals {
    /// How many messages were heard and not stored; negative if more were stored.
    pub fn difference(&self) -> i64 {
        signed(self.heard).saturating_sub(self.stored)
    }
}

impl fmt::Display for Restart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Restart::Subscription => "its subscription dropped",
            Restart::OtherInterests => "a leader with other interests stored messages",
            Restart::CursorWentBack => "the cursor went back: Redis lost data",
            Restart::StreamReplaced => "a stream of the group was deleted or replaced",
        })
    }
}

impl Comparison {
    /// Adds the next sample. Returns the reason if the comparison began anew.
    pub(super) fn add(&mut self, point: Point) -> Option<Restart> {
        let restart = self.stretch.and_then(|(first, latest)| restart(&first, &latest, &point));
        match (restart, &mut self.stretch) {
            (None, Some((_, latest))) => *latest = point,
            (None, stretch) => *stretch = Some((point, point)),
            (Some(why), _) => {
                self.end_stretch(why);
                self.stretch = Some((point, point));
            }
        }
        restart
    }

    /// The group's cursor has another meaning now. Returns the reason if a comparison ended.
    pub(super) fn note_other_interests(&mut self, located: Located) -> Option<Restart> {
        let ends = located == Located::OtherInterests && self.stretch.is_some();
        ends.then(|| self.end_stretch(Restart::OtherInterests))
    }

    /// The totals so far.
    pub(super) fn totals(&self) -> Totals {
        let Some((first, latest)) = &self.stretch else { return self.ended };
        let ended = &self.ended;
        Totals {
            heard: ended.heard + latest.position.saturating_sub(first.position),
            stored: ended.stored + latest.counts.stored() - first.counts.stored(),
            gaps: ended.gaps + latest.counts.gaps.saturating_sub(first.counts.gaps),
            time: ended.time + Duration::from_millis(latest.redis_ms.saturating_sub(first.redis_ms)),
        }
    }

    /// How often the comparison began anew, and the last reason.
    pub(super) fn restarts(&self) -> (u64, Option<Restart>) {
        (self.restarts, self.last_restart)
    }

    fn end_stretch(&mut self, why: Restart) -> Restart {
        self.ended = self.totals();
        self.stretch = None;
        self.restarts += 1;
        self.last_restart = Some(why);
        why
    }
}

/// Why `next` can't be compared with the samples of the stretch.
fn restart(first: &Point, latest: &Point, next: &Point) -> Option<Restart> {
    let fell = |count: fn(&GroupCounts) -> u64| count(&next.counts) < count(&latest.counts);
    if next.segment != latest.segment {
        Some(Restart::Subscription)
    } else if next.position < first.position {
        Some(Restart::CursorWentBack)
    } else if next.counts.exact && (fell(|of| of.results) || fell(|of| of.dead) || fell(|of| of.stream)) {
        Some(Restart::StreamReplaced)
    } else {
        None
    }
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(pending: u64, results: u64, dead: u64) -> GroupCounts {
        GroupCounts { pending, results, dead, exact: true, ..GroupCounts::default() }
    }

    fn point(segment: u64, position: u64, counts: GroupCounts) -> Point {
        Point { segment, position, counts, redis_ms: 1_000 * position }
    }

    /// The totals after these samples.
    fn compared(points: &[Point]) -> Comparison {
        let mut comparison = Comparison::default();
        for point in points {
            comparison.add(*point);
        }
        comparison
    }

    #[test]
    fn what_was_heard_is_pending_recorded_or_dead() {
        let comparison = compared(&[
            point(1, 100, counts(10, 1_000, 3)),
            point(1, 150, counts(60, 1_000, 3)),
            point(1, 160, counts(0, 1_065, 8)),
        ]);
        let totals = comparison.totals();
        assert_eq!((totals.heard, totals.stored, totals.difference()), (60, 60, 0));
        assert_eq!(totals.time, Duration::from_secs(60));
        let stream = |entries| GroupCounts { stream: entries, exact: true, ..GroupCounts::default() };
        assert_eq!(compared(&[point(1, 5, stream(7)), point(1, 9, stream(11))]).totals().difference(), 0);
    }

    #[test]
    fn one_sample_is_no_comparison_yet() {
        assert_eq!(Comparison::default().totals(), Totals::default());
        assert_eq!(compared(&[point(1, 100, counts(10, 1_000, 3))]).totals(), Totals::default());
    }

    #[test]
    fn a_lost_message_and_one_stored_twice_are_differences() {
        let base = point(1, 100, counts(0, 0, 0));
        assert_eq!(compared(&[base, point(1, 110, counts(0, 7, 0))]).totals().difference(), 3);
        assert_eq!(compared(&[base, point(1, 110, counts(0, 11, 0))]).totals().difference(), -1);
        let with_gap = GroupCounts { gaps: 2, ..counts(0, 7, 0) };
        assert_eq!(compared(&[base, point(1, 110, with_gap)]).totals().gaps, 2);
    }

    #[test]
    fn removed_messages_are_a_difference_also_if_more_were_removed_than_added() {
        let totals = compared(&[point(1, 100, counts(50, 0, 0)), point(1, 110, counts(0, 0, 0))]).totals();
        assert_eq!((totals.heard, totals.stored, totals.difference()), (10, -50, 60));
    }

    #[test]
    fn a_step_that_is_taken_back_leaves_no_difference() {
        let base = point(1, 100, counts(0, 100, 0));
        let half_done = point(1, 120, counts(0, 100, 0));
        assert_eq!(compared(&[base, half_done]).totals().difference(), 20);
        assert_eq!(compared(&[base, half_done, base]).totals().difference(), 0);
    }

    #[test]
    fn what_can_not_be_compared_begins_a_stretch_and_keeps_earlier_differences() {
        let begin = [point(1, 100, counts(0, 100, 0)), point(1, 110, counts(0, 107, 0))];
        for (next, why) in [
            (point(2, 500, counts(0, 300, 0)), Restart::Subscription),
            (point(1, 99, counts(0, 107, 0)), Restart::CursorWentBack),
            (point(1, 120, counts(0, 2, 0)), Restart::StreamReplaced),
        ] {
            let mut comparison = compared(&begin);
            assert_eq!(comparison.add(next), Some(why));
            let mut later = next;
            later.position += 20;
            later.counts.results += 20;
            assert_eq!(comparison.add(later), None);
            let totals = comparison.totals();
            assert_eq!((totals.heard, totals.difference()), (30, 3), "{why}");
            assert_eq!(comparison.restarts(), (1, Some(why)));
        }
    }

    #[test]
    fn a_replayed_letter_is_pending_again_and_no_deletion() {
        let died = counts(0, 100, 7);
        let replayed = GroupCounts { replayed: 5, ..counts(5, 100, 7) };
        let recorded = GroupCounts { replayed: 5, ..counts(0, 105, 7) };
        let comparison = compared(&[point(1, 100, died), point(1, 100, replayed), point(1, 110, recorded)]);
        assert_eq!((comparison.totals().stored, comparison.restarts()), (0, (0, None)));
    }

    #[test]
    fn a_server_that_does_not_count_what_was_deleted_is_no_reason_to_begin_anew() {
        let trimmed = GroupCounts { exact: false, ..counts(0, 50, 0) };
        let comparison = compared(&[point(1, 100, counts(0, 100, 0)), point(1, 110, trimmed)]);
        assert_eq!((comparison.totals().difference(), comparison.restarts()), (60, (0, None)));
    }

    #[test]
    fn a_leader_with_other_interests_ends_the_stretch() {
        let mut comparison = compared(&[point(1, 100, counts(0, 100, 0)), point(1, 110, counts(0, 110, 0))]);
        assert_eq!(comparison.note_other_interests(Located::NotYet), None);
        assert_eq!(comparison.note_other_interests(Located::OtherInterests), Some(Restart::OtherInterests));
        assert_eq!(comparison.note_other_interests(Located::OtherInterests), None, "once");
        assert_eq!(comparison.add(point(1, 900, counts(0, 1, 0))), None);
        assert_eq!(comparison.totals().heard, 10);
    }
}
