//! A trial under way: looks at the group again and again, has the strikes carried out, and shows what it sees.

use std::time::{Duration, Instant};

use super::Trial;
use super::screen::{Frame, Screen, Tone};
use super::strikes::{Event, Strikes};
use super::timeline::Timeline;
use crate::base::error::{Error, Result};
use crate::base::shutdown::ShutdownRequests;
use crate::lab::{ChildProcess, Cluster, GroupView, Snapshot};

/// Between two looks at the group, and while a recovery is measured.
const LOOK_EVERY: Duration = Duration::from_millis(100);
const MEASURE_EVERY: Duration = Duration::from_millis(1);
/// Between two plain lines where the screen is not a terminal.
const PLAIN_EVERY: Duration = Duration::from_secs(1);
/// How long Redis may be silent.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// How long the publisher may go on after its time: for messages that nobody received at first.
const PUBLISHER_LIMIT: Duration = Duration::from_secs(30);
/// How long the rest may take to be processed after the last message was published.
const DRAIN_LIMIT: Duration = Duration::from_secs(60);
/// Nothing pending and no new result for this long: what is missing now will not come.
const QUIET_LIMIT: Duration = Duration::from_secs(5);

/// See the module's text.
pub(super) struct Watch<'a> {
    duration: Duration,
    pub(super) publisher: ChildProcess,
    pub(super) cluster: Cluster,
    view: GroupView,
    pub(super) screen: &'a mut Screen,
    requests: &'a ShutdownRequests,
    begin: Instant,
    /// When Redis last answered.
    answered: Instant,
    next_frame: Instant,
    pub(super) strikes: Strikes,
    pub(super) timeline: Timeline,
    /// Set when the publisher has ended: when, and what it says it has published.
    published: Option<(Instant, u64)>,
    /// The number of results last seen, and since when.
    quiet: (u64, Instant),
}

impl<'a> Watch<'a> {
    pub(super) fn new(
        trial: &Trial,
        before: &Snapshot,
        cluster: Cluster,
        publisher: ChildProcess,
        screen: &'a mut Screen,
        requests: &'a ShutdownRequests,
    ) -> Watch<'a> {
        let begin = Instant::now();
        // A plain line before there is anything to tell would only look like trouble.
        let first_frame = if screen.is_live() { Duration::ZERO } else { PLAIN_EVERY };
        Watch {
            duration: trial.duration,
            publisher,
            view: cluster.view(),
            cluster,
            screen,
            requests,
            begin,
            answered: begin,
            next_frame: begin + first_frame,
            strikes: Strikes::new(trial.strikes.clone(), begin),
            timeline: Timeline::new(trial.duration, before),
            published: None,
            quiet: (0, begin),
        }
    }

    /// From the start to the last new result.
    pub(super) fn elapsed(&self) -> Duration {
        self.quiet.1.duration_since(self.begin)
    }

    /// The main loop: looks at the group again and again, until all is processed. Gives the number published, or `None`
    /// if it was asked to stop.
    pub(super) fn run(&mut self) -> Result<Option<u64>> {
        loop {
            let pause = if self.strikes.is_measuring() { MEASURE_EVERY } else { LOOK_EVERY };
            if self.requests.receiver().recv_timeout(pause).is_ok() {
                return Ok(None);
            }
            self.cluster.must_run()?;
            let now = Instant::now();
            let snapshot = match self.view.snapshot_with_publishes() {
                Ok(snapshot) => snapshot,
                // A pause of this process, Ctrl-Z say, breaks the connection off; the next look opens another.
                Err(_) if now.duration_since(self.answered) < ANSWER_LIMIT => continue,
                Err(error) => return Err(error),
            };
            let now = Instant::now();
            self.answered = now;
            self.follow_the_publisher(now)?;
            self.follow_the_plan(&snapshot)?;
            if self.timeline.add(now.duration_since(self.begin), &snapshot) {
                self.timeline.look_at_memory(&mut self.cluster);
            }
            self.show(now, &snapshot);
            if let Some(published) = self.finished(now, &snapshot)? {
                return Ok(Some(published));
            }
        }
    }

    fn follow_the_publisher(&mut self, now: Instant) -> Result<()> {
        let Some(status) = self.publisher.ended()?.filter(|_| self.published.is_none()) else { return Ok(()) };
        // The pipe may be read a moment after the end of the process.
        let summary = self.publisher.stdout().wait_for("published=", LOOK_EVERY).unwrap_or_default();
        match summary_number(&summary, "published") {
            Some(published) if status.success() => {
                self.published = Some((now, published));
                Ok(())
            }
            _ => Err(self.publisher.failure(format_args!("ended with {status} and said {summary:?}"))),
        }
    }

    fn follow_the_plan(&mut self, snapshot: &Snapshot) -> Result<()> {
        let over = self.published.is_some();
        for event in self.strikes.follow(&mut self.cluster, &mut self.view, snapshot, over)? {
            let stamp = format!("{:>6.1} s  ", self.begin.elapsed().as_secs_f64());
            let line = match event {
                Event::Struck(line) => self.screen.paint(Tone::Notable, &line),
                Event::Flows(line) => self.screen.paint(Tone::Good, &line),
                Event::Healed(line) => line,
            };
            self.screen.line(&(stamp + &line));
        }
        Ok(())
    }

    fn show(&mut self, now: Instant, snapshot: &Snapshot) {
        if now < self.next_frame {
            return;
        }
        self.next_frame = now + if self.screen.is_live() { LOOK_EVERY } else { PLAIN_EVERY };
        let (published_per_s, processed_per_s) = self.timeline.rates();
        self.screen.draw(&Frame {
            elapsed: now.duration_since(self.begin),
            duration: self.duration,
            published_per_s,
            processed_per_s,
            pending: snapshot.pending,
            // The lease of a killed leader stands a little longer than the leader.
            leader: self.cluster.leader(snapshot).map(|leader| leader.to_string()).unwrap_or_default(),
            consumers: snapshot.consumers.clone(),
        });
    }

    /// The number published, once all is processed or nothing more will come.
    fn finished(&mut self, now: Instant, snapshot: &Snapshot) -> Result<Option<u64>> {
        if snapshot.processed != self.quiet.0 {
            self.quiet = (snapshot.processed, now);
        }
        let Some((ended_at, published)) = self.published else {
            let overdue = now.duration_since(self.begin) >= self.duration + PUBLISHER_LIMIT;
            let failure = || self.publisher.failure(format_args!("goes on {PUBLISHER_LIMIT:?} after its time"));
            return if overdue { Err(failure()) } else { Ok(None) };
        };
        let all = snapshot.processed + snapshot.dead >= published;
        let quiet = now.duration_since(self.quiet.1.max(ended_at)) >= QUIET_LIMIT;
        if snapshot.pending == 0 && (all || quiet) {
            return Ok(Some(published));
        }
        if now.duration_since(ended_at) >= DRAIN_LIMIT {
            let (pending, processed) = (snapshot.pending, snapshot.processed);
            return Err(Error::Failed(format!(
                "{pending} messages are still pending {DRAIN_LIMIT:?} after the last was published ({processed} of {published} processed)"
            )));
        }
        Ok(None)
    }
}

/// The number after `name=` in the publisher's last line.
fn summary_number(summary: &str, name: &str) -> Option<u64> {
    summary.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
}
