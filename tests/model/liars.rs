//! Lies: a faulty consumer lists messages in HELD or answers for messages that it does not hold, or a stranger who
//! knows the leader's epoch sends frames.
//!
//! An answer counts only for a message with a *place* at the consumer: one that the leader sent over this link, or that
//! the consumer listed in HELD while it was pending and no other consumer had it; and that was not answered yet. A lie
//! may take a place, too. The message is then overdue at some point, and is redelivered.
//!
//! RESULT is not a lie if the consumer holds the message: it is then a consumer without Redis, and its leader records.
//! A link is *proven* once the script has found one of its messages pending. In the model the leader's links are proven
//! from the start, and a stranger's link never is.
//!
//! Limitations: no consumer changes Redis by itself, although one that commits could; and a link may lie as often as
//! the budget allows.

use crate::actions::{Action, Protocol};
use crate::draining::ELECTED;
use crate::promises::*;
use crate::redis::{Answer, Script};
use crate::ring::{Id, Message};
use crate::rules::{Bounds, Budget, Rule, Rules};
use crate::world::{Held, Issuer, LOST, RETURNED, Return, Term, Whereabouts, World};
use crate::{NO_FAULTS, assert_broken, assert_kept, assert_kept_after, bounds, find_broken, long};

/// A frame that may be untrue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lie {
    /// HELD with a message that this consumer does not hold, or that does not exist.
    Held,
    /// ACK for a message that has no place at this consumer.
    Ack,
    /// ACK for a message that has a place there and is not recorded.
    AckInPlace,
    /// NACK for any message.
    Nack,
    /// RESULT for any message.
    Result,
    /// A consumer forgets a message, and sends no answer.
    Silence,
    /// A stranger's PROCESS in the leader's epoch.
    Process,
}

/// The id of no message.
const NONE: Id = 0;

impl Protocol {
    /// The lies that are possible now.
    pub fn lies(&self, world: &World, actions: &mut Vec<Action>) {
        if world.budget.lies == 0 {
            return;
        }
        for lie in self.bounds.lies.iter().copied() {
            for (c, consumer) in (0..).zip(&world.consumers).filter(|(_, consumer)| consumer.alive) {
                let lacks = |id: Id| !consumer.held.iter().any(|held| held.id == id);
                match lie {
                    Lie::Silence => {
                        let running = consumer.held.iter().filter(|held| !held.committing);
                        actions.extend(running.map(|held| Action::Forget { consumer: c, id: held.id }));
                    }
                    Lie::Process => {
                        let ids = world.known_ids().filter(|(id, _)| lacks(*id));
                        actions.extend(ids.map(|(id, message)| Action::Forge { consumer: c, id, message }));
                    }
                    Lie::Held => names(world, c, actions),
                    Lie::Ack | Lie::AckInPlace | Lie::Nack | Lie::Result => answers(world, lie, c, actions),
                }
            }
        }
    }

    /// Messages that a consumer no longer reports.
    pub fn overdue(&self, world: &World, actions: &mut Vec<Action>) {
        if self.bounds.lies.is_empty() || !self.rules.has(Rule::OverdueRedelivered) {
            return;
        }
        for (d, dispatcher) in (0..).zip(&world.dispatchers) {
            for (id, _, at) in dispatcher.term.iter().flat_map(|term| &term.table) {
                let Whereabouts::Sent(c) = *at else { continue };
                let reported = world.consumers[c as usize].held.iter().any(|held| held.id == *id);
                actions.extend((!reported).then_some(Action::Overdue { dispatcher: d, consumer: c, id: *id }));
            }
        }
    }

    /// Whether a consumer may be sent another message.
    pub fn may_be_given(&self, term: &Term, c: u8) -> bool {
        let has_room = |c: u8| term.drains & 1 << c == 0 && term.places(c) < self.bounds.prefetch as usize;
        let others = (0..self.bounds.consumers as u8).filter(|other| term.links & 1 << other != 0);
        let is_overdue = term.overdue.iter().any(|(at, _)| *at == c) && term.drains & 1 << c == 0;
        has_room(c) || is_overdue && self.rules.has(Rule::OverduePlaceIsGivenAway) && !others.into_iter().any(has_room)
    }
}

