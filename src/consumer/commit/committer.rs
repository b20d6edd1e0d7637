//! Starts and stops the committer's thread, `commit`, whose loop is in `commit_loop`. Used by the thread that runs the
//! consumer.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded};
use log::warn;
use parking_lot::Mutex;

use super::commit_loop::CommitLoop;
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
        let stats = desk.lane_stats();
        let recorder = Recorder::new(ledger, result_maxlen, desk, give_up.clone());
        let recorder = Arc::new(Mutex::new(Some(recorder)));
        let commit_loop = CommitLoop { recorder, results, give_up, carried: None };
        let context = context.clone();
        let thread = thread::Builder::new()
            .name("commit".to_owned())
            .spawn(move || {
                log_context::enter(&context);
                commit_loop.run();
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

    /// A committer and a Redis in which the leader of epoch 1 may have stored these messages, of which the first is
    /// recorded.
    struct Started {
        redis: crate::lab::RedisServer,
        admin: crate::ledger::Connection,
        desk: Desk,
        outlet: Outlet,
        committer: Committer,
    }

    impl Started {
        fn with_messages(ids: std::ops::RangeInclusive<u64>) -> Started {
            let redis = crate::lab::RedisServer::start(crate::lab::RedisOptions::default()).expect("a private Redis");
            let mut admin = crate::ledger::Connection::new(redis.server(), REPLY_TIMEOUT);
            let mut ledger = Ledger::new(redis.server(), Arc::new(crate::ledger::Keys::new("g")), REPLY_TIMEOUT);
            let server = ledger.run_id().expect("it answers").expect("it may be read");
            let mut run = |words: &[&str]| admin.query("testing", Command::of(words)).expect("redis answers");
            run(&["SET", "g:recall", &format!("1 {server} 0")]);
            for id in ids.clone() {
                run(&["ZADD", "g:pending", &id.to_string(), &format!("{id:016x}:x")]);
            }
            let (desk, outlet, results) = desk();
            let context = LogContext::of_process();
            let committer = Committer::start(ledger, None, desk.clone(), &context, results).expect("a thread");
            let mut started = Started { redis, admin, desk, outlet, committer };
            // This proves the connection.
            started.send(*ids.start());
            started.wait_until_recorded(1);
            started
        }

        fn send(&self, id: u64) {
            let fields = ["message_id", &id.to_string()].into_iter().collect();
            self.outlet.send(Commit { id: MessageId(id), fields }, Body::copied(None, b"x"), 1, Epoch(1), 1);
        }

        fn recorded(&self) -> usize {
            self.desk.stats().recorded.get() as usize
        }

        fn wait_until_recorded(&mut self, count: usize) {
            let is_so = || Ok((self.recorded() == count).then_some(()));
            crate::lab::wait_until(Duration::from_secs(10), "all to be recorded", is_so).expect("in time");
            let reply = self.admin.query("testing", Command::of(&["XLEN", "g:processed"]));
            assert_eq!(reply.expect("redis answers"), redis::Value::Int(count as i64));
        }

        fn end(self) {
            drop(self.outlet);
            assert_eq!(Committer::join(vec![self.committer], Duration::from_secs(10)), 0);
            drop(self.redis);
        }
    }

    #[test]
    fn a_result_that_comes_alone_is_recorded_before_the_next_begins() {
        let mut started = Started::with_messages(1..=100);
        let mut at_once = 0;
        for id in 2..=100 {
            let before = started.recorded();
            started.send(id);
            at_once += usize::from(started.recorded() > before);
            started.wait_until_recorded(id as usize);
        }
        // All but those that met a check of the connection.
        assert!(at_once > 50, "{at_once}");
        assert_eq!(started.desk.stats().scripted.get(), 1, "by transactions");
        started.end();
    }

    /// What may have been executed all the same is recorded by the script, which raises the recall.
    #[test]
    fn the_committer_continues_if_a_connection_ends_while_a_result_is_recorded_at_once() {
        for round in 0..20 {
            let mut started = Started::with_messages(1..=3);
            started.send(2);
            started.wait_until_recorded(2);
            started.admin.query("testing", Command::of(&["CLIENT", "KILL", "TYPE", "normal"])).expect("it is done");
            started.send(3);
            started.wait_until_recorded(3);
            let recall = started.admin.query("testing", Command::of(&["GET", "g:recall"])).expect("redis answers");
            let redis::Value::BulkString(text) = recall else { panic!("{recall:?}") };
            let text = String::from_utf8_lossy(&text);
            let raised = text.ends_with(" 3");
            // Unless the committer has noticed first, and recorded by script what may not be recorded otherwise.
            assert!(raised || started.desk.stats().scripted.get() == 2, "round {round}: {text}");
            assert_eq!(started.desk.stats().not_pending.get(), 0);
            started.end();
        }
    }
}
