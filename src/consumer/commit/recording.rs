//! Records one batch. A transaction records the messages that no other consumer can hold. The script records all other
//! messages, and those that a transaction left unrecorded.
//!
//! No message is recorded twice, because the script checks that the message is pending, and a transaction is used only
//! where no check is needed. The reasoning is in `ledger/commit.rs`.

use std::collections::{BTreeSet, HashSet};
use std::time::Instant;

use log::{debug, error, warn};

use super::recorder::{Recorder, Watch};
use crate::base::bundle::whole;
use crate::base::id::MessageId;
use crate::base::refusal::Refusal;
use crate::base::text::Quoted;
use crate::consumer::finished::Finished;
use crate::consumer::handler::HandlerError;
use crate::consumer::peer::LinkId;
use crate::ledger::{Commit, Committed, Raise, Recall, Recorded, Sole, Split, Splitter, batches, parts};

impl Recorder {
    /// Records a batch, however long it takes; `false` if it was given up.
    pub(super) fn record(&mut self, batch: &[Finished]) -> bool {
        self.note_request();
        let (alone, mut others) = self.sort_out(batch);
        // Without a connection the recall is unknown. If there is a connection and the recall can't be watched, this
        // Redis user may not be allowed to write it either.
        let recall = self.ledger.recall();
        let may_raise = recall.is_some() || self.ledger.connection_number().is_none();
        let before = recall.map(|recall| recall.up_to);
        self.raised = None;
        self.beat();
        match self.record_in_transaction(&alone) {
            Some(recorded) => others.extend(recorded),
            None => return false,
        }
        if others.is_empty() {
            return true;
        }
        // The sender on an unproven connection may not be the leader, and another consumer may hold the message from
        // the leader. Raising the recall makes that consumer check, too.
        let (proven, unproven): (Vec<_>, Vec<_>) =
            others.into_iter().partition(|finished| self.trust.is_proven(finished.link));
        let settles_the_doubt = !proven.is_empty();
        let raise = if may_raise { Raise::Recorded } else { Raise::Nothing };
        for (others, raise) in [(unproven, raise), (proven, self.doubt.map_or(Raise::Nothing, Raise::To))] {
            for part in batches(&others, |finished| &finished.commit) {
                if !self.record_by_script(part, raise, &mut Splitter::default()) {
                    return false;
                }
            }
        }
        if settles_the_doubt {
            self.doubt = None;
        }
        self.beat();
        // If the script opened a new connection, all messages received so far are in doubt. This call notes the highest
        // of their ids; messages delivered from now on have higher ids.
        self.watch_recall(batch);
        self.count_not_pending(before);
        true
    }

    /// Records results by the script. If they are too large together, each half is recorded on its own. `false` if it
    /// was given up. A result that is too large alone rejects its message, because another attempt would fail in the
    /// same way.
    fn record_by_script(&mut self, part: &[&Finished], raise: Raise, splitter: &mut Splitter) -> bool {
        splitter.begin(part.len());
        let mut raise = raise;
        let outcome = self.retry_until_done(part.len(), |recorder| {
            let commits = part.iter().map(|finished| &finished.commit);
            match recorder.ledger.commit(None, recorder.result_maxlen, raise, commits) {
                Ok(committed) => Ok(Ok(committed)),
                Err(error) => {
                    // Without a reply, the script may have been executed. If Redis refused one result, the results
                    // before it are recorded.
                    recorder.unsure |= !error.is_unsent();
                    recorder.beat();
                    if raise == Raise::Recorded && error.refusal() == Some(Refusal::Right) {
                        // This Redis user may lack the right to write the recall.
                        raise = Raise::Nothing;
                    }
                    match splitter.judge(&error, part.len(), || recorder.ledger.is_answered()) {
                        Split::Retry => Err(error),
                        split => Ok(Err((split, error))),
                    }
                }
            }
        });
        match outcome {
            None => false,
            Some(Ok(committed)) => {
                let recorded = |finished: &&&Finished| !committed.gone.contains(&finished.commit.id);
                if raise == Raise::Recorded
                    && let Some(last) = part.iter().rfind(recorded)
                {
                    self.raised = self.raised.max(Some(last.commit.id));
                }
                self.note_committed(part, &committed);
                true
            }
            Some(Err((Split::Halve, _))) => {
                let (first, second) = part.split_at(part.len() / 2);
                self.record_by_script(first, raise, splitter) && self.record_by_script(second, raise, splitter)
            }
            Some(Err((_, error))) => {
                for finished in part {
                    let id = finished.commit.id;
                    warn!("event=too-large id={id} bytes={} reason={}", finished.commit.bytes(), Quoted(&error));
                    self.refused.push(id);
                    self.desk.refuse(id, HandlerError::reject(format!("its result can't be stored: {error}")));
                }
                true
            }
        }
    }

