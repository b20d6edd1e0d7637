//! Scripts and transactions on their way to Redis: carried out, void, unanswered, or lost with Redis's tail.
//!
//! A transaction is sent only over a connection that watches what it rests on, and says whether any of that was written
//! since (`clean`). Watching and reading come in the same step as the end of the exchange before; a consumer may also
//! do it at any other time when its connection is idle. Once what is watched was written, a transaction that was sent
//! will do nothing, and one that was not sent is not: its sender uses the script at once, which saves a state that
//! shows no more.

use crate::redis::{Answer, Script};
use crate::rules::{Rule, Rules};
use crate::world::{Issuer, Request, World};

impl World {
    pub fn send(&mut self, issuer: Issuer, script: Script) {
        let request = Request { issuer, script };
        let (Ok(place) | Err(place)) = self.requests.binary_search(&request);
        self.requests.insert(place, request);
    }

    /// Who watches `recall` learns that it was written.
    pub fn recall_written(&mut self, rules: Rules) {
        if !rules.has(Rule::CommitWatchesRecall) {
            return;
        }
        self.consumers.iter_mut().for_each(|consumer| consumer.armed = None);
        self.void(|script| matches!(script, Script::CommitExec { .. }));
    }

    /// Who watches the epoch or the cursor learns that it was written.
    pub fn intake_written(&mut self) {
        self.dispatchers
            .iter_mut()
            .filter_map(|dispatcher| dispatcher.term.as_mut())
            .for_each(|term| term.armed = false);
        self.void(|script| matches!(script, Script::IntakeExec { .. }));
    }

    /// These transactions will do nothing. Where nobody waits for one it is as if it had never been sent.
    fn void(&mut self, which: impl Fn(&Script) -> bool) {
        for request in self.requests.iter_mut().filter(|request| which(&request.script)) {
            if let Script::CommitExec { clean, .. } | Script::IntakeExec { clean, .. } = &mut request.script {
                *clean = false;
            }
        }
        self.requests.retain(|request| request.issuer != Issuer::Nobody || !request.script.is_void());
        self.requests.sort();
    }

    /// Nobody waits any more for what these issuers sent.
    pub fn orphan(&mut self, whose: impl Fn(Issuer) -> bool) {
        for request in self.requests.iter_mut().filter(|request| whose(request.issuer)) {
            request.issuer = Issuer::Nobody;
        }
        self.requests.sort();
        // What arrives twice arrives as if once: each script does nothing the second time, or may be lost.
        self.requests.dedup_by(|a, b| a == b && a.issuer == Issuer::Nobody);
    }

    /// Redis carries a script out, and whoever waits for it is answered.
    pub fn serve(&mut self, index: usize, rules: Rules) {
        let request = self.requests.remove(index);
        let epoch = self.redis.epoch;
        let known = self.redis.taken;
        let before = self.redis.clone();
        let answer = self.redis.run(&request.script, self.refused, rules);
        let stale = request.script.epoch().is_some_and(|of| of < epoch);
        self.seen.stale_write |= stale && self.redis != before;
        self.seen.stale_refused |= answer == Answer::Stale;
        self.seen.late_commit |= matches!((&request.script, answer), (Script::Commit { .. }, Answer::Gone));
        match (&request.script, answer) {
            (Script::CommitExec { .. }, Answer::Void) => self.seen.commit_void = true,
            (Script::CommitExec { .. }, Answer::Done) => self.seen.stored_unasked = true,
            (Script::IntakeExec { .. }, Answer::Void) => self.seen.intake_void = true,
            (Script::IntakeExec { .. }, Answer::Done) => self.seen.taken_unasked = true,
            _ => {}
        }
        self.note_filled_in(known);
        if self.redis.recall != before.recall {
            self.recall_written(rules);
        }
        if self.redis.cursor != before.cursor && rules.has(Rule::IntakeWatchesCursor) {
            self.intake_written();
        }
        self.seen.refused |= answer == Answer::Refused;
        match (request.issuer, request.script) {
            (Issuer::Nobody, _) => {}
            (issuer, script) if answer == Answer::Refused && !script.is_transaction() => self.send(issuer, script),
            (Issuer::Ingest(d), Script::Rewind { .. }) => self.rewound(d, answer, rules),
            (Issuer::Ingest(d), _) => self.intake_answered(d, answer, rules),
            (Issuer::Redistributor(d), Script::Bury { id, .. }) => self.buried(d, id, answer),
            (Issuer::Redistributor(d), Script::Record { id, consumer, .. }) => self.recorded(d, consumer, id, answer),
            (Issuer::Consumer(c), Script::Commit { id, .. } | Script::CommitExec { id, .. }) => {
                self.committed(c, id, answer, rules);
            }
            (Issuer::Consumer(c), Script::PutBack { id, .. }) => self.commit_looking(c, id, rules),
            (issuer, script) => unreachable!("{issuer:?} does not send {script:?}"),
        }
    }

