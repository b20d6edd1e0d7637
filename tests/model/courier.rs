//! Delivery: links, the backlog, commits, acknowledgements, redelivery and dead letters.
//!
//! A frame between a leader and a consumer is one step: the consumer's desk handles each under one lock, and a frame
//! that is on its way when the link breaks never arrives.

use oncecast::base::id::{Epoch, MessageId};
use oncecast::consumer::trust::Trust;
use oncecast::ledger;

use crate::redis::{Answer, Recall, Script};
use crate::ring::{Id, Message};
use crate::rules::{Rule, Rules};
use crate::world::{Consumer, Held, Issuer, LOST, RETURNED, Return, Term, Whereabouts, World};

impl World {
    /// A leader connects to a consumer: LEAD, READY, HELD. `false`: refused, or nothing new.
    pub fn link(&mut self, d: u8, c: u8, rules: Rules) -> bool {
        let consumer = &mut self.consumers[c as usize];
        let Some(term) = self.dispatchers[d as usize].term.as_mut() else { return false };
        if !consumer.answers(rules) || term.links & 1 << c != 0 {
            return false;
        }
        if term.epoch < consumer.epoch && rules.has(Rule::ConsumersFence) {
            return self.learn_epoch(d, c, rules);
        }
        if term.epoch > consumer.epoch && !self.confirms(d, c) {
            return false;
        }
        let Some(term) = self.dispatchers[d as usize].term.as_mut() else { return false };
        let consumer = &mut self.consumers[c as usize];
        self.seen.stale_delivery |= term.epoch < consumer.epoch;
        consumer.epoch = consumer.epoch.max(term.epoch);
        consumer.ruler = Some(d);
        term.links |= 1 << c;
        for Held { id, message, .. } in self.consumers[c as usize].held.clone() {
            self.adopt(d, c, id, message, rules);
        }
        true
    }

    /// A consumer lists a message in HELD. A message that is noted as sent to another consumer stays there.
    pub fn adopt(&mut self, d: u8, c: u8, id: Id, message: Message, rules: Rules) {
        let is_pending = self.redis.holds(id) || !rules.has(Rule::HeldIsPending);
        self.term(d, |term| {
            let newest = term.cursor.map_or(0, |cursor| cursor.last_id);
            if !is_pending || id > newest && rules.has(Rule::HeldIsStored) {
                return;
            }
            match term.table.iter_mut().find(|(known, ..)| *known == id) {
                Some((_, _, Whereabouts::Sent(_))) => {}
                Some((.., whereabouts)) => *whereabouts = Whereabouts::Sent(c),
                None => insert(&mut term.table, (id, message, Whereabouts::Sent(c))),
            }
        });
    }

    /// A leader's link to a consumer is gone: its messages are redelivered, uncounted if the consumer was draining.
    pub fn drop_link(&mut self, d: u8, c: u8) {
        if let Some(term) = self.dispatchers[d as usize].term.as_mut() {
            let back = Whereabouts::Back(Return { counted: term.drains & 1 << c == 0, ..LOST });
            term.links &= !(1 << c);
            term.drains &= !(1 << c);
            term.overdue.retain(|(at, _)| *at != c);
            for (.., whereabouts) in term.table.iter_mut().filter(|(.., at)| *at == Whereabouts::Sent(c)) {
                *whereabouts = back;
            }
        }
    }

    /// A leader reads the backlog. If replicas are waited for, one must have it. `false`: none has.
    pub fn page(&mut self, d: u8, rules: Rules) -> bool {
        let pending = self.redis.pending.clone();
        if !self.is_accepted(d) {
            self.end_term(d);
            return true;
        }
        if self.acknowledged.is_some() && rules.has(Rule::BacklogIsReplicated) {
            // The replica has left the old primary.
            if self.at_old {
                return false;
            }
            if self.budget.failovers > 0 {
                self.copy();
            }
        }
        let mut delivered = 0;
        self.term(d, |term| {
            let Some(up_to) = term.backlog.take() else { return };
            for (id, message) in pending.into_iter().filter(|(id, _)| *id <= up_to) {
                delivered |= 1 << message;
                if !term.table.iter().any(|(known, ..)| *known == id) {
                    insert(&mut term.table, (id, message, Whereabouts::Ready));
                }
            }
        });
        self.acknowledged = self.acknowledged.map(|known| known | delivered);
        true
    }

