//! Scripts and transactions on their way to Redis: executed, void, unanswered, or lost with Redis's tail.
//!
//! A transaction is sent only over a connection that watches the keys it depends on. `clean` says that none of them was
//! written since. Watching and reading happen in the same step as the answer to the previous request. A consumer may
//! also do both whenever its connection is idle. Once a watched key was written, a transaction on its way will do
//! nothing, and no new one is sent: the sender uses the script at once, which saves states that show nothing more.

use crate::redis::{Answer, Script};
use crate::rules::{Rule, Rules};
use crate::world::{Issuer, Request, World};

impl World {
    pub fn send(&mut self, issuer: Issuer, script: Script) {
        let request = Request { issuer, old: self.is_on_old(issuer), script };
        let (Ok(place) | Err(place)) = self.requests.binary_search(&request);
        self.requests.insert(place, request);
    }

    /// `recall` was written: connections that watch it are no longer armed.
    pub fn recall_written(&mut self, rules: Rules) {
        if !rules.has(Rule::CommitWatchesRecall) {
            return;
        }
        let here = self.consumers_here();
        (0..).zip(&mut self.consumers).filter(|(c, _)| here & 1 << c != 0).for_each(|(_, of)| of.armed = None);
        self.void(|script| matches!(script, Script::CommitExec { .. }));
    }

    /// The epoch or the cursor was written: connections that watch them are no longer armed.
    pub fn intake_written(&mut self) {
        let (front, apart) = (self.front, self.old.is_some());
        self.dispatchers
            .iter_mut()
            .filter(|dispatcher| !apart || dispatcher.commands == front)
            .filter_map(|dispatcher| dispatcher.term.as_mut())
            .for_each(|term| term.armed = false);
        self.void(|script| matches!(script, Script::IntakeExec { .. }));
    }

    /// These transactions will do nothing. One whose sender is gone is removed.
    fn void(&mut self, which: impl Fn(&Script) -> bool) {
        let at_old = self.at_old;
        let is_here = |request: &&mut Request| request.old == at_old && which(&request.script);
        for request in self.requests.iter_mut().filter(is_here) {
            if let Script::CommitExec { clean, .. } | Script::IntakeExec { clean, .. } = &mut request.script {
                *clean = false;
            }
        }
        self.requests.retain(|request| request.issuer != Issuer::Gone || !request.script.is_void());
        self.requests.sort();
    }

    /// These senders no longer wait for an answer.
    pub fn orphan(&mut self, whose: impl Fn(Issuer) -> bool) {
        for request in self.requests.iter_mut().filter(|request| whose(request.issuer)) {
            request.issuer = Issuer::Gone;
        }
        self.requests.sort();
        // Two equal requests are one: a script does nothing the second time, or may be lost.
        self.requests.dedup_by(|a, b| a == b && a.issuer == Issuer::Gone);
    }

    /// Redis executes a script, and answers its sender.
    pub fn serve(&mut self, index: usize, rules: Rules) {
        let request = self.requests.remove(index);
        let epoch = self.redis.epoch;
        let known = self.redis.taken;
        let before = self.redis.clone();
        let answer = self.redis.run(&request.script, self.refused, rules);
        let is_copied = self.is_copied(&request, answer, rules);
        let stale = request.script.epoch().is_some_and(|of| of < epoch);
        self.seen.stale_write |= stale && self.redis != before;
        self.seen.stale_refused |= answer == Answer::Stale;
        self.seen.late_commit |= matches!((&request.script, answer), (Script::Commit { .. }, Answer::Gone));
        match (&request.script, answer) {
            (Script::CommitExec { .. }, Answer::Void) => self.seen.commit_void = true,
            (Script::CommitExec { .. }, Answer::Done) => self.seen.stored_by_transaction = true,
            (Script::IntakeExec { .. }, Answer::Void) => self.seen.intake_void = true,
            (Script::IntakeExec { .. }, Answer::Done) => self.seen.taken_by_transaction = true,
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
            (Issuer::Gone, _) => {}
            (issuer, script) if !is_copied => self.repeat(Request { issuer, old: request.old, script }, rules),
            (issuer, script) if answer == Answer::Refused && !script.is_transaction() => self.send(issuer, script),
            (Issuer::Ingest(d), Script::Rewind { .. }) => self.rewound(d, answer, rules),
            (Issuer::Ingest(d), _) => self.intake_answered(d, answer, rules),
            (Issuer::Redistributor(d), Script::DeadLetter { id, .. }) => self.dead_lettered(d, id, answer),
            (Issuer::Redistributor(d), Script::Record { id, consumer, .. }) => self.recorded(d, consumer, id, answer),
            (Issuer::Consumer(c), Script::Commit { id, .. } | Script::CommitExec { id, .. }) => {
                self.committed(c, id, answer, rules);
            }
            (Issuer::Consumer(c), Script::PutBack { id, .. }) => self.commit_by_script(c, id, rules),
            (issuer, script) => unreachable!("{issuer:?} does not send {script:?}"),
        }
    }

    fn note_filled_in(&mut self, known: u8) {
        let new = self.redis.taken & !known;
        self.seen.filled_in |= new & self.forgotten != 0;
    }

    /// No answer came in time: the request is sent again over a new connection, a transaction as a script. The first
    /// may still arrive.
    pub fn time_out(&mut self, index: usize, rules: Rules) {
        let request = self.requests[index].clone();
        self.requests[index].issuer = Issuer::Gone;
        self.requests.retain(|request| request.issuer != Issuer::Gone || !request.script.is_void());
        self.requests.sort();
        self.requests.dedup();
        let script = self.sent_again(&request, rules);
        self.send(request.issuer, script);
    }

    /// The request that replaces one whose connection broke.
    pub fn sent_again(&mut self, request: &Request, rules: Rules) -> Script {
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

    /// Redis is killed and comes back with what is on its disk. All connections break. Requests that wait for an answer
    /// are sent again, and a standby that was about to ask for the lease checks it again.
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
        let waiting: Vec<Request> = self.requests.drain(..).filter(|sent| sent.issuer != Issuer::Gone).collect();
        for request in waiting {
            let script = self.sent_again(&request, rules);
            self.send(request.issuer, script);
        }
        for d in 0..self.dispatchers.len() as u8 {
            self.cut(d);
            self.dispatchers[d as usize].checked = None;
        }
    }
}
