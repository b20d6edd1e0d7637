//! The sampler: once a second it reads how far the group has stored the channel, and compares.
//!
//! One thread in every shadow, with a connection of its own. Redis may answer before the subscription has brought what
//! the sample is about, so samples wait until their cursor was heard. Bounded: at most [`MAX_WAITING`] wait. It only
//! reads; the group notices nothing of it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::comparison::{Comparison, Point, Restart};
use super::pace::PaceMeter;
use super::state::{Comparing, ShadowShared};
use super::tally::Located;
use crate::base::backoff::Backoff;
use crate::base::pulse::OPEN_WITHIN;
use crate::lane::pulses::ITERATION_WITHIN;
use crate::ledger::{Cursor, Ledger, Sample};

/// How often the group's state is read.
const READ_EVERY: Duration = Duration::from_secs(1);
/// How often samples that wait are tried again.
const LOCATE_EVERY: Duration = Duration::from_millis(100);
/// How long to wait for a reply of Redis.
const REPLY_LIMIT: Duration = Duration::from_secs(2);
/// The most samples that wait: those of a minute. Beyond it the oldest are dropped.
const MAX_WAITING: usize = 64;
/// If the cursor of no sample was heard for this long, the shadow waits for the group.
const HEARD_WITHIN: Duration = Duration::from_secs(5);
/// The shortest time between two lines about a difference, which may rise all the time.
const LOG_EVERY: Duration = Duration::from_secs(60);
/// For how long the cursor may move without a leader's marker; see [`Hearing`](crate::lane::hearing::Hearing).
const UNHEARD_LIMIT: Duration = Duration::from_secs(2);

/// See the module's text.
pub(super) struct Sampler {
    shared: Arc<ShadowShared>,
    ledger: Ledger,
    /// Disconnected when the thread should stop.
    stopped: Receiver<()>,
    comparison: Comparison,
    waiting: VecDeque<(Cursor, Sample)>,
    /// When the cursor of a sample was last heard.
    heard: Instant,
    pace: PaceMeter,
    backoff: Backoff,
    differences: Differences,
}

/// Which difference was logged.
#[derive(Default)]
struct Differences {
    /// That of the last sample. It is logged once it has lasted for two, because a step may be half done in one.
    last: i64,
    logged: i64,
    /// When a difference other than 0 was last logged.
    logged_at: Option<Instant>,
}

impl Sampler {
    pub(super) fn new(shared: &Arc<ShadowShared>, stopped: Receiver<()>) -> Sampler {
        let (redis, keys) = (&shared.settings.redis, &shared.settings.keys);
        let now = Instant::now();
        Sampler {
            shared: shared.clone(),
            ledger: Ledger::new(redis.clone(), Arc::new(keys.clone()), REPLY_LIMIT),
            stopped,
            comparison: Comparison::default(),
            waiting: VecDeque::new(),
            heard: now,
            pace: PaceMeter::starting(now),
            backoff: Backoff::for_redis(),
            differences: Differences::default(),
        }
    }

    /// The main loop of the thread.
    pub(super) fn run(mut self) {
        let mut due = Instant::now();
        loop {
            let is_open = self.ledger.connection_number().is_some();
            self.shared.sampler.beat(if is_open { ITERATION_WITHIN } else { OPEN_WITHIN });
            let now = Instant::now();
            if now >= due {
                due = now + READ_EVERY;
                self.read();
            }
            self.compare();
            self.show();
            let wait = if self.waiting.is_empty() { due } else { due.min(Instant::now() + LOCATE_EVERY) };
            if self.stopped.recv_deadline(wait) == Err(RecvTimeoutError::Disconnected) {
                break;
            }
        }
        self.shared.sampler.rest();
    }

    /// Takes a sample.
    fn read(&mut self) {
        let subscription = self.shared.listener.subscriptions.load(Ordering::Relaxed);
        let sample = match self.ledger.sample() {
            Ok(sample) => sample,
            Err(error) => {
                self.shared.findings.lock().trouble = Some(error.to_string());
                self.shared.troubles.report("sampler", "not-compared", &error, &mut self.backoff);
                return;
            }
        };
        if self.backoff.reset() {
            log::info!("event=redis-recovered");
        }
        self.shared.listener.hearing.note_redis_clock(sample.redis_ms);
        {
            let mut findings = self.shared.findings.lock();
            findings.trouble = None;
            findings.is_exact = sample.counts.exact;
        }
        match sample.cursor.clone() {
            None => self.shared.findings.lock().comparing = Comparing::NoGroup,
            Some(cursor) => {
                self.check_hearing(&cursor, subscription);
                // While the cursor rests, the latest sample says all.
                if self.waiting.back().is_some_and(|(waiting, _)| *waiting == cursor) {
                    self.waiting.pop_back();
                }
                self.waiting.push_back((cursor, sample));
                if self.waiting.len() > MAX_WAITING {
                    self.waiting.pop_front();
                }
            }
        }
    }

