//! A running experiment: polls the group's state, injects the faults that are due, and shows the progress.

use std::time::{Duration, Instant};

use super::injector::{Event, Injector};
use super::plan::PlannedFault;
use super::timeline::Timeline;
use crate::base::error::{Error, Result};
use crate::base::shutdown::ShutdownRequests;
use crate::lab::child::ChildProcess;
use crate::lab::cluster::{Cluster, Node};
use crate::lab::console::{Console, Progress, Tone};
use crate::lab::stream_workers::StreamWorkers;
use crate::ledger::overview::{GroupView, Snapshot};

/// The interval between polls, and the shorter one while a recovery is timed.
const POLL_EVERY: Duration = Duration::from_millis(100);
const POLL_RECOVERY_EVERY: Duration = Duration::from_millis(1);
/// The interval between plain lines where the console is not a terminal.
const PLAIN_LINE_EVERY: Duration = Duration::from_secs(1);
/// How long Redis may fail to answer, and a Redis Cluster, until a replica has taken a lost node's place.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
const CLUSTER_ANSWER_LIMIT: Duration = Duration::from_secs(20);
/// How long the publisher may run past its time, to resend messages that no subscriber received.
const PUBLISHER_LIMIT: Duration = Duration::from_secs(30);
/// How long the remaining messages may take to be processed after the last was published.
const DRAIN_LIMIT: Duration = Duration::from_secs(60);
/// After this long with nothing pending and no new result, missing results are no longer expected.
const QUIET_LIMIT: Duration = Duration::from_secs(5);

/// What happens in a run.
pub(super) struct RunPlan {
    /// How long messages are published.
    pub(super) duration: Duration,
    /// How long the first result may take.
    pub(super) first_result_limit: Duration,
    pub(super) faults: Vec<PlannedFault>,
}

/// What was started for a run. In drop order.
pub(super) struct Started {
    pub(super) publisher: ChildProcess,
    /// With a stream in place of consumers.
    pub(super) workers: Option<StreamWorkers>,
    pub(super) cluster: Cluster,
}

/// See the module's text.
pub(super) struct Run<'a> {
    duration: Duration,
    first_result_limit: Duration,
    pub(super) publisher: ChildProcess,
    pub(super) workers: Option<StreamWorkers>,
    pub(super) cluster: Cluster,
    view: GroupView,
    pub(super) console: &'a mut Console,
    requests: &'a ShutdownRequests,
    begin: Instant,
    /// When Redis last answered.
    answered: Instant,
    next_draw: Instant,
    pub(super) injector: Injector,
    pub(super) timeline: Timeline,
    /// Set when the publisher has ended: when, and how many messages it published.
    published: Option<(Instant, u64)>,
    /// The number of results, and when it last changed.
    last_result: (u64, Instant),
}

