//! The health of a group in words: problems, which need attention now, and notes, which are for information.

use std::collections::BTreeMap;
use std::time::Duration;

use super::delivery::{LONG_PAUSE, paused_in_words};
use super::report::{Report, SourceReport};
use super::shadow::ShadowMember;
use super::show::{NOT_WRITTEN, addresses_in_words};
use super::state::{MANY_DEATHS, Member, Status};
use crate::lane::DEATHS_WINDOW;
use crate::ledger::overview::Part;

/// The exit code for a group that needs attention.
pub const NEEDS_ATTENTION: u8 = 3;
/// The most addresses that one sentence names.
const SHOWN_ADDRESSES: usize = 10;

/// A list of addresses or names.
fn tried(addresses: &[String]) -> String {
    let shown = &addresses[..addresses.len().min(SHOWN_ADDRESSES)];
    match addresses.len() - shown.len() {
        0 if shown.is_empty() => String::new(),
        0 => format!(": {}", shown.join(", ")),
        more => format!(": {} and {more} more", shown.join(", ")),
    }
}

impl Status {
    /// What needs attention now. Empty if the group is healthy.
    pub fn problems(&self) -> Vec<String> {
        let stopping = self.settings.iter().filter(|warning| warning.is_problem());
        let mut problems: Vec<String> = stopping.map(ToString::to_string).collect();
        match (self.leader(), self.leaders_report()) {
            (None, _) if self.refused.contains(&Part::Lease) => problems.push(
                "the leader is unknown: Redis refuses GET (no right, no such command, or a key of another type)"
                    .to_owned(),
            ),
            (None, _) if self.has_drained() => {}
            (None, _) if self.members.is_empty() && !self.refused.contains(&Part::Members) => {
                problems.push("no dispatcher is subscribed".to_owned())
            }
            (None, _) => problems.extend(self.leaderless()),
            // Figures from reports are left out, and a note says so.
            (Some(_), None) if self.refused.contains(&Part::Reports) => {}
            (Some(leader), None) if self.refuses_reports() => {
                problems.push(format!("the leader {} {NOT_WRITTEN}", leader.holder));
            }
            (Some(leader), None) => problems.push(format!(
                "the leader {} does not report: it has just started, or hangs, or Redis refuses its report (is Redis \
                 full, or short of replicas?)",
                leader.holder
            )),
            (Some(leader), Some(report)) => {
                problems.extend(report.trouble.iter().map(|trouble| format!("{}: {trouble}", leader.holder)));
                let others =
                    self.members.iter().filter_map(|member| Some((&member.id, &member.report.as_ref()?.channel)));
                for (id, channel) in others.filter(|(_, channel)| !channel.is_empty() && **channel != report.channel) {
                    problems.push(format!(
                        "{id} listens to {channel}, but the leader to {}: only what the leader listens to is stored \
                         (--channel, --pattern, --keyevent)",
                        report.channel
                    ));
                }
                if report.full {
                    problems.push(format!(
                        "the leader tracks as many messages as it can, and {} of them wait for another delivery: new \
                         ones wait in Redis until some are done (event=table-full)",
                        report.delayed
                    ));
                }
                problems.extend(self.consumers_problems(report));
            }
        }
        let paused_for = self.delivery().and_then(|delivery| delivery.paused_for(self.now_us));
        if let Some(paused_for) = paused_for.filter(|time| *time > LONG_PAUSE) {
            let hours = paused_for.as_secs_f64() / 3_600.0;
            problems
                .push(format!("the group has been paused for {hours:.1} h: nothing is delivered (oncecast resume)"));
        }
        // While the group is paused, that its messages wait is intended.
        let waits_too_long = |age: &Duration| *age > self.max_age && self.pause().is_none();
        if let Some(age) = self.oldest_age().filter(waits_too_long) {
            let (age, most) = (age.as_secs_f64(), self.max_age.as_secs_f64());
            let delayed = self.delayed().filter(|delayed| *delayed > 0);
            let delayed = delayed.map(|delayed| format!(" ({delayed} failed and wait for another delivery)"));
            problems.push(format!(
                "the oldest message has been pending for {age:.1} s, more than {most:.1} s{}",
                delayed.unwrap_or_default()
            ));
        }
        if self.recent_deaths() >= MANY_DEATHS {
            problems.push(format!(
                "messages that became dead letters in the last {0} minutes: {1}, with those that were replayed or \
                 dropped since; oncecast dead list --since {0}m shows the reasons of the others",
                DEATHS_WINDOW.as_secs() / 60,
                self.recent_deaths(),
            ));
        }
        problems
    }

