//! The committer's loop: what is recorded next, and what to do while Redis does not answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, select_biased};
use log::{debug, info, warn};

use super::not_pending::NotPending;
use crate::base::budget::Share;
use crate::base::error::{Error, Result};
use crate::base::id::{Epoch, MessageId};
use crate::base::pulse::OPEN_WITHIN;
use crate::base::text::Quoted;
use crate::consumer::desk::Desk;
use crate::consumer::peer::LinkId;
use crate::consumer::trust::Trust;
use crate::ledger::server_check::{self, ServerWatch};
use crate::ledger::{Command, Commit, Ledger, MAX_BATCH_BYTES, MAX_BATCH_MESSAGES, Payload};

/// How long Redis may take to answer.
pub(in crate::consumer) const REPLY_TIMEOUT: Duration = Duration::from_secs(3);
/// With nothing to record, how often Redis is asked whether it is there.
const IDLE_CHECK: Duration = Duration::from_secs(1);
/// How long a turn takes at most, with an open connection: it may wait for a reply, and pause.
const TURN_WITHIN: Duration = Duration::from_secs(10);
/// The pause before the first new attempt; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// The longest pause between attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How often the log says that Redis is still in trouble.
const REMIND: Duration = Duration::from_secs(10);

/// A result on its way to Redis, with its share of the memory that there is for such.
pub(in crate::consumer) struct Finished {
    pub(in crate::consumer) commit: Commit,
    /// The message, to put it back if need be.
    pub(in crate::consumer) payload: Payload,
    /// The number of its delivery, and the epoch and the connection of the leader that it came from.
    pub(in crate::consumer) number: u16,
    pub(in crate::consumer) epoch: Epoch,
    pub(in crate::consumer) link: LinkId,
    pub(in crate::consumer) _share: Share,
}

pub(super) struct Recorder {
    pub(super) ledger: Ledger,
    pub(super) result_maxlen: u64,
    pub(super) desk: Arc<Desk>,
    pub(super) commits: Receiver<Finished>,
    /// Disconnected: give up.
    pub(super) impatience: Receiver<()>,
    /// What did not fit into the last batch any more.
    pub(super) carried: Option<Finished>,
    pub(super) trust: Trust,
    pub(super) watch: Watch,
    /// Messages of the present batch whose results can't be recorded.
    pub(super) refused: Vec<MessageId>,
    /// First deliveries of the present batch that were not pending, and the connections that they came over.
    pub(super) gone: Vec<(MessageId, LinkId)>,
    /// Something of the present batch may have been recorded without our hearing of it.
    pub(super) unsure: bool,
    pub(super) not_pending: NotPending,
    /// The same of what transactions recorded.
    pub(super) breaches: NotPending,
    /// To what the present batch has raised the recall, as far as that is known.
    pub(super) raised: Option<MessageId>,
    /// The highest id of a transaction of which it is not known whether it took place.
    pub(super) doubt: Option<MessageId>,
    /// When Redis was first asked for something that it has not done yet.
    pub(super) asked: Instant,
    pub(super) trouble: Option<Trouble>,
    pub(super) server: ServerWatch,
    /// Whether the server's settings are to be looked at: after trouble it may be another one.
    pub(super) server_is_new: bool,
}

/// A time in which Redis does not do what it should.
pub(super) struct Trouble {
    pub(super) since: Instant,
    pub(super) reminded: Instant,
    pub(super) attempts: u32,
}

/// How it stands with transactions.
#[derive(Clone, Copy)]
pub(super) enum Watch {
    /// The recall is not watched yet.
    None,
    /// It was, or could not be, on this connection, last for the leader of this epoch.
    Tried(u64, Epoch),
}

/// What there is to do.
enum Next {
    /// Record these.
    Batch(Vec<Finished>),
    Check,
    End,
}