impl<'a> Run<'a> {
    /// A run of this plan. `before` is the group's state before publishing.
    pub(super) fn new(
        plan: RunPlan,
        before: &Snapshot,
        Started { publisher, workers, cluster }: Started,
        console: &'a mut Console,
        requests: &'a ShutdownRequests,
    ) -> Run<'a> {
        let begin = Instant::now();
        // A plain line with nothing but zeros would look like a problem.
        let first_draw = if console.is_live() { Duration::ZERO } else { PLAIN_LINE_EVERY };
        Run {
            duration: plan.duration,
            first_result_limit: plan.first_result_limit,
            publisher,
            workers,
            view: cluster.view(),
            cluster,
            console,
            requests,
            begin,
            answered: begin,
            next_draw: begin + first_draw,
            injector: Injector::new(plan.faults, begin),
            timeline: Timeline::new(plan.duration, before),
            published: None,
            last_result: (0, begin),
        }
    }

    /// From the start to the last result.
    pub(super) fn elapsed(&self) -> Duration {
        self.last_result.1.duration_since(self.begin)
    }

    /// The main loop: polls the group's state until everything is processed. Returns the number of messages published,
    /// or `None` if asked to stop.
    pub(super) fn drive(&mut self) -> Result<Option<u64>> {
        loop {
            let pause = if self.injector.is_timing() { POLL_RECOVERY_EVERY } else { POLL_EVERY };
            if self.requests.receiver().recv_timeout(pause).is_ok() {
                return Ok(None);
            }
            self.cluster.must_run()?;
            let now = Instant::now();
            let snapshot = match self.snapshot() {
                Ok(snapshot) => snapshot,
                // A pause of this process, for example by Ctrl-Z, breaks the connection. The next poll opens another
                // one.
                Err(_) if now.duration_since(self.answered) < self.answer_limit() => continue,
                Err(error) => return Err(error),
            };
            let now = Instant::now();
            self.answered = now;
            self.check_publisher(now)?;
            self.inject_faults(&snapshot)?;
            if self.timeline.add(now.duration_since(self.begin), &snapshot) {
                self.timeline.sample_memory(&mut self.cluster);
            }
            self.show_progress(now, &snapshot);
            self.check_first_result(now, &snapshot)?;
            if let Some(published) = self.finished(now, &snapshot)? {
                return Ok(Some(published));
            }
        }
    }

    fn answer_limit(&self) -> Duration {
        if self.cluster.is_on_redis_cluster() { CLUSTER_ANSWER_LIMIT } else { ANSWER_LIMIT }
    }

    /// The group's state. With a stream, entries that workers have read count as processed, and the others as pending.
    fn snapshot(&mut self) -> Result<Snapshot> {
        let snapshot = self.view.snapshot_with_publishes()?;
        let Some(workers) = &self.workers else { return Ok(snapshot) };
        let entries = self.view.count_entries(workers.key())?.unwrap_or(0);
        let processed = workers.read().entries;
        Ok(Snapshot { processed, pending: entries.saturating_sub(processed), ..snapshot })
    }

    fn check_publisher(&mut self, now: Instant) -> Result<()> {
        let Some(status) = self.publisher.ended()?.filter(|_| self.published.is_none()) else { return Ok(()) };
        // The last line may be read a moment after the process has exited.
        let summary = self.publisher.stdout().wait_for("published=", POLL_EVERY).unwrap_or_default();
        match summary_number(&summary, "published") {
            Some(published) if status.success() => {
                self.published = Some((now, published));
                Ok(())
            }
            _ => Err(self.publisher.failure(format_args!("ended with {status} and printed {summary:?}"))),
        }
    }

    fn inject_faults(&mut self, snapshot: &Snapshot) -> Result<()> {
        let over = self.published.is_some();
        for event in self.injector.step(&mut self.cluster, &mut self.view, snapshot, over)? {
            let stamp = format!("{:>6.1} s  ", self.begin.elapsed().as_secs_f64());
            let line = match event {
                Event::Injected(line) => self.console.paint(Tone::Notable, &line),
                Event::Recovered(line) => self.console.paint(Tone::Good, &line),
                Event::Restored(line) => line,
            };
            self.console.line(&(stamp + &line));
        }
        Ok(())
    }

    fn show_progress(&mut self, now: Instant, snapshot: &Snapshot) {
        if now < self.next_draw {
            return;
        }
        self.next_draw = now + if self.console.is_live() { POLL_EVERY } else { PLAIN_LINE_EVERY };
        let (published_per_s, processed_per_s) = self.timeline.rates();
        let (processors, names) = match &self.workers {
            None => ("consumers", snapshot.consumers.clone()),
            Some(workers) => ("workers", workers.names().to_vec()),
        };
        self.console.draw(&Progress {
            elapsed: now.duration_since(self.begin),
            duration: self.duration,
            published_per_s,
            processed_per_s,
            pending: snapshot.pending,
            // The lease of a killed leader outlives it for a moment, so a leader is shown only if it runs.
            leader: self.cluster.leader(snapshot).map(|leader| leader.to_string()).unwrap_or_default(),
            processors,
            names,
        });
    }

    /// Fails if nothing comes of the messages, so that nobody waits for a program that does not work.
    fn check_first_result(&mut self, now: Instant, snapshot: &Snapshot) -> Result<()> {
        let nothing = snapshot.processed + snapshot.dead == 0 && snapshot.pending > 0;
        if !nothing || now.duration_since(self.begin) < self.first_result_limit {
            return Ok(());
        }
        let problem = format!("has processed none of {} messages in {:?}", snapshot.pending, self.first_result_limit);
        match self.cluster.running().into_iter().find(|node| matches!(node, Node::Consumer(_))) {
            Some(node) => Err(self.cluster.process(node)?.failure(problem)),
            None => Err(Error::Failed(format!("the group {problem}"))),
        }
    }

    /// The number of messages published, once all are processed or no more results will come.
    fn finished(&mut self, now: Instant, snapshot: &Snapshot) -> Result<Option<u64>> {
        if snapshot.processed != self.last_result.0 {
            self.last_result = (snapshot.processed, now);
        }
        let Some((ended_at, published)) = self.published else {
            let overdue = now.duration_since(self.begin) >= self.duration + PUBLISHER_LIMIT;
            let failure = || self.publisher.failure(format_args!("still runs {PUBLISHER_LIMIT:?} after its time"));
            return if overdue { Err(failure()) } else { Ok(None) };
        };
        let all = snapshot.processed + snapshot.dead >= published;
        let quiet = now.duration_since(self.last_result.1.max(ended_at)) >= QUIET_LIMIT;
        if snapshot.pending == 0 && (all || quiet) {
            return Ok(Some(published));
        }
        if now.duration_since(ended_at) >= DRAIN_LIMIT {
            let (pending, processed) = (snapshot.pending, snapshot.processed);
            return Err(Error::Failed(format!(
                "{pending} messages are still pending {DRAIN_LIMIT:?} after the last was published \
                 ({processed} of {published} processed)"
            )));
        }
        Ok(None)
    }
}

/// The number after `name=` in the publisher's last line.
fn summary_number(summary: &str, name: &str) -> Option<u64> {
    summary.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
}
