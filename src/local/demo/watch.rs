//! The demonstration at work: looks at the group again and again, follows its plan, and shows what it sees.

use std::time::{Duration, Instant};

use super::rates::Rates;
use super::screen::{Frame, Screen, Tone};
use super::takeover::TakeOver;
use crate::config::DemoConfig;
use crate::error::{Error, Result};
use crate::local::{ChildProcess, Cluster, GroupView, Member, Snapshot};
use crate::shutdown::ShutdownRequests;

/// Between two looks at the group, and while a take-over is measured.
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
pub(super) struct Watch {
    pub(super) config: DemoConfig,
    pub(super) publisher: ChildProcess,
    pub(super) cluster: Cluster,
    view: GroupView,
    pub(super) screen: Screen,
    pub(super) requests: ShutdownRequests,
    begin: Instant,
    /// When Redis last answered.
    answered: Instant,
    next_frame: Instant,
    takeover: Option<TakeOver>,
    /// The dispatcher that was killed and when it is started again.
    restart: Option<(Member, Instant)>,
    rates: Rates,
    /// Set when the publisher has ended: when, and what it says it has published.
    published: Option<(Instant, u64)>,
    /// The number of results last seen, and since when.
    quiet: (u64, Instant),
}

impl Watch {
    pub(super) fn new(
        config: &DemoConfig,
        cluster: Cluster,
        publisher: ChildProcess,
        screen: Screen,
        requests: ShutdownRequests,
    ) -> Watch {
        let begin = Instant::now();
        let view = cluster.view();
        // A plain line before there is anything to tell would only look like trouble.
        let first_frame = if screen.is_live() { Duration::ZERO } else { PLAIN_EVERY };
        Watch {
            config: config.clone(),
            publisher,
            cluster,
            view,
            screen,
            requests,
            begin,
            answered: begin,
            next_frame: begin + first_frame,
            takeover: None,
            restart: None,
            rates: Rates::default(),
            published: None,
            quiet: (0, begin),
        }
    }

    /// The main loop: looks at the group again and again, until all is processed. Gives the number published, or `None`
    /// if it was asked to stop.
    pub(super) fn run(&mut self) -> Result<Option<u64>> {
        loop {
            let measuring = self.takeover.as_ref().is_some_and(|takeover| takeover.took().is_none());
            let pause = if measuring { MEASURE_EVERY } else { LOOK_EVERY };
            if self.requests.receiver().recv_timeout(pause).is_ok() {
                return Ok(None);
            }
            self.cluster.must_run()?;
            let now = Instant::now();
            let snapshot = match self.view.snapshot() {
                Ok(snapshot) => snapshot,
                // A pause of this process, Ctrl-Z say, breaks the connection off; the next look opens another.
                Err(_) if now.duration_since(self.answered) < ANSWER_LIMIT => continue,
                Err(error) => return Err(error),
            };
            let now = Instant::now();
            self.answered = now;
            self.follow_the_publisher(now)?;
            self.follow_the_plan(now, &snapshot)?;
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

    /// Kills the leader at two fifths of the time, and starts it again a while after its successor's first result.
    fn follow_the_plan(&mut self, now: Instant, snapshot: &Snapshot) -> Result<()> {
        let running = now.duration_since(self.begin);
        let stamp = format!("{:>6.1} s  ", running.as_secs_f64());
        if let Some(takeover) = &mut self.takeover {
            if let Some(took) = takeover.observe(now, snapshot) {
                let name = snapshot.lease.as_ref().map_or("nobody", |lease| lease.name());
                let line =
                    format!("{name} has taken over: its first result came {} ms after the kill", took.as_millis());
                self.screen.line(&(stamp.clone() + &self.screen.paint(Tone::Good, &line)));
                let later = now + (self.config.duration / 5).min(Duration::from_secs(3));
                self.restart = self.restart.map(|(killed, _)| (killed, later));
            }
            if let Some((killed, _)) = self.restart.filter(|(_, at)| takeover.took().is_some() && now >= *at) {
                self.cluster.start_member(killed)?;
                self.restart = None;
                self.screen.line(&format!("{stamp}{killed} is started again, as a standby"));
            }
        } else if running >= self.config.duration * 2 / 5
            && let Some((leader, lease)) = self.cluster.leader(snapshot).zip(snapshot.lease.clone())
        {
            let killed_at = Instant::now();
            self.cluster.kill_member(leader)?;
            self.takeover = Some(TakeOver::new(lease, killed_at));
            self.restart = Some((leader, now));
            let line = format!("{leader} leads: killed with SIGKILL");
            self.screen.line(&(stamp + &self.screen.paint(Tone::Notable, &line)));
        }
        Ok(())
    }

    fn show(&mut self, now: Instant, snapshot: &Snapshot) {
        self.rates.add(now, snapshot);
        if now < self.next_frame {
            return;
        }
        self.next_frame = now + if self.screen.is_live() { LOOK_EVERY } else { PLAIN_EVERY };
        let (published_per_s, processed_per_s) = self.rates.per_second();
        self.screen.draw(&Frame {
            elapsed: now.duration_since(self.begin),
            duration: self.config.duration,
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
            let overdue = now.duration_since(self.begin) >= self.config.duration + PUBLISHER_LIMIT;
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

    /// How long the take-over took, if it was seen.
    pub(super) fn took(&self) -> Option<Duration> {
        self.takeover.as_ref().and_then(TakeOver::took)
    }
}

/// The number after `name=` in the publisher's last line.
fn summary_number(summary: &str, name: &str) -> Option<u64> {
    summary.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
}
