//! The committer: records outcomes in Redis, many at a time, and then has them acknowledged.
//!
//! One thread with one connection. A batch is what has come in while the one before was recorded. What is surely this
//! consumer's alone goes in a transaction, everything else through a script, which looks; so does what a transaction
//! left undone. When Redis does not answer, the script is tried again for ever: repeating it is harmless, since what was
//! recorded is no longer pending. Nothing is acknowledged before Redis has said that it is recorded, by us or by
//! somebody else.
//!
//! Weak at: one batch at a time, so the rate is limited by Redis's round trip and [`MAX_BATCH_MESSAGES`].

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, select_biased};
use log::{debug, info, warn};

mod not_pending;
mod recording;

use self::not_pending::NotPending;
use super::desk::{Desk, LinkId};
use super::trust::Trust;
use crate::base::budget::Share;
use crate::base::error::{Error, Result};
use crate::base::id::{Epoch, MessageId};
use crate::base::pulse::OPEN_WITHIN;
use crate::ledger::server_check::{self, ServerWatch};
use crate::ledger::{Command, Commit, Ledger, MAX_BATCH_BYTES, MAX_BATCH_MESSAGES, Payload};
use crate::process::log::Quoted;

/// How long Redis may take to answer.
pub(super) const REPLY_TIMEOUT: Duration = Duration::from_secs(3);
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
pub(super) struct Finished {
    pub(super) commit: Commit,
    /// The message, to put it back if need be.
    pub(super) payload: Payload,
    /// The number of its delivery, and the epoch and the connection of the leader that it came from.
    pub(super) number: u16,
    pub(super) epoch: Epoch,
    pub(super) link: LinkId,
    pub(super) _share: Share,
}

/// The committer's thread. It ends when the last sender of commits is gone, or when told to give up.
pub(super) struct Committer {
    /// Dropped: give up what Redis does not take.
    patience: Sender<()>,
    ended: Receiver<()>,
    thread: JoinHandle<()>,
}

impl Committer {
    pub(super) fn start(
        ledger: Ledger,
        result_maxlen: u64,
        desk: Arc<Desk>,
        commits: Receiver<Finished>,
    ) -> Result<Committer> {
        let (patience, impatience) = bounded(0);
        let (alive, ended) = bounded(0);
        let worker = Worker {
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
        };
        let thread = thread::Builder::new()
            .name("commit".to_owned())
            .spawn(move || {
                let desk = worker.desk.clone();
                worker.run();
                desk.stats().committer.rest();
                drop(alive);
            })
            .map_err(Error::io("starting the committer's thread"))?;
        Ok(Committer { patience, ended, thread })
    }

    /// Disconnected once the thread has ended.
    pub(super) fn ended(&self) -> &Receiver<()> {
        &self.ended
    }

    /// Lets it finish what it has; after `limit` it gives up. Says whether it could be joined.
    pub(super) fn join(self, limit: Duration) -> bool {
        // Nothing is ever sent: this waits for the sender to go.
        let _ = self.ended.recv_timeout(limit);
        drop(self.patience);
        let ended = self.ended.recv_timeout(limit) == Err(RecvTimeoutError::Disconnected);
        if ended && self.thread.join().is_err() {
            warn!("event=bug thread=commit problem=panicked");
        }
        ended
    }
}

struct Worker {
    ledger: Ledger,
    result_maxlen: u64,
    desk: Arc<Desk>,
    commits: Receiver<Finished>,
    /// Disconnected: give up.
    impatience: Receiver<()>,
    /// What did not fit into the last batch any more.
    carried: Option<Finished>,
    trust: Trust,
    watch: Watch,
    /// Messages of the present batch whose results can't be recorded.
    refused: Vec<MessageId>,
    /// First deliveries of the present batch that were not pending, and the connections that they came over.
    gone: Vec<(MessageId, LinkId)>,
    /// Something of the present batch may have been recorded without our hearing of it.
    unsure: bool,
    not_pending: NotPending,
    /// The same of what transactions recorded.
    breaches: NotPending,
    /// To what the present batch has raised the recall, as far as that is known.
    raised: Option<MessageId>,
    /// The highest id of a transaction of which it is not known whether it took place.
    doubt: Option<MessageId>,
    /// When Redis was first asked for something that it has not done yet.
    asked: Instant,
    trouble: Option<Trouble>,
    server: ServerWatch,
    /// Whether the server's settings are to be looked at: after trouble it may be another one.
    server_is_new: bool,
}

