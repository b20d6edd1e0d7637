//! Overruns: a ring drops its oldest messages for lack of memory before they are stored. Other rings may hold them.

use crate::promises::*;
use crate::rest::can_loop;
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
fn another_dispatcher_stores_what_a_ring_dropped() {
    assert_kept("two overruns, two messages", overrun(2, Budget { faults: 2, overruns: 2, ..OVERRUN }));
    let budget = Budget { faults: 2, pauses: 1, timeouts: 1, ..OVERRUN };
    assert_kept("an overrun and another fault", overrun(1, budget));
    if long() {
        assert_kept("an overrun and another fault, two messages", overrun(2, budget));
    }
}

#[test]
fn the_programs_come_to_rest_after_overruns() {
    assert!(!can_loop(overrun(2, Budget { faults: 2, overruns: 2, ..OVERRUN }), Rules::ALL));
}

#[test]
fn continuing_past_an_overrun_loses_what_others_hold() {
    assert_broken(Rule::OverrunLikeABreak, NONE_LOST, overrun(1, OVERRUN));
}

#[test]
fn continuing_past_an_overrun_alone_loses_what_others_come_back_with() {
    let budget = Budget { faults: 2, cuts: 1, ..OVERRUN };
    assert_broken(Rule::OverrunWaitsForOthers, NONE_LOST, overrun(1, budget));
}

/// A documented limit: a dispatcher that has subscribed again is not in sync, and is younger than one that has dropped
/// the messages that the first one holds.
#[test]
fn an_eldest_skips_what_it_dropped_and_a_younger_one_holds() {
    let budget = Budget { faults: 2, cuts: 1, ..OVERRUN };
    find_broken(&[], Rules::ALL, NONE_LOST, overrun(1, budget));
}

/// Messages that all rings have dropped are skipped, and recorded as a gap.
#[test]
fn messages_dropped_by_all_are_a_gap() {
    assert_seen(&[PASSED_OVERRUN, GAP], overrun(1, Budget { faults: 2, overruns: 2, ..OVERRUN }));
}
