//! The lanes that run in this process, brought in line with a plan. Owned by the main thread.
//!
//! A lane's interests don't change while it runs: it is stopped, which as leader ends its term at a marker, and started
//! again with others. It keeps its ring, so what it had heard and could not store is not lost. What is published until
//! it is subscribed again, another dispatcher hears: a standby goes at once, and a leader follows when another one has
//! joined with the new interests, or after [`OTHERS_WITHIN`]. A lane that the plan no longer has goes when all that it
//! has heard is stored; until then it listens to nothing. A lane that ends by itself is a failure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, after, bounded, never};

use super::board::Board;
use super::hosted::{Host, HostedLane};
use super::plan::Plan;
use super::report_thread::ReportThread;
use super::reporter;
use crate::base::error::{Error, Result};
use crate::base::log_context::{self, LogContext};
use crate::base::text::Quoted;
use crate::lane::{self, Lane, Leading, ProcessHandles};
use crate::ledger::{Destination, Interests, LaneNumber};

/// The most lanes that end at about the same time before the main thread hears of it: more than there are.
const MOST_ENDS: usize = 4_096;

/// How long a leader whose interests change waits for another dispatcher to listen to the new ones.
const OTHERS_WITHIN: Duration = Duration::from_secs(3);
/// After this time its status shows whether there is another dispatcher.
const STATUS_WITHIN: Duration = Duration::from_millis(1_500);
/// How often it is looked whether a lane that waits may go.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

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
    /// Lanes that have ended and are about to start again.
    before: BTreeMap<LaneNumber, Arc<lane::Shared>>,
    /// Lanes that the plan does not have any more, and that hold messages which are not stored.
    lingering: BTreeSet<LaneNumber>,
    /// Whether a lane is to stop and waits.
    waits: bool,
    /// How many lanes this process leads.
    leading: Leading,
    ended: Sender<End>,
    ends: Receiver<End>,
}

/// How far a lane has ended.
pub(super) enum End {
    /// Its election has.
    Election(LaneNumber),
    /// All its threads have.
    Threads(LaneNumber, Result<()>),
}

