//! The long-lived children: those that wait for a message, and when another is started.
//!
//! Handler threads take a child for each message and return it. So there are at most as many children as handlers run
//! at a time. A child is started when a handler needs one, and one is kept even without messages, so that a program
//! that can't run is noticed before it is needed. Not more: an interpreter takes memory, and a consumer with many
//! handler threads may use few of them.
//!
//! Guarantees: a child that ends without having answered anything is replaced after a wait that grows, so a program
//! that crashes at once is started at a limited rate, whatever the number of threads. The pool is *unable* if no child
//! lives and the program can't be started, or if [`MAX_UNREAD`] children in a row ended before they had read a message.
//! It gives out no child then until one has lived for [`PROVEN_AFTER`]. [`Pool::stop`] leaves no child behind.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::info;
use parking_lot::{Condvar, Mutex, MutexGuard};

use super::group::{Group, end_all};
use super::program::Program;
use super::stderr::StderrLimit;
use super::worker::{EndingWorker, Lost, Problem, Worker};
use crate::base::backoff::Backoff;
use crate::base::rate_limit::RateLimit;
use crate::base::text::Quoted;
use crate::programs::consumer::trace::{TraceContext, log_field};

/// How many children in a row may end before they have read a message, until no more messages are accepted.
pub(super) const MAX_UNREAD: u32 = 3;
/// How long a child must live before messages are accepted again.
const PROVEN_AFTER: Duration = Duration::from_secs(1);
/// The wait before a child is started in place of one that ended without an answer: the first, and the longest.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// How long children may take to end by themselves when the consumer stops, and then after SIGTERM.
const STOP_LIMIT: Duration = Duration::from_secs(1);
/// The most log lines about the starts and ends of children: this many at once, and this many a second after that.
const LINES_AT_ONCE: u32 = 50;
const LINES_PER_S: u32 = 2;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Pool {
    program: Program,
    stderr: StderrLimit,
    state: Mutex<State>,
    /// A child waits, or something that a handler waits for has changed.
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    /// The children that wait, the one used last at the end.
    idle: Vec<Worker>,
    /// All children that live, by number.
    living: HashMap<u64, Arc<Group>>,
    /// How many were started, or at least tried.
    started: u64,
    /// How many are being started.
    starting: usize,
    /// How many ended in a row before they had read a message.
    unread: u32,
    /// No child is started before this.
    not_before: Instant,
    backoff: Backoff,
    /// Why no child is given out.
    unable: Option<String>,
    stopping: bool,
    lines: RateLimit,
    suppressed: u64,
}

