//! The reporter: once a second it says in Redis how this dispatcher is, and looks how the group stands.
//!
//! One thread with two connections of its own, in every dispatcher, so that nothing it does can hold up the lease or a
//! message. What it learns is on the [`Board`], for the metrics and the status page; nothing is decided by it. A report
//! expires by itself, so one that hangs or has lost Redis vanishes from the group's status.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, select, tick};
use parking_lot::Mutex;
use serde_json::Value;

use super::health;
use super::stats::LinkFigures;
use super::{REPLY_LIMIT, Shared};
use crate::base::backoff::Backoff;
use crate::base::error::{Error, Result};
use crate::base::text::Quoted;
use crate::ledger::server_check::ServerWatch;
use crate::ledger::{Connection, Ledger};
use crate::programs::dispatcher::settings::DispatcherConfig;
use crate::programs::status::report::{ConsumerReport, Rates, Report};
use crate::programs::status::{MAX_AGE, Onlooker, Status, failure_to_json, json_text};

/// How often it reports and looks.
const EVERY: Duration = Duration::from_secs(1);
/// However much happens, it does not report and look more often than this.
const LEAST_PAUSE: Duration = Duration::from_millis(200);
/// Rates are of no shorter time than this.
const LEAST_SPAN: Duration = Duration::from_millis(500);
/// How long a report stands.
const REPORT_TTL: Duration = Duration::from_secs(5);

/// What the reporter last saw.
#[derive(Debug)]
pub struct Board {
    seen: Mutex<Seen>,
    /// Something has changed that onlookers should know at once.
    news: (Sender<()>, Receiver<()>),
}

impl Default for Board {
    fn default() -> Board {
        Board { seen: Mutex::default(), news: bounded(1) }
    }
}

/// The last look, or why it failed; nothing before the first.
type Seen = Option<std::result::Result<Status, String>>;

impl Board {
    /// Has the reporter report now: the role or the links have changed.
    pub(super) fn hurry(&self) {
        // A full channel says the same.
        let _ = self.news.0.try_send(());
    }

    /// A figure of the last look; `None` if that failed.
    pub(super) fn read<T>(&self, pick: impl FnOnce(&Status) -> T) -> Option<T> {
        self.seen.lock().as_ref()?.as_ref().ok().map(pick)
    }

    /// What the status page shows.
    pub(super) fn json(&self, shared: &Shared) -> String {
        let mut shown = match &*self.seen.lock() {
            Some(Ok(status)) => status.to_json(),
            failed => {
                let problem = match failed {
                    Some(Err(failure)) => failure,
                    _ => "this dispatcher has just started and not looked yet",
                };
                failure_to_json(&shared.config.common.keys.group, problem)
            }
        };
        shown["served_by"] = Value::from(shared.id.as_str());
        json_text(&shown)
    }
}

/// The handle: stops and joins the thread when dropped.
pub(super) struct Reporter {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Reporter {
    pub(super) fn start(shared: &Arc<Shared>) -> Result<Reporter> {
        let (stop, stopped) = bounded(0);
        let common = &shared.config.common;
        let connection = || Connection::new(common.redis.clone(), REPLY_LIMIT);
        let worker = Worker {
            ledger: Ledger::new(common.redis.clone(), Arc::new(common.keys.clone()), REPLY_LIMIT),
            onlooker: Onlooker::new(connection(), common.keys.clone(), MAX_AGE),
            shared: shared.clone(),
            stopped,
            began: Instant::now(),
            last: Totals::default(),
            rates: (Rates::default(), HashMap::new()),
            settings: ServerWatch::default(),
            backoff: Backoff::for_redis(),
            unreachable: false,
        };
        let thread = thread::Builder::new()
            .name("reporter".to_owned())
            .spawn(move || worker.run())
            .map_err(Error::io("starting the thread reporter"))?;
        Ok(Reporter { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("event=panic thread=reporter");
        }
    }
}

struct Worker {
    ledger: Ledger,
    onlooker: Onlooker,
    shared: Arc<Shared>,
    /// Disconnected: stop.
    stopped: Receiver<()>,
    began: Instant,
    last: Totals,
    /// What was last computed: this dispatcher's, and of each consumer the messages that it acknowledges per second.
    rates: (Rates, HashMap<Arc<str>, f64>),
    /// Logs what in the server's settings endangers the promises.
    settings: ServerWatch,
    backoff: Backoff,
    /// Whether Redis did not answer the last time.
    unreachable: bool,
}

/// What rates are computed from.
#[derive(Default)]
struct Totals {
    at: Option<Instant>,
    published: u64,
    taken_in: u64,
    dispatched: u64,
    acked: u64,
    redelivered: u64,
    acked_by: HashMap<Arc<str>, u64>,
}

impl Worker {
    /// The main loop of the thread.
    fn run(mut self) {
        let ticks = tick(EVERY);
        let shared = self.shared.clone();
        loop {
            let soonest = Instant::now() + LEAST_PAUSE;
            self.turn();
            select! {
                // Nothing is ever sent.
                recv(self.stopped) -> _ => break,
                recv(shared.board.news.1) -> _ => {}
                recv(ticks) -> _ => {}
            }
            if self.stopped.recv_deadline(soonest) == Err(RecvTimeoutError::Disconnected) {
                break;
            }
        }
        // It expires by itself; a Redis that does not answer is not waited for.
        if !self.unreachable
            && let Err(error) = self.ledger.end_reports(&self.shared.id)
        {
            log::debug!("event=report-left error={}", Quoted(error));
        }
    }

