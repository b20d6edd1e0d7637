//! An operator pauses the group and resumes it: the setting lies in Redis, and dispatchers are told over the
//! subscription that it has changed (`src/ledger/lua/settings.lua`, `src/lane/group_settings.rs`,
//! `src/lane/courier/limits.rs`).
//!
//! Limitations: a dispatcher hears of a change independently of what else it is sent. Pauses that end by themselves and
//! limits are left out.

use crate::actions::{Action, Protocol};
use crate::promises::{DRAINED, HELD_BACK, RESUMED};
use crate::rules::{Bounds, Budget, Rule, Rules};
use crate::world::{Phase, World};
use crate::{NO_FAULTS, TAIL_LOSS, assert_broken, assert_kept, assert_seen, bounds, long};

impl Protocol {
    /// What an operator may do: pause, then resume.
    pub fn holds(&self, world: &World, actions: &mut Vec<Action>) {
        actions.extend((world.budget.holds > 0).then_some(Action::Hold));
    }

    /// What leaders hear of it.
    pub fn held(&self, world: &World, actions: &mut Vec<Action>) {
        let told = (0..).zip(&world.dispatchers).filter(|(_, dispatcher)| dispatcher.news && dispatcher.term.is_some());
        actions.extend(told.map(|(d, _)| Action::HearSettings(d)));
    }
}

impl World {
    /// Pauses the group, or resumes it.
    pub fn hold(&mut self, rules: Rules) {
        self.redis.paused = !self.redis.paused;
        for dispatcher in self.dispatchers.iter_mut().filter(|dispatcher| dispatcher.subscribed) {
            dispatcher.news = rules.has(Rule::SettingsAreAnnounced);
        }
    }

    /// A leader that was told of a change reads the settings.
    pub fn hear_settings(&mut self, d: u8) {
        self.dispatcher(d).news = false;
        if !self.is_accepted(d) {
            return self.end_term(d);
        }
        let paused = self.redis.paused;
        self.term(d, |term| term.paused = paused);
    }

    /// Notes whether a delivery is one that the pause should have held back: the true leader has the subscription with
    /// which it was elected, and has heard all of it.
    pub fn note_delivery(&mut self, d: u8) {
        let dispatcher = &self.dispatchers[d as usize];
        let Some(term) = &dispatcher.term else { return };
        let elected_with = match term.phase {
            Phase::TakingOver(_) => term.check.segment,
            Phase::Running { live_segment, .. } => Some(live_segment),
        };
        let hears = dispatcher.subscribed && !dispatcher.news && dispatcher.ring.live_segment() == elected_with;
        self.seen.delivered_in_pause |= hears && self.redis.paused && self.is_accepted(d);
    }
}

/// A pause and its end.
const HOLDS: Budget = Budget { holds: 2, ..NO_FAULTS };

fn holding(consumers: usize, budget: Budget) -> Bounds {
    bounds(consumers, 1, budget)
}

#[test]
fn a_pause_holds_back_and_all_is_done_after_it() {
    let failing = Budget { rejections: 1, ..HOLDS };
    assert_kept("a pause", bounds(1, 2, failing));
    let change = Budget { faults: 1, crashes: 1, cuts: 1, pauses: 1, ..HOLDS };
    assert_kept("a pause and another leader", holding(1, change));
    assert_kept("a pause and a lost consumer", holding(2, Budget { faults: 1, consumer_crashes: 1, ..HOLDS }));
    assert_kept("a pause and a stop", holding(1, Budget { stops: 1, ..HOLDS }));
    if long() {
        assert_kept("two pauses and another leader", holding(1, Budget { holds: 4, ..change }));
        assert_kept("a pause and a lost tail", holding(1, Budget { holds: 2, ..TAIL_LOSS }));
        assert_kept("a pause, two messages and another leader", bounds(1, 2, Budget { crashes: 1, cuts: 0, ..change }));
    }
}

#[test]
fn groups_are_resumed() {
    assert_seen(&[RESUMED], holding(1, Budget { faults: 1, crashes: 1, ..HOLDS }));
}

#[test]
fn a_new_leader_that_does_not_read_the_settings_delivers_in_a_pause() {
    let budget = Budget { faults: 1, crashes: 1, ..HOLDS };
    assert_broken(Rule::SettingsReadWithTheLease, HELD_BACK, holding(1, budget));
}

#[test]
fn a_leader_that_is_not_told_delivers_in_a_pause() {
    assert_broken(Rule::SettingsAreAnnounced, HELD_BACK, holding(1, HOLDS));
}

#[test]
fn a_leader_that_is_not_told_of_the_end_delivers_nothing_more() {
    let budget = Budget { faults: 1, crashes: 1, ..HOLDS };
    assert_broken(Rule::SettingsAreAnnounced, DRAINED, holding(1, budget));
}

/// The group is resumed after the new leader has acquired the lease and before it takes over.
#[test]
fn a_leader_that_forgets_after_it_was_elected_stays_paused() {
    let budget = Budget { faults: 1, crashes: 1, ..HOLDS };
    assert_broken(Rule::ReplaysForgottenBefore, DRAINED, holding(1, budget));
}
