//! The committer's loop: what to record next, and what to do while Redis does not answer. Runs on the thread `commit`,
//! which owns the connection.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, select_biased};
use log::{debug, info, warn};

use super::not_pending::NotPending;
use crate::base::error::{Error, Result};
use crate::base::id::{Epoch, MessageId};
use crate::base::pulse::OPEN_WITHIN;
use crate::base::text::Quoted;
use crate::consumer::desk::Desk;
use crate::consumer::finished::{Finished, Ready};
use crate::consumer::outlet::Results;
use crate::consumer::peer::LinkId;
use crate::consumer::stats::LaneStats;
use crate::consumer::trust::Trust;
use crate::ledger::server_check::{self, ServerWatch};
use crate::ledger::{Command, Ledger, MAX_BATCH_BYTES, MAX_BATCH_MESSAGES};

/// How long Redis may take to answer.
pub(in crate::consumer) const REPLY_TIMEOUT: Duration = Duration::from_secs(3);
/// How often Redis is pinged while there is nothing to record.
const IDLE_CHECK: Duration = Duration::from_secs(1);
/// The longest that one iteration may take with an open connection, including the wait for a reply and a pause.
const ITERATION_WITHIN: Duration = Duration::from_secs(10);
/// The pause before the first retry. It doubles with each further retry.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// The longest pause between attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How often the log repeats that Redis is still failing.
const REMIND: Duration = Duration::from_secs(10);

pub(super) struct Recorder {
    pub(super) ledger: Ledger,
    pub(super) result_maxlen: Option<NonZeroU64>,
    pub(super) desk: Desk,
    pub(super) lane_stats: Arc<LaneStats>,
    pub(super) results: Results,
    /// Disconnected when the recorder is to give up.
    pub(super) give_up: Receiver<()>,
    /// What did not fit into the last batch.
    pub(super) carried: Option<Ready>,
    pub(super) trust: Trust,
    pub(super) watch: Watch,
    /// Messages of the current batch whose results can't be recorded.
    pub(super) refused: Vec<MessageId>,
    /// First deliveries of the current batch that were not pending, and their connections.
    pub(super) gone: Vec<(MessageId, LinkId)>,
    /// Whether a result of the current batch may have been recorded although no reply came.
    pub(super) unsure: bool,
    pub(super) not_pending: NotPending,
    /// The same for messages recorded in transactions.
    pub(super) breaches: NotPending,
    /// The id to which the current batch has raised the recall, as far as known.
    pub(super) raised: Option<MessageId>,
    /// The highest id of a transaction whose outcome is unknown.
    pub(super) doubt: Option<MessageId>,
    /// When the oldest request that Redis has not executed yet was first made.
    pub(super) asked: Instant,
    pub(super) trouble: Option<Trouble>,
    pub(super) server: ServerWatch,
    /// Whether to check the server's settings: after trouble it may be a different server.
    pub(super) server_is_new: bool,
}

/// A period in which Redis fails.
pub(super) struct Trouble {
    pub(super) since: Instant,
    pub(super) reminded: Instant,
    pub(super) attempts: u32,
}

/// Whether transactions can be used.
#[derive(Clone, Copy)]
pub(super) enum Watch {
    /// The recall is not watched yet.
    None,
    /// A watch was attempted on this connection, most recently for the leader of this epoch, if there was one. It may
    /// have failed.
    Tried(u64, Option<Epoch>),
}

/// What to do next.
enum NextStep {
    /// Record these.
    Batch(Vec<Finished>),
    Check,
    End,
}

impl Recorder {
    pub(super) fn new(
        ledger: Ledger,
        result_maxlen: Option<NonZeroU64>,
        desk: Desk,
        results: Results,
        give_up: Receiver<()>,
    ) -> Recorder {
        Recorder {
            ledger,
            result_maxlen,
            lane_stats: desk.lane_stats(),
            desk,
            results,
            give_up,
            carried: None,
            trust: Trust::default(),
            watch: Watch::None,
            refused: Vec::new(),
            gone: Vec::new(),
            unsure: false,
            not_pending: NotPending::default(),
            breaches: NotPending::default(),
            raised: None,
            doubt: None,
            asked: Instant::now(),
            trouble: None,
            server: ServerWatch::default(),
            server_is_new: true,
        }
    }

    /// Notes that the loop has begun an iteration, so that a loop that hangs is detected.
    pub(super) fn beat(&self) {
        // At the start, and after a failure, the connection must be opened.
        let settled = self.trouble.is_none() && self.lane_stats.redis_is_up();
        self.lane_stats.committer.beat(if settled { ITERATION_WITHIN } else { OPEN_WITHIN });
    }

