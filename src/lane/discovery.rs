//! Follows the sources of consumers that come and go, and brings the [roster](super::roster) in line with them.
//!
//! The thread `discovery` takes answers in; a thread for each source looks for them, `source-<n>`. Files are looked at
//! every second. Names are looked up every few seconds, and soon after a link was lost. A lookup may hang for as long
//! as the system lets it: it holds up only its own thread. At the end of the lane such a thread is left behind, since a
//! lookup can't be interrupted; it ends with the lookup.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, select, tick, unbounded};

use super::dialers::Dialers;
use super::following::Following;
use super::roster::{Answer, Change, ConsumerSource, ListFile, Member};
use super::shared::Shared;
use crate::base::error::Result;
use crate::base::text::Quoted;

/// How often the discovery looks whether lookups hang, and tidies up.
const TIDY_EVERY: Duration = Duration::from_secs(1);
/// The shortest pause between two lookups of a name.
const LEAST_PAUSE: Duration = Duration::from_secs(1);
/// A lookup that takes longer than this is reported.
const SLOW_LOOKUP: Duration = Duration::from_secs(15);
/// How long the end of the lane waits for lookups.
const END_PATIENCE: Duration = Duration::from_secs(1);
const STACK_BYTES: usize = 256 << 10;

/// The handle: ends and joins the threads when dropped.
#[derive(Debug)]
pub(super) struct Discovery {
    stop: Option<Sender<()>>,
    threads: Vec<JoinHandle<()>>,
    /// Disconnected when all threads have ended.
    ended: Receiver<()>,
}

impl Discovery {
    /// Starts to follow the sources of a lane; `None` if there is none to follow.
    pub(super) fn start(shared: &Arc<Shared>, dialers: &Arc<Dialers>) -> Result<Option<Discovery>> {
        let sources = shared.settings.consumers.iter().enumerate();
        let sources: Vec<_> = sources.filter(|(_, source)| source.is_followed()).collect();
        if sources.is_empty() {
            return Ok(None);
        }
        let (stop, stopped) = bounded(0);
        let (running, ended) = bounded::<()>(0);
        let (news, events) = unbounded();
        let mut discovery = Discovery { stop: Some(stop), threads: Vec::new(), ended };
        let mut wakers = Vec::new();
        for (index, source) in sources {
            let (wake, woken) = bounded(1);
            wakers.push(wake);
            let seeker = Seeker { source: index, news: news.clone(), woken, stopped: stopped.clone() };
            let (source, following, running) = (source.clone(), shared.settings.following.clone(), running.clone());
            discovery.spawn(shared, &format!("source-{index}"), move || {
                let _running = running;
                seeker.run(&source, &following);
            })?;
        }
        let tracker = Tracker {
            shared: shared.clone(),
            dialers: dialers.clone(),
            events,
            wakers,
            stopped,
            searches: vec![None; shared.settings.consumers.len()],
            warned_left_out: false,
        };
        discovery.spawn(shared, "discovery", move || {
            let _running = running;
            tracker.run();
        })?;
        Ok(Some(discovery))
    }

    fn spawn(&mut self, shared: &Shared, name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
        let stack = thread::Builder::new().stack_size(STACK_BYTES);
        self.threads.push(shared.spawn_with(stack, name, work)?);
        Ok(())
    }
}

impl Drop for Discovery {
    fn drop(&mut self) {
        self.stop = None;
        // Nothing is ever sent.
        let hangs = self.ended.recv_timeout(END_PATIENCE) == Err(RecvTimeoutError::Timeout);
        for thread in self.threads.drain(..) {
            if hangs && !thread.is_finished() {
                log::info!("event=lookup-left-behind thread={}", thread.thread().name().unwrap_or_default());
            } else if thread.join().is_err() {
                log::error!("event=panic thread=discovery");
            }
        }
    }
}

/// What a source's thread reports, with the index of the source.
enum Event {
    /// It begins to look.
    Begun(usize),
    /// It has looked; `None` if there is no news.
    Ended(usize, Option<Answer>),
}

/// The work of a source's thread.
struct Seeker {
    source: usize,
    news: Sender<Event>,
    /// A link was lost.
    woken: Receiver<()>,
    stopped: Receiver<()>,
}

impl Seeker {
    fn run(self, source: &ConsumerSource, following: &Following) {
        match source {
            ConsumerSource::Fixed(_) => {}
            ConsumerSource::File(path) => {
                let mut file = ListFile::new(path);
                self.repeat(following.look_every, following.look_every, || file.look());
            }
            ConsumerSource::Dns { host_port, .. } => {
                let least = LEAST_PAUSE.min(following.lookup_every);
                self.repeat(least, following.lookup_every, || {
                    Some(match (following.lookup)(host_port) {
                        Ok(addresses) if addresses.is_empty() => Answer::Failed("the name has no address".to_owned()),
                        Ok(addresses) => Answer::Addresses(addresses),
                        Err(error) => Answer::Failed(error.to_string()),
                    })
                });
            }
        }
    }