    fn note_filled_in(&mut self, known: u8) {
        let new = self.redis.taken & !known;
        self.seen.filled_in |= new & self.forgotten != 0;
    }

    /// No answer came in time: it is sent again over a new connection, and what was a transaction as a script. The
    /// first may still arrive.
    pub fn time_out(&mut self, index: usize, rules: Rules) {
        let request = self.requests[index].clone();
        self.requests[index].issuer = Issuer::Nobody;
        self.requests.retain(|request| request.issuer != Issuer::Nobody || !request.script.is_void());
        self.requests.sort();
        self.requests.dedup();
        let script = self.sent_again(&request, rules);
        self.send(request.issuer, script);
    }

    /// What is sent in place of a request whose connection broke.
    fn sent_again(&mut self, request: &Request, rules: Rules) -> Script {
        if let Issuer::Consumer(c) = request.issuer {
            self.lose_connection(c, rules);
        }
        match (request.issuer, &request.script) {
            (Issuer::Consumer(c), Script::CommitExec { id, .. }) => {
                if !rules.has(Rule::ScriptAfterLostConnection) {
                    self.arm(c);
                }
                self.commit_of(c, *id, rules.has(Rule::RetryRaisesRecall), rules)
            }
            (Issuer::Ingest(d), Script::IntakeExec { .. }) => {
                let accepted = self.is_accepted(d);
                self.term(d, |term| term.armed = accepted && !rules.has(Rule::RetriedIntakeCompares));
                if rules.has(Rule::RetriedIntakeCompares) && rules.has(Rule::DoubtNamesItsOwnCursor) {
                    self.doubt(d, rules);
                }
                self.intake_of(d)
            }
            _ => request.script.clone(),
        }
    }

    /// Redis dies and comes back with what is on its disk. All connections break; what waits for an answer asks again,
    /// and who was about to ask for the lease looks again.
    pub fn lose_tail(&mut self, rules: Rules) {
        self.forgotten |= self.redis.taken & !self.disk.taken;
        self.disk.recall.current &= !rules.has(Rule::RecallNamesTheTerm);
        self.redis = self.disk.clone();
        for term in self.dispatchers.iter_mut().filter_map(|dispatcher| dispatcher.term.as_mut()) {
            term.armed = false;
        }
        for c in 0..self.consumers.len() as u8 {
            self.lose_connection(c, rules);
            let consumer = &mut self.consumers[c as usize];
            if !rules.has(Rule::RecallNamesTheTerm) && rules.has(Rule::KnownEpochsDistrusted) {
                consumer.distrusted = consumer.epoch;
            }
        }
        let waiting: Vec<Request> = self.requests.drain(..).filter(|sent| sent.issuer != Issuer::Nobody).collect();
        for request in waiting {
            let script = self.sent_again(&request, rules);
            self.send(request.issuer, script);
        }
        for d in 0..self.dispatchers.len() as u8 {
            self.cut(d);
            self.dispatchers[d as usize].looked = None;
        }
    }
}