    /// The thread's main loop: records until all senders are dropped, or until it is asked to give up.
    pub(super) fn run(mut self) {
        self.beat();
        self.check();
        loop {
            self.beat();
            match self.next() {
                NextStep::Batch(mut batch) => {
                    // Consecutive ids are removed together.
                    batch.sort_unstable_by_key(|finished| finished.commit.id);
                    if !self.record(&batch) {
                        return;
                    }
                    let refused = std::mem::take(&mut self.refused);
                    let recorded = batch.iter().map(|finished| finished.commit.id);
                    self.desk.ack(recorded.filter(|id| !refused.contains(id)));
                    drop(batch);
                    self.desk.desks.note_recorded();
                }
                NextStep::Check => self.check(),
                NextStep::End => return,
            }
        }
    }

    /// Waits for an outcome that can be recorded, and adds the others that are ready.
    fn next(&mut self) -> NextStep {
        loop {
            let idle = self.trouble.as_ref().map_or(IDLE_CHECK, Trouble::pause);
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
                    default(self.results.patience(idle)) => match self.results.take_due(Instant::now()) {
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

    /// Repeats an action until it succeeds; `None` if it was given up.
    pub(super) fn retry_until_done<T>(
        &mut self,
        waiting: usize,
        mut act: impl FnMut(&mut Recorder) -> Result<T>,
    ) -> Option<T> {
        loop {
            self.beat();
            match act(self) {
                Ok(done) => {
                    self.note_success();
                    return Some(done);
                }
                Err(error) => self.note_failure(&error, waiting),
            }
            let pause = self.trouble.as_ref().map_or(FIRST_PAUSE, Trouble::pause);
            // Nothing is ever sent, so this is a pause, which ends early if the committer is asked to give up.
            if self.give_up.recv_timeout(pause) == Err(RecvTimeoutError::Disconnected) {
                let carried = self.carried.as_ref().map_or(0, |ready| ready.results().len());
                let count = waiting + carried + self.results.drop_all();
                warn!("event=results-given-up count={count} reason=stopping");
                return None;
            }
        }
    }

    /// Notes the time of a request to Redis.
    pub(super) fn note_request(&mut self) {
        if self.trouble.is_none() {
            self.asked = Instant::now();
        }
    }

    fn check(&mut self) {
        self.note_request();
        match self.ledger.connection().query("checking the connection", Command::of(&["PING"])) {
            Ok(_) => self.note_success(),
            Err(error) => return self.note_failure(&error, 0),
        }
        self.log_not_pending();
        // The PING has ended the watch.
        self.watch_recall(&[]);
        // A failure here is not counted as trouble: if the connection is broken, the next check finds it.
        if std::mem::take(&mut self.server_is_new) {
            match server_check::check(self.ledger.connection(), None) {
                Ok(found) => self.server.note(found),
                Err(error) => debug!("event=redis-settings-unknown reason={}", Quoted(error)),
            }
        }
    }

    pub(super) fn note_success(&mut self) {
        self.lane_stats.set_redis_up(true);
        self.desk.stats().set_redis_reconnects(self.ledger.connection().server().reconnects());
        if let Some(trouble) = self.trouble.take() {
            self.desk.redis_answers(Instant::now());
            let (after_ms, attempts) = (trouble.since.elapsed().as_millis(), trouble.attempts);
            info!("event=redis-recovered after_ms={after_ms} attempts={attempts}");
        }
    }

    fn note_failure(&mut self, error: &Error, waiting: usize) {
        let stats = self.desk.stats();
        stats.redis_errors.add(1);
        self.lane_stats.set_redis_up(false);
        self.server_is_new = true;
        let now = Instant::now();
        let first = self.trouble.is_none();
        let trouble = self.trouble.get_or_insert(Trouble { since: now, reminded: now, attempts: 0 });
        trouble.attempts += 1;
        if first || now - trouble.reminded >= REMIND {
            trouble.reminded = now;
            let (held, for_ms) = (self.lane_stats.held(), (now - trouble.since).as_millis());
            warn!("event=redis-trouble for_ms={for_ms} batch={waiting} held={held} reason={}", Quoted(error));
        }
        self.desk.redis_fails(self.asked, now);
    }
}

impl Trouble {
    fn pause(&self) -> Duration {
        let doubled = FIRST_PAUSE.saturating_mul(1 << self.attempts.saturating_sub(1).min(16));
        // Many consumers must not retry at the same moment.
        doubled.min(LONGEST_PAUSE).mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_are_bounded() {
        let now = Instant::now();
        let pause = |attempts| Trouble { since: now, reminded: now, attempts }.pause();
        assert!(pause(1) <= FIRST_PAUSE);
        assert!(pause(6) >= pause(1));
        assert!((LONGEST_PAUSE / 2..=LONGEST_PAUSE).contains(&pause(u32::MAX)));
    }
}