    /// Looks again and again, until the lane ends.
    fn repeat(&self, least: Duration, every: Duration, mut look: impl FnMut() -> Option<Answer>) {
        loop {
            if self.news.send(Event::Begun(self.source)).is_err() {
                return;
            }
            let answer = look();
            if self.news.send(Event::Ended(self.source, answer)).is_err() {
                return;
            }
            // Nothing is ever sent, so an end of the wait other than by time means the end of the lane.
            if self.stopped.recv_timeout(least) != Err(RecvTimeoutError::Timeout) {
                return;
            }
            select! {
                recv(self.stopped) -> _ => return,
                recv(self.woken) -> _ => {}
                default(every.saturating_sub(least)) => {}
            }
        }
    }
}

/// The work of the thread `discovery`.
struct Tracker {
    shared: Arc<Shared>,
    dialers: Arc<Dialers>,
    events: Receiver<Event>,
    /// Make the sources' threads look soon.
    wakers: Vec<Sender<()>>,
    stopped: Receiver<()>,
    /// By source: since when a search is going on, and whether that was reported.
    searches: Vec<Option<(Instant, bool)>>,
    /// Whether it was logged that there are too many addresses.
    warned_left_out: bool,
}

impl Tracker {
    /// The main loop of the thread.
    fn run(mut self) {
        let ticks = tick(TIDY_EVERY);
        let shared = self.shared.clone();
        loop {
            select! {
                recv(self.stopped) -> _ => return,
                recv(self.events) -> event => match event {
                    Ok(Event::Begun(source)) => self.searches[source] = Some((Instant::now(), false)),
                    Ok(Event::Ended(source, answer)) => {
                        self.searches[source] = None;
                        match answer {
                            Some(answer) => self.take(source, answer),
                            None => self.confirm(source),
                        }
                    }
                    Err(_) => return,
                },
                recv(shared.roster.doubts()) -> _ => self.wake_sources(),
                recv(ticks) -> _ => self.tidy(),
            }
        }
    }

    fn wake_sources(&self) {
        for wake in &self.wakers {
            // A full channel means that the source looks soon anyway.
            let _ = wake.try_send(());
        }
    }

    fn take(&mut self, source: usize, answer: Answer) {
        let roster = &self.shared.roster;
        let entry = &self.shared.settings.consumers[source];
        let before = roster.error_of(source);
        let failure = if let Answer::Failed(error) = &answer { Some(error.clone()) } else { None };
        let hold = self.shared.settings.following.hold;
        let changes = roster.take(source, answer, hold, |member| self.start_dialer(member));
        if failure != before {
            self.shared.note_change();
            match &failure {
                Some(error) => log::warn!(
                    "event=source-failed source={} error={} setting=consumers known={} note=\"the addresses that are \
                     known stay\"",
                    Quoted(entry),
                    Quoted(error),
                    roster.addresses().len()
                ),
                None => log::info!("event=source-answers source={}", Quoted(entry)),
            }
        }
        self.note(source, &changes);
    }

    /// A source still says what it said last.
    fn confirm(&mut self, source: usize) {
        let changes = self.shared.roster.confirm(source, |member| self.start_dialer(member));
        self.note(source, &changes);
    }

    fn start_dialer(&self, member: &Member) -> bool {
        let started = self.dialers.start_for(member);
        if let Err(error) = &started {
            log::warn!("event=consumer-not-added address={member} error={}", Quoted(error));
        }
        started.is_ok()
    }

    fn note(&mut self, source: usize, changes: &[Change]) {
        let entry = &self.shared.settings.consumers[source];
        changes.iter().for_each(|change| log_change(change, entry));
        let left_out = self.shared.roster.left_out();
        if left_out > 0 && !std::mem::replace(&mut self.warned_left_out, true) {
            log::warn!(
                "event=too-many-consumers left_out={left_out} most={} setting=consumers",
                super::roster::MOST_FOUND
            );
        }
        self.warned_left_out = left_out > 0;
        if !changes.is_empty() {
            self.shared.note_change();
        }
    }

    fn tidy(&mut self) {
        let now = Instant::now();
        for member in self.shared.roster.release_unled(self.shared.settings.following.kept_unled, now) {
            self.dialers.end(member.id);
            log::info!("event=consumer-removed address={member}");
        }
        self.dialers.join_ended();
        for source in 0..self.searches.len() {
            let Some((since, reported)) = &mut self.searches[source] else { continue };
            let took = now.saturating_duration_since(*since);
            if took >= SLOW_LOOKUP && !std::mem::replace(reported, true) {
                self.take(source, Answer::Failed(format!("no answer for {} s", took.as_secs())));
            }
        }
    }
}

fn log_change(change: &Change, source: &ConsumerSource) {
    let source = Quoted(source);
    match change {
        Change::Added(member) => {
            log::info!("event=consumer-added address={member} slot={} source={source}", member.id.slot);
        }
        Change::Leaves(member) => {
            log::info!("event=consumer-leaving address={member} slot={} source={source}", member.id.slot);
        }
        Change::Stays(member) => {
            log::info!("event=consumer-stays address={member} slot={} source={source}", member.id.slot);
        }
    }
}

#[cfg(test)]
mod tests;