    fn note_committed(&mut self, part: &[&Finished], committed: &Committed) {
        let gone: HashSet<MessageId> = committed.gone.iter().copied().collect();
        let missing = part.iter().filter(|finished| finished.number == 1 && gone.contains(&finished.commit.id));
        let missing: Vec<_> = missing.map(|finished| (finished.commit.id, finished.link)).collect();
        // A pending message proves nothing if others from the same connection were not pending.
        let honest = part.iter().filter(|finished| !gone.contains(&finished.commit.id)).map(|finished| finished.link);
        let honest: BTreeSet<LinkId> = honest.filter(|link| missing.iter().all(|(_, other)| other != link)).collect();
        for link in honest {
            if self.trust.prove(link) {
                self.desk.prove(link);
            }
        }
        self.gone.extend(missing);
        let stats = self.desk.stats();
        stats.recorded.add(committed.recorded);
        self.lane_stats.recorded.add(committed.recorded);
        stats.scripted.add(committed.recorded);
        stats.dropped.add(part.len() - committed.recorded.min(part.len()));
    }

    /// Counts first deliveries that were not pending without an explanation. There are two explanations: this consumer
    /// may have recorded the message itself, in a step whose reply was lost; or, as the recall shows, other consumers
    /// may hold the message too.
    fn count_not_pending(&mut self, before: Option<MessageId>) {
        let mut gone = std::mem::take(&mut self.gone);
        if std::mem::take(&mut self.unsure) {
            return;
        }
        let now = self.ledger.recall().map(|recall| recall.up_to);
        // A recall that this step itself raised says nothing about other consumers; compare with the old one.
        let explained = if now == self.raised { before.or(now) } else { now };
        if let Some(up_to) = explained {
            gone.retain(|(id, _)| *id > up_to);
        }
        if let Some((example, _)) = gone.first() {
            self.desk.stats().not_pending.add(gone.len());
            self.not_pending.add(gone.len(), *example);
            gone.iter().for_each(|(_, link)| self.doubt(*link));
        }
        self.log_not_pending();
    }

    /// Makes the script check messages from this connection until one is found pending.
    fn doubt(&mut self, link: LinkId) {
        if self.trust.doubt(link) {
            self.desk.doubt(link);
        }
    }

    pub(super) fn log_not_pending(&mut self) {
        let now = Instant::now();
        if let Some((count, example)) = self.not_pending.due(now) {
            warn!(
                "event=not-pending count={count} example={example} note=\"results dropped: these messages were \
                 delivered for the first time, but are no longer pending. Either messages or keys were removed, or \
                 this consumer does not have the dispatchers' Redis URL\""
            );
        }
        if let Some((count, example)) = self.breaches.due(now) {
            error!(
                "event=commit-breach count={count} example={example} note=\"recorded without a check, but no \
                 longer pending: results may be stored twice, or belong to messages that never existed. Messages \
                 were removed, or a dispatcher sends messages that are not in Redis. Messages from that connection \
                 are checked until one is found pending\""
            );
        }
    }