impl Term {
    /// The number of places in use at a consumer.
    fn places(&self, c: u8) -> usize {
        let sent = self.table.iter().filter(|(.., at)| *at == Whereabouts::Sent(c)).count();
        sent + self.overdue.iter().filter(|(at, _)| *at == c).count()
    }

    /// A message is sent to a consumer. It takes its own overdue place there, or, if none is free, that of another.
    pub fn give_overdue_place(&mut self, c: u8, id: Id, prefetch: u8) {
        let same = self.overdue.iter().position(|place| *place == (c, id));
        let is_full = self.places(c) >= prefetch as usize;
        let other = || self.overdue.iter().position(|(at, _)| *at == c && is_full);
        if let Some(index) = same.or_else(other) {
            self.overdue.remove(index);
        }
    }

    /// Whether a message has a place at a consumer.
    fn has_place(&self, c: u8, id: Id) -> bool {
        self.overdue.contains(&(c, id))
            || self.table.iter().any(|(known, _, at)| *known == id && *at == Whereabouts::Sent(c))
    }
}

impl World {
    /// The messages that a stranger may know of: those that are pending, and the last one that was stored.
    fn known_ids(&self) -> impl Iterator<Item = (Id, Message)> + '_ {
        let last = self.redis.cursor.map_or(NONE, |cursor| cursor.last_id);
        let recorded = (last != NONE && !self.redis.holds(last)).then(|| (last, self.published - 1));
        self.redis.pending.iter().copied().chain(recorded)
    }

    /// A consumer's link is replaced, and it lists a message that it does not hold.
    pub fn name(&mut self, d: u8, c: u8, id: Id, message: Message, rules: Rules) -> bool {
        self.drop_link(d, c);
        let linked = self.link(d, c, rules);
        if linked {
            self.adopt(d, c, id, message, rules);
        }
        linked
    }

    /// A consumer answers for a message, which it then no longer holds.
    pub fn answer(&mut self, lie: Lie, d: u8, c: u8, id: Id, message: Message, rules: Rules) -> bool {
        let consumer = &mut self.consumers[c as usize];
        let held = consumer.held.iter().find(|held| held.id == id).copied();
        let place = self.dispatchers[d as usize].term.as_ref().is_some_and(|term| term.has_place(c, id));
        let applies = match lie {
            Lie::Ack => !place,
            Lie::AckInPlace => place,
            _ => true,
        };
        if !applies || held.is_some_and(|held| held.committing) {
            return false;
        }
        consumer.held.retain(|held| held.id != id);
        if !place && rules.has(Rule::OnlyPlacesAnswer) {
            return held.is_some();
        }
        match lie {
            Lie::Result => return self.record(d, c, id, message),
            Lie::Nack => self.term(d, |term| {
                term.overdue.retain(|known| *known != (c, id));
                for (known, _, at) in &mut term.table {
                    if *known == id && (*at == Whereabouts::Sent(c) || !place) {
                        *at = Whereabouts::Back(RETURNED);
                    }
                }
            }),
            Lie::Ack => self.term(d, |term| term.table.retain(|(known, ..)| *known != id)),
            Lie::AckInPlace => self.term(d, |term| term.settle(c, id)),
            Lie::Held | Lie::Silence | Lie::Process => unreachable!("{lie:?} is not an answer"),
        }
        true
    }

    /// A leader records the result that a consumer sent.
    fn record(&mut self, d: u8, consumer: u8, id: Id, message: Message) -> bool {
        let epoch = self.dispatchers[d as usize].term.as_ref().map_or(0, |term| term.epoch);
        let script = Script::Record { epoch, id, message, consumer };
        let issuer = Issuer::Redistributor(d);
        let is_new = !self.requests.iter().any(|sent| sent.issuer == issuer && sent.script == script);
        if is_new {
            self.send(issuer, script);
        }
        is_new
    }

    /// The answer to such a record.
    pub fn recorded(&mut self, d: u8, c: u8, id: Id, answer: Answer) {
        if answer == Answer::Stale {
            return self.end_term(d);
        }
        self.term(d, |term| term.settle(c, id));
    }

    /// A consumer has not reported a message for too long.
    pub fn overdue(&mut self, d: u8, c: u8, id: Id) {
        self.term(d, |term| {
            let counted = term.drains & 1 << c == 0;
            crate::courier::set(term, id, Whereabouts::Back(Return { counted, ..LOST }));
            term.overdue.push((c, id));
            term.overdue.sort_unstable();
        });
    }

    /// A stranger who knows the epoch takes the leader's place, sends a message and disconnects.
    pub fn forge(&mut self, c: u8, id: Id, message: Message, rules: Rules) {
        (0..self.dispatchers.len() as u8).for_each(|d| self.drop_link(d, c));
        let consumer = &mut self.consumers[c as usize];
        consumer.ruler = None;
        let from = if rules.has(Rule::UnprovenChecks) { 0 } else { consumer.epoch };
        if !consumer.draining {
            consumer.take(Held { id, message, committing: false, from, proven: false });
        }
    }
}

