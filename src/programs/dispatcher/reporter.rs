//! The reporter: once a second it writes this dispatcher's report to Redis, and checks the group's status.
//!
//! One thread for each lane, with two connections of its own, so that nothing it does can hold up the lease or a
//! message. The status goes to the [`Board`](super::board::Board), for the metrics, the status page and
//! [`Balance`](super::balance::Balance): whether a lane is handed over depends on it, and no guarantee does. A report
//! expires by itself, so a dispatcher that hangs or has lost Redis vanishes from the group's status.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, select, tick};

use super::health;
use super::hosted::{Host, HostedLane};
use super::rates::RateMeter;
use super::report_thread::{self, EVERY, REPLY_LIMIT, REPORT_TTL, ReportThread};
use crate::base::backoff::Backoff;
use crate::base::error::Result;
use crate::base::log_context;
use crate::lane::roster::SourceStatus;
use crate::lane::{LaneStats, LinkFigures, Settings, Shared};
use crate::ledger::server_check::ServerWatch;
use crate::ledger::{Connection, Destination, Ledger};
use crate::net::{ClientTls, LinkSecret};
use crate::programs::status::delivery::DeliveryReport;
use crate::programs::status::order::OrderReport;
use crate::programs::status::report::{ConsumerReport, Report, SourceReport};
use crate::programs::status::{MAX_AGE, Status, StatusReader};

/// The shortest pause between two reports, however often the lane changes.
const LEAST_PAUSE: Duration = Duration::from_millis(200);
/// Starts reporting on one of the lanes of `host`.
pub(super) fn start(host: &Arc<Host>, hosted: &Arc<HostedLane>) -> Result<ReportThread> {
    let (host, hosted) = (host.clone(), hosted.clone());
    ReportThread::start(move |stopped| {
        log_context::enter(&hosted.lane.log);
        ReportLoop::new(host, hosted, stopped).run();
    })
}

struct ReportLoop {
    ledger: Ledger,
    status: StatusReader,
    /// The key of the report.
    key: String,
    host: Arc<Host>,
    hosted: Arc<HostedLane>,
    /// Disconnected when the thread should stop.
    stopped: Receiver<()>,
    began: Instant,
    rates: RateMeter,
    /// Logs which of the server's settings endanger the guarantees.
    settings: ServerWatch,
    backoff: Backoff,
    /// Whether the last request to Redis was not answered.
    unreachable: bool,
    /// The epoch for which it was logged that messages are left for consumers; 0 for none.
    left_logged: u64,
}

impl ReportLoop {
    fn new(host: Arc<Host>, hosted: Arc<HostedLane>, stopped: Receiver<()>) -> ReportLoop {
        let settings = &hosted.lane.settings;
        let (redis, keys) = (&settings.redis, &settings.keys);
        ReportLoop {
            ledger: Ledger::new(redis.clone(), Arc::new(keys.clone()), REPLY_LIMIT),
            status: StatusReader::new(Connection::new(redis.clone(), REPLY_LIMIT), keys.clone(), MAX_AGE)
                .with_interests(settings.interests.clone()),
            key: keys.report_of(host.id.as_str()),
            host,
            hosted,
            stopped,
            began: Instant::now(),
            rates: RateMeter::default(),
            settings: ServerWatch::default(),
            backoff: Backoff::for_redis(),
            unreachable: false,
            left_logged: 0,
        }
    }

    /// The main loop of the thread.
    fn run(mut self) {
        let ticks = tick(EVERY);
        let hosted = self.hosted.clone();
        loop {
            let soonest = Instant::now() + LEAST_PAUSE;
            self.iterate();
            select! {
                // Nothing is ever sent.
                recv(self.stopped) -> _ => break,
                recv(hosted.lane.changes()) -> _ => {}
                recv(ticks) -> _ => {}
            }
            if self.stopped.recv_deadline(soonest) == Err(RecvTimeoutError::Disconnected) {
                break;
            }
        }
        report_thread::end(&mut self.ledger, &self.key, !self.unreachable);
    }

    /// What new links need is read again when it changes, so that the log soon says whether it can be used. Also by a
    /// standby, which makes no links.
    fn look_at_files(&self) {
        let settings = &self.hosted.lane.settings;
        drop(settings.link_secret.as_ref().map(LinkSecret::current));
        let _ = settings.link_tls.as_ref().and_then(ClientTls::certificate_end);
    }

    fn iterate(&mut self) {
        self.look_at_files();
        let report = self.report().to_json().to_string();
        let reported = self.ledger.report(&self.key, &report, REPORT_TTL);
        // A server that refuses writes may still be read. A server that can't be reached is not asked again in this
        // iteration.
        self.unreachable = reported.as_ref().is_err_and(|error| error.refusal().is_none());
        let mut failure = None;
        let seen = match &reported {
            Err(error) if self.unreachable => Err(error.to_string()),
            _ => self.status.read().map_err(|error| {
                let text = error.to_string();
                failure = Some(error);
                text
            }),
        };
        if let Ok(status) = &seen {
            self.settings.note(status.settings.clone());
            self.note_left(status);
        }
        self.hosted.board.post(seen);
        match reported.err().or(failure) {
            None => drop(self.backoff.reset()),
            Some(failure) => {
                let troubles = &self.hosted.lane.troubles;
                troubles.report("reporter", "not-reported", &failure, &mut self.backoff);
            }
        }
    }

