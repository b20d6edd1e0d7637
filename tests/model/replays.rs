//! Dead letters that an operator replays: a letter's message is pending again under its own id, and the leader is told
//! over the subscription (`src/ledger/lua/replay.lua`, `src/lane/replays.rs`).
//!
//! Limitations: a dispatcher hears of a replay independently of what else it is sent. Redis's answer comes in the step
//! that it answers, so the model can't show why a leader looks at what it hears only behind its redistributor's
//! answers.

use crate::actions::{Action, Protocol};
use crate::promises::{DEAD_LETTERED, DRAINED, REPLAYED};
use crate::ring::Id;
use crate::rules::{Bounds, Budget, Rule, Rules};
use crate::world::{Whereabouts, World};
use crate::{NO_FAULTS, assert_broken, assert_kept, assert_seen, bounds};

impl Protocol {
    /// What an operator may do.
    pub fn replays(&self, world: &World, actions: &mut Vec<Action>) {
        if world.budget.replays > 0 {
            let letters = world.redis.letters.iter().flatten();
            actions.extend(letters.map(|(id, _)| Action::Replay(*id)));
        }
    }

    /// What leaders hear of it.
    pub fn heard(&self, world: &World, actions: &mut Vec<Action>) {
        for (d, dispatcher) in (0..).zip(&world.dispatchers).filter(|(_, dispatcher)| dispatcher.term.is_some()) {
            actions.extend(dispatcher.returned.iter().map(|id| Action::Hear { dispatcher: d, id: *id }));
        }
    }
}

impl World {
    /// A letter's message is pending again.
    pub fn replay(&mut self, id: Id, rules: Rules) {
        let before = self.redis.recall;
        self.redis.replay(id);
        if self.redis.recall != before {
            self.recall_written(rules);
        }
        for dispatcher in self.dispatchers.iter_mut().filter(|dispatcher| dispatcher.subscribed) {
            if rules.has(Rule::ReplaysAreAnnounced) {
                dispatcher.returned.push(id);
                dispatcher.returned.sort_unstable();
            }
        }
    }

    /// A leader hears that a message is pending again. It reads it, unless it knows it or is about to read it.
    pub fn hear(&mut self, d: u8, id: Id) {
        self.dispatcher(d).returned.retain(|returned| *returned != id);
        if !self.is_accepted(d) {
            return self.end_term(d);
        }
        let found = self.redis.pending.iter().find(|(pending, _)| *pending == id).copied();
        self.term(d, |term| {
            let is_known = term.table.iter().any(|(known, ..)| *known == id);
            let will_be_read = term.backlog.is_some_and(|up_to| id <= up_to);
            if let Some((id, message)) = found.filter(|_| !is_known && !will_be_read) {
                let place = term.table.partition_point(|(known, ..)| *known < id);
                term.table.insert(place, (id, message, Whereabouts::Ready));
            }
        });
    }
}

/// A handler rejects the message, and an operator replays its letter.
const REPLAYS: Budget = Budget { rejections: 1, replays: 1, ..NO_FAULTS };

fn replaying(budget: Budget) -> Bounds {
    bounds(2, 1, budget)
}

#[test]
fn a_replayed_message_has_one_result() {
    assert_kept("a replay", replaying(REPLAYS));
    let pause = Budget { faults: 1, pauses: 1, crashes: 1, ..REPLAYS };
    assert_kept("a replay and another leader", bounds(1, 1, pause));
    // The consumer that was given up works on.
    assert_kept("a replay and a late result", replaying(Budget { faults: 1, silences: 1, ..REPLAYS }));
    let unanswered = Budget { faults: 1, timeouts: 1, consumer_crashes: 1, ..REPLAYS };
    assert_kept("a replay and an answer lost", bounds(1, 1, unanswered));
}

#[test]
fn letters_are_replayed() {
    assert_seen(&[DEAD_LETTERED, REPLAYED], replaying(REPLAYS));
}

#[test]
fn a_leader_that_is_not_told_leaves_the_message_pending() {
    assert_broken(Rule::ReplaysAreAnnounced, DRAINED, replaying(REPLAYS));
}

/// A letter of an earlier leader is replayed after the new one has acquired the lease and before it takes over.
#[test]
fn a_leader_that_forgets_after_it_was_elected_leaves_the_message_pending() {
    let budget = Budget { faults: 1, crashes: 1, ..REPLAYS };
    assert_broken(Rule::ReplaysForgottenBefore, DRAINED, bounds(1, 1, budget));
}
