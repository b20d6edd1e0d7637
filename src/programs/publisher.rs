//! The load generator: publishes `{"message_id":"<prefix><number>"}` messages, and repeats those that no subscriber
//! received.
//!
//! It runs on one thread, `publish`. Messages are published in bounded pipelines of `PUBLISH` or `SPUBLISH`; each reply
//! has the number of subscribers that received the message. A message that none received is published again, with the
//! same id, until one does. A message whose reply was lost with the connection is *unknown*: publishing it again might
//! duplicate it, so it is only counted. In a Redis Cluster so is a message that no subscriber received (see `link`).
//!
//! Limitations: "received" means that Redis had any subscriber to send to; the message may still be lost on the way to
//! it. Two runs with the same `--id-prefix` publish the same ids.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, never};

use crate::base::backoff::Backoff;
use crate::base::error::{Error, Result};
use crate::base::shutdown::{ShutdownRequests, shutdown_channel};
use crate::base::text::Quoted;
use crate::process::{log as process_log, output};

mod link;
mod messages;
mod pace;
pub mod settings;
mod stats;

use self::link::{PublishOutcome, RedisLink};
use self::messages::{IdsFile, Messages};
use self::pace::Pace;
use self::settings::PublisherConfig;
use self::stats::Stats;

/// The most messages that wait for a subscriber; while this many wait, no new ones are published.
pub const MAX_WAITING: usize = 10_000;
/// How often the rate is logged and the file of ids is flushed.
const REPORT_EVERY: Duration = Duration::from_secs(3);
/// The waits between retries while there is no subscriber: the first and the longest.
const RETRY_WAIT: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(200));

/// The outcome of a run.
#[derive(Debug)]
pub struct RunSummary {
    /// Distinct ids that at least one subscriber received.
    pub published: u64,
    /// Ids that no subscriber received.
    pub unreceived: u64,
    /// Publishes that repeated an id.
    pub retried: u64,
    /// Ids whose reply was lost: they may have been received.
    pub unknown: u64,
    /// What each id starts with.
    pub id_prefix: String,
    /// How long the run took.
    pub elapsed: Duration,
    /// What ended the run early.
    pub failure: Option<Error>,
}

impl RunSummary {
    /// 0 if the run succeeded, 1 if a message was not received or a failure ended the run.
    pub fn exit_code(&self) -> u8 {
        self.failure.as_ref().map_or(u8::from(self.unreceived > 0), Error::exit_code)
    }
}

impl fmt::Display for RunSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RunSummary { published, unreceived, retried, unknown, id_prefix, elapsed, .. } = self;
        let seconds = elapsed.as_secs_f64();
        let rate = *published as f64 / seconds.max(1e-9);
        let id_prefix = Quoted(id_prefix);
        write!(
            f,
            "published={published} unreceived={unreceived} retried={retried} unknown={unknown} \
             id_prefix={id_prefix} seconds={seconds:.3} rate={rate:.0}"
        )
    }
}

/// The program: publishes until it is done or asked to stop, prints the totals and returns the exit code.
pub fn run(config: PublisherConfig) -> Result<u8> {
    config.common.scheduling.apply();
    let _log = process_log::init(config.common.log_level, "publisher", "publisher")?;
    let (handle, requests) = shutdown_channel();
    handle.on_signals_with_certificates(config.common.has_renewed_files())?;
    let summary = publish(config, &requests)?;
    let printed = output::print(format_args!("{summary}\n"));
    if let Some(failure) = &summary.failure {
        process_log::fail("oncecast-publisher", failure);
    }
    printed.map(|_| summary.exit_code())
}