    /// That no dispatcher leads, and what dispatchers report about it.
    fn leaderless(&self) -> Vec<String> {
        let report = |member: &'_ Member| member.report.clone().map(|report| (member.id.clone(), report));
        let reports: Vec<(String, Report)> = self.members.iter().filter_map(report).collect();
        // A report is up to a second older than what is read of the lease.
        let first = match reports.iter().find(|(_, report)| report.leads) {
            Some((id, _)) => format!(
                "no dispatcher holds the lease, though {id} reported a moment ago that it leads: it can't renew the \
                 lease, or hands it over, as in a failover; if that lasts, its log says why"
            ),
            None => "no dispatcher leads".to_owned(),
        };
        let troubles = reports.iter().filter_map(|(id, report)| Some(format!("{id}: {}", report.trouble.as_ref()?)));
        [first].into_iter().chain(troubles).collect()
    }

    /// The problems with consumers that the leader reports.
    fn consumers_problems(&self, report: &Report) -> Vec<String> {
        let overdue = report.consumers.iter().filter(|consumer| consumer.overdue > 0).map(|consumer| {
            format!(
                "consumer {} no longer reports {} message(s) delivered to it: does its handler hang?",
                consumer.id, consumer.overdue
            )
        });
        let mut problems: Vec<String> = overdue.collect();
        if report.stream.is_empty() && report.consumers.is_empty() {
            problems.push(format!("no consumer is connected{}", tried(&report.missing)));
        }
        if self.waits() && none_accepts(report) {
            problems.push(NONE_ACCEPTS.to_owned());
        }
        problems
    }

    /// Whether messages are pending.
    fn waits(&self) -> bool {
        self.known(Part::Pending, self.snapshot.pending).is_some_and(|pending| pending > 0)
    }

    /// What is worth knowing, but needs no attention now.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = self.omissions();
        if self.refuses_reports() && !(self.members.is_empty() && self.shadows.is_empty()) {
            notes.push(
                "Redis refuses to write reports now (NOREPLICAS): what is shown of dispatchers, consumers, rates and \
                 shadows is what they reported before, or missing"
                    .to_owned(),
            );
        }
        let leader = self.leader().map(|leader| &leader.holder);
        let mut standbys = self.members.iter().filter(|member| Some(&member.id) != leader);
        let reports = self.known(Part::Reports, ()).and_then(|()| self.known(Part::Members, ()));
        if leader.is_some()
            && reports.is_some()
            && !standbys.any(|standby| standby.report.as_ref().is_some_and(|report| report.in_sync))
        {
            notes.push("no standby is in sync: none could take over at once".to_owned());
        }
        if self.leader().is_some_and(|leader| leader.by_time) {
            notes.push(
                "the leader's subscription is not counted on this server (event=not-counted): if it dies, its \
                 successor waits until the lease expires"
                    .to_owned(),
            );
        }
        if let Some(report) = self.leaders_report() {
            if !report.consumers.is_empty() && !report.missing.is_empty() {
                notes.push(format!("consumers that are not connected{}", tried(&report.missing)));
            }
            notes.extend(
                self.pause().map(|pause| format!("{}: messages are stored and not delivered", paused_in_words(pause))),
            );
            if !self.waits() && none_accepts(report) {
                notes.push(NONE_ACCEPTS.to_owned());
            }
            notes.extend(notes_on_sources(report));
            notes.extend(notes_on_secrets(report));
            if self.left_for_consumers() > 0 {
                notes.push(format!(
                    "messages pending: {}, stored for consumers before the leader added to a stream: consumers may \
                     still record what they hold, and only a leader with --deliver consumers delivers the rest",
                    self.left_for_consumers()
                ));
            }
            let disagrees =
                |member: &&Member| member.report.as_ref().is_some_and(|other| other.agreement != report.agreement);
            let others = self.members.iter().filter(disagrees).map(|member| member.id.as_str());
            notes.extend(others.map(|id| {
                format!(
                    "{id} and the leader differ in --consumers, --order-key, --deliver, --stream, --stream-maxlen, \
                     --channel, --pattern or --keyevent"
                )
            }));
        }
        notes.extend(self.members.iter().filter_map(open_metrics_of));
        notes.extend(self.shadows.iter().filter_map(difference_of));
        notes.extend(self.settings.iter().filter(|warning| warning.is_note()).map(ToString::to_string));
        /// For this long a gap is recent.
        const RECENT: Duration = Duration::from_secs(3_600);
        let since_ms = (self.now_us / 1_000).saturating_sub(RECENT.as_millis() as u64);
        let recent = self.gaps.iter().filter(|gap| gap.at_ms >= since_ms).count();
        if recent > 0 {
            notes.push(format!(
                "gaps in the last hour, messages may be missing: {recent} (docs/OPERATIONS.md, OncecastGapRecorded: \
                 how to tell)"
            ));
        }
        if self.snapshot.dead > 0 {
            notes.push(format!("dead letters: {}, in the stream {}:dead", self.snapshot.dead, self.group));
        }
        notes
    }

    /// Messages that are pending although the leader delivers to a stream.
    pub fn left_for_consumers(&self) -> u64 {
        let adds_to_stream = self.leaders_report().is_some_and(|report| !report.stream.is_empty());
        if adds_to_stream { self.snapshot.pending } else { 0 }
    }

    /// 0 if there are no problems.
    pub fn exit_code(&self) -> u8 {
        if self.problems().is_empty() { 0 } else { NEEDS_ATTENTION }
    }

    /// The figures that are left out, by the command that Redis refuses.
    fn omissions(&self) -> Vec<String> {
        let mut by_command: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for part in self.refused.iter().filter(|part| part.is_shown()) {
            by_command.entry(part.command()).or_default().push(part.to_string());
        }
        let note = |(command, parts): (&str, Vec<String>)| {
            let parts = parts.join(", ");
            format!("Redis refuses {command} (no right, no such command, or a key of another type); left out: {parts}")
        };
        by_command.into_iter().map(note).collect()
    }
}