    /// A returned message is settled and read again, and waits for delivery if it is still pending.
    pub fn redeliver(&mut self, d: u8, id: Id, rules: Rules) {
        if !self.is_accepted(d) {
            return self.end_term(d);
        }
        if self.may_be_held(d, id) && rules.has(Rule::SettleRaisesRecall) {
            let before = self.redis.recall;
            self.redis.raise_recall(id);
            if self.redis.recall != before {
                self.recall_written(rules);
            }
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

    /// A message is sent to a consumer, which accepts it if the link is in force.
    pub fn deliver(&mut self, d: u8, c: u8, id: Id, message: Message) {
        let from = self.dispatchers[d as usize].term.as_ref().map_or(0, |term| term.epoch);
        let consumer = &mut self.consumers[c as usize];
        if consumer.ruler != Some(d) {
            return self.drop_link(d, c);
        }
        // A message that was sent before the leader read DRAIN is not accepted.
        if !consumer.draining {
            consumer.take(Held { id, message, committing: false, from, proven: true });
        }
        let prefetch = self.prefetch;
        self.term(d, |term| {
            term.give_overdue_place(c, id, prefetch);
            set(term, id, Whereabouts::Sent(c));
        });
    }

    /// The handler is done: the result is on its way to Redis.
    pub fn finish(&mut self, c: u8, id: Id, rules: Rules) {
        let script = self.commit_of(c, id, false, rules);
        self.send(Issuer::Consumer(c), script);
    }

    /// How a consumer records a message: by a transaction if it may, which disarms its connection.
    pub fn commit_of(&mut self, c: u8, id: Id, recall: bool, rules: Rules) -> Script {
        let consumer = &mut self.consumers[c as usize];
        let held = consumer.held.iter_mut().find(|held| held.id == id).expect("only a held message is recorded");
        let is_trusted = |armed: &Recall| match rules.has(Rule::RecallNamesTheTerm) {
            true => held.from != 0 && is_alone(armed, id, held.from),
            false => held.from != 0 && id > armed.up_to && held.from > consumer.distrusted,
        };
        held.committing = true;
        let message = held.message;
        match consumer.armed.as_ref().is_some_and(is_trusted) {
            true => {
                consumer.armed = None;
                Script::CommitExec { id, message, clean: true }
            }
            false => {
                held.from = 0;
                let recall = recall || !held.proven && rules.has(Rule::UnprovenRaisesRecall);
                Script::Commit { id, message, recall }
            }
        }
    }

    /// A consumer watches and reads `recall`.
    pub fn arm(&mut self, c: u8) {
        self.consumers[c as usize].armed = Some(self.redis.recall);
    }

    /// A consumer's connection to Redis broke.
    pub fn lose_connection(&mut self, c: u8, rules: Rules) {
        let consumer = &mut self.consumers[c as usize];
        consumer.armed = None;
        if rules.has(Rule::ScriptAfterLostConnection) {
            consumer.held.iter_mut().for_each(|held| held.from = 0);
        }
    }

    /// The answer to a commit: the consumer sends ACK. With the answer its connection is armed again.
    pub fn committed(&mut self, c: u8, id: Id, answer: Answer, rules: Rules) {
        self.arm(c);
        let consumer = &mut self.consumers[c as usize];
        match answer {
            Answer::Void | Answer::Refused => return self.commit_by_script(c, id, rules),
            Answer::Partly => return self.put_back(c, id),
            _ => {}
        }
        consumer.held.retain(|held| held.id != id);
        let Some(d) = consumer.ruler else { return };
        let Some(term) = self.dispatchers[d as usize].term.as_mut() else { return };
        if term.links & 1 << c == 0 {
            return;
        }
        term.settle(c, id);
    }

    /// A transaction did nothing, or its message was put back: the script checks and records.
    pub fn commit_by_script(&mut self, c: u8, id: Id, rules: Rules) {
        let consumer = &mut self.consumers[c as usize];
        consumer.held.iter_mut().filter(|held| held.id == id).for_each(|held| held.from = 0);
        let script = self.commit_of(c, id, false, rules);
        self.send(Issuer::Consumer(c), script);
    }

    /// A message was removed and its result refused.
    fn put_back(&mut self, c: u8, id: Id) {
        let held = self.consumers[c as usize].held.iter().find(|held| held.id == id);
        let message = held.expect("only a held message is recorded").message;
        self.last_nonce += 1;
        self.send(Issuer::Consumer(c), Script::PutBack { id, message, nonce: self.last_nonce });
    }

    /// The handler fails: the consumer gives the message up and sends NACK.
    pub fn reject(&mut self, d: u8, c: u8, id: Id) {
        self.consumers[c as usize].held.retain(|held| held.id != id);
        let Some(term) = self.dispatchers[d as usize].term.as_mut() else { return };
        let Some((.., at)) = term.table.iter_mut().find(|(known, ..)| *known == id) else { return };
        if *at == Whereabouts::Sent(c) {
            *at = Whereabouts::Back(RETURNED);
        }
    }

    /// A returned message becomes a dead letter: its handler asked for it, or that was its last delivery.
    pub fn dead_letter(&mut self, d: u8, id: Id, rules: Rules) {
        let recall = self.may_be_held(d, id) && rules.has(Rule::SettleRaisesRecall);
        let Some(term) = self.dispatchers[d as usize].term.as_ref() else { return };
        let Some((_, message, _)) = term.table.iter().find(|(known, ..)| *known == id) else { return };
        let script = Script::DeadLetter { epoch: term.epoch, id, message: *message, recall };
        self.send(Issuer::Redistributor(d), script);
    }

    /// Whether the consumer that a message came back from may still hold it.
    fn may_be_held(&self, d: u8, id: Id) -> bool {
        let term = self.dispatchers[d as usize].term.as_ref();
        let is_away = |at: &Whereabouts| matches!(at, Whereabouts::Back(Return { given_up: false, .. }));
        term.is_some_and(|term| term.table.iter().any(|(known, _, at)| *known == id && is_away(at)))
    }

    /// The answer to a dead letter.
    pub fn dead_lettered(&mut self, d: u8, id: Id, answer: Answer) {
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

    /// Whether Redis would accept a script of this leader.
    pub fn is_accepted(&self, d: u8) -> bool {
        self.dispatchers[d as usize].term.as_ref().is_some_and(|term| term.epoch == self.redis.epoch)
    }
}

impl Consumer {
    /// Whether it answers a leader that connects.
    pub fn answers(&self, rules: Rules) -> bool {
        self.alive && (!self.draining || rules.has(Rule::DrainingAnswers))
    }

    /// Accepts a message, once.
    pub fn take(&mut self, new: Held) {
        if !self.held.iter().any(|held| held.id == new.id) {
            self.held.push(new);
            self.held.sort_unstable();
        }
    }
}

impl Term {
    /// A message is done at this consumer. If it is noted as sent to another, that consumer acknowledges it.
    pub fn settle(&mut self, c: u8, id: Id) {
        self.overdue.retain(|place| *place != (c, id));
        self.table.retain(|(known, _, at)| *known != id || matches!(at, Whereabouts::Sent(other) if *other != c));
    }
}

/// The consumer's own rule, for a first delivery over a proven link, while the connection to Redis has not broken.
fn is_alone(armed: &Recall, id: Id, from: u8) -> bool {
    const LINK: u64 = 1;
    let started = |current| if current { "now" } else { "before" }.to_owned();
    let mut trust = Trust::default();
    trust.connected(Some(started(true)), MessageId(0));
    trust.prove(LINK);
    let (epoch, up_to) = (Epoch(armed.epoch.into()), MessageId(armed.up_to.into()));
    let recall = ledger::Recall { epoch, server: started(armed.current), up_to };
    trust.is_alone(&recall, MessageId(id.into()), 1, Epoch(from.into()), LINK)
}

fn insert(table: &mut Vec<(Id, Message, Whereabouts)>, entry: (Id, Message, Whereabouts)) {
    let place = table.partition_point(|(id, ..)| *id < entry.0);
    table.insert(place, entry);
}

pub fn set(term: &mut Term, id: Id, whereabouts: Whereabouts) {
    if let Some((.., at)) = term.table.iter_mut().find(|(known, ..)| *known == id) {
        *at = whereabouts;
    }
}