impl Pool {
    pub(super) fn new(program: Program, stderr: StderrLimit) -> Pool {
        let now = Instant::now();
        let state = State {
            idle: Vec::new(),
            living: HashMap::new(),
            started: 0,
            starting: 0,
            unread: 0,
            not_before: now,
            backoff: Backoff::new(FIRST_WAIT, LONGEST_WAIT),
            unable: None,
            stopping: false,
            lines: RateLimit::new(LINES_AT_ONCE, LINES_PER_S, now),
            suppressed: 0,
        };
        Pool { program, stderr, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// A child for one message. Waits until one is free or may be started. An error is why there is none.
    pub(super) fn take(&self) -> Result<Worker, String> {
        let mut state = self.state.lock();
        loop {
            if state.stopping {
                return Err("the consumer is stopping".to_owned());
            }
            if let Some(reason) = &state.unable {
                return Err(reason.clone());
            }
            if let Some(worker) = state.idle.pop() {
                return Ok(worker);
            }
            match state.may_start(Instant::now()) {
                true => {
                    if let Some(worker) = self.start(&mut state) {
                        return Ok(worker);
                    }
                }
                false => {
                    let until = state.not_before;
                    self.changed.wait_until(&mut state, until);
                }
            }
        }
    }

    /// Takes back a child that has answered.
    pub(super) fn put_back(&self, mut worker: Worker) {
        worker.set_answered();
        let mut state = self.state.lock();
        state.unread = 0;
        state.not_before = Instant::now();
        state.backoff.reset();
        if state.stopping {
            // `stop` waits for its end.
            return drop(MutexGuard::unlocked(&mut state, || worker.ask_to_end()));
        }
        state.idle.push(worker);
        self.changed.notify_all();
    }

    /// Ends a child after a problem; the trace context is that of its message. Returns what happened, and whether the
    /// message may have been begun.
    pub(super) fn end(&self, worker: Worker, problem: &Problem, context: Option<&TraceContext>) -> Lost {
        let (number, pid, has_answered) = (worker.number(), worker.group().pid(), worker.has_answered());
        let lost = worker.close(problem);
        let mut state = self.state.lock();
        state.living.remove(&number);
        state.log(|suppressed| {
            let (reason, trace) = (Quoted(&lost.reason), log_field(context));
            info!("event=child-ended child={number} pid={pid} reason={reason}{trace}{suppressed}");
        });
        if !has_answered {
            state.not_before = Instant::now() + state.backoff.next_wait();
            state.unread = if lost.begun { 0 } else { state.unread + 1 };
        }
        if state.unread >= MAX_UNREAD {
            state.note_unable(format!("{} ends before it reads a message: {}", self.program.name(), lost.reason));
        }
        self.changed.notify_all();
        lost
    }

    /// Replaces children that have ended without a message, and keeps at least one. To be called regularly. An error is
    /// why the pool is unable.
    pub(super) fn check(&self) -> Result<(), String> {
        let mut state = self.state.lock();
        let (ended, idle) = std::mem::take(&mut state.idle).into_iter().partition(|worker| worker.group().has_ended());
        state.idle = idle;
        for worker in ended {
            MutexGuard::unlocked(&mut state, || self.end(worker, &Problem::Ended { partial: false }, None));
        }
        let now = Instant::now();
        if state.unable.is_some() && state.idle.iter().any(|worker| now >= worker.started() + PROVEN_AFTER) {
            state.unable = None;
        }
        let none = state.living.is_empty() && state.starting == 0 && !state.stopping;
        if none
            && now >= state.not_before
            && let Some(worker) = self.start(&mut state)
        {
            state.idle.push(worker);
        }
        self.changed.notify_all();
        state.unable.clone().map_or(Ok(()), Err)
    }

    /// Starts a child, if the system can. The lock is released meanwhile.
    fn start(&self, state: &mut MutexGuard<'_, State>) -> Option<Worker> {
        state.started += 1;
        state.starting += 1;
        let number = state.started;
        if state.unread > 0 {
            state.not_before = Instant::now() + state.backoff.next_wait();
        }
        let started = MutexGuard::unlocked(state, || Worker::start(&self.program, number, &self.stderr));
        state.starting -= 1;
        match started {
            Ok(worker) if state.stopping => {
                MutexGuard::unlocked(state, || drop(worker));
                None
            }
            Ok(worker) => {
                let pid = worker.group().pid();
                state.living.insert(number, worker.group().clone());
                state.log(|suppressed| info!("event=child-started child={number} pid={pid}{suppressed}"));
                Some(worker)
            }
            Err(error) => {
                state.not_before = Instant::now() + state.backoff.next_wait();
                state.note_unable(format!("{} can't be started: {error}", self.program.name()));
                None
            }
        }
    }

    /// Ends all children: closes their standard input, waits, sends SIGTERM to those that are left, and then SIGKILL.
    /// Children that are still at work get SIGTERM at once: their messages were given up.
    pub(super) fn stop(&self) {
        let (idle, living) = {
            let mut state = self.state.lock();
            state.stopping = true;
            self.changed.notify_all();
            (std::mem::take(&mut state.idle), std::mem::take(&mut state.living))
        };
        let asked: HashMap<u64, EndingWorker> =
            idle.into_iter().map(|worker| (worker.number(), worker.ask_to_end())).collect();
        living.iter().filter(|(number, _)| !asked.contains_key(number)).for_each(|(_, group)| group.terminate());
        end_all(&living.into_values().collect::<Vec<_>>(), STOP_LIMIT);
    }
}

impl State {
    /// Whether another child may be started now.
    fn may_start(&self, now: Instant) -> bool {
        now >= self.not_before
    }

    /// The pool is unable if no child is left that could still work.
    fn note_unable(&mut self, reason: String) {
        if self.living.is_empty() && self.starting == 0 {
            self.unable = Some(reason);
        }
    }

    /// Logs a line, unless there were too many; then the next one says how many were not logged.
    fn log(&mut self, line: impl FnOnce(&str)) {
        if !self.lines.take(Instant::now()) {
            self.suppressed += 1;
            return;
        }
        match std::mem::take(&mut self.suppressed) {
            0 => line(""),
            count => line(&format!(" suppressed_before={count}")),
        }
    }
}
