//! What records: the connection to Redis, what is known about it, and what to do while Redis does not answer.
//!
//! The thread `commit` uses it for batches, in `commit_loop`. While that thread rests, the thread of a handler uses it
//! for a result that comes alone: so it is recorded without waking another thread first. A mutex lets one of them in.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use log::{debug, info, warn};
use parking_lot::Mutex;

use super::not_pending::NotPending;
use crate::base::error::{Error, Result};
use crate::base::id::{Epoch, MessageId};
use crate::base::pulse::OPEN_WITHIN;
use crate::base::text::Quoted;
use crate::consumer::desk::Desk;
use crate::consumer::finished::{Finished, RecordsNow};
use crate::consumer::peer::LinkId;
use crate::consumer::stats::LaneStats;
use crate::consumer::trust::Trust;
use crate::ledger::server_check::{self, ServerWatch};
use crate::ledger::{Command, Ledger};

/// How long Redis may take to answer.
pub(in crate::consumer) const REPLY_TIMEOUT: Duration = Duration::from_secs(3);
/// How often Redis is pinged while the thread has nothing to record.
const IDLE_CHECK: Duration = Duration::from_secs(1);
/// The longest that one iteration may take with an open connection, including the wait for a reply and a pause.
const ITERATION_WITHIN: Duration = Duration::from_secs(10);
/// How long the last transaction may have taken if a handler's thread is to wait for the next one. With a server far
/// away it has better things to do.
const SOON: Duration = Duration::from_micros(500);
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
    /// Disconnected when the recorder is to give up.
    give_up: Receiver<()>,
    /// How many results it has given up.
    pub(super) given_up: usize,
    pub(super) trust: Trust,
    pub(super) watch: Watch,
    /// Messages of the current batch whose results can't be recorded.
    pub(super) refused: Vec<MessageId>,
    /// First deliveries of the current batch that were not pending, and their connections.
    pub(super) gone: Vec<(MessageId, LinkId)>,
    /// Whether a result of the current batch, or of the next one, may have been recorded although no reply came.
    pub(super) unsure: bool,
    pub(super) not_pending: NotPending,
    /// The same for messages recorded in transactions.
    pub(super) breaches: NotPending,
    /// How long the last transaction took.
    pub(super) took: Duration,
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

/// The recorder of a lane, until its committer has ended.
pub(super) type Slot = Mutex<Option<Recorder>>;

impl RecordsNow for Slot {
    fn record_now(&self, finished: Finished) -> Option<Finished> {
        let Some(mut slot) = self.try_lock() else { return Some(finished) };
        // Taken out, so that after a panic the committer ends, and the consumer with it.
        let Some(mut recorder) = slot.take() else { return Some(finished) };
        let left = recorder.record_now(finished);
        *slot = Some(recorder);
        left
    }
}

impl Recorder {
    pub(super) fn new(
        ledger: Ledger,
        result_maxlen: Option<NonZeroU64>,
        desk: Desk,
        give_up: Receiver<()>,
    ) -> Recorder {
        Recorder {
            ledger,
            result_maxlen,
            lane_stats: desk.lane_stats(),
            desk,
            give_up,
            given_up: 0,
            trust: Trust::default(),
            watch: Watch::None,
            refused: Vec::new(),
            gone: Vec::new(),
            unsure: false,
            not_pending: NotPending::default(),
            breaches: NotPending::default(),
            took: Duration::MAX,
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

    /// Records a batch and acknowledges it; `false` if it was given up.
    pub(super) fn record_and_ack(&mut self, batch: &[Finished]) -> bool {
        if !self.record(batch) {
            return false;
        }
        let refused = std::mem::take(&mut self.refused);
        let recorded = batch.iter().map(|finished| finished.commit.id);
        self.desk.ack(recorded.filter(|id| !refused.contains(id)));
        true
    }

    /// Records a result at once, by a transaction, if there is only this lane, nothing else waits for the committer or
    /// for a handler, and Redis answers [soon](SOON). If it fails, the committer does what is left, as after a failure
    /// of its own. So the thread of a handler waits for one reply; only if Redis refuses the result alone, until the
    /// message is put back.
    fn record_now(&mut self, finished: Finished) -> Option<Finished> {
        let is_quick = self.trouble.is_none() && self.took <= SOON;
        if !is_quick || !self.is_alone(&finished) || !self.desk.desks.is_calm() {
            return Some(finished);
        }
        self.note_request();
        let left = self.record_in_transaction(&[&finished])?;
        if !left.is_empty() {
            return Some(finished);
        }
        self.desk.ack(std::iter::once(finished.commit.id));
        drop(finished);
        self.desk.desks.note_recorded();
        None
    }

    /// How long to wait for an outcome before the connection is checked.
    pub(super) fn patience(&self) -> Duration {
        self.trouble.as_ref().map_or(IDLE_CHECK, Trouble::pause)
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
                self.given_up += waiting;
                return None;
            }
        }
    }

    /// Notes the time of a request to Redis.
    pub(super) fn note_request(&mut self) {
        if self.trouble.is_none() && !self.unsure {
            self.asked = Instant::now();
        }
    }

    /// Checks the connection, and watches the recall.
    pub(super) fn check(&mut self) {
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
