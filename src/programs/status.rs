//! How a group stands: `oncecast status`, and the page that each dispatcher shows.
//!
//! An [`Onlooker`] only reads. What it sees comes from two sources: the group's keys, and the reports that the
//! dispatchers leave in Redis once a second. Nothing here is of one moment: the values are read one after the other,
//! and reports are up to a second old.

use std::collections::BTreeSet;
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use crossbeam_channel::{after, select};

use crate::base::error::{Error, Result};
use crate::base::id::{MessageId, wall_clock_us};
use crate::base::shutdown::shutdown_channel;
use crate::base::text::Escaped;
use crate::ledger::overview::{self, GroupView, Lease, Part, Snapshot};
use crate::ledger::reading::RecordedGap;
use crate::ledger::server_check::{self, Warning};
use crate::ledger::{Connection, Keys};
use crate::process::log;
use crate::process::output::{self, Reader};

mod health;
pub mod report;
pub mod settings;
mod show;

pub use self::show::{failure_to_json, json_text};

use self::report::{Rates, Report};
use self::settings::StatusConfig;

/// How long a reply is waited for.
const REPLY_TIME: Duration = Duration::from_secs(5);
/// How often `--watch` looks.
const WATCH_EVERY: Duration = Duration::from_secs(1);
/// How often the server's settings are looked at.
const SETTINGS_EVERY: Duration = Duration::from_secs(60);
/// The most gaps that are shown.
pub const SHOWN_GAPS: usize = 10;
/// How long a message may be pending before that needs attention, unless set otherwise.
pub const MAX_AGE: Duration = Duration::from_secs(60);
/// So many dead letters within [`DEATHS_WINDOW`] need attention. The alert `OncecastManyDeadLetters` has the same numbers.
pub const MANY_DEATHS: u64 = 10;
/// The window in which dead letters are counted.
pub const DEATHS_WINDOW: Duration = Duration::from_secs(600);
/// The exit code for a group that needs attention.
pub const NEEDS_ATTENTION: u8 = 3;

/// How a group stands.
#[derive(Clone, Debug)]
pub struct Status {
    /// The group's name.
    pub group: String,
    /// When it was looked at, in microseconds since 1970.
    pub now_us: u64,
    /// What Redis holds of it.
    pub snapshot: Snapshot,
    /// What could not be looked at, since Redis refuses the command.
    pub refused: BTreeSet<Part>,
    /// The dispatchers that are subscribed.
    pub members: Vec<Member>,
    /// Its newest gaps, the newest first.
    pub gaps: Vec<RecordedGap>,
    /// What is to be said of the server's settings.
    pub settings: Vec<Warning>,
    /// How long a message may be pending before that needs attention.
    pub max_age: Duration,
}

/// A dispatcher.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its id.
    pub id: String,
    /// What it last said of itself, if that was a few seconds ago at most.
    pub report: Option<Report>,
}

impl Member {
    fn new(member: overview::Member) -> Member {
        Member { id: member.id, report: member.report.as_deref().and_then(Report::parse) }
    }

    /// The name part of its id: the setting `dispatcher-id`.
    pub fn name(&self) -> &str {
        self.id.rsplit_once('-').map_or(&self.id, |(name, _)| name)
    }
}

impl Status {
    /// Who leads, if that dispatcher is still there.
    pub fn leader(&self) -> Option<&Lease> {
        self.snapshot.lease.as_ref().filter(|lease| self.members.iter().any(|member| member.id == lease.holder))
    }

    /// Settings of the server that endanger what is promised, in words.
    pub fn redis_warnings(&self) -> Vec<String> {
        self.settings.iter().filter(|warning| !warning.is_note()).map(Warning::to_string).collect()
    }

    fn leaders_report(&self) -> Option<&Report> {
        let leader = self.leader()?;
        self.members.iter().find(|member| member.id == leader.holder)?.report.as_ref().filter(|report| report.leads)
    }

    /// A figure, unless Redis refuses the command that it needs.
    pub fn known<T>(&self, part: Part, figure: T) -> Option<T> {
        (!self.refused.contains(&part)).then_some(figure)
    }

    /// How long the oldest pending message has been so.
    pub fn oldest_age(&self) -> Option<Duration> {
        self.snapshot.oldest.map(|oldest| Duration::from_micros(self.now_us.saturating_sub(oldest.0)))
    }

    /// Messages per second, as the leader sees them; `None` if none reports.
    pub fn rates(&self) -> Option<Rates> {
        self.leaders_report().map(|report| report.rates)
    }

    /// Pending messages that are in Redis alone, about; `None` if no leader reports.
    pub fn spilled(&self) -> Option<u64> {
        let report = self.leaders_report()?;
        let pending = self.known(Part::Pending, self.snapshot.pending)?;
        let in_flight: u64 = report.consumers.iter().map(|consumer| consumer.in_flight).sum();
        let known = in_flight + report.ready + report.delayed;
        Some(if report.behind { pending.saturating_sub(known) } else { 0 })
    }

    /// Messages that failed and wait for their next delivery; `None` if no leader reports.
    pub fn delayed(&self) -> Option<u64> {
        self.leaders_report().map(|report| report.delayed)
    }

