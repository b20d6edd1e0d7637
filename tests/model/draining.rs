//! Stops: a consumer that drains while the leader changes, be it that the leader dies, hangs or is asked to stop as
//! well.
//!
//! Here a consumer that has drained stays away, and another one is there. What it has not begun on it may hand back or
//! finish; which of its messages it has begun on is left open.

use crate::actions::{Action, Protocol};
use crate::promises::*;
use crate::rest::goes_in_circles;
use crate::ring::Id;
use crate::rules::{Bounds, Budget, Rule, Rules};
use crate::world::{Consumer, RETURNED, Return, Whereabouts, World};
use crate::{NO_FAULTS, assert_broken, assert_broken_after, assert_kept_after, assert_seen, bounds, long};

impl Protocol {
    /// Who is asked to stop.
    pub fn stops(&self, world: &World, actions: &mut Vec<Action>) {
        let others_stay = world.consumers.iter().filter(|consumer| !consumer.draining).count() > 1;
        if world.budget.drains > 0 && others_stay {
            let working = (0..).zip(&world.consumers).filter(|(_, consumer)| consumer.alive && !consumer.draining);
            actions.extend(working.map(|(c, _)| Action::Drain(c)));
        }
        let leaders =
            (0..).zip(&world.dispatchers).filter(|(_, leader)| world.budget.stops > 0 && leader.term.is_some());
        actions.extend(leaders.map(|(d, _)| Action::Stop(d)));
    }

    /// What draining consumers do, and what leaders hear of it.
    pub fn drained(&self, world: &World, actions: &mut Vec<Action>) {
        let draining = |consumer: &Consumer| consumer.alive && consumer.draining;
        for (c, consumer) in (0..).zip(&world.consumers).filter(|(_, consumer)| draining(consumer)) {
            for (d, dispatcher) in (0..).zip(&world.dispatchers) {
                let unheard = dispatcher.term.as_ref().is_some_and(|term| (term.links & !term.drains) & 1 << c != 0);
                actions.extend(unheard.then_some(Action::HearDrain { dispatcher: d, consumer: c }));
            }
            if world.is_heard(c) {
                let unbegun = consumer.held.iter().filter(|held| !held.committing);
                actions.extend(unbegun.map(|held| Action::HandBack { consumer: c, id: held.id }));
            }
            actions.extend(consumer.held.is_empty().then_some(Action::Leave(c)));
        }
    }
}

impl World {
    /// A leader gives its lease back and ends.
    pub fn stop(&mut self, d: u8) {
        self.end_term(d);
        self.crash(d);
    }

    /// Whether the leader that rules a consumer reads what it says.
    pub fn is_heard(&self, c: u8) -> bool {
        let ruler = self.consumers[c as usize].ruler;
        let term = ruler.and_then(|d| self.dispatchers[d as usize].term.as_ref());
        term.is_some_and(|term| term.links & 1 << c != 0)
    }

    /// A leader reads DRAIN.
    pub fn hear_drain(&mut self, d: u8, c: u8) {
        self.term(d, |term| term.drains |= 1 << c);
    }

    /// A draining consumer hands back what it has not begun on. Its leader has read DRAIN before.
    pub fn hand_back(&mut self, c: u8, id: Id, rules: Rules) {
        let consumer = &mut self.consumers[c as usize];
        consumer.held.retain(|held| held.id != id);
        let d = consumer.ruler.expect("only with a ruler");
        self.hear_drain(d, c);
        let counted = !rules.has(Rule::UnbegunIsUncounted);
        self.term(d, |term| {
            if let Some((.., at)) =
                term.table.iter_mut().find(|(known, _, at)| *known == id && *at == Whereabouts::Sent(c))
            {
                *at = Whereabouts::Back(Return { counted, ..RETURNED });
            }
        });
    }

    /// A consumer has nothing in hand any more: it closes its links and its listener.
    pub fn leave(&mut self, c: u8, rules: Rules) {
        self.consumers[c as usize] = Consumer { draining: true, ..Consumer::default() };
        for d in 0..self.dispatchers.len() as u8 {
            let Some(term) = self.dispatcher(d).term.as_mut().filter(|term| term.links & 1 << c != 0) else { continue };
            // What comes before the end of the stream is read before it.
            term.drains |= 1 << c;
            if !rules.has(Rule::UnreadDrainGivesBack) {
                term.table.retain(|(.., at)| *at != Whereabouts::Sent(c));
            }
            self.drop_link(d, c);
        }
    }
}

/// A consumer has a message in hand.
const IN_HAND: &[Action] = &[
    Action::Publish,
    Action::Read(0),
    Action::Read(1),
    Action::Take(0),
    Action::Serve(0),
    Action::Mark(0),
    Action::Read(0),
    Action::Read(1),
    Action::HandOut { dispatcher: 0, consumer: 0, id: 1, message: 0 },
];

/// And its leader hangs; the other dispatcher has been elected.
pub const ELECTED: &[Action] = &[
    Action::Publish,
    Action::Read(0),
    Action::Read(1),
    Action::Take(0),
    Action::Serve(0),
    Action::Mark(0),
    Action::Read(0),
    Action::Read(1),
    Action::HandOut { dispatcher: 0, consumer: 0, id: 1, message: 0 },
    Action::Pause,
    Action::Look(1),
    Action::Acquire(1),
];

const STOPS: Budget = Budget { drains: 1, stops: 1, ..NO_FAULTS };

fn stopping(messages: u8, budget: Budget) -> Bounds {
    bounds(2, messages, budget)
}

#[test]
fn a_consumer_drains_while_the_leader_changes() {
    assert_kept_after(IN_HAND, "a drain and a leader that stops", stopping(1, STOPS));
    let budget = Budget { faults: 1, pauses: 1, drains: 1, ..NO_FAULTS };
    assert_kept_after(ELECTED, "a drain and a leader that hangs", stopping(1, budget));
    if long() {
        assert_kept_after(IN_HAND, "a drain, two messages", stopping(2, Budget { stops: 0, ..STOPS }));
        assert_kept_after(IN_HAND, "a drain before or after the leader hangs", stopping(1, budget));
    }
}

#[test]
fn the_programs_come_to_rest_after_stops() {
    assert!(!goes_in_circles(stopping(1, Budget { stops: 0, ..STOPS }), Rules::ALL));
}

/// The new leader takes it for gone, and gives what it works on to somebody else.
#[test]
fn a_draining_consumer_that_answers_no_new_leader_is_not_the_only_one_at_its_messages() {
    let crash = Budget { faults: 1, crashes: 1, drains: 1, ..NO_FAULTS };
    for budget in [STOPS, crash] {
        assert_broken_after(IN_HAND, Rule::DrainingAnswers, NOT_TWICE, stopping(1, budget));
    }
}

/// With enough restarts of consumers a message that nobody ever began on is dead.
#[test]
fn what_a_draining_consumer_had_not_begun_on_is_buried_if_that_counts() {
    let budget = Budget { drains: 1, rejections: 1, ..NO_FAULTS };
    assert_broken(Rule::UnbegunIsUncounted, NOT_DEAD_UNUSED, stopping(1, budget));
}

/// A consumer that has drained is done with all that it accepted, not with all that it was sent.
#[test]
fn what_was_sent_before_drain_was_read_is_forgotten_if_it_does_not_go_back() {
    assert_broken(Rule::UnreadDrainGivesBack, DRAINED, stopping(1, Budget { drains: 1, ..NO_FAULTS }));
}

#[test]
fn what_is_seen_of_stops() {
    assert_seen(&[DRAINED_AWAY], stopping(1, STOPS));
}