/// The messages that a consumer may list in HELD without holding them.
fn names(world: &World, c: u8, actions: &mut Vec<Action>) {
    let lacks = |id: Id| !world.consumers[c as usize].held.iter().any(|held| held.id == id);
    for (d, _) in (0..).zip(&world.dispatchers).filter(|(_, dispatcher)| dispatcher.term.is_some()) {
        let ids = world.redis.pending.iter().copied().chain([(NONE, 0)]).filter(|(id, _)| lacks(*id));
        actions.extend(ids.map(|(id, message)| Action::Name { dispatcher: d, consumer: c, id, message }));
    }
}

/// The messages that a consumer may answer for: all that its leader knows of.
fn answers(world: &World, lie: Lie, c: u8, actions: &mut Vec<Action>) {
    for (d, dispatcher) in (0..).zip(&world.dispatchers) {
        let Some(term) = dispatcher.term.as_ref().filter(|term| term.links & 1 << c != 0) else { continue };
        let known = term.table.iter().filter(|(id, ..)| *id != NONE);
        let answer =
            |(id, message, _): &_| Action::Answer { lie, dispatcher: d, consumer: c, id: *id, message: *message };
        actions.extend(known.map(answer));
    }
}

const LIE: Budget = Budget { faults: 1, lies: 1, ..NO_FAULTS };

/// A message waits for a consumer.
const WAITS: &[Action] = &[
    Action::Publish,
    Action::Read(0),
    Action::Read(1),
    Action::Take(0),
    Action::Serve(0),
    Action::Mark(0),
    Action::Read(0),
    Action::Read(1),
];

/// The lies that do no harm.
const HARMLESS: &[Lie] = &[Lie::Held, Lie::Ack, Lie::Nack, Lie::Result, Lie::Silence, Lie::Process];
const OF_CONSUMERS: &[Lie] = &[Lie::Held, Lie::Ack, Lie::Nack, Lie::Result, Lie::Silence];

fn lying(lies: &'static [Lie], consumers: usize, budget: Budget) -> Bounds {
    Bounds { lies, prefetch: 1, ..bounds(consumers, 1, budget) }
}

