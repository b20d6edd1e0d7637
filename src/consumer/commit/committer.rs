//! Starts and stops the committer's thread, `commit`, whose loop is in `recorder`. Used by the thread that runs the
//! consumer.

use std::num::NonZeroU64;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded};
use log::warn;

use super::recorder::Recorder;
use crate::base::log_context::{self, LogContext};
use crate::consumer::desk::Desk;
use crate::consumer::error::{Error, Result};
use crate::consumer::outlet::Results;
use crate::ledger::Ledger;

/// The committer's thread. It ends when the last sender of commits is dropped, or when it is asked to give up.
pub(in crate::consumer) struct Committer {
    /// Dropping it makes the thread give up results that Redis does not store.
    patience: Sender<()>,
    ended: Receiver<()>,
    thread: JoinHandle<()>,
}

impl Committer {
    pub(in crate::consumer) fn start(
        ledger: Ledger,
        result_maxlen: Option<NonZeroU64>,
        desk: Desk,
        context: &LogContext,
        results: Results,
    ) -> Result<Committer> {
        let (patience, give_up) = bounded(0);
        let (alive, ended) = bounded(0);
        let recorder = Recorder::new(ledger, result_maxlen, desk, results, give_up);
        let context = context.clone();
        let thread = thread::Builder::new()
            .name("commit".to_owned())
            .spawn(move || {
                log_context::enter(&context);
                let stats = recorder.lane_stats.clone();
                recorder.run();
                stats.committer.rest();
                drop(alive);
            })
            .map_err(Error::start("starting the committer's thread"))?;
        Ok(Committer { patience, ended, thread })
    }

    /// Disconnected once the thread has ended.
    pub(in crate::consumer) fn ended(&self) -> &Receiver<()> {
        &self.ended
    }

    /// Whether the thread has ended.
    pub(in crate::consumer) fn has_ended(&self) -> bool {
        self.ended.try_recv() == Err(TryRecvError::Disconnected)
    }

    /// Lets all of these finish their results for at most `limit`, then makes them give up the rest. Returns how many
    /// could not be joined.
    pub(in crate::consumer) fn join(committers: Vec<Committer>, limit: Duration) -> usize {
        // Nothing is ever sent: this waits until the sender is dropped.
        let has_ended = |ended: &Receiver<()>, deadline: Instant| {
            ended.recv_deadline(deadline) == Err(RecvTimeoutError::Disconnected)
        };
        let deadline = Instant::now() + limit;
        for committer in &committers {
            has_ended(&committer.ended, deadline);
        }
        let give_up = |Committer { patience, ended, thread }| {
            drop(patience);
            (ended, thread)
        };
        let waiting: Vec<_> = committers.into_iter().map(give_up).collect();
        let (deadline, mut left) = (Instant::now() + limit, 0);
        for (ended, thread) in waiting {
            if !has_ended(&ended, deadline) {
                left += 1;
            } else if thread.join().is_err() {
                warn!("event=bug thread=commit problem=panicked");
            }
        }
        left
    }
}

// These start a Redis, as the lab does.
#[cfg(all(test, feature = "programs"))]
mod tests {
    use std::sync::Arc;

    use super::super::recorder::REPLY_TIMEOUT;
    use super::*;
    use crate::base::id::{Epoch, MessageId};
    use crate::consumer::desk::{Desks, Terms};
    use crate::consumer::outlet::{Outlet, Unrecorded};
    use crate::ledger::{Body, Command, Commit};

    /// A desk, the way of its results, and what the committer takes.
    fn desk() -> (Desk, Outlet, Results) {
        let all = Unrecorded::default();
        let (unused, _) = Outlet::new(&all, LogContext::of_process());
        let (outlet, commits) = Outlet::new(&all, LogContext::of_process());
        let desks = Arc::new(Desks::new(Terms::of_tests(1), Arc::default()));
        (desks.open(0, unused), outlet, commits)
    }

    #[test]
    fn it_gives_up_although_a_sender_is_left() {
        // This happens when a handler hangs: its thread keeps its sender forever.
        let (desk, stuck, commits) = desk();
        let port = crate::lab::ports::free_port().expect("a free port");
        let server = crate::ledger::Server::parse(&format!("redis://127.0.0.1:{port}")).expect("a URL");
        let keys = Arc::new(crate::ledger::Keys::new("g"));
        let ledger = Ledger::new(server, keys, REPLY_TIMEOUT);
        let committer = Committer::start(ledger, None, desk, &LogContext::of_process(), commits).expect("a thread");
        assert_eq!(Committer::join(vec![committer], Duration::from_millis(200)), 0, "it was left behind");
        drop(stuck);
    }

    /// The stream becomes full in the middle of a batch. The messages recorded before that are no longer pending at the
    /// next attempt.
    #[test]
    fn messages_recorded_before_a_refusal_do_not_count_as_missing() {
        let redis = crate::lab::RedisServer::start(crate::lab::RedisOptions::default()).expect("a private Redis");
        let mut admin = crate::ledger::Connection::new(redis.server(), REPLY_TIMEOUT);
        let mut run = |words: &[&str]| admin.query("testing", Command::of(words)).expect("redis answers");
        for id in ["1", "2"] {
            run(&["ZADD", "g:pending", id, &format!("{id:0>16}:x")]);
        }
        run(&["XADD", "g:processed", "18446744073709551615-18446744073709551614", "a", "b"]);
        let (desk, outlet, commits) = desk();
        for id in [1, 2] {
            let fields = ["message_id", "m"].into_iter().collect();
            outlet.send(Commit { id: MessageId(id), fields }, Body::copied(None, b"x"), 1, Epoch(1), 1);
        }
        let ledger = Ledger::new(redis.server(), Arc::new(crate::ledger::Keys::new("g")), REPLY_TIMEOUT);
        let committer =
            Committer::start(ledger, None, desk.clone(), &LogContext::of_process(), commits).expect("a thread");
        let wait = |what: &str, is_so: &dyn Fn() -> bool| {
            let limit = Duration::from_secs(10);
            crate::lab::wait_until(limit, what, || Ok(is_so().then_some(()))).expect("it comes to that");
        };
        wait("the second is refused", &|| desk.stats().redis_errors.get() > 0);
        run(&["DEL", "g:processed"]);
        wait("both are done", &|| desk.stats().recorded.get() + desk.stats().dropped.get() == 2);
        drop(outlet);
        assert_eq!(Committer::join(vec![committer], Duration::from_secs(10)), 0);
        assert_eq!(desk.stats().not_pending.get(), 0);
    }
}