/// Publishes until the count or the time is reached, or until it is asked to stop.
///
/// An error means that it could not start; later failures are in the summary.
pub fn publish(config: PublisherConfig, requests: &ShutdownRequests) -> Result<RunSummary> {
    let ids = config.ids_file.as_deref().map(IdsFile::create).transpose()?;
    let stats = Arc::new(Stats::default());
    let _server = config.common.metrics.as_ref().map(|place| stats::serve(place, &stats)).transpose()?;
    let begin = Instant::now();
    log::info!(
        "event=publisher-started redis={} channel={} channels={} id_prefix={}",
        Quoted(&config.common.redis.shown()),
        Quoted(String::from_utf8_lossy(&config.channels[0])),
        config.channels.len(),
        Quoted(&config.id_prefix)
    );
    let sharded = config.channels.first().filter(|_| config.sharded).map(Vec::as_slice);
    let publisher = Publisher {
        link: RedisLink::new(&config.common.redis, &config.common.keys, sharded, config.refusal_patience, begin),
        messages: Messages::new(config.channels, config.sharded, &config.id_prefix),
        pace: Pace::new(config.rate, config.batch, begin),
        count: config.count,
        end: config.duration.and_then(|duration| begin.checked_add(duration)),
        grace: config.grace,
        finish_by: None,
        next: 0,
        waiting: VecDeque::new(),
        retry_at: begin,
        retry_wait: Backoff::new(RETRY_WAIT.0, RETRY_WAIT.1),
        unheard: false,
        ids,
        stats,
        report: LastReport { at: begin, published: 0 },
        stop: requests.receiver().clone(),
        begin,
    };
    // On a thread of its own: a signal may interrupt the main thread while it reads a reply, which would then be
    // unknown.
    let thread = thread::Builder::new().name("publish".to_owned()).spawn(move || publisher.run(config.id_prefix));
    let summary = thread.map_err(Error::io("starting the thread publish"))?.join();
    summary.map_err(|_| Error::Failed("the thread publish panicked".to_owned()))
}

/// See the module's text.
struct Publisher {
    link: RedisLink,
    messages: Messages,
    pace: Pace,
    /// How many messages to publish, if that is limited.
    count: Option<u64>,
    /// When to stop publishing new messages.
    end: Option<Instant>,
    /// How long after the last new message waiting messages are retried.
    grace: Duration,
    /// Set after the last new message: until when waiting messages are retried.
    finish_by: Option<Instant>,
    /// The number of the next new message.
    next: u64,
    /// Messages that no subscriber has received yet, oldest first.
    waiting: VecDeque<u64>,
    retry_at: Instant,
    retry_wait: Backoff,
    /// Whether the last pipeline reached no subscriber.
    unheard: bool,
    ids: Option<IdsFile>,
    stats: Arc<Stats>,
    report: LastReport,
    stop: Receiver<()>,
    begin: Instant,
}

struct LastReport {
    at: Instant,
    published: u64,
}

impl Publisher {
    fn run(mut self, id_prefix: String) -> RunSummary {
        let mut failure = self.publish_all().err();
        if let Some(ids) = &mut self.ids
            && let Err(error) = ids.flush()
        {
            failure.get_or_insert(error);
        }
        RunSummary {
            published: self.stats.published.load(Ordering::Relaxed),
            unreceived: self.waiting.len() as u64,
            retried: self.stats.retried.load(Ordering::Relaxed),
            unknown: self.stats.unknown.load(Ordering::Relaxed),
            id_prefix,
            elapsed: self.begin.elapsed(),
            failure,
        }
    }

    /// The main loop: publishes what is due, then waits for what comes next.
    fn publish_all(&mut self) -> Result<()> {
        loop {
            let now = Instant::now();
            self.report(now)?;
            if self.is_over(now)? {
                return Ok(());
            }
            let wait_until = self.publish_due(now)?;
            // Checked in every iteration, even if messages are always due.
            match self.stop.recv_deadline(wait_until) {
                Ok(()) => return Ok(()),
                Err(RecvTimeoutError::Timeout) => {}
                // No more requests can arrive.
                Err(RecvTimeoutError::Disconnected) => self.stop = never(),
            }
        }
    }

    /// Publishes one pipeline of due messages. Returns the time until which there is nothing to do.
    fn publish_due(&mut self, now: Instant) -> Result<Instant> {
        let connected = self.link.connect(now);
        self.stats.connected.store(matches!(connected, Ok(true)), Ordering::Relaxed);
        if !connected? {
            return Ok(self.soonest(now, [self.link.retry_at()]));
        }
        let (numbers, repeated) = self.take_due(now);
        if numbers.is_empty() {
            return Ok(self.nothing_until(now));
        }
        let outcome = self.link.publish(self.messages.commands(&numbers), now)?;
        let answered = Instant::now();
        if !matches!(outcome, PublishOutcome::NotPublished) {
            self.stats.retried.fetch_add(repeated as u64, Ordering::Relaxed);
        }
        match outcome {
            PublishOutcome::Receivers(receivers) => self.tally(&numbers, &receivers, answered)?,
            PublishOutcome::NotPublished => numbers.iter().rev().for_each(|number| self.waiting.push_front(*number)),
            PublishOutcome::Unknown => {
                self.stats.unknown.fetch_add(numbers.len() as u64, Ordering::Relaxed);
                log::warn!("event=outcome-unknown messages={} note=\"not published again\"", numbers.len());
            }
        }
        self.stats.waiting.store(self.waiting.len() as u64, Ordering::Relaxed);
        Ok(answered)
    }