const NONE_ACCEPTS: &str = "no consumer accepts messages: each is stopping or no longer listed, its handler can't \
                            work, or Redis takes no results from it (its log says which: event=unable)";

/// Whether consumers are connected, and none takes messages. That is no problem before there is a message.
fn none_accepts(report: &Report) -> bool {
    !report.consumers.is_empty() && report.consumers.iter().all(|consumer| consumer.draining || consumer.leaving)
}

/// Which lists of consumers can't be followed.
fn notes_on_sources(report: &Report) -> impl Iterator<Item = String> {
    let failing = report.sources.iter().filter(|source| !source.error.is_empty());
    failing.map(|SourceReport { source, addresses, error, .. }| {
        let known = addresses_in_words(*addresses);
        format!("{source} can't be followed, so its last reading is kept ({known}): {error}")
    })
}

/// Whether the ends of links know each other.
fn notes_on_secrets(report: &Report) -> Vec<String> {
    let mut notes = Vec::new();
    if !report.unauthenticated.is_empty() {
        notes.push(format!(
            "the link secret of the leader and of consumers differs, or one of the two has none (--link-secret-file){}",
            tried(&report.unauthenticated)
        ));
    }
    if !report.open_consumers.is_empty() {
        notes.push(format!(
            "whoever reaches these consumers may claim to be the dispatcher (--link-secret-file on both sides){}",
            tried(&report.open_consumers)
        ));
    }
    notes
}

/// That a dispatcher's page is readable by whoever reaches its address.
fn open_metrics_of(member: &Member) -> Option<String> {
    let address = &member.report.as_ref()?.open_metrics;
    (!address.is_empty()).then(|| {
        format!(
            "{} serves its metrics and the status page at {address} without a token (--metrics-token-file)",
            member.id
        )
    })
}

/// What a shadow found missing, or too much.
fn difference_of(shadow: &ShadowMember) -> Option<String> {
    let report = shadow.report.as_ref()?;
    let (id, heard, stored) = (&shadow.id, report.compared.heard, report.compared.stored);
    (report.difference() != 0).then(|| {
        format!(
            "the shadow {id} heard {heard} messages where the group stored {stored} (docs/OPERATIONS.md, Differences \
             of a shadow)"
        )
    })
}

impl Part {
    /// Whether the status shows it as a figure of its own.
    fn is_shown(self) -> bool {
        !matches!(self, Part::Cursor | Part::Consumers | Part::Subscribers)
    }
}