#[test]
fn lies_do_no_harm() {
    assert_kept("two lies", lying(HARMLESS, 2, Budget { faults: 2, lies: 2, ..LIE }));
    let budget = Budget { faults: 2, timeouts: 1, ..LIE };
    let alone = Bounds { dispatchers: 1, ..lying(OF_CONSUMERS, 2, budget) };
    assert_kept("a lie and a lost answer", alone);
    let budget = Budget { faults: 2, pauses: 1, ..LIE };
    assert_kept_after(ELECTED, "a lie after an election", lying(&[Lie::Held, Lie::Nack, Lie::Result], 2, budget));
    if long() {
        assert_kept_after(ELECTED, "any lie after an election", lying(HARMLESS, 2, budget));
        assert_kept_after(WAITS, "a lie and a change of leaders", lying(HARMLESS, 2, budget));
        assert_kept("three lies", lying(HARMLESS, 2, Budget { faults: 3, lies: 3, ..LIE }));
        let budget = Budget { faults: 3, lies: 2, pauses: 1, ..LIE };
        assert_kept_after(ELECTED, "two lies after an election", lying(HARMLESS, 2, budget));
    }
}

/// The next attempt at the intake does not find the message, which was recorded, and stores it again. Ids follow the
/// clock, so they can be guessed.
#[test]
fn a_message_listed_before_its_leader_knows_it_is_stored_twice() {
    let budget = Budget { faults: 2, timeouts: 1, ..LIE };
    let alone = Bounds { dispatchers: 1, ..lying(&[Lie::Held], 2, budget) };
    assert_broken(Rule::HeldIsStored, ONE_RESULT, alone);
}

/// The other consumer records its result without a check.
#[test]
fn a_result_for_another_consumers_message_is_recorded_as_well() {
    assert_broken(Rule::OnlyPlacesAnswer, ONE_RESULT, lying(&[Lie::Result], 2, LIE));
}

/// As if the consumer that works on it had given it up: the next one need not check either.
#[test]
fn a_nack_for_another_consumers_message_makes_two_results() {
    assert_broken(Rule::OnlyPlacesAnswer, ONE_RESULT, lying(&[Lie::Nack], 2, LIE));
}

#[test]
fn an_ack_for_a_waiting_message_makes_the_leader_forget_it() {
    assert_broken(Rule::OnlyPlacesAnswer, DRAINED, lying(&[Lie::Ack], 1, LIE));
}

/// The consumer only claims to hold the message.
#[test]
fn a_place_that_was_taken_by_a_lie_keeps_its_message() {
    assert_broken(Rule::OverdueRedelivered, DRAINED, lying(&[Lie::Held], 2, LIE));
}

/// Either rule alone prevents this.
#[test]
fn places_for_messages_that_are_not_pending_leave_none_free() {
    let rules = Rules::without(Rule::HeldIsPending).and_without(Rule::OverduePlaceIsGivenAway);
    find_broken(&[], rules, DRAINED, lying(&[Lie::Held], 1, LIE));
}

#[test]
fn a_sole_consumer_that_never_answers_gets_nothing_more() {
    assert_broken(Rule::OverduePlaceIsGivenAway, DRAINED, lying(&[Lie::Silence], 1, LIE));
}

/// The message was recorded before.
#[test]
fn a_strangers_message_is_recorded_again_without_a_check() {
    assert_broken(Rule::UnprovenChecks, ONE_RESULT, lying(&[Lie::Process], 1, LIE));
}

/// The message is pending, and another consumer holds it, which does not check.
#[test]
fn a_strangers_message_is_recorded_by_two_consumers() {
    assert_broken(Rule::UnprovenRaisesRecall, ONE_RESULT, lying(&[Lie::Process], 2, LIE));
}

/// A documented limit: a stranger guesses the id of a message while its leader does not know whether it was stored. The
/// leader stores it once more after a consumer has recorded it.
#[test]
fn a_strangers_message_that_its_leader_does_not_know_yet_is_stored_twice() {
    let budget = Budget { faults: 2, timeouts: 1, ..LIE };
    find_broken(&[], Rules::ALL, ONE_RESULT, lying(&[Lie::Process], 1, budget));
}

/// A documented limit: the leader trusts a consumer that records its results itself.
#[test]
fn an_ack_without_a_record_is_trusted() {
    find_broken(&[], Rules::ALL, DRAINED, lying(&[Lie::AckInPlace], 1, LIE));
}
