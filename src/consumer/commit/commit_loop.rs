//! The committer's loop: waits for outcomes and gathers those that are ready into batches. Runs on the thread `commit`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, select_biased};
use log::warn;

use super::recorder::{Recorder, Slot};
use crate::consumer::finished::{Finished, Ready};
use crate::consumer::outlet::Results;
use crate::ledger::{MAX_BATCH_BYTES, MAX_BATCH_MESSAGES};

/// See the module's text.
pub(super) struct CommitLoop {
    /// Locked except while it waits.
    pub(super) recorder: Arc<Slot>,
    pub(super) results: Results,
    /// Disconnected when it is to give up.
    pub(super) give_up: Receiver<()>,
    /// What did not fit into the last batch.
    pub(super) carried: Option<Ready>,
}

/// What to do next.
enum NextStep {
    /// Record these.
    Batch(Vec<Finished>),
    Check,
    End,
}

impl CommitLoop {
    /// The thread's main loop: records until all senders are dropped, or until it is asked to give up.
    pub(super) fn run(mut self) {
        self.with(|recorder| {
            recorder.beat();
            recorder.check();
        });
        self.results.allow_at_once(self.recorder.clone());
        loop {
            let patience = self.with(|recorder| {
                recorder.beat();
                recorder.patience()
            });
            match self.next(patience) {
                NextStep::Batch(mut batch) => {
                    // Consecutive ids are removed together.
                    batch.sort_unstable_by_key(|finished| finished.commit.id);
                    if !self.with(|recorder| recorder.record_and_ack(&batch)) {
                        break;
                    }
                    drop(batch);
                    self.with(|recorder| recorder.desk.desks.note_recorded());
                }
                NextStep::Check => self.with(Recorder::check),
                NextStep::End => break,
            }
        }
        self.end();
    }

    fn with<T>(&self, act: impl FnOnce(&mut Recorder) -> T) -> T {
        act(self.recorder.lock().as_mut().expect("it is there until the loop ends"))
    }

    /// Ends the recorder. Nothing is recorded from now on.
    fn end(self) {
        let given_up = self.recorder.lock().take().map_or(0, |recorder| recorder.given_up);
        let carried = self.carried.as_ref().map_or(0, |ready| ready.results().len());
        let count = given_up + carried + self.results.drop_all();
        if given_up > 0 {
            warn!("event=results-given-up count={count} reason=stopping");
        }
    }

    /// Waits for an outcome that can be recorded, and adds the others that are ready.
    fn next(&mut self, patience: Duration) -> NextStep {
        loop {
            let first = match self.carried.take() {
                Some(ready) => ready,
                None => select_biased! {
                    recv(self.results.ready) -> ready => match ready {
                        Ok(ready) => ready,
                        Err(_) => match self.results.take_all() {
                            rest if rest.is_empty() => return NextStep::End,
                            rest => return NextStep::Batch(rest),
                        },
                    },
                    // A handler that hangs keeps its sender forever, so don't wait for more.
                    recv(self.give_up) -> _ => match self.results.take_all() {
                        rest if rest.is_empty() => return NextStep::End,
                        rest => return NextStep::Batch(rest),
                    },
                    default(self.results.patience(patience)) => match self.results.take_due(Instant::now()) {
                        due if !due.is_empty() => return NextStep::Batch(due),
                        _ if self.results.are_incomplete() => continue,
                        _ => return NextStep::Check,
                    },
                },
            };
            let batch = self.gather(first);
            if !batch.is_empty() {
                return NextStep::Batch(batch);
            }
        }
    }

    /// What can be recorded now of this outcome and the others that are ready.
    fn gather(&mut self, first: Ready) -> Vec<Finished> {
        let (mut batch, mut bytes, mut next) = (Vec::new(), 0, Some(first));
        while let Some(ready) = next {
            bytes += ready.results().iter().map(|finished| finished.commit.bytes()).sum::<usize>();
            let fits = bytes <= MAX_BATCH_BYTES && batch.len() + ready.results().len() <= MAX_BATCH_MESSAGES;
            if !fits && !batch.is_empty() {
                self.carried = Some(ready);
                break;
            }
            match ready {
                Ready::One(finished) => batch.push(finished),
                Ready::Bundle(mut results) => batch.append(&mut results),
                Ready::Look => {}
            }
            next = self.results.ready.try_recv().ok();
        }
        batch.append(&mut self.results.take_due(Instant::now()));
        batch
    }
}