struct Running {
    hosted: Arc<HostedLane>,
    interests: Interests,
    /// Whether it was asked to stop.
    stopping: bool,
    /// Since when it is to have other interests.
    outdated: Option<Instant>,
    /// Its threads, until they are joined. In drop order.
    threads: Option<(ReportThread, Lane)>,
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
            before: BTreeMap::new(),
            lingering: BTreeSet::new(),
            waits: false,
            leading: Leading::default(),
            ended,
            ends,
        }
    }

    /// Where it comes which lanes have ended.
    pub(super) fn ends(&self) -> Receiver<End> {
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
        self.lingering.clear();
        for (number, running) in &self.running {
            if !self.plan.contains_key(number) && running.hosted.lane.ring.has_unstored() {
                self.plan.insert(*number, running.interests.none());
                self.lingering.insert(*number);
            }
        }
        self.reconcile()
    }

    /// When to call [`reconcile`](Lanes::reconcile) again; never if nothing waits.
    pub(super) fn again(&self) -> Receiver<Instant> {
        if self.waits { after(LOOK_AGAIN) } else { never() }
    }

    /// Asks all lanes to stop.
    pub(super) fn stop(&mut self) {
        self.plan.clear();
        self.lingering.clear();
        self.waits = false;
        self.running.values_mut().for_each(Running::stop);
    }

    /// Asks a lane to end its term, so that another dispatcher leads it.
    pub(super) fn hand_over(&self, lane: LaneNumber) {
        if let Some(running) = self.running.get(&lane).filter(|running| !running.is_ending()) {
            running.hosted.lane.hand_over();
        }
    }

    /// A lane has ended. Its threads are joined elsewhere, because one may hang, in a lookup of a name for instance.
    /// Then it is started again if it was stopped for other interests. Returns whether it was to end.
    pub(super) fn join(&mut self, end: End) -> Result<bool> {
        match end {
            End::Election(number) => self.join_threads(number).map(|()| true),
            End::Threads(number, outcome) => self.note_joined(number, outcome),
        }
    }

    fn join_threads(&mut self, number: LaneNumber) -> Result<()> {
        let Some((reporter, lane)) = self.running.get_mut(&number).and_then(|running| running.threads.take()) else {
            return Ok(());
        };
        self.note();
        let ended = self.ended.clone();
        let joining = thread::Builder::new().name(format!("join-{number}")).spawn(move || {
            drop(reporter);
            // If the receiver is gone, nothing waits for this.
            let _ = ended.send(End::Threads(number, lane.join()));
        });
        joining.map(drop).map_err(Error::io("starting a thread that joins a lane's"))
    }

    fn note_joined(&mut self, number: LaneNumber, outcome: Result<()>) -> Result<bool> {
        let Some(Running { hosted, stopping, .. }) = self.running.remove(&number) else { return Ok(true) };
        self.subscribed.insert(number, hosted.lane.subscriptions());
        hosted.lane.log.set("stopped", None);
        log_context::within(&hosted.lane.log, || log::info!("event=stopped {}", hosted.lane.stats.summary()));
        outcome?;
        if stopping {
            if self.plan.contains_key(&number) {
                self.before.insert(number, hosted.lane.clone());
            }
            self.reconcile()?;
        }
        Ok(stopping)
    }

    /// Stops what is not planned, or with other interests, and starts what is missing.
    pub(super) fn reconcile(&mut self) -> Result<()> {
        let holds = |number: &LaneNumber| {
            self.running.get(number).is_none_or(|running| running.hosted.lane.ring.has_unstored())
        };
        self.lingering.retain(|number| holds(number) || self.plan.remove(number).is_none());
        self.waits = !self.lingering.is_empty();
        for (number, running) in &mut self.running {
            match self.plan.get(number) {
                Some(planned) if *planned == running.interests => running.outdated = None,
                Some(planned) if !running.is_ending() && !running.may_change(planned, &self.host) => self.waits = true,
                _ => running.stop(),
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
        let process = ProcessHandles {
            id: self.host.id.clone(),
            log,
            leading: self.leading.clone(),
            moved: self.host.moved().clone(),
        };
        let shared = match self.before.remove(&number) {
            Some(before) => lane::Shared::after(&before, settings, process),
            None => {
                let shared = lane::Shared::new(settings, process);
                shared.continue_after(self.subscribed.get(&number).copied().unwrap_or(0));
                shared
            }
        };
        log_context::within(&shared.log, || log_start(&shared));
        let lane = Lane::start(&shared, self.ended.clone(), End::Election(number))?;
        let hosted = Arc::new(HostedLane { number, lane: shared, board: Board::default() });
        let reporter = reporter::start(&self.host, &hosted)?;
        self.running.insert(
            number,
            Running { hosted, interests, stopping: false, outdated: None, threads: Some((reporter, lane)) },
        );
        self.note();
        Ok(())
    }

    fn note(&self) {
        let running = self.running.values().filter(|running| running.threads.is_some());
        self.host.note_lanes(running.map(|running| running.hosted.clone()));
    }
}

impl Running {
    fn is_ending(&self) -> bool {
        self.stopping || self.threads.is_none()
    }

    /// Whether it may stop now, to listen to `planned` from then on: unless it leads, and another dispatcher is about
    /// to do so. It goes at once if it is to listen to none of what it hears now: another lane is about to do so.
    fn may_change(&mut self, planned: &Interests, host: &Host) -> bool {
        let waited = self.outdated.get_or_insert_with(Instant::now).elapsed();
        let HostedLane { lane, board, .. } = &*self.hosted;
        let leads = lane.stats.leading.load(Ordering::Relaxed) == 1;
        let is_alone = || board.read(|status| status.members.iter().all(|member| member.id == host.id.as_str()));
        let may_be_alone = || waited >= STATUS_WITHIN && is_alone() == Some(true);
        !leads
            || !has_common(&self.interests, planned)
            || waited >= OTHERS_WITHIN
            || lane.was_joined_with(planned)
            || may_be_alone()
    }

    fn stop(&mut self) {
        // One whose election has ended by itself was not to stop.
        if let Some((_, lane)) = &self.threads
            && !std::mem::replace(&mut self.stopping, true)
        {
            lane.stop();
        }
    }
}

/// Whether there is something that both listen to. All lanes listen to the same keyspace events, or to nothing.
fn has_common(one: &Interests, other: &Interests) -> bool {
    if !one.is_sharded() {
        return !one.is_none() && !other.is_none();
    }
    let channels: BTreeSet<&[u8]> = one.channels().collect();
    other.channels().any(|channel| channels.contains(channel))
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
