//! The intake: what a leader reads from its ring and offers to Redis, and how it handles the answers.

use crate::redis::{Answer, Script, key};
use crate::ring::{Cursor, Id, Message, Taken};
use crate::rules::{Rule, Rules};
use crate::servers::Servers;
use crate::world::{Issuer, Offer, Phase, Term, Whereabouts, World};

/// Whether the dispatchers that may hold more of what came before a break had their time before this term began, and
/// nothing has changed since. Only then may the term continue past a break.
pub fn has_yielded(term: &Term, rules: Rules) -> bool {
    term.check.yielded && !term.advanced || !rules.has(Rule::RestBeforeBreaks)
}

impl World {
    /// Ingest reads from the ring and offers what it finds. `false`: there is nothing.
    pub fn take(&mut self, d: u8, rules: Rules) -> bool {
        let last_id = self.last_id;
        let one_clock = self.has_one_clock(rules);
        let parts = if self.servers == Servers::Split && rules.has(Rule::IdsDifferByServer) { 2 } else { 1 };
        let eldest = self.is_eldest(d, rules);
        let alone = !rules.has(Rule::OverrunWaitsForOthers) && self.others(d).next().is_none();
        let dispatcher = self.dispatcher(d);
        let Some(term) = dispatcher.term.as_mut().filter(|term| term.offer.is_none()) else { return false };
        let Phase::Running { place, live_segment } = term.phase else { return false };
        match dispatcher.ring.take(place, term.cursor.map(|cursor| cursor.position)) {
            Taken::Nothing => false,
            Taken::Overrun(following)
                if alone || eldest && has_yielded(term, rules) || !rules.has(Rule::OverrunLikeABreak) =>
            {
                term.phase = Phase::Running { place: following, live_segment };
                self.record_gap(d, following);
                self.seen.passed_overrun = true;
                true
            }
            Taken::Break(following) if place.segment() < live_segment && eldest && has_yielded(term, rules) => {
                term.phase = Phase::Running { place: following, live_segment };
                self.record_gap(d, following);
                self.seen.passed_break = true;
                true
            }
            Taken::Overrun(_) | Taken::Break(_) | Taken::Ended => {
                self.end_term(d);
                true
            }
            Taken::Batch { messages, place, position } => {
                let known = term.cursor.map_or(0, |cursor| cursor.last_id);
                let after = if one_clock { last_id } else { known };
                let is_own = |id: &Id| (id + 1) % parts == term.elected_at % parts;
                let batch: Vec<(Id, Message)> = (after + 1..).filter(is_own).zip(messages).collect();
                let newest = batch.last().map_or(known, |(id, _)| *id);
                let next = Cursor { position, last_id: newest };
                term.offer = Some(Offer { next, place, batch, doubt: None });
                self.last_id = last_id.max(newest);
                let script = self.intake_of(d);
                self.send(Issuer::Ingest(d), script);
                true
            }
        }
    }

    /// Whether ids are assigned as if by one clock. After a failover leaders at two servers have clocks of their own:
    /// each assigns the lowest id that it may.
    pub fn has_one_clock(&self, rules: Rules) -> bool {
        rules.has(Rule::IdsFollowTheClock) && self.servers != Servers::Split
    }

    /// How a leader stores what it offers: by a transaction if its connection is armed, which disarms it.
    pub fn intake_of(&mut self, d: u8) -> Script {
        let term = self.dispatcher(d).term.as_mut().expect("only a leader offers something");
        let offer = term.offer.as_ref().expect("something is offered");
        let (epoch, expected, next, batch) = (term.epoch, term.cursor.map(key), key(offer.next), offer.batch.clone());
        match std::mem::take(&mut term.armed) {
            true => Script::IntakeExec { epoch, next, batch, clean: true },
            false => Script::Intake { epoch, expected, next, batch, doubt: offer.doubt },
        }
    }

    /// The outcome of the transaction with this offer is unknown: the batch is offered under another cursor.
    pub fn doubt(&mut self, d: u8, rules: Rules) {
        let given_out = self.last_id;
        let one_clock = self.has_one_clock(rules);
        let mut newest = 0;
        self.term(d, |term| {
            let offer = term.offer.as_mut().expect("something is offered");
            offer.doubt = Some(key(offer.next));
            let last_id = if one_clock { given_out } else { offer.next.last_id };
            offer.next.last_id = last_id + 1;
            newest = offer.next.last_id;
        });
        self.last_id = given_out.max(newest);
    }

    /// The cursor moved past a batch whose members were refused. It is moved back before anything else.
    fn rewind(&mut self, d: u8) {
        let term = self.dispatcher(d).term.as_ref().expect("only a leader waits for an answer");
        let offer = term.offer.as_ref().expect("an offer waits for an answer");
        let (epoch, moved, back) = (term.epoch, key(offer.next), term.cursor.map(key));
        let script = Script::Rewind { epoch, moved, back, batch: offer.batch.clone() };
        self.send(Issuer::Ingest(d), script);
    }

    /// The answer to a rewind.
    pub fn rewound(&mut self, d: u8, answer: Answer, rules: Rules) {
        if answer != Answer::Done || rules.has(Rule::RewindEndsTerm) {
            return self.end_term(d);
        }
        let script = self.intake_of(d);
        self.send(Issuer::Ingest(d), script);
    }

    /// The answer to an intake.
    pub fn intake_answered(&mut self, d: u8, answer: Answer, rules: Rules) {
        match answer {
            Answer::Void | Answer::Refused => {
                let script = self.intake_of(d);
                return self.send(Issuer::Ingest(d), script);
            }
            Answer::Partly => return self.rewind(d),
            _ => {}
        }
        let tick = self.tick;
        let accepted = self.is_accepted(d);
        let dispatcher = self.dispatcher(d);
        let term = dispatcher.term.as_mut().expect("only a leader waits for an answer");
        let offer = term.offer.take().expect("an offer waits for an answer");
        let before = matches!(answer, Answer::Moved(Some(cursor)) if cursor == offer.next);
        let stored = offer.batch.iter().fold(0, |stored, (_, message)| stored | 1 << message);
        if answer != Answer::Done && !before {
            return self.end_term(d);
        }
        let Phase::Running { live_segment, .. } = term.phase else {
            unreachable!("only a running term offers something")
        };
        term.phase = Phase::Running { place: offer.place, live_segment };
        term.cursor = Some(offer.next);
        term.advanced = true;
        term.armed = accepted;
        term.unmarked |= !offer.batch.is_empty();
        term.table.extend(offer.batch.into_iter().map(|(id, message)| (id, message, Whereabouts::Ready)));
        dispatcher.ring.note_cursor(offer.place, tick, rules);
        self.acknowledged = self.acknowledged.map(|known| known | stored);
        self.seen.answered_again |= before;
    }
}