    /// Takes the numbers of one pipeline, waiting ones first; also returns how many of them were published before.
    fn take_due(&mut self, now: Instant) -> (Vec<u64>, usize) {
        let room = self.link.room(self.messages.most_in_a_pipeline());
        let repeated = if now >= self.retry_at { room.min(self.waiting.len()) } else { 0 };
        let mut numbers: Vec<u64> = self.waiting.drain(..repeated).collect();
        if self.finish_by.is_none() {
            // All of them may have to wait for a subscriber.
            let space = MAX_WAITING.saturating_sub(self.waiting.len() + repeated).min(room - repeated);
            let left = self.count.map_or(space as u64, |count| (count - self.next).min(space as u64));
            let new = self.pace.due(now).min(left);
            numbers.extend(self.next..self.next + new);
            self.next += new;
            self.pace.published(new, now, fastrand::u64);
        }
        (numbers, repeated)
    }

    fn tally(&mut self, numbers: &[u64], receivers: &[u64], now: Instant) -> Result<()> {
        let mut unreceived = 0;
        for (number, receivers) in numbers.iter().zip(receivers) {
            if *receivers == 0 {
                unreceived += 1;
                if !self.link.is_unsure() {
                    self.waiting.push_back(*number);
                }
            } else if let Some(ids) = &mut self.ids {
                ids.write(&self.messages, *number)?;
            }
        }
        let received = numbers.len() - unreceived;
        self.stats.published.fetch_add(received as u64, Ordering::Relaxed);
        self.stats.receivers.fetch_add(receivers.iter().sum(), Ordering::Relaxed);
        if received > 0 {
            self.retry_wait.reset();
        }
        if unreceived > 0 && self.link.is_unsure() {
            self.stats.unknown.fetch_add(unreceived as u64, Ordering::Relaxed);
            self.link.note_unheard();
        } else if unreceived > 0 {
            self.retry_at = now + self.retry_wait.next_wait();
        }
        if (received == 0) != self.unheard {
            self.unheard = received == 0;
            match self.unheard {
                true => {
                    log::warn!("event=no-subscriber waiting={} note=\"they are published again\"", self.waiting.len())
                }
                false => log::info!("event=subscriber-back waiting={}", self.waiting.len()),
            }
        }
        Ok(())
    }

    /// Whether the run is over; an error if Redis was never reached.
    fn is_over(&mut self, now: Instant) -> Result<bool> {
        let ended = self.count == Some(self.next) || self.end.is_some_and(|end| now >= end);
        if !ended {
            return Ok(false);
        }
        let finish_by = *self.finish_by.get_or_insert(now + self.grace);
        if !self.waiting.is_empty() && now < finish_by {
            return Ok(false);
        }
        self.link.never_reached().map_or(Ok(true), Err)
    }

    /// Until when there is nothing to publish.
    fn nothing_until(&self, now: Instant) -> Instant {
        let retry = if self.waiting.is_empty() { None } else { Some(self.retry_at) };
        let full = self.waiting.len() >= MAX_WAITING;
        let new = if self.finish_by.is_some() || full { None } else { Some(self.pace.next(now)) };
        self.soonest(now, retry.into_iter().chain(new))
    }

    /// The earliest of these times and of the times at which the loop has to run in any case.
    fn soonest(&self, now: Instant, times: impl IntoIterator<Item = Instant>) -> Instant {
        let always = [Some(self.report.at + REPORT_EVERY), self.finish_by.or(self.end)];
        always.into_iter().flatten().chain(times).min().unwrap_or(now)
    }

    fn report(&mut self, now: Instant) -> Result<()> {
        let elapsed = now.saturating_duration_since(self.report.at);
        if elapsed < REPORT_EVERY {
            return Ok(());
        }
        let published = self.stats.published.load(Ordering::Relaxed);
        let rate = (published - self.report.published) as f64 / elapsed.as_secs_f64();
        if published > self.report.published || !self.waiting.is_empty() {
            log::info!("event=rate messages_per_s={rate:.0} published={published} waiting={}", self.waiting.len());
        }
        self.report = LastReport { at: now, published };
        self.ids.as_mut().map_or(Ok(()), IdsFile::flush)
    }
}
