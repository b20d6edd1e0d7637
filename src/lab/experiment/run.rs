//! A running experiment: polls the group's state, injects the faults that are due, and shows the progress.

use std::time::{Duration, Instant};

use super::injector::{Event, Injector};
use super::plan::PlannedFault;
use super::publishers::Publishers;
use super::timeline::Timeline;
use super::watch::{GroupWatch, Seen};
use crate::base::error::{Error, Result};
use crate::base::shutdown::ShutdownRequests;
use crate::lab::cluster::{Cluster, Node};
use crate::lab::console::{Console, Progress, Tone};
use crate::lab::stream_workers::StreamWorkers;
use crate::ledger::overview::Snapshot;

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
    pub(super) publishers: Publishers,
    /// With a stream in place of consumers.
    pub(super) workers: Option<StreamWorkers>,
    pub(super) watch: GroupWatch,
    pub(super) cluster: Cluster,
}

/// See the module's text.
pub(super) struct Run<'a> {
    duration: Duration,
    first_result_limit: Duration,
    pub(super) publishers: Publishers,
    pub(super) workers: Option<StreamWorkers>,
    watch: GroupWatch,
    pub(super) cluster: Cluster,
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
        Started { publishers, workers, watch, cluster }: Started,
        console: &'a mut Console,
        requests: &'a ShutdownRequests,
    ) -> Run<'a> {
        let begin = Instant::now();
        // A plain line with nothing but zeros would look like a problem.
        let first_draw = if console.is_live() { Duration::ZERO } else { PLAIN_LINE_EVERY };
        Run {
            duration: plan.duration,
            first_result_limit: plan.first_result_limit,
            publishers,
            workers,
            watch,
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
            let seen = match self.watch.read(self.workers.as_ref()) {
                Ok(seen) => seen,
                // A pause of this process, for example by Ctrl-Z, breaks the connection. The next poll opens another
                // one.
                Err(_) if now.duration_since(self.answered) < self.answer_limit() => continue,
                Err(error) => return Err(error),
            };
            let now = Instant::now();
            self.answered = now;
            self.check_publisher(now)?;
            self.inject_faults(&seen)?;
            if self.timeline.add(now.duration_since(self.begin), &seen.sum) {
                self.timeline.sample_memory(&mut self.cluster);
            }
            self.show_progress(now, &seen);
            self.check_first_result(now, &seen.sum)?;
            if let Some(published) = self.finished(now, &seen.sum)? {
                return Ok(Some(published));
            }
        }
    }

    fn answer_limit(&self) -> Duration {
        if self.cluster.is_on_redis_cluster() { CLUSTER_ANSWER_LIMIT } else { ANSWER_LIMIT }
    }

    fn check_publisher(&mut self, now: Instant) -> Result<()> {
        if self.published.is_none() {
            self.published = self.publishers.published()?.map(|published| (now, published));
        }
        Ok(())
    }

    fn inject_faults(&mut self, seen: &Seen) -> Result<()> {
        let over = self.published.is_some();
        for event in self.injector.step(&mut self.cluster, &mut self.watch, seen, over)? {
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

    fn show_progress(&mut self, now: Instant, seen: &Seen) {
        if now < self.next_draw {
            return;
        }
        self.next_draw = now + if self.console.is_live() { POLL_EVERY } else { PLAIN_LINE_EVERY };
        let (published_per_s, processed_per_s) = self.timeline.rates();
        let (processors, names) = match &self.workers {
            None => ("consumers", seen.sum.consumers.clone()),
            Some(workers) => ("workers", workers.names().to_vec()),
        };
        self.console.draw(&Progress {
            elapsed: now.duration_since(self.begin),
            duration: self.duration,
            published_per_s,
            processed_per_s,
            pending: seen.sum.pending,
            // The lease of a killed leader outlives it for a moment, so a leader is shown only if it runs.
            leader: seen.leaders(&mut self.cluster),
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
            let problem = format_args!("still runs {PUBLISHER_LIMIT:?} after its time");
            return if overdue { Err(self.publishers.failure(problem)) } else { Ok(None) };
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
