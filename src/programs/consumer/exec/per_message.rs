//! A process for each message: `--exec-per-message`, for programs that do one thing and end, as shell and PHP scripts.
//!
//! The exit status says what became of the message: 0 with the result on the standard output, 75 (EX_TEMPFAIL) to
//! retry, 65 (EX_DATAERR) to reject. Any other status is a failure like 75, and so is a signal. The last line on the
//! standard error is the reason. Called by handler threads.
//!
//! Guarantees: if the system can't start the program, no message fails. The handler is not ready then, and tries again
//! after a wait that grows. [`PerMessage::stop`] leaves no process behind.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::group::{Ending, Group, end_all};
use super::process::{Finished, Process};
use super::program::Program;
use super::stderr::StderrLimit;
use crate::base::backoff::Backoff;
use crate::consumer::{Delivery, HandlerError, Outcome};
use crate::programs::consumer::fields::outcome_of_object;
use crate::programs::consumer::trace::TraceContext;

/// The exit status for a failure that may pass.
const EX_TEMPFAIL: i32 = 75;
/// The exit status for a message that can't be processed.
const EX_DATAERR: i32 = 65;
/// The wait before the next attempt to start the program: the first, and the longest.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// How long a process that still runs when the consumer stops may take after SIGTERM.
const STOP_LIMIT: Duration = Duration::from_secs(1);

/// See the module's text.
#[derive(Debug)]
pub(super) struct PerMessage {
    program: Program,
    limit: Option<Duration>,
    stderr: StderrLimit,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The processes that run, by id.
    running: HashMap<u32, Arc<Group>>,
    /// Why the program could not be started, and when to try again.
    obstacle: Option<(String, Instant)>,
    backoff: Backoff,
    stopping: bool,
}

impl PerMessage {
    pub(super) fn new(program: Program, limit: Option<Duration>, stderr: StderrLimit) -> PerMessage {
        let backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        let state = State { running: HashMap::new(), obstacle: None, backoff, stopping: false };
        PerMessage { program, limit, stderr, state: Mutex::new(state) }
    }

    /// Runs the program on one message.
    pub(super) fn run(&self, delivery: &Delivery<'_>, context: Option<&TraceContext>) -> Result<Outcome, HandlerError> {
        self.check().map_err(HandlerError::not_ready)?;
        let process = self.start(delivery, context).map_err(HandlerError::not_ready)?;
        let pid = process.group().pid();
        let finished = process.run(delivery.payload(), self.limit);
        self.state.lock().running.remove(&pid);
        outcome(finished.map_err(HandlerError::retry)?)
    }

    /// Whether the program could be started the last time, or is worth another attempt.
    pub(super) fn check(&self) -> Result<(), String> {
        let mut state = self.state.lock();
        let Some((reason, not_before)) = &state.obstacle else { return Ok(()) };
        if Instant::now() < *not_before {
            return Err(reason.clone());
        }
        self.program.obstacle().map_or(Ok(()), |obstacle| Err(self.note_obstacle(&mut state, obstacle)))
    }

    /// Starts a process and notes that it runs.
    fn start(&self, delivery: &Delivery<'_>, context: Option<&TraceContext>) -> Result<Process, String> {
        let started = Process::start(&self.program, delivery, context, &self.stderr);
        let mut state = self.state.lock();
        if state.stopping {
            return Err("the consumer is stopping".to_owned());
        }
        match started {
            Ok(process) => {
                state.obstacle = None;
                state.backoff.reset();
                state.running.insert(process.group().pid(), process.group().clone());
                Ok(process)
            }
            Err(error) => Err(self.note_obstacle(&mut state, error)),
        }
    }

    /// Notes why the program can't be started, and returns it as a text.
    fn note_obstacle(&self, state: &mut State, obstacle: impl fmt::Display) -> String {
        let reason = format!("{} can't be started: {obstacle}", self.program.name());
        state.obstacle = Some((reason.clone(), Instant::now() + state.backoff.next_wait()));
        reason
    }

    /// Ends the processes that still run. Their messages were given up.
    pub(super) fn stop(&self) {
        let running = {
            let mut state = self.state.lock();
            state.stopping = true;
            std::mem::take(&mut state.running)
        };
        let running: Vec<_> = running.into_values().collect();
        running.iter().for_each(|group| group.terminate());
        end_all(&running, STOP_LIMIT);
    }
}

/// What became of the message.
fn outcome(finished: Finished) -> Result<Outcome, HandlerError> {
    let Finished { ending, output, last_line } = finished;
    let reason = match &last_line {
        Some(line) => format!("{ending}: {line}"),
        None => ending.to_string(),
    };
    match ending {
        Ending::Exit(0) if output.is_empty() => Ok(Outcome::new()),
        Ending::Exit(0) => Ok(outcome_of_object(&output).unwrap_or_else(|| Outcome::new().field("body", &output))),
        Ending::Exit(EX_TEMPFAIL) => Err(HandlerError::retry(last_line.unwrap_or(reason))),
        Ending::Exit(EX_DATAERR) => Err(HandlerError::reject(last_line.unwrap_or(reason))),
        _ => Err(HandlerError::retry(reason)),
    }
}
