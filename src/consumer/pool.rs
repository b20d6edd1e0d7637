//! The threads that run the handler. The setting `concurrency` is their number.
//!
//! Each takes one message at a time, so a slow message delays only its own thread. A panic fails only its message.
//! Successes go to the outlet of the message's lane, failures and messages that were not begun straight to its desk. A
//! thread waits for Redis only to record its own result, while there is nothing else to do.
//!
//! Limitation: a handler that never returns occupies its thread forever.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use log::warn;

use super::desk::{Desk, Desks, Turn};
use super::error::{Error, Result};
use super::handler::{Delivery, Handler, HandlerError, Outcome};
use crate::base::log_context;
use crate::base::retry_policy::RetryPolicy;
use crate::ledger::{Commit, LaneNumber, MAX_RESULT_FIELDS};
use crate::wire;

/// The most bytes of names and values in one result.
const MAX_RESULT_BYTES: usize = wire::MAX_PAYLOAD_BYTES;

/// The handler threads. They end when halted, or when this handle is dropped.
pub(super) struct Pool {
    desks: Arc<Desks>,
    /// Disconnected when all threads have ended.
    all_ended: Receiver<()>,
    threads: Vec<JoinHandle<()>>,
}

impl Pool {
    /// Starts `concurrency` threads.
    pub(super) fn start(
        concurrency: usize,
        handler: Arc<dyn Handler>,
        consumer_id: Arc<str>,
        retry: Option<RetryPolicy>,
        desks: &Arc<Desks>,
    ) -> Result<Pool> {
        // The threads log in the context of the thread that starts them.
        let context = log_context::current();
        let (ended, all_ended) = bounded(0);
        let threads = (0..concurrency)
            .map(|number| {
                let worker = HandlerThread {
                    number,
                    handler: handler.clone(),
                    consumer_id: consumer_id.clone(),
                    retry,
                    desks: desks.clone(),
                    lane: 0,
                };
                let (ended, context) = (ended.clone(), context.clone());
                thread::Builder::new().name(format!("handler-{number}")).spawn(move || {
                    log_context::enter(&context);
                    worker.run();
                    drop(ended);
                })
            })
            .collect::<std::io::Result<_>>()
            // The threads already started wait for work: end them.
            .inspect_err(|_| desks.close())
            .map_err(Error::start("starting the handler threads (a lower `concurrency` may do)"))?;
        Ok(Pool { desks: desks.clone(), all_ended, threads })
    }

    /// Disconnected once all threads have ended.
    pub(super) fn ended(&self) -> &Receiver<()> {
        &self.all_ended
    }

    /// Makes the threads begin no other message.
    pub(super) fn halt(&self) {
        self.desks.close();
    }

    /// Halts and joins the threads. A thread whose handler does not return within `limit` is left behind. Returns how
    /// many were left behind.
    pub(super) fn join(mut self, limit: Duration) -> usize {
        self.halt();
        // Nothing is ever sent: this waits until the last sender is dropped.
        let all_ended = self.all_ended.recv_timeout(limit) == Err(RecvTimeoutError::Disconnected);
        // A thread that has dropped its sender may not count as finished yet, but will in a moment.
        let has_ended = |thread: &JoinHandle<()>| all_ended || thread.is_finished();
        let (ended, stuck): (Vec<_>, Vec<_>) = std::mem::take(&mut self.threads).into_iter().partition(has_ended);
        for thread in ended {
            if thread.join().is_err() {
                warn!("event=bug thread=handler problem=panicked");
            }
        }
        stuck.len()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.halt();
    }
}

struct HandlerThread {
    number: usize,
    handler: Arc<dyn Handler>,
    consumer_id: Arc<str>,
    /// `None`: the dispatcher decides how long a message waits that failed.
    retry: Option<RetryPolicy>,
    desks: Arc<Desks>,
    /// The lane of the last message.
    lane: LaneNumber,
}