/// A time in which Redis does not do what it should.
struct Trouble {
    since: Instant,
    reminded: Instant,
    attempts: u32,
}

/// How it stands with transactions.
#[derive(Clone, Copy)]
enum Watch {
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

impl Worker {
    /// The loop turns.
    fn beat(&self) {
        // At first, and after trouble, a connection has to be opened.
        let settled = self.trouble.is_none() && self.desk.stats().redis_is_up();
        self.desk.stats().committer.beat(if settled { TURN_WITHIN } else { OPEN_WITHIN });
    }

    /// Records until there is nothing more to come: the thread's main loop.
    fn run(mut self) {
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
    fn insist<T>(&mut self, waiting: usize, mut act: impl FnMut(&mut Worker) -> Result<T>) -> Option<T> {
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
    fn note_question(&mut self) {
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

    fn all_is_well(&mut self) {
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
    use crate::consumer::desk::Terms;

    #[test]
    fn it_gives_up_although_somebody_may_yet_send_something() {
        // As when a handler hangs: its thread keeps its sender for ever.
        let (stuck, commits) = bounded(1);
        let port = crate::lab::ports::free_port().expect("a free port");
        let server = crate::ledger::Server::parse(&format!("redis://127.0.0.1:{port}")).expect("a URL");
        let keys = Arc::new(crate::ledger::Keys::new("g"));
        let desk = Arc::new(Desk::new(Terms::of_tests(1), Arc::default()));
        let ledger = Ledger::new(server, keys, REPLY_TIMEOUT);
        let committer = Committer::start(ledger, 0, desk, commits).expect("a thread");
        assert!(committer.join(Duration::from_millis(200)), "it was left behind");
        drop(stuck);
    }

    /// A stream that is full in the middle of a batch: what was recorded before is no longer pending when it is tried again.
    #[test]
    fn what_was_recorded_before_a_refusal_is_nothing_to_wonder_at() {
        let redis = crate::lab::RedisServer::start(crate::lab::RedisOptions::default()).expect("a private Redis");
        let mut admin = crate::ledger::Connection::new(redis.server(), REPLY_TIMEOUT);
        let mut run = |words: &[&str]| admin.query("testing", Command::of(words)).expect("redis answers");
        for id in ["1", "2"] {
            run(&["ZADD", "g:pending", id, &format!("{id:0>16}:x")]);
        }
        run(&["XADD", "g:processed", "18446744073709551615-18446744073709551614", "a", "b"]);
        let desk = Arc::new(Desk::new(Terms::of_tests(1), Arc::default()));
        let (finished, commits) = bounded(2);
        let share = crate::base::budget::Budget::new(1_000);
        for id in [1, 2] {
            let fields = ["message_id", "m"].into_iter().collect();
            let commit = Commit { id: MessageId(id), fields };
            let (payload, _share) = (Payload::copy_from_slice(b"x"), share.take(1));
            let one = Finished { commit, payload, number: 1, epoch: Epoch(1), link: 1, _share };
            finished.send(one).expect("there is room");
        }
        let ledger = Ledger::new(redis.server(), Arc::new(crate::ledger::Keys::new("g")), REPLY_TIMEOUT);
        let committer = Committer::start(ledger, 0, desk.clone(), commits).expect("a thread");
        let wait = |what: &str, is_so: &dyn Fn() -> bool| {
            let limit = Duration::from_secs(10);
            crate::lab::wait_until(limit, what, || Ok(is_so().then_some(()))).expect("it comes to that");
        };
        wait("the second is refused", &|| desk.stats().redis_errors.get() > 0);
        run(&["DEL", "g:processed"]);
        wait("both are done", &|| desk.stats().recorded.get() + desk.stats().dropped.get() == 2);
        drop(finished);
        assert!(committer.join(Duration::from_secs(10)));
        assert_eq!(desk.stats().not_pending.get(), 0);
    }

    #[test]
    fn pauses_grow_and_are_bounded() {
        let now = Instant::now();
        let pause = |attempts| Trouble { since: now, reminded: now, attempts }.pause();
        assert!(pause(1) <= FIRST_PAUSE);
        assert!(pause(6) >= pause(1));
        assert!((LONGEST_PAUSE / 2..=LONGEST_PAUSE).contains(&pause(u32::MAX)));
    }
}