    /// Replaces the subscription if the cursor moves and no leader's marker arrives: the two connections lead to
    /// different servers.
    fn check_hearing(&self, cursor: &Cursor, subscription: u64) {
        let listener = &self.shared.listener;
        let is_subscribed = self.shared.tally.received().is_subscribed;
        if is_subscribed && listener.hearing.standby_misses_markers(cursor.to_string(), UNHEARD_LIMIT) {
            log::warn!(
                "event=not-receiving reason=\"the cursor moves, and no leader's marker arrives\" note=\"the \
                 subscription is replaced\""
            );
            listener.hearing.start_over();
            listener.renew_subscription(subscription);
        }
    }

    /// Compares the samples whose cursors were heard.
    fn compare(&mut self) {
        let locate = |cursor: &Cursor| self.shared.tally.locate(&cursor.position);
        let located: Vec<Located> = self.waiting.iter().map(|(cursor, _)| locate(cursor)).collect();
        let Some(last) = located.iter().rposition(|located| *located != Located::NotYet) else {
            let waits = self.heard.elapsed() >= HEARD_WITHIN && !self.waiting.is_empty();
            if waits {
                self.shared.findings.lock().comparing = Comparing::Waits;
            }
            return;
        };
        self.heard = Instant::now();
        let heard: Vec<(Cursor, Sample)> = self.waiting.drain(..=last).collect();
        for ((cursor, sample), located) in heard.into_iter().zip(located) {
            self.add(&cursor, &sample, located);
        }
    }

    fn add(&mut self, cursor: &Cursor, sample: &Sample, located: Located) {
        let restart = match located {
            // A later one was heard.
            Located::NotYet => return,
            Located::OtherInterests => self.comparison.note_other_interests(located),
            Located::At { segment, count: position } => {
                let (counts, redis_ms) = (sample.counts, sample.redis_ms);
                self.comparison.add(Point { segment, position, counts, redis_ms })
            }
        };
        self.shared.tally.forget_before(&cursor.position.marker);
        if let Some(why) = restart {
            log_restart(why);
        }
        let comparing =
            if located == Located::OtherInterests { Comparing::OtherInterests } else { Comparing::Compares };
        let before = std::mem::replace(&mut self.shared.findings.lock().comparing, comparing);
        if comparing != before {
            match comparing {
                Comparing::Compares => log::info!("event=comparing cursor=\"{cursor}\""),
                _ => log::warn!(
                    "event=not-comparing problem=\"the group's leader has other settings for --channel, --pattern, \
                     --keyevent or --deliver\""
                ),
            }
        }
        self.differences.note(&self.comparison, self.heard);
    }

    /// Publishes what was found.
    fn show(&mut self) {
        let pace = self.pace.measure(self.shared.tally.received(), Instant::now());
        let mut findings = self.shared.findings.lock();
        findings.pace = pace;
        findings.totals = self.comparison.totals();
        findings.restarts = self.comparison.restarts();
    }
}

impl Differences {
    /// Logs a difference that has lasted for two samples, once.
    fn note(&mut self, comparison: &Comparison, now: Instant) {
        let totals = comparison.totals();
        let difference = totals.difference();
        let lasts = difference == self.last;
        self.last = difference;
        let is_soon = self.logged_at.is_some_and(|logged| now.duration_since(logged) < LOG_EVERY);
        if !lasts || difference == self.logged || (difference != 0 && is_soon) {
            return;
        }
        self.logged = difference;
        let (heard, stored, gaps) = (totals.heard, totals.stored, totals.gaps);
        if difference == 0 {
            log::info!("event=difference-gone heard={heard} stored={stored}");
        } else {
            self.logged_at = Some(now);
            log::warn!(
                "event=difference messages={difference} heard={heard} stored={stored} gaps={gaps} note=\"messages that \
                 were heard here and not stored by the group; handlers that return no fields cause it, too\""
            );
        }
    }
}

fn log_restart(why: Restart) {
    log::info!("event=comparison-restarted reason=\"{why}\"");
}
