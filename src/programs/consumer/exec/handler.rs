//! The handler: gives each message to a child, and turns the child's answer into an outcome.
//!
//! Called by the consumer's handler threads; the thread that asks whether the handler is ready keeps a child running.

use std::sync::Arc;
use std::time::Duration;

use log::info;

use super::answer;
use super::per_message::PerMessage;
use super::pool::Pool;
use super::program::Program;
use super::request;
use super::settings::ExecConfig;
use super::stderr::StderrLimit;
use super::worker::{Limits, Problem};
use crate::consumer::{Delivery, Handler, HandlerError, Outcome};
use crate::programs::consumer::trace::{TraceContext, Tracing};

/// See the folder's text. Clones are the same handler.
#[derive(Clone, Debug)]
pub struct Exec {
    mode: Arc<Mode>,
    stderr: StderrLimit,
    tracing: Tracing,
}

#[derive(Debug)]
enum Mode {
    LongLived(Pool, Limits),
    PerMessage(PerMessage),
}

impl Exec {
    /// A handler of this group. A message may take as long as `timeout`; `None`: any time. It starts nothing yet.
    pub(in crate::programs::consumer) fn new(
        config: ExecConfig,
        group: &str,
        timeout: Option<Duration>,
        tracing: Tracing,
    ) -> Exec {
        let stderr = StderrLimit::new();
        let program = Program::new(config.words, group);
        let mode = match config.per_message {
            true => Mode::PerMessage(PerMessage::new(program, timeout, stderr.clone())),
            false => Mode::LongLived(Pool::new(program, stderr.clone()), Limits::new(timeout)),
        };
        Exec { mode: Arc::new(mode), stderr, tracing }
    }

    /// How long a child may take to read a message.
    #[cfg(test)]
    pub(super) fn set_reading_limit(&mut self, limit: Duration) {
        match Arc::get_mut(&mut self.mode) {
            Some(Mode::LongLived(_, limits)) => limits.reading = limit,
            _ => panic!("it is used already, or has no such limit"),
        }
    }

    /// Ends all children, once the consumer has stopped.
    pub fn stop(&self) {
        match &*self.mode {
            Mode::LongLived(pool, _) => pool.stop(),
            Mode::PerMessage(processes) => processes.stop(),
        }
        if let count @ 1.. = self.stderr.suppressed() {
            info!("event=child-stderr-suppressed lines={count}");
        }
    }
}

impl Handler for Exec {
    fn handle(&self, delivery: &Delivery<'_>) -> Result<Outcome, HandlerError> {
        self.tracing.around(delivery, |context| match &*self.mode {
            Mode::LongLived(pool, limits) => ask(pool, delivery, context, *limits),
            Mode::PerMessage(processes) => processes.run(delivery, context),
        })
    }

    fn ready(&self) -> Result<(), String> {
        match &*self.mode {
            Mode::LongLived(pool, _) => pool.check(),
            Mode::PerMessage(processes) => processes.check(),
        }
    }
}

/// Gives the message to a long-lived child.
fn ask(
    pool: &Pool,
    delivery: &Delivery<'_>,
    context: Option<&TraceContext>,
    limits: Limits,
) -> Result<Outcome, HandlerError> {
    let request = request::line(delivery, context);
    loop {
        let mut worker = pool.take().map_err(HandlerError::not_ready)?;
        let answered = worker
            .exchange(&request, limits)
            .and_then(|line| answer::read(&line, delivery.id()).map_err(Problem::Garbage));
        match answered {
            Ok(outcome) => {
                pool.put_back(worker);
                return outcome;
            }
            Err(problem) => {
                let lost = pool.end(worker, &problem, context);
                // No child has begun on the message, so another one may. The pool limits how often children start.
                if lost.begun {
                    return Err(HandlerError::retry(lost.reason));
                }
            }
        }
    }
}
