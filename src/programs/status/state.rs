//! The status of a group, as one check found it. Plain values.

use std::collections::BTreeSet;
use std::time::Duration;

use super::delivery::DeliveryReport;
use super::report::{Rates, Report};
use super::shadow::ShadowMember;
use crate::ledger::letters::LetterHead;
use crate::ledger::overview::{self, Part, Snapshot};
use crate::ledger::reading::RecordedGap;
use crate::ledger::server_check::Warning;
use crate::ledger::{Lease, Pause, may_name_group};

/// The most gaps that are shown.
pub const SHOWN_GAPS: usize = 10;
/// The most dead letters that are shown.
pub const SHOWN_LETTERS: usize = 20;
/// The most warnings that are taken from the leader's report.
const MAX_REPORTED_WARNINGS: usize = 16;
/// How long a message may be pending before that needs attention, unless set otherwise.
pub const MAX_AGE: Duration = Duration::from_secs(60);
/// This many dead letters within [`DEATHS_WINDOW`](crate::lane::DEATHS_WINDOW) need attention. The alert
/// `OncecastManyDeadLetters` has the same numbers.
pub const MANY_DEATHS: u64 = 10;

/// The status of a group.
#[derive(Clone, Debug)]
pub struct Status {
    /// The group's name.
    pub group: String,
    /// When it was checked, in microseconds since 1970.
    pub now_us: u64,
    /// What Redis holds of it.
    pub snapshot: Snapshot,
    /// What could not be read because Redis refuses the command.
    pub refused: BTreeSet<Part>,
    /// The dispatchers that are subscribed.
    pub members: Vec<Member>,
    /// The shadows that are subscribed.
    pub shadows: Vec<ShadowMember>,
    /// Entries in the stream that the leader adds messages to, if it does.
    pub stream_entries: Option<u64>,
    /// Its newest gaps, the newest first.
    pub gaps: Vec<RecordedGap>,
    /// Its newest dead letters, the newest first; `None` if they were not read.
    pub letters: Option<Vec<LetterHead>>,
    /// Warnings about the server's settings.
    pub settings: Vec<Warning>,
    /// How long a message may be pending before that needs attention.
    pub max_age: Duration,
}

/// A dispatcher.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its id.
    pub id: String,
    /// Its last report, if that is at most a few seconds old.
    pub report: Option<Report>,
}

impl Member {
    pub(super) fn new(member: overview::DispatcherReport) -> Member {
        Member { id: member.id, report: member.report.as_deref().and_then(Report::parse) }
    }

    /// The name part of its id: the setting `dispatcher-id`.
    pub fn name(&self) -> &str {
        self.id.rsplit_once('-').map_or(&self.id, |(name, _)| name)
    }
}

impl Status {
    /// The lease of the leader, if that dispatcher is still subscribed.
    pub fn leader(&self) -> Option<&Lease> {
        self.snapshot.lease.as_ref().filter(|lease| self.members.iter().any(|member| member.id == lease.holder))
    }

    /// Whether it is a lane that nobody needs: its node has another one, or nothing to listen to. No message is left.
    pub fn has_drained(&self) -> bool {
        let is_read = !self.refused.contains(&Part::Members) && !self.refused.contains(&Part::Pending);
        !may_name_group(&self.group) && self.members.is_empty() && is_read && self.snapshot.pending == 0
    }

    /// Settings of the server that endanger the guarantees, in words: those found here, and others that the leader
    /// found.
    pub fn redis_warnings(&self) -> Vec<String> {
        let mut warnings = self.own_redis_warnings();
        let reported = self.leaders_report().map(|report| report.redis_warnings.as_slice()).unwrap_or_default();
        for warning in reported.iter().take(MAX_REPORTED_WARNINGS) {
            if !warnings.contains(warning) {
                warnings.push(warning.clone());
            }
        }
        warnings
    }

    /// Those found here, without what is a problem of the group.
    pub fn own_redis_warnings(&self) -> Vec<String> {
        let shown = |warning: &&Warning| !warning.is_note() && !warning.is_problem();
        self.settings.iter().filter(shown).map(Warning::to_string).collect()
    }

    /// The report of the leader, if there is one and it reports.
    pub fn leaders_report(&self) -> Option<&Report> {
        let leader = self.leader()?;
        self.members.iter().find(|member| member.id == leader.holder)?.report.as_ref().filter(|report| report.leads)
    }

    /// Whether Redis refuses to write reports for lack of replicas, so that they are old or gone.
    pub(super) fn refuses_reports(&self) -> bool {
        self.settings.iter().any(|warning| matches!(warning, Warning::TooFewReplicas { .. }))
    }

    /// The stream that the leader adds messages to, if it does.
    pub fn stream(&self) -> Option<&str> {
        self.leaders_report().map(|report| report.stream.as_str()).filter(|stream| !stream.is_empty())
    }

    /// `figure`, unless Redis refused the command that reads it.
    pub fn known<T>(&self, part: Part, figure: T) -> Option<T> {
        // Without the number of bundles that of messages is not known.
        let is_left_out = |part| self.refused.contains(&part);
        let lacks = is_left_out(part) || part == Part::Pending && is_left_out(Part::Bundles);
        (!lacks).then_some(figure)
    }

    /// How long the oldest pending message has been pending.
    pub fn oldest_age(&self) -> Option<Duration> {
        self.snapshot.oldest.map(|oldest| Duration::from_micros(self.now_us.saturating_sub(oldest.0)))
    }

    /// What holds deliveries back, as the leader reports it.
    pub fn delivery(&self) -> Option<&DeliveryReport> {
        self.leaders_report()?.delivery.as_ref()
    }

    /// The pause, while it lasts.
    pub fn pause(&self) -> Option<&Pause> {
        self.delivery()?.0.pause.as_ref()
    }

    /// Messages per second, as the leader sees them; `None` if none reports.
    pub fn rates(&self) -> Option<Rates> {
        self.leaders_report().map(|report| report.rates)
    }

    /// Messages that consumers hold; `None` if no leader reports.
    pub fn in_flight(&self) -> Option<u64> {
        self.leaders_report().map(|report| report.consumers.iter().map(|consumer| consumer.in_flight).sum())
    }

    /// The approximate number of pending messages that are in Redis only; `None` if no leader reports.
    pub fn spilled(&self) -> Option<u64> {
        let report = self.leaders_report()?;
        let pending = self.known(Part::Pending, self.snapshot.pending)?;
        let known = self.in_flight()? + report.ready + report.delayed;
        Some(if report.behind { pending.saturating_sub(known) } else { 0 })
    }

    /// Messages that failed and wait for their next delivery; `None` if no leader reports.
    pub fn delayed(&self) -> Option<u64> {
        self.leaders_report().map(|report| report.delayed)
    }

    /// How long the first of them still waits, as of the report; `None` if none waits or no leader tells.
    pub fn next_retry(&self) -> Option<Duration> {
        self.leaders_report().filter(|report| report.delayed > 0)?.next_retry_ms.map(Duration::from_millis)
    }

    /// Messages moved to the dead letters within [`DEATHS_WINDOW`](crate::lane::DEATHS_WINDOW) by dispatchers that
    /// still run.
    pub fn recent_deaths(&self) -> u64 {
        self.members.iter().filter_map(|member| member.report.as_ref()).map(|report| report.recent_deaths).sum()
    }
}
