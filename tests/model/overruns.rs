//! Overruns: a ring drops its oldest messages for lack of memory before they are stored. Other rings may hold them.

use crate::promises::*;
use crate::rest::goes_in_circles;
use crate::rules::{Bounds, Budget, Rule, Rules};
use crate::world::World;
use crate::{NO_FAULTS, assert_broken, assert_kept, assert_seen, bounds, find_broken, long};

impl World {
    /// A ring drops its oldest message. This dispatcher then no longer holds it.
    pub fn overrun(&mut self, d: u8) {
        let Some(message) = self.dispatchers[d as usize].ring.overrun() else { return };
        for known_to in [&mut self.witnesses, &mut self.hearers] {
            known_to[message as usize] &= !(1 << d);
        }
    }
}

const OVERRUN: Budget = Budget { faults: 1, overruns: 1, ..NO_FAULTS };

fn overrun(messages: u8, budget: Budget) -> Bounds {
    Bounds { gaps: true, ..bounds(0, messages, budget) }
}

#[test]
fn what_a_ring_dropped_another_takes_in() {
    assert_kept("two overruns, two messages", overrun(2, Budget { faults: 2, overruns: 2, ..OVERRUN }));
    let budget = Budget { faults: 2, pauses: 1, timeouts: 1, ..OVERRUN };
    assert_kept("an overrun and another fault", overrun(1, budget));
    if long() {
        assert_kept("an overrun and another fault, two messages", overrun(2, budget));
    }
}

#[test]
fn the_programs_come_to_rest_after_overruns() {
    assert!(!goes_in_circles(overrun(2, Budget { faults: 2, overruns: 2, ..OVERRUN }), Rules::ALL));
}

#[test]
fn who_goes_on_over_an_overrun_loses_what_others_hold() {
    assert_broken(Rule::OverrunLikeABreak, NONE_LOST, overrun(1, OVERRUN));
}

#[test]
fn who_sees_nobody_and_goes_on_over_an_overrun_loses_what_others_come_back_with() {
    let budget = Budget { faults: 2, cuts: 1, ..OVERRUN };
    assert_broken(Rule::OverrunWaitsForOthers, NONE_LOST, overrun(1, budget));
}

/// A documented limit: a dispatcher that has subscribed again is not in sync, and is younger than one that has dropped
/// the messages that the first one holds.
#[test]
fn an_eldest_that_dropped_what_a_younger_one_holds_passes_over_it() {
    let budget = Budget { faults: 2, cuts: 1, ..OVERRUN };
    find_broken(&[], Rules::ALL, NONE_LOST, overrun(1, budget));
}

/// Messages that all rings have dropped are skipped, and recorded as a gap.
#[test]
fn what_all_dropped_is_a_gap() {
    assert_seen(&[PASSED_OVERRUN, GAP], overrun(1, Budget { faults: 2, overruns: 2, ..OVERRUN }));
}