    /// Messages that became dead letters within [`DEATHS_WINDOW`], as far as the dispatchers that made them still run.
    pub fn recent_deaths(&self) -> u64 {
        self.members.iter().filter_map(|member| member.report.as_ref()).map(|report| report.recent_deaths).sum()
    }

    /// 0 if all is well.
    pub fn exit_code(&self) -> u8 {
        if self.problems().is_empty() { 0 } else { NEEDS_ATTENTION }
    }
}

/// Looks at one group, again and again, through one connection.
pub struct Onlooker {
    view: GroupView,
    /// Whether the oldest pending message is known from reports.
    relies_on_reports: bool,
    max_age: Duration,
    /// What was found in the server's settings, and when; nothing since the last failure.
    settings: Option<(Vec<Warning>, Instant)>,
}

impl Onlooker {
    /// Opens nothing yet.
    pub fn new(connection: Connection, keys: Keys, max_age: Duration) -> Onlooker {
        Onlooker { view: GroupView::new(connection, keys), relies_on_reports: false, max_age, settings: None }
    }

    /// The same for a user that may only read, and call no scripts: the age of the oldest pending message is known from the
    /// dispatchers' reports. If there are none, the message is read.
    pub fn without_scripts(self) -> Onlooker {
        Onlooker { view: self.view.without_scripts(), relies_on_reports: true, ..self }
    }

    /// How the group stands now.
    pub fn look(&mut self) -> Result<Status> {
        let status = self.try_to_look();
        if status.is_err() {
            // Behind the address may be another server next time.
            self.settings = None;
        }
        status
    }

    fn try_to_look(&mut self) -> Result<Status> {
        let mut snapshot = self.view.snapshot()?;
        let members: Vec<Member> = self.view.members(&snapshot)?.into_iter().map(Member::new).collect();
        let any = snapshot.pending > 0 || self.view.refused().contains(&Part::Pending);
        if self.relies_on_reports && any {
            // The latest look is that which has seen the most go.
            let reported = members.iter().filter_map(|member| member.report.as_ref()?.oldest).max().map(MessageId);
            snapshot.oldest = reported.map_or_else(|| self.view.oldest_read_whole(), |oldest| Ok(Some(oldest)))?;
        }
        let gaps = self.view.newest_gaps(SHOWN_GAPS)?;
        let settings = self.settings()?.to_vec();
        Ok(Status {
            group: self.view.keys().group.clone(),
            now_us: wall_clock_us(),
            snapshot,
            refused: self.view.refused().clone(),
            members,
            gaps,
            settings,
            max_age: self.max_age,
        })
    }

    /// What is to be said of the server's settings, looked at now or not long ago.
    fn settings(&mut self) -> Result<&[Warning]> {
        let fresh = self.settings.take().filter(|(_, looked)| looked.elapsed() < SETTINGS_EVERY);
        let settings = match fresh {
            Some(settings) => settings,
            None => (server_check::check(self.view.connection())?, Instant::now()),
        };
        Ok(&self.settings.insert(settings).0)
    }
}

/// Shows how a group stands, once or until interrupted. The exit code tells the health that was seen last.
pub fn run(config: &StatusConfig) -> Result<u8> {
    let _log = log::init(config.common.log_level, "oncecast", "status")?;
    let connection = Connection::new(config.common.redis.clone(), REPLY_TIME);
    let mut onlooker = Onlooker::new(connection, config.common.keys.clone(), config.max_age).without_scripts();
    if !config.watch {
        let status = onlooker.look()?;
        return output::print(shown(config.json, &status)).map(|_| status.exit_code());
    }
    let (handle, requests) = shutdown_channel();
    handle.on_signals()?;
    let screen = !config.json && io::stdout().is_terminal();
    // On a screen from the top left corner, when it is empty; elsewhere with an empty line between two looks.
    let (before, after_it) = match (screen, config.json) {
        (true, _) => ("\x1b[H\x1b[2J", ""),
        (false, true) => ("", ""),
        (false, false) => ("", "\n"),
    };
    loop {
        let (text, outcome) = match onlooker.look() {
            Ok(status) => (shown(config.json, &status), Ok(status.exit_code())),
            // In the place of the figures, which would look like those of now.
            Err(error) if config.json => (failure_as_json(config, &error) + "\n", Err(error)),
            Err(error) => (format!("{}\n", Escaped(format!("status unknown: {error}"))), Err(error)),
        };
        if output::print(format_args!("{before}{text}{after_it}"))? == Reader::Gone {
            return outcome;
        }
        select! {
            recv(requests.receiver()) -> _ => return outcome,
            recv(after(WATCH_EVERY)) -> _ => {}
        }
    }
}

fn failure_as_json(config: &StatusConfig, error: &Error) -> String {
    json_text(&failure_to_json(&config.common.keys.group, &error.to_string()))
}

fn shown(json: bool, status: &Status) -> String {
    if json { format!("{}\n", json_text(&status.to_json())) } else { status.to_string() }
}

#[cfg(test)]
mod tests;
