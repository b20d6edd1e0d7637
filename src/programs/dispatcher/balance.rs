//! Decides when this process hands one of its lanes over, so that the lanes of a group spread over its dispatchers.
//!
//! From the status that each lane's reporter reads: a process that leads at least two lanes more than a dispatcher
//! which could lead one of them in its place hands one such lane over. One at a time, and then none for a while, in
//! which the status shows what came of it. The same holds after a lane was taken over: the status may still show the
//! dispatcher that has died. A lane with a backlog stays where it is. Owned by the main thread.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::hosted::{Host, HostedLane};
use crate::ledger::LaneNumber;
use crate::programs::status::Status;

/// A lane with more pending messages is not handed over.
const MOST_PENDING: u64 = 1_000;

/// See the module's text.
pub(super) struct Balance {
    /// Since when nothing was handed over; at first since the start, when nobody leads yet.
    since: Instant,
    /// The shortest time between two lanes that are handed over.
    pause: Duration,
    /// How many lanes this process led when that was last looked at.
    led: usize,
}

/// A lane as its status shows it.
#[derive(Clone, Debug)]
struct LaneView {
    number: LaneNumber,
    leader: String,
    /// The other dispatchers that could lead it at once.
    in_sync: Vec<String>,
    pending: u64,
}

impl Balance {
    /// Hands over one lane in each `pause` at most; the first not before one has passed.
    pub(super) fn new(pause: Duration) -> Balance {
        Balance { since: Instant::now(), pause, led: 0 }
    }

    /// The lane to hand over now, if there is one.
    pub(super) fn next(&mut self, host: &Host) -> Option<LaneNumber> {
        let lanes = host.lanes();
        let led = lanes.iter().filter(|hosted| leads(hosted)).count();
        if led > std::mem::replace(&mut self.led, led) {
            self.since = Instant::now();
        }
        if self.since.elapsed() < self.pause {
            return None;
        }
        let own = host.id.as_str();
        let views = lanes.iter().filter_map(|hosted| view(hosted).filter(|view| view.leader != own || leads(hosted)));
        let views: Vec<LaneView> = views.collect();
        let lane = choose(&views, own)?;
        self.since = Instant::now();
        log::info!("event=hand-over lane={lane} reason=\"another dispatcher leads fewer lanes\"");
        Some(lane)
    }
}

/// Whether this process leads the lane, whatever the status still says.
fn leads(hosted: &HostedLane) -> bool {
    hosted.lane.stats.leading.load(Ordering::Relaxed) == 1
}

fn view(hosted: &HostedLane) -> Option<LaneView> {
    let of_status = |status: &Status| {
        let leader = status.leader()?.holder.clone();
        let others = status.members.iter().filter(|member| member.id != leader);
        let in_sync = others.filter(|member| member.report.as_ref().is_some_and(|report| report.in_sync));
        let in_sync = in_sync.map(|member| member.id.clone()).collect();
        Some(LaneView { number: hosted.number, leader, in_sync, pending: status.snapshot.pending })
    };
    hosted.board.read(of_status).flatten()
}

/// The lane that the dispatcher `own` should hand over.
fn choose(lanes: &[LaneView], own: &str) -> Option<LaneNumber> {
    let mut led: BTreeMap<&str, usize> = BTreeMap::new();
    for lane in lanes {
        *led.entry(&lane.leader).or_default() += 1;
    }
    let of = |dispatcher: &str| led.get(dispatcher).copied().unwrap_or(0);
    let ours = lanes.iter().filter(|lane| lane.leader == own && lane.pending <= MOST_PENDING);
    let fitting = ours.filter(|lane| lane.in_sync.iter().any(|other| of(other) + 2 <= of(own)));
    fitting.min_by_key(|lane| (lane.pending, std::cmp::Reverse(lane.number))).map(|lane| lane.number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lanes(leaders: &[&str], all: &[&str]) -> Vec<LaneView> {
        let view = |(number, leader): (usize, &&str)| LaneView {
            number: number as LaneNumber,
            leader: (*leader).to_owned(),
            in_sync: all.iter().filter(|other| *other != leader).map(|other| (*other).to_owned()).collect(),
            pending: 0,
        };
        leaders.iter().enumerate().map(view).collect()
    }

    #[test]
    fn who_leads_two_more_than_another_hands_one_over() {
        let all = ["a", "b"];
        assert_eq!(choose(&lanes(&["a", "a", "a"], &all), "a"), Some(2));
        assert_eq!(choose(&lanes(&["a", "a", "a"], &all), "b"), None);
        assert_eq!(choose(&lanes(&["a", "a", "b"], &all), "a"), None);
        assert_eq!(choose(&lanes(&["a", "a"], &["a"]), "a"), None, "nobody else");
        assert_eq!(choose(&[], "a"), None);
    }

    #[test]
    fn a_lane_with_a_backlog_stays_and_the_emptiest_goes() {
        let mut lanes = lanes(&["a", "a", "a"], &["a", "b"]);
        lanes[2].pending = MOST_PENDING + 1;
        lanes[0].pending = 5;
        assert_eq!(choose(&lanes, "a"), Some(1));
        lanes[1].in_sync.clear();
        assert_eq!(choose(&lanes, "a"), Some(0), "another could not lead lane 1 at once");
    }

    proptest! {
        /// However the leases begin, some hand-overs spread them evenly, and then nothing moves any more.
        #[test]
        fn the_lanes_spread_evenly(leaders in prop::collection::vec(0_usize..4, 1..20), dispatchers in 1_usize..5) {
            const NAMES: [&str; 4] = ["a", "b", "c", "d"];
            let all = &NAMES[..dispatchers.min(4)];
            let mut leaders: Vec<&str> = leaders.iter().map(|leader| all[leader % all.len()]).collect();
            let count = |leaders: &[&str], who: &str| leaders.iter().filter(|leader| **leader == who).count();
            let mut moves = 0;
            while let Some((_, lane)) = all.iter().find_map(|own| Some((own, choose(&lanes(&leaders, all), own)?))) {
                // The one with the fewest goes first.
                leaders[usize::from(lane)] = all.iter().min_by_key(|who| count(&leaders, who)).expect("one");
                moves += 1;
                prop_assert!(moves <= leaders.len(), "it ends");
            }
            let counts: Vec<usize> = all.iter().map(|who| count(&leaders, who)).collect();
            prop_assert!(counts.iter().max().expect("one") - counts.iter().min().expect("one") <= 1, "{counts:?}");
        }
    }
}