impl Recorder {
    pub(super) fn new(
        ledger: Ledger,
        result_maxlen: u64,
        desk: Arc<Desk>,
        commits: Receiver<Finished>,
        impatience: Receiver<()>,
    ) -> Recorder {
        Recorder {
            ledger,
            result_maxlen,
            desk,
            commits,
            impatience,
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

    /// The loop turns.
    pub(super) fn beat(&self) {
        // At first, and after trouble, a connection has to be opened.
        let settled = self.trouble.is_none() && self.desk.stats().redis_is_up();
        self.desk.stats().committer.beat(if settled { TURN_WITHIN } else { OPEN_WITHIN });
    }

    /// Records until there is nothing more to come: the thread's main loop.
    pub(super) fn run(mut self) {
        self.beat();
        self.check();
        loop {
            self.beat();
            match self.next() {
                Next::Batch(mut batch) => {
                    // Ids that follow each other are removed together.
                    batch.sort_unstable_by_key(|finished| finished.commit.id);
                    if !self.record(&batch) {
                        return;
                    }
                    let refused = std::mem::take(&mut self.refused);
                    let recorded = batch.iter().map(|finished| finished.commit.id);
                    self.desk.ack(recorded.filter(|id| !refused.contains(id)));
                }
                Next::Check => self.check(),
                Next::End => return,
            }
        }
    }

    /// Waits for an outcome, and takes what else is there.
    fn next(&mut self) -> Next {
        let first = match self.carried.take() {
            Some(finished) => finished,
            None => select_biased! {
                recv(self.commits) -> finished => match finished {
                    Ok(finished) => finished,
                    Err(_) => return Next::End,
                },
                // A handler that hangs keeps its sender for ever: nothing more is waited for than what is here.
                recv(self.impatience) -> _ => return Next::End,
                default(self.trouble.as_ref().map_or(IDLE_CHECK, Trouble::pause)) => return Next::Check,
            },
        };
        let mut bytes = first.commit.bytes();
        let mut batch = vec![first];
        while batch.len() < MAX_BATCH_MESSAGES {
            let Ok(finished) = self.commits.try_recv() else { break };
            bytes += finished.commit.bytes();
            if bytes > MAX_BATCH_BYTES {
                self.carried = Some(finished);
                break;
            }
            batch.push(finished);
        }
        Next::Batch(batch)
    }

    /// Does something until it is done; `None` if it was given up.
    pub(super) fn insist<T>(&mut self, waiting: usize, mut act: impl FnMut(&mut Recorder) -> Result<T>) -> Option<T> {
        loop {
            self.beat();
            match act(self) {
                Ok(done) => {
                    self.all_is_well();
                    return Some(done);
                }
                Err(error) => self.in_trouble(&error, waiting),
            }
            let pause = self.trouble.as_ref().map_or(FIRST_PAUSE, Trouble::pause);
            // Nothing is ever sent, so this is a pause that the order to give up cuts short.
            if self.impatience.recv_timeout(pause) == Err(RecvTimeoutError::Disconnected) {
                let count = waiting + usize::from(self.carried.is_some()) + self.commits.len();
                warn!("event=results-given-up count={count} reason=stopping");
                return None;
            }
        }
    }

    /// Redis is asked for something.
    pub(super) fn note_question(&mut self) {
        if self.trouble.is_none() {
            self.asked = Instant::now();
        }
    }

    fn check(&mut self) {
        self.note_question();
        match self.ledger.connection().query("asking whether it is there", Command::of(&["PING"])) {
            Ok(_) => self.all_is_well(),
            Err(error) => return self.in_trouble(&error, 0),
        }
        self.say_not_pending();
        // The question has ended the watch.
        self.watch_recall(&[]);
        // Whatever comes of it is no trouble: were the connection broken, the next check would find it.
        if std::mem::take(&mut self.server_is_new) {
            match server_check::check(self.ledger.connection()) {
                Ok(found) => self.server.note(found),
                Err(error) => debug!("event=redis-settings-unknown reason={}", Quoted(error)),
            }
        }
    }

    pub(super) fn all_is_well(&mut self) {
        let stats = self.desk.stats();
        stats.set_redis_up(true);
        stats.set_redis_reconnects(self.ledger.connection().server().reconnects());
        if let Some(trouble) = self.trouble.take() {
            self.desk.redis_answers(Instant::now());
            let (after_ms, attempts) = (trouble.since.elapsed().as_millis(), trouble.attempts);
            info!("event=redis-recovered after_ms={after_ms} attempts={attempts}");
        }
    }

    fn in_trouble(&mut self, error: &Error, waiting: usize) {
        let stats = self.desk.stats();
        stats.redis_errors.add(1);
        stats.set_redis_up(false);
        self.server_is_new = true;
        let now = Instant::now();
        let first = self.trouble.is_none();
        let trouble = self.trouble.get_or_insert(Trouble { since: now, reminded: now, attempts: 0 });
        trouble.attempts += 1;
        if first || now - trouble.reminded >= REMIND {
            trouble.reminded = now;
            let (held, for_ms) = (stats.held(), (now - trouble.since).as_millis());
            warn!("event=redis-trouble for_ms={for_ms} batch={waiting} held={held} reason={}", Quoted(error));
        }
        self.desk.redis_fails(self.asked, now);
    }
}

impl Trouble {
    fn pause(&self) -> Duration {
        let doubled = FIRST_PAUSE.saturating_mul(1 << self.attempts.saturating_sub(1).min(16));
        // Many consumers must not come back in step.
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
