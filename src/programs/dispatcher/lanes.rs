//! The lanes that run in this process, brought in line with a plan. Owned by the main thread.
//!
//! A lane's interests don't change while it runs: it is stopped, which as leader ends its term at a marker, and started
//! again with others. A lane that ends by itself is a failure.

use std::collections::BTreeMap;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::board::Board;
use super::hosted::{Host, HostedLane};
use super::plan::Plan;
use super::report_thread::ReportThread;
use super::reporter;
use crate::base::error::Result;
use crate::base::log_context::{self, LogContext};
use crate::base::text::Quoted;
use crate::lane::{self, Lane, Leading, ProcessHandles};
use crate::ledger::{Destination, Interests, LaneNumber};

/// The most lanes that end at about the same time before the main thread hears of it: more than there are.
const MOST_ENDS: usize = 4_096;

/// Makes the settings of a lane; `None` if the group has no such lane.
pub(super) type MakeSettings = dyn Fn(LaneNumber, &Interests) -> Option<lane::Settings>;

/// See the module's text.
pub(super) struct Lanes {
    host: Arc<Host>,
    make: Box<MakeSettings>,
    plan: Plan,
    running: BTreeMap<LaneNumber, Running>,
    /// How often each lane that has ended had subscribed. Its join markers go on from there: none is used twice.
    subscribed: BTreeMap<LaneNumber, u64>,
    /// How many lanes this process leads.
    leading: Leading,
    ended: Sender<LaneNumber>,
    ends: Receiver<LaneNumber>,
}

struct Running {
    hosted: Arc<HostedLane>,
    interests: Interests,
    /// Whether it was asked to stop.
    stopping: bool,
    // In drop order.
    reporter: ReportThread,
    lane: Lane,
}

impl Lanes {
    /// No lane, until there is a plan.
    pub(super) fn new(host: &Arc<Host>, make: Box<MakeSettings>) -> Lanes {
        let (ended, ends) = bounded(MOST_ENDS);
        Lanes {
            host: host.clone(),
            make,
            plan: Plan::new(),
            running: BTreeMap::new(),
            subscribed: BTreeMap::new(),
            leading: Leading::default(),
            ended,
            ends,
        }
    }

    /// Where the numbers of lanes that have ended come.
    pub(super) fn ends(&self) -> Receiver<LaneNumber> {
        self.ends.clone()
    }

    /// Whether no lane runs.
    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// From now on these lanes are to run.
    pub(super) fn follow(&mut self, plan: Plan) -> Result<()> {
        if plan != self.plan {
            let lanes: Vec<String> =
                plan.iter().map(|(lane, interests)| format!("{lane}: {}", interests.summary())).collect();
            log::debug!("event=plan lanes={}", Quoted(lanes.join("; ")));
        }
        self.plan = plan;
        self.reconcile()
    }

    /// Asks all lanes to stop.
    pub(super) fn stop(&mut self) {
        self.plan.clear();
        self.running.values_mut().for_each(Running::stop);
    }

    /// Asks a lane to end its term, so that another dispatcher leads it.
    pub(super) fn hand_over(&self, lane: LaneNumber) {
        if let Some(running) = self.running.get(&lane).filter(|running| !running.stopping) {
            running.hosted.lane.hand_over();
        }
    }

    /// A lane has ended: joins its threads, and starts it again if it was stopped for other interests. Returns whether
    /// it was to end.
    pub(super) fn join(&mut self, lane: LaneNumber) -> Result<bool> {
        let Some(Running { hosted, stopping, reporter, lane: threads, .. }) = self.running.remove(&lane) else {
            return Ok(true);
        };
        drop(reporter);
        let outcome = threads.join();
        self.subscribed.insert(lane, hosted.lane.subscriptions());
        self.note();
        hosted.lane.log.set("stopped", None);
        log_context::within(&hosted.lane.log, || log::info!("event=stopped {}", hosted.lane.stats.summary()));
        outcome?;
        if stopping {
            self.reconcile()?;
        }
        Ok(stopping)
    }

    /// Stops what is not planned, or with other interests, and starts what is missing.
    fn reconcile(&mut self) -> Result<()> {
        for (number, running) in &mut self.running {
            if self.plan.get(number) != Some(&running.interests) {
                running.stop();
            }
        }
        let missing = self.plan.iter().filter(|(number, _)| !self.running.contains_key(number));
        let missing: Vec<(LaneNumber, Interests)> = missing.map(|(number, these)| (*number, these.clone())).collect();
        missing.into_iter().try_for_each(|(number, interests)| self.start(number, interests))
    }

    fn start(&mut self, number: LaneNumber, interests: Interests) -> Result<()> {
        let Some(settings) = (self.make)(number, &interests) else { return Ok(()) };
        let log = match &settings.name {
            None => LogContext::of_process(),
            name => LogContext::with_lane("starting", name.clone()),
        };
        let process = ProcessHandles { id: self.host.id.clone(), log, leading: self.leading.clone() };
        let shared = lane::Shared::new(settings, process);
        shared.continue_after(self.subscribed.get(&number).copied().unwrap_or(0));
        log_context::within(&shared.log, || log_start(&shared));
        let lane = Lane::start(&shared, self.ended.clone(), number)?;
        let hosted = Arc::new(HostedLane { number, lane: shared, board: Board::default() });
        let reporter = reporter::start(&self.host, &hosted)?;
        self.running.insert(number, Running { hosted, interests, stopping: false, reporter, lane });
        self.note();
        Ok(())
    }

    fn note(&self) {
        self.host.note_lanes(self.running.values().map(|running| running.hosted.clone()));
    }
}

impl Running {
    fn stop(&mut self) {
        if !std::mem::replace(&mut self.stopping, true) {
            self.lane.stop();
        }
    }
}

fn log_start(lane: &lane::Shared) {
    let settings = &lane.settings;
    log::info!(
        "event=started version={} redis={} group={} channel={} {}",
        env!("CARGO_PKG_VERSION"),
        Quoted(settings.redis.shown()),
        Quoted(&settings.keys.group),
        Quoted(settings.interests.summary()),
        match &settings.destination {
            Destination::Pending => format!("consumers={}", settings.consumers.len()),
            Destination::Stream { key, maxlen } => format!("stream={} stream_maxlen={maxlen}", Quoted(key)),
        }
    );
    if settings.wait_replicas > 0 {
        log::info!("event=waits-for-replicas replicas={}", settings.wait_replicas);
    }
    if settings.destination != Destination::Pending {
        return;
    }
    let (retry, max_deliveries) = (settings.retry, settings.max_deliveries);
    let dead_after_s = retry.dead_after(max_deliveries).as_secs_f64();
    log::info!("event=retry-policy retry={retry} max_deliveries={max_deliveries} dead_after_s={dead_after_s}");
    if let Some(key) = &settings.order_key {
        log::info!("event=order key={}", Quoted(key.to_string()));
    }
}