    /// Logs once a term that messages from before `--deliver stream` are left, which this leader doesn't deliver.
    fn note_left(&mut self, status: &Status) {
        let stats = &self.hosted.lane.stats;
        let (leads, epoch, pending) = (get(&stats.leading) == 1, get(&stats.epoch), status.left_for_consumers());
        if !leads || pending == 0 || self.left_logged == epoch {
            return;
        }
        log::warn!(
            "event=pending-left messages={pending} note=\"stored for consumers, which may still record what they hold; \
             only a leader with --deliver consumers delivers the rest\""
        );
        self.left_logged = epoch;
    }

    /// This dispatcher's report.
    fn report(&mut self) -> Report {
        let (host, hosted) = (self.host.clone(), self.hosted.clone());
        let HostedLane { lane, board, .. } = &*hosted;
        let linked = lane.stats.linked.lock().clone();
        self.rates.measure(lane, &linked);
        let consumer = |link: &Arc<LinkFigures>| ConsumerReport {
            id: link.consumer.to_string(),
            address: link.address.to_string(),
            draining: link.draining.load(Ordering::Relaxed),
            leaving: link.leaving.load(Ordering::Relaxed),
            in_flight: get(&link.in_flight),
            overdue: get(&link.overdue),
            prefetch: get(&link.prefetch),
            acked_per_s: self.rates.acked_by(&link.consumer),
        };
        let stats = &lane.stats;
        let leads = get(&stats.leading) == 1;
        Report {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            channel: lane.settings.interests.summary(),
            node: lane.settings.redis.for_key(&lane.settings.keys.leader).last_node().unwrap_or_default(),
            leads,
            epoch: get(&stats.epoch),
            // The leader is in sync by definition.
            in_sync: get(&stats.in_sync) == 1 || leads,
            trouble: health::trouble(&host, &hosted),
            uptime_s: self.began.elapsed().as_secs_f64(),
            ring_bytes: lane.ring.stats().bytes as u64,
            oldest: board.read(|status| status.snapshot.oldest).flatten().map(|oldest| oldest.0),
            ready: get(&stats.ready),
            behind: get(&stats.behind) == 1,
            delayed: get(&stats.delayed),
            next_retry_ms: (get(&stats.delayed) > 0).then(|| get(&stats.next_retry_ms)),
            order: order(&lane.settings, stats),
            full: get(&stats.full) == 1,
            recent_deaths: stats.deaths.lock().recent(Instant::now()),
            delivery: stats.delivery.lock().clone().map(DeliveryReport),
            rates: self.rates.rates(),
            consumers: linked.iter().map(consumer).collect(),
            open_consumers: linked.iter().filter(|link| link.is_open).map(|link| link.consumer.to_string()).collect(),
            unauthenticated: if leads { unproven(lane) } else { Vec::new() },
            missing: if leads { missing(lane, &linked) } else { Vec::new() },
            sources: sources(lane),
            stream: lane.settings.keys.stream.clone().unwrap_or_default(),
            agreement: agreement(&lane.settings),
            redis_warnings: board.read(Status::own_redis_warnings).unwrap_or_default(),
            open_metrics: host.open_metrics.clone(),
        }
    }
}

fn order(settings: &Settings, stats: &LaneStats) -> Option<OrderReport> {
    settings.order_key.as_ref().map(|key| OrderReport {
        key: key.to_string(),
        keys: get(&stats.order_keys),
        parked: get(&stats.parked),
        cut: get(&stats.cut_keys),
        unkeyed: get(&stats.unkeyed),
    })
}

/// The addresses at which no consumer is linked.
fn missing(lane: &Shared, linked: &[Arc<LinkFigures>]) -> Vec<String> {
    let linked: HashSet<usize> = linked.iter().map(|link| link.slot).collect();
    let addresses = lane.roster.addresses().into_iter();
    addresses.filter(|(slot, _)| !linked.contains(slot)).map(|(_, address)| address).collect()
}

/// The addresses where one of the two did not prove the link secret.
fn unproven(lane: &Shared) -> Vec<String> {
    lane.stats.unproven.lock().iter().cloned().collect()
}

/// The lists of consumers that it follows.
fn sources(lane: &Shared) -> Vec<SourceReport> {
    let now = Instant::now();
    let report = |status: SourceStatus| SourceReport {
        source: status.source,
        addresses: status.addresses as u64,
        answer_age_s: status.answered.map(|at| now.saturating_duration_since(at).as_secs_f64()),
        error: status.error.unwrap_or_default(),
    };
    lane.roster.sources().into_iter().map(report).collect()
}

/// The settings that all dispatchers of a group must have in common, as a fingerprint: FNV-1a, which is the same
/// everywhere.
fn agreement(settings: &Settings) -> String {
    let mut consumers: Vec<String> = settings.consumers.iter().map(ToString::to_string).collect();
    consumers.sort_unstable();
    let mut text = format!("{} {}", settings.interests.identity(), consumers.join(","));
    if let Destination::Stream { key, maxlen } = &settings.destination {
        text += &format!(" {maxlen} {key}");
    }
    if let Some(key) = &settings.order_key {
        text += &format!(" order by {key}");
    }
    let hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:016x}")
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