    fn turn(&mut self) {
        let report = self.report().to_json().to_string();
        let reported = self.ledger.report(&self.shared.id, &report, REPORT_TTL);
        // A server that refuses to write may be read all the same; of one that can't be reached nothing more is asked.
        self.unreachable = reported.as_ref().is_err_and(|error| error.refusal().is_none());
        let mut failure = None;
        let looked = match &reported {
            Err(error) if self.unreachable => Err(error.to_string()),
            _ => self.onlooker.look().map_err(|error| {
                let text = error.to_string();
                failure = Some(error);
                text
            }),
        };
        if let Ok(status) = &looked {
            self.settings.note(status.settings.clone());
        }
        *self.shared.board.seen.lock() = Some(looked);
        match reported.err().or(failure) {
            None => drop(self.backoff.reset()),
            Some(failure) => self.shared.troubles.tell("reporter", "not-reported", &failure, &mut self.backoff),
        }
    }

    /// How this dispatcher is.
    fn report(&mut self) -> Report {
        let shared = self.shared.clone();
        let linked = shared.stats.linked.lock().clone();
        self.compute_rates(&linked);
        let (rates, by_consumer) = &self.rates;
        let consumer = |link: &Arc<LinkFigures>| ConsumerReport {
            id: link.consumer.to_string(),
            address: shared.config.consumers.get(link.index).cloned().unwrap_or_default(),
            draining: link.draining.load(Ordering::Relaxed),
            in_flight: get(&link.in_flight),
            overdue: get(&link.overdue),
            prefetch: link.prefetch.into(),
            acked_per_s: by_consumer.get(&link.consumer).copied().unwrap_or_default(),
        };
        let stats = &shared.stats;
        Report {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            channel: shared.config.channel.clone(),
            leads: get(&stats.leading) == 1,
            epoch: get(&stats.epoch),
            // A leader is where the others have to come to.
            in_sync: get(&stats.in_sync) == 1 || get(&stats.leading) == 1,
            trouble: health::ready(&shared).err(),
            uptime_s: self.began.elapsed().as_secs_f64(),
            ring_bytes: shared.ring.stats().bytes as u64,
            oldest: shared.board.read(|status| status.snapshot.oldest).flatten().map(|oldest| oldest.0),
            ready: get(&stats.ready),
            behind: get(&stats.behind) == 1,
            delayed: get(&stats.delayed),
            full: get(&stats.full) == 1,
            recent_deaths: stats.deaths.lock().recent(Instant::now()),
            rates: *rates,
            consumers: linked.iter().map(consumer).collect(),
            missing: self.missing(&linked),
            agreement: agreement(&shared.config),
        }
    }

    /// The addresses at which no consumer is linked, while it leads.
    fn missing(&self, linked: &[Arc<LinkFigures>]) -> Vec<String> {
        let addresses = self.shared.config.consumers.iter().enumerate();
        let missing = addresses.filter(|(index, _)| !linked.iter().any(|link| link.index == *index));
        let leads = get(&self.shared.stats.leading) == 1;
        missing.filter(|_| leads).map(|(_, address)| address.clone()).collect()
    }

    fn compute_rates(&mut self, linked: &[Arc<LinkFigures>]) {
        let seconds = match self.last.at.map(|at| at.elapsed()) {
            Some(span) if span < LEAST_SPAN => return,
            Some(span) => span.as_secs_f64(),
            // Nothing is known yet.
            None => f64::INFINITY,
        };
        let stats = &self.shared.stats;
        let ring = self.shared.ring.stats();
        let mut now = Totals {
            at: Some(Instant::now()),
            published: ring.seen,
            taken_in: get(&stats.taken_in),
            dispatched: get(&stats.dispatched),
            acked: get(&stats.acked),
            redelivered: get(&stats.redelivered),
            acked_by: HashMap::with_capacity(linked.len()),
        };
        for link in linked {
            *now.acked_by.entry(link.consumer.clone()).or_default() += get(&link.acked);
        }
        let last = std::mem::replace(&mut self.last, now);
        let now = &self.last;
        // A link that was made anew begins at 0.
        let rate = |now: u64, last: u64| now.saturating_sub(last) as f64 / seconds;
        let rates = Rates {
            published: rate(now.published, last.published),
            taken_in: rate(now.taken_in, last.taken_in),
            dispatched: rate(now.dispatched, last.dispatched),
            acked: rate(now.acked, last.acked),
            redelivered: rate(now.redelivered, last.redelivered),
        };
        let by_consumer = now.acked_by.iter().map(|(consumer, acked)| {
            let before = last.acked_by.get(consumer).copied().unwrap_or_default();
            (consumer.clone(), rate(*acked, before))
        });
        self.rates = (rates, by_consumer.collect());
    }
}

/// The settings that all dispatchers of a group must have in common, as a fingerprint: FNV-1a, which is the same
/// everywhere.
fn agreement(config: &DispatcherConfig) -> String {
    let mut consumers = config.consumers.clone();
    consumers.sort_unstable();
    let text = format!("{} {}", config.channel, consumers.join(","));
    let hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:016x}")
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