    /// Splits a batch into messages that no other consumer can hold, and all others.
    fn sort_out<'a>(&mut self, batch: &'a [Finished]) -> (Vec<&'a Finished>, Vec<&'a Finished>) {
        self.watch_recall(batch);
        let Some(recall) = self.ledger.recall() else {
            return (Vec::new(), batch.iter().collect());
        };
        let is_alone = |finished: &Finished| self.meets(finished, &recall);
        let (mut alone, mut others) = (Vec::with_capacity(batch.len()), Vec::new());
        let (mut rest, mut last) = (batch, None);
        while let [first, ..] = rest {
            // A bundle is removed as a whole or, by the script, taken apart.
            let bundled = whole(rest, |finished| (finished.commit.id, finished.body.position()));
            let (unit, following) = rest.split_at(bundled.max(1));
            // A message may be in the batch twice: from a run that was given up, and from a later one.
            let again = last.replace(unit[unit.len() - 1].commit.id) == Some(first.commit.id);
            let is_unit = bundled > 0 || first.body.position().is_none();
            let goes_alone = is_unit && !again && unit.iter().all(is_alone);
            if goes_alone { &mut alone } else { &mut others }.extend(unit);
            rest = following;
        }
        (alone, others)
    }

    /// Whether no other consumer can hold this message, as far as the recall is known and watched now.
    pub(super) fn is_alone(&self, finished: &Finished) -> bool {
        let watches = match self.watch {
            Watch::Tried(at, of) => Some(at) == self.ledger.connection_number() && of >= Some(finished.epoch),
            Watch::None => false,
        };
        let recall = self.ledger.recall().filter(|_| watches);
        recall.is_some_and(|recall| self.meets(finished, &recall))
    }

    fn meets(
        &self,
        Finished { commit: Commit { id, .. }, number, epoch, link, .. }: &Finished,
        recall: &Recall,
    ) -> bool {
        self.trust.is_alone(recall, *id, *number, *epoch, *link)
    }

    /// Records messages that no other consumer can hold, unless the recall has changed. Returns those left for the
    /// script; `None` if it was given up.
    pub(super) fn record_in_transaction<'a>(&mut self, alone: &[&'a Finished]) -> Option<Vec<&'a Finished>> {
        if alone.is_empty() {
            return Some(Vec::new());
        }
        let sole = |finished: &&'a Finished| Sole { commit: &finished.commit, position: finished.body.position() };
        let commits: Vec<Sole<'a>> = alone.iter().map(sole).collect();
        let began = Instant::now();
        let outcome = self.ledger.commit_sole(self.result_maxlen, &commits);
        self.took = began.elapsed();
        let Recorded { removed, unstored } = match outcome {
            Ok(Some(recorded)) => recorded,
            // The recall was written, so the script has to check these messages.
            Ok(None) => return Some(alone.to_vec()),
            Err(error) => {
                if self.ledger.connection_number().is_none() {
                    // The transaction may still be executed.
                    self.doubt = self.doubt.max(alone.last().map(|finished| finished.commit.id));
                    self.unsure = true;
                }
                debug!("event=transaction-failed batch={} reason={}", alone.len(), Quoted(error));
                return Some(alone.to_vec());
            }
        };
        self.note_success();
        if removed != alone.len() {
            self.note_breach(alone, removed);
        }
        let stats = self.desk.stats();
        let (unstored, reason) = unstored.unwrap_or_default();
        stats.recorded.add(alone.len() - unstored.len());
        self.lane_stats.recorded.add(alone.len() - unstored.len());
        if unstored.is_empty() {
            return Some(Vec::new());
        }
        let left: Vec<&Finished> =
            alone.iter().copied().filter(|finished| unstored.binary_search(&finished.commit.id).is_ok()).collect();
        warn!(
            "event=results-refused count={} reason={} note=\"the messages are put back\"",
            left.len(),
            Quoted(reason)
        );
        let messages: Vec<_> = left.iter().map(|finished| (finished.commit.id, finished.body.clone())).collect();
        let mut rest = messages.as_slice();
        while let Some(part) = parts(rest, |(_, body)| (body.bytes(), 2)).next() {
            let nonce = fastrand::u64(..);
            if self.retry_until_done(part.len(), |recorder| recorder.ledger.put_back(nonce, part)).is_none() {
                let ids: Vec<String> = rest.iter().map(|(id, _)| id.to_string()).collect();
                error!(
                    "event=messages-lost count={} ids={} reason=\"removed, and neither recorded nor put back\"",
                    ids.len(),
                    ids.join(",")
                );
                return None;
            }
            rest = &rest[part.len()..];
        }
        Some(left)
    }

    /// Notes a transaction that did not remove exactly its batch. The reply does not say which message caused this, so
    /// all connections of the batch lose their proof.
    fn note_breach(&mut self, alone: &[&Finished], removed: usize) {
        let stats = self.desk.stats();
        stats.breaches.add(1);
        stats.not_pending.add(alone.len().saturating_sub(removed));
        self.breaches.add(alone.len().abs_diff(removed), alone[0].commit.id);
        alone.iter().for_each(|finished| self.doubt(finished.link));
        self.log_not_pending();
    }

    /// Watches the recall, unless this connection already watches it for the leader of the batch. A failure is not
    /// counted as trouble: everything then goes through the script, which reports what is wrong with Redis.
    pub(super) fn watch_recall(&mut self, batch: &[Finished]) {
        let Some(connection) = self.ledger.connection_number() else { return };
        // A leader writes its recall before it sends LEAD to any consumer.
        let epoch = batch.iter().map(|finished| finished.epoch).max();
        let known = match self.watch {
            // Any other command on the connection ends the watch.
            Watch::Tried(at, of) if at == connection && of >= epoch && self.ledger.recall().is_some() => return,
            Watch::Tried(at, _) => at == connection,
            Watch::None => false,
        };
        // What is known about the previous server must not be applied to this one, even if the next step fails.
        if !known {
            match self.ledger.run_id() {
                Ok(server) => self.trust.connected(server, self.desk.highest_id()),
                Err(error) => return debug!("event=transaction-skipped reason={}", Quoted(error)),
            }
        }
        if let Err(error) = self.ledger.watch_recall() {
            return debug!("event=transaction-skipped reason={}", Quoted(error));
        }
        if self.ledger.connection_number() != Some(connection) {
            // It was opened anew meanwhile, perhaps to another server, whose run id is not known.
            self.ledger.forget_recall();
            self.watch = Watch::None;
            return;
        }
        self.watch = Watch::Tried(connection, epoch);
    }
}
