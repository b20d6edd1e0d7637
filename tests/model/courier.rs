//! The hand-out: links, the backlog, deliveries, commits, acknowledgements and burials.
//!
//! A frame between a leader and a consumer is one step: the consumer's desk decides about each under one lock, and of
//! what was on the way when a link broke nothing is heard again.

use crate::redis::{Answer, Script};
use crate::ring::{Id, Message};
use crate::rules::{Rule, Rules};
use crate::world::{Consumer, Issuer, Term, Whereabouts, World};

impl World {
    /// A leader connects to a consumer: LEAD, READY, HELD. `false`: refused, or nothing new.
    pub fn link(&mut self, d: u8, c: u8, rules: Rules) -> bool {
        let consumer = &mut self.consumers[c as usize];
        let Some(term) = self.dispatchers[d as usize].term.as_mut() else { return false };
        if !consumer.alive || term.links & 1 << c != 0 {
            return false;
        }
        if term.epoch < consumer.epoch && rules.has(Rule::ConsumersFence) {
            return false;
        }
        self.seen.stale_delivery |= term.epoch < consumer.epoch;
        consumer.epoch = consumer.epoch.max(term.epoch);
        consumer.ruler = Some(d);
        term.links |= 1 << c;
        for (id, message, _) in &consumer.held {
            match term.table.iter_mut().find(|(known, ..)| known == id) {
                Some((_, _, whereabouts @ (Whereabouts::Ready | Whereabouts::Away))) => {
                    *whereabouts = Whereabouts::Sent(c);
                }
                Some(_) => {}
                None => insert(&mut term.table, (*id, *message, Whereabouts::Sent(c))),
            }
        }
        true
    }

    /// A leader's link to a consumer is gone: what was there goes out again.
    pub fn drop_link(&mut self, d: u8, c: u8) {
        if let Some(term) = self.dispatchers[d as usize].term.as_mut() {
            term.links &= !(1 << c);
            for (.., whereabouts) in term.table.iter_mut().filter(|(.., at)| *at == Whereabouts::Sent(c)) {
                *whereabouts = Whereabouts::Away;
            }
        }
    }

    /// A leader reads the backlog.
    pub fn page(&mut self, d: u8) {
        let pending = self.redis.pending.clone();
        if !self.is_accepted(d) {
            return self.end_term(d);
        }
        self.term(d, |term| {
            let Some(up_to) = term.backlog.take() else { return };
            for (id, message) in pending.into_iter().filter(|(id, _)| *id <= up_to) {
                if !term.table.iter().any(|(known, ..)| *known == id) {
                    insert(&mut term.table, (id, message, Whereabouts::Ready));
                }
            }
        });
    }

    /// A message that came back is read again, and waits if it is still pending.
    pub fn redeliver(&mut self, d: u8, id: Id) {
        if !self.is_accepted(d) {
            return self.end_term(d);
        }
        let pending = self.redis.holds(id);
        self.term(d, |term| {
            if pending {
                set(term, id, Whereabouts::Ready);
            } else {
                term.table.retain(|(known, ..)| *known != id);
            }
        });
    }

    /// A message goes to a consumer, which takes it if the link rules.
    pub fn hand_out(&mut self, d: u8, c: u8, id: Id, message: Message) {
        let consumer = &mut self.consumers[c as usize];
        if consumer.ruler != Some(d) {
            return self.drop_link(d, c);
        }
        if !consumer.held.iter().any(|(held, ..)| *held == id) {
            consumer.held.push((id, message, false));
            consumer.held.sort_unstable();
        }
        self.term(d, |term| set(term, id, Whereabouts::Sent(c)));
    }

    /// The handler is done: the result is on its way to Redis.
    pub fn finish(&mut self, c: u8, id: Id) {
        let held = self.consumers[c as usize].held.iter_mut().find(|(held, ..)| *held == id);
        let (_, message, committing) = held.expect("only what is in hand is finished");
        *committing = true;
        let script = Script::Commit { id, message: *message };
        self.send(Issuer::Consumer(c), script);
    }

    /// The answer to a commit: the ACK goes to the ruler.
    pub fn committed(&mut self, c: u8, id: Id) {
        let consumer = &mut self.consumers[c as usize];
        consumer.held.retain(|(held, ..)| *held != id);
        let Some(d) = consumer.ruler else { return };
        let Some(term) = self.dispatchers[d as usize].term.as_mut() else { return };
        if term.links & 1 << c == 0 {
            return;
        }
        // What counts as being at another consumer is acknowledged from there.
        term.table.retain(|(known, _, at)| *known != id || matches!(at, Whereabouts::Sent(other) if *other != c));
    }

    /// The handler rejects a message: the ruler has it buried.
    pub fn reject(&mut self, d: u8, c: u8, id: Id) {
        self.consumers[c as usize].held.retain(|(held, ..)| *held != id);
        let Some(term) = self.dispatchers[d as usize].term.as_mut() else { return };
        let Some((.., message, at)) = term.table.iter_mut().find(|(known, ..)| *known == id) else { return };
        if *at == Whereabouts::Sent(c) {
            *at = Whereabouts::Away;
            let script = Script::Bury { epoch: term.epoch, id, message: *message };
            self.send(Issuer::Redistributor(d), script);
        }
    }

    /// The answer to a burial.
    pub fn buried(&mut self, d: u8, id: Id, answer: Answer) {
        if answer == Answer::Stale {
            return self.end_term(d);
        }
        self.term(d, |term| term.table.retain(|(known, ..)| *known != id));
    }

    pub fn crash_consumer(&mut self, c: u8) {
        self.consumers[c as usize] = Consumer::default();
        self.orphan(|issuer| issuer == Issuer::Consumer(c));
        (0..self.dispatchers.len() as u8).for_each(|d| self.drop_link(d, c));
    }

    /// Whether Redis would take a script of this leader's.
    pub fn is_accepted(&self, d: u8) -> bool {
        self.dispatchers[d as usize].term.as_ref().is_some_and(|term| term.epoch == self.redis.epoch)
    }
}

fn insert(table: &mut Vec<(Id, Message, Whereabouts)>, entry: (Id, Message, Whereabouts)) {
    let place = table.partition_point(|(id, ..)| *id < entry.0);
    table.insert(place, entry);
}

fn set(term: &mut Term, id: Id, whereabouts: Whereabouts) {
    if let Some((.., at)) = term.table.iter_mut().find(|(known, ..)| *known == id) {
        *at = whereabouts;
    }
}