impl HandlerThread {
    /// The thread's main loop: runs the handler on one message after the other.
    fn run(mut self) {
        while let Some(turn) = self.desks.next(self.number) {
            if std::mem::replace(&mut self.lane, turn.lane) != turn.lane {
                log_context::enter(&turn.outlet.context);
            }
            let began = Instant::now();
            let outcome = self.handle(&turn);
            let ended = Instant::now();
            self.desks.stats().handler_duration.observe(ended - began);
            let Turn { lane, outlet, job } = turn;
            match outcome {
                Ok(outcome) => {
                    self.desks.returned(self.number, ended);
                    // The message stays held meanwhile, and is reported to the dispatcher as held.
                    let commit = Commit { id: job.id, fields: outcome.fields };
                    outlet.send(commit, job.body, job.number, job.epoch, job.link);
                }
                Err(error) if error.is_not_ready() => {
                    self.desk(lane).put_back(self.number, job, error.reason, ended);
                }
                Err(error) => {
                    let error = self.delayed(error, job.number);
                    self.desks.stats().set_last_failure(&error);
                    // This comes before the thread counts as free, because that may dismiss the ruler.
                    self.desk(lane).fail(job.id, job.run, error);
                    self.desks.returned(self.number, ended);
                }
            }
        }
    }

    fn desk(&self, lane: LaneNumber) -> Desk {
        self.desks.desk(lane)
    }

    /// The same failure with the delay of this consumer's policy, unless the handler chose what happens next.
    fn delayed(&self, error: HandlerError, delivery: u16) -> HandlerError {
        match self.retry {
            Some(retry) if error.leaves_the_delay_open() => {
                error.after(retry.wait_with_jitter(delivery.saturating_add(1), fastrand::f64()))
            }
            _ => error,
        }
    }

    fn handle(&self, Turn { lane, job, .. }: &Turn) -> Result<Outcome, HandlerError> {
        let delivery = Delivery::new(job.body.payload())
            .with_id(job.id)
            .with_lane(*lane)
            .with_number(job.number)
            .with_consumer_id(&self.consumer_id);
        let delivery = match job.body.channel() {
            Some(channel) => delivery.with_channel(channel),
            None => delivery,
        };
        match catch_unwind(AssertUnwindSafe(|| self.handler.handle(&delivery))) {
            Ok(outcome) => outcome.and_then(within_limits),
            Err(panic) => {
                self.desks.stats().panicked.add(1);
                Err(HandlerError::retry(format!("handler panicked: {}", message_of(&*panic))))
            }
        }
    }
}

/// Rejects results that Redis could not store: a retry would give the same result.
fn within_limits(outcome: Outcome) -> Result<Outcome, HandlerError> {
    let count = outcome.fields.len() / 2;
    if count > MAX_RESULT_FIELDS {
        return Err(HandlerError::reject(format!("the result has {count} fields, at most {MAX_RESULT_FIELDS} fit")));
    }
    let bytes = outcome.fields.bytes().len();
    if bytes > MAX_RESULT_BYTES {
        return Err(HandlerError::reject(format!("the result has {bytes} bytes, at most {MAX_RESULT_BYTES} fit")));
    }
    Ok(outcome)
}

/// Whether the handler is ready. One that panics instead of an answer is not.
pub(super) fn ask_ready(handler: &dyn Handler) -> Result<(), String> {
    let answer = catch_unwind(AssertUnwindSafe(|| handler.ready()));
    answer.unwrap_or_else(|panic| Err(format!("asked whether it is ready, it panicked: {}", message_of(&*panic))))
}

fn message_of(panic: &(dyn Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        _ => "no message",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consumer::desk::Terms;

    #[test]
    fn results_that_redis_could_not_store_are_rejected() {
        let many = (0..=MAX_RESULT_FIELDS).fold(Outcome::new(), |outcome, i| outcome.field(i.to_string(), ""));
        assert!(within_limits(many).expect_err("too many fields").is_reject());
        let large = Outcome::new().field("large", vec![0; MAX_RESULT_BYTES]);
        assert!(within_limits(large).expect_err("too many bytes").is_reject());
        assert!(within_limits(Outcome::new().field("small", "x")).is_ok());
    }

    #[test]
    fn threads_that_have_nothing_to_do_are_not_left_behind() {
        let handler: Arc<dyn Handler> = Arc::new(|_: &Delivery<'_>| Ok(Outcome::new()));
        // Repeated, because the moment between a thread's last action and its end is short.
        for _ in 0..200 {
            let desks = Arc::new(Desks::new(Terms::of_tests(2), Arc::default()));
            let pool = Pool::start(2, handler.clone(), "c0".into(), None, &desks).expect("threads");
            assert_eq!(pool.join(Duration::from_secs(20)), 0);
        }
    }

    #[test]
    fn panic_messages_are_kept() {
        assert_eq!(message_of(&"static"), "static");
        assert_eq!(message_of(&"owned".to_owned()), "owned");
        assert_eq!(message_of(&7), "no message");
    }
}
