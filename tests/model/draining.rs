//! Stops: a consumer drains while the leader changes, because the leader dies, hangs or is asked to stop as well.
//!
//! Here a drained consumer does not start again, and there is another one. Which of its messages it has started is left
//! open: it may return or finish each.

use crate::actions::{Action, Protocol};
use crate::promises::*;
use crate::rest::can_loop;
use crate::ring::Id;
use crate::rules::{Bounds, Budget, Rule, Rules};
use crate::world::{Consumer, RETURNED, Return, Whereabouts, World};
use crate::{NO_FAULTS, assert_broken, assert_broken_after, assert_kept_after, assert_seen, bounds, long};

impl Protocol {
    /// The consumers and leaders that may be asked to stop.
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

    /// What draining consumers do, and what leaders learn of it.
    pub fn drained(&self, world: &World, actions: &mut Vec<Action>) {
        let draining = |consumer: &Consumer| consumer.alive && consumer.draining;
        for (c, consumer) in (0..).zip(&world.consumers).filter(|(_, consumer)| draining(consumer)) {
            for (d, dispatcher) in (0..).zip(&world.dispatchers) {
                let unheard = dispatcher.term.as_ref().is_some_and(|term| (term.links & !term.drains) & 1 << c != 0);
                actions.extend(unheard.then_some(Action::HearDrain { dispatcher: d, consumer: c }));
            }
            if world.is_heard(c) {
                let unbegun = consumer.held.iter().filter(|held| !held.committing);
                actions.extend(unbegun.map(|held| Action::GiveBack { consumer: c, id: held.id }));
            }
            actions.extend(consumer.held.is_empty().then_some(Action::Leave(c)));
        }
    }
}

impl World {
    /// A leader releases its lease and exits.
    pub fn stop(&mut self, d: u8) {
        self.end_term(d);
        self.crash(d);
    }

    /// Whether the leader whose link is in force reads what this consumer sends.
    pub fn is_heard(&self, c: u8) -> bool {
        let ruler = self.consumers[c as usize].ruler;
        let term = ruler.and_then(|d| self.dispatchers[d as usize].term.as_ref());
        term.is_some_and(|term| term.links & 1 << c != 0)
    }

    /// A leader reads DRAIN.
    pub fn hear_drain(&mut self, d: u8, c: u8) {
        self.term(d, |term| term.drains |= 1 << c);
    }

    /// A draining consumer returns a message that it has not started. Its leader has read DRAIN before.
    pub fn give_back(&mut self, c: u8, id: Id, rules: Rules) {
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

    /// A consumer holds nothing more: it closes its links and its listener.
    pub fn leave(&mut self, c: u8, rules: Rules) {
        self.consumers[c as usize] = Consumer { draining: true, ..Consumer::default() };
        for d in 0..self.dispatchers.len() as u8 {
            let Some(term) = self.dispatcher(d).term.as_mut().filter(|term| term.links & 1 << c != 0) else { continue };
            // The leader reads what came before the end of the stream.
            term.drains |= 1 << c;
            if !rules.has(Rule::UnreadDrainComesBack) {
                term.table.retain(|(.., at)| *at != Whereabouts::Sent(c));
            }
            self.drop_link(d, c);
        }
    }
}

/// A consumer holds a message.
const HOLDS: &[Action] = &[
    Action::Publish,
    Action::Read(0),
    Action::Read(1),
    Action::Take(0),
    Action::Serve(0),
    Action::Mark(0),
    Action::Read(0),
    Action::Read(1),
    Action::Deliver { dispatcher: 0, consumer: 0, id: 1, message: 0 },
];

/// A consumer holds a message, its leader hangs, and the other dispatcher is elected.
pub const ELECTED: &[Action] = &[
    Action::Publish,
    Action::Read(0),
    Action::Read(1),
    Action::Take(0),
    Action::Serve(0),
    Action::Mark(0),
    Action::Read(0),
    Action::Read(1),
    Action::Deliver { dispatcher: 0, consumer: 0, id: 1, message: 0 },
    Action::Pause,
    Action::Check(1),
    Action::Acquire(1),
];

const STOPS: Budget = Budget { drains: 1, stops: 1, ..NO_FAULTS };

fn stopping(messages: u8, budget: Budget) -> Bounds {
    bounds(2, messages, budget)
}

#[test]
fn a_consumer_drains_while_the_leader_changes() {
    assert_kept_after(HOLDS, "a drain and a leader that stops", stopping(1, STOPS));
    let budget = Budget { faults: 1, pauses: 1, drains: 1, ..NO_FAULTS };
    assert_kept_after(ELECTED, "a drain and a leader that hangs", stopping(1, budget));
    if long() {
        assert_kept_after(HOLDS, "a drain, two messages", stopping(2, Budget { stops: 0, ..STOPS }));
        assert_kept_after(HOLDS, "a drain before or after the leader hangs", stopping(1, budget));
    }
}

#[test]
fn the_programs_come_to_rest_after_stops() {
    assert!(!can_loop(stopping(1, Budget { stops: 0, ..STOPS }), Rules::ALL));
}

/// The new leader takes it for gone, and sends its messages to another consumer.
#[test]
fn the_messages_of_a_draining_consumer_that_answers_no_new_leader_are_held_twice() {
    let crash = Budget { faults: 1, crashes: 1, drains: 1, ..NO_FAULTS };
    for budget in [STOPS, crash] {
        assert_broken_after(HOLDS, Rule::DrainingAnswers, NOT_TWICE, stopping(1, budget));
    }
}

/// With enough restarts of consumers a message would become a dead letter that no handler ever started.
#[test]
fn a_counted_return_of_an_unstarted_message_dead_letters_it() {
    let budget = Budget { drains: 1, rejections: 1, ..NO_FAULTS };
    assert_broken(Rule::UnbegunIsUncounted, NOT_DEAD_UNUSED, stopping(1, budget));
}

/// A drained consumer is done with everything that it accepted, not with everything that was sent to it.
#[test]
fn a_message_sent_before_drain_was_read_is_forgotten_unless_it_comes_back() {
    assert_broken(Rule::UnreadDrainComesBack, DRAINED, stopping(1, Budget { drains: 1, ..NO_FAULTS }));
}

#[test]
fn events_of_stops_happen() {
    assert_seen(&[DRAINED_AWAY], stopping(1, STOPS));
}
