//! A group's status as text for people and as JSON for programs and the status page.

use std::fmt;

use serde_json::{Value, json};

use super::delivery::DeliveryReport;
use super::order::OrderReport;
use super::records;
use super::report::{ConsumerReport, Rates, SourceReport, tenths};
use super::shadow::ShadowMember;
use super::state::{Member, SHOWN_GAPS, Status};
use crate::base::id::wall_clock_us;
use crate::base::text::{Escaped, Inert, Quoted};
use crate::ledger::overview::Part;
use crate::ledger::reading::RecordedGap;
use crate::process::log::Timestamp;

/// For figures that only a leader knows.
const UNKNOWN: &str = "unknown, since no leader reports";
/// For a dispatcher or shadow without a report.
const NOT_REPORTING: &str = "does not report";
/// The same while Redis refuses to write reports.
pub(super) const NOT_WRITTEN: &str = "can't report now, since Redis refuses to write reports (NOREPLICAS)";
/// For figures that Redis refuses to give; a note names the command.
const REFUSED: &str = "unknown, see the note above";

impl Status {
    /// The status as JSON.
    pub fn to_json(&self) -> Value {
        let problems = self.problems();
        let leader = self.leader().map(|leader| {
            json!({
                "id": leader.holder,
                "name": leader.name(),
                "epoch": leader.epoch.0,
                "by_time": leader.by_time,
                "lease_left_ms": self.lease_left_ms(),
            })
        });
        let snapshot = &self.snapshot;
        json!({
            "group": self.group,
            "channel": self.channel(),
            "time": Timestamp(self.now_us).to_string(),
            "health": if problems.is_empty() { "ok" } else { "attention" },
            "problems": problems,
            "notes": self.notes(),
            "leader": leader,
            "epoch": self.known(Part::Epoch, snapshot.epoch.0),
            "node": self.leaders_report().map(|report| &report.node).filter(|node| !node.is_empty()),
            "dispatchers": self.members.iter().map(Member::to_json).collect::<Value>(),
            "shadows": self.shadows.iter().map(ShadowMember::to_json).collect::<Value>(),
            "consumers": self.consumers_to_json(),
            "delivery": self.delivery().map(DeliveryReport::to_json),
            "sources": self.sources().iter().map(SourceReport::to_json).collect::<Value>(),
            "stream": self.stream(),
            "stream_entries": self.stream_entries,
            "pending": self.known(Part::Pending, snapshot.pending),
            "oldest_age_s": self.oldest_age().map(|age| (age.as_secs_f64() * 1e3).round() / 1e3),
            "in_flight": self.in_flight(),
            "spilled": self.spilled(),
            "results": self.known(Part::Results, snapshot.processed),
            "delayed": self.delayed(),
            "next_retry_ms": self.next_retry().map(|left| left.as_millis() as u64),
            "order": self.leaders_report().and_then(|report| report.order.as_ref()).map(OrderReport::to_json),
            "dead_letters": self.known(Part::Dead, snapshot.dead),
            "recent_dead_letters": self.letters.as_deref().map(records::letters),
            "recent_deaths": self.recent_deaths(),
            "gaps": self.known(Part::Gaps, snapshot.gaps),
            "recent_gaps": self.known(Part::RecentGaps, records::gaps(&self.gaps)),
            "rates": self.rates().map(Rates::to_json),
            "redis_warnings": self.redis_warnings(),
        })
    }

    /// The channel that the group subscribes to, as reported by the leader, or else by any dispatcher.
    fn channel(&self) -> Option<&str> {
        let mut reports = self.members.iter().filter_map(|member| member.report.as_ref());
        let channel = &self.leaders_report().or_else(|| reports.next_back())?.channel;
        // Dispatchers of older versions do not report it.
        (!channel.is_empty()).then_some(channel)
    }

    fn lease_left_ms(&self) -> Option<u64> {
        let left = self.snapshot.lease_left.unwrap_or_default();
        self.known(Part::LeaseLeft, left.as_millis() as u64)
    }

    /// The lists of consumers that the leader follows.
    fn sources(&self) -> &[SourceReport] {
        self.leaders_report().map(|report| report.sources.as_slice()).unwrap_or_default()
    }

    /// The consumers that are linked, and the addresses where none is.
    fn consumers_to_json(&self) -> Value {
        let Some(report) = self.leaders_report() else { return json!([]) };
        let linked = report.consumers.iter().map(|consumer| {
            let mut json = consumer.to_json();
            json["state"] = state_of(consumer).into();
            json
        });
        let missing = report.missing.iter().map(|address| json!({"address": address, "state": UNREACHABLE}));
        linked.chain(missing).collect()
    }
}

/// The state of an address at which no consumer is linked.
const UNREACHABLE: &str = "unreachable";

/// The state of a consumer that is linked.
fn state_of(consumer: &ConsumerReport) -> &'static str {
    match consumer {
        ConsumerReport { leaving: true, .. } => "leaving",
        ConsumerReport { draining: true, .. } => "draining",
        ConsumerReport { prefetch: 0, .. } => "paused",
        _ => "linked",
    }
}

/// JSON on one line, with control characters escaped so that they can't affect a terminal.
pub fn json_text(json: &Value) -> String {
    // Such a character can only be in a string.
    Inert(json).to_string()
}

/// The status of a group that could not be checked.
pub fn failure_to_json(group: &str, problem: &str) -> Value {
    json!({
        "group": group,
        "time": Timestamp(wall_clock_us()).to_string(),
        "health": "attention",
        "problems": [problem],
    })
}

impl Member {
    fn to_json(&self) -> Value {
        let report = self.report.clone().unwrap_or_default();
        json!({
            "id": self.id,
            "name": self.name(),
            "version": report.version,
            "role": if report.leads { "leader" } else { "standby" },
            "epoch": report.epoch,
            "in_sync": report.in_sync,
            "uptime_s": tenths(report.uptime_s),
            "ring_bytes": report.ring_bytes,
            "reporting": self.report.is_some(),
        })
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let problems = self.problems();
        // Ids have any length: the column fits the longest one that is shown.
        let width = self.names().map(|name| name.chars().count()).max().unwrap_or(0).max(NAME_COLUMNS);
        // Line breaks in values from Redis are escaped.
        let mut line = |name: &str, text: String| writeln!(f, "{name:<width$} {}", Escaped(text));
        let health = if problems.is_empty() { "ok" } else { "needs attention" };
        line("group", format!("{}: {health}", self.group))?;
        problems.into_iter().try_for_each(|problem| line("problem", problem))?;
        self.notes().into_iter().try_for_each(|note| line("note", note))?;
        self.redis_warnings().into_iter().try_for_each(|warning| line("redis", warning))?;
        line(
            "channel",
            self.channel().map_or_else(|| "unknown, since no dispatcher reports it".to_owned(), str::to_owned),
        )?;
        line("leader", self.leader_in_words())?;
        line("dispatchers", self.members.len().to_string())?;
        for member in &self.members {
            line(&name_of(&member.id), member.in_words(self.without_report()))?;
        }
        self.show_shadows(&mut line)?;
        self.show_consumers(&mut line)?;
        let or_unknown = |part, count: u64| self.known(part, count.to_string()).unwrap_or_else(|| REFUSED.to_owned());
        self.delivery().and_then(DeliveryReport::in_words).map_or(Ok(()), |words| line("delivery", words))?;
        line("pending", self.pending_in_words())?;
        let order = self.leaders_report().and_then(|report| report.order.as_ref());
        order.map_or(Ok(()), |order| line("order", order.in_words()))?;
        line("per second", self.rates().map_or_else(|| UNKNOWN.to_owned(), Rates::in_words))?;
        line("results", or_unknown(Part::Results, self.snapshot.processed))?;
        line("dead letters", or_unknown(Part::Dead, self.snapshot.dead))?;
        line("gaps", or_unknown(Part::Gaps, self.snapshot.gaps))?;
        for gap in &self.gaps {
            let RecordedGap { at_ms, reason, dispatcher, count, .. } = gap;
            let at = Timestamp(at_ms * 1_000);
            let since = records::begun(gap).map_or_else(|| "an unknown time".to_owned(), |since| since.to_string());
            let many = match count.as_str() {
                "unknown" => "how many are missing, if any, is unknown".to_owned(),
                count => format!("messages: {count}"),
            };
            let gap = format!("{at} {reason}, found by {dispatcher}: published since {since}, {many}");
            writeln!(f, "  {}", Escaped(gap))?;
        }
        let more = self.snapshot.gaps.saturating_sub(SHOWN_GAPS as u64);
        if more > 0 {
            writeln!(f, "  and {more} older ones in the stream {}:gaps", self.group)?;
        }
        Ok(())
    }
}

/// The least width of the column of names.
const NAME_COLUMNS: usize = 13;
/// The longest id that is shown whole.
const MAX_ID_CHARS: usize = 40;

/// A dispatcher or consumer as the name of a line; a long id is shortened in the middle, since ids differ at their
/// ends.
fn name_of(id: &str) -> String {
    let shown: Vec<char> = Quoted(id).to_string().chars().collect();
    if shown.len() <= MAX_ID_CHARS {
        return format!("  {}", shown.iter().collect::<String>());
    }
    let half = (MAX_ID_CHARS - 1) / 2;
    let [head, tail] = [&shown[..half], &shown[shown.len() - half..]].map(|part| part.iter().collect::<String>());
    format!("  {head}…{tail}")
}

impl Rates {
    fn in_words(self) -> String {
        let Rates { published, taken_in, dispatched, acked, redelivered } = self;
        format!(
            "published {published:.0}, stored {taken_in:.0}, delivered {dispatched:.0}, acknowledged {acked:.0}, \
             redelivered {redelivered:.0}"
        )
    }
}

impl Status {
    fn names(&self) -> impl Iterator<Item = String> {
        let shadows = self.shadows.iter().map(|shadow| name_of(&shadow.id));
        let members = self.members.iter().map(|member| name_of(&member.id)).chain(shadows);
        let consumers = self.leaders_report().into_iter().flat_map(|report| &report.consumers);
        members.chain(consumers.map(|consumer| name_of(&consumer.id)))
    }

    fn leader_in_words(&self) -> String {
        let last_epoch = || self.known(Part::Epoch, self.snapshot.epoch.to_string());
        match (self.leader(), &self.snapshot.lease) {
            (Some(leader), _) => {
                let left = self.lease_left_ms().map(|left| format!(", lease expires in {left} ms"));
                format!("{}, epoch {}{}", leader.holder, leader.epoch, left.unwrap_or_default())
            }
            (None, Some(lease)) => format!("none; the last one, {}, is gone", lease.holder),
            (None, None) if self.refused.contains(&Part::Lease) => REFUSED.to_owned(),
            (None, None) => format!("none; the last epoch was {}", last_epoch().unwrap_or_else(|| REFUSED.to_owned())),
        }
    }

    fn stream_in_words(&self, key: &str) -> String {
        match self.stream_entries {
            Some(entries) => format!("{}, {entries} entries", Quoted(key)),
            None => Quoted(key).to_string(),
        }
    }

    fn pending_in_words(&self) -> String {
        let Some(pending) = self.known(Part::Pending, self.snapshot.pending) else { return REFUSED.to_owned() };
        let age = self.oldest_age().map(|age| format!(", the oldest for {:.1} s", age.as_secs_f64()));
        let spilled = self.spilled().filter(|spilled| *spilled > 0);
        let spilled = spilled.map(|spilled| format!(", about {spilled} in Redis only"));
        let delayed = self.delayed().filter(|delayed| *delayed > 0);
        let next = self.next_retry().map(|left| format!(", the next in {:.1} s", left.as_secs_f64()));
        let next = next.unwrap_or_default();
        let delayed = delayed.map(|delayed| format!(", {delayed} waiting for another delivery{next}"));
        let notes: String = [age, spilled, delayed].into_iter().flatten().collect();
        format!("{pending}{notes}")
    }

    /// What is said of a dispatcher or shadow without a report.
    fn without_report(&self) -> &'static str {
        if self.refuses_reports() { NOT_WRITTEN } else { NOT_REPORTING }
    }

    fn show_shadows(&self, line: &mut impl FnMut(&str, String) -> fmt::Result) -> fmt::Result {
        if !self.shadows.is_empty() {
            line("shadows", self.shadows.len().to_string())?;
        }
        for shadow in &self.shadows {
            let (received, compared) = shadow.in_words(self.without_report());
            line(&name_of(&shadow.id), received)?;
            compared.map_or(Ok(()), |compared| line("", compared))?;
        }
        Ok(())
    }

    fn show_consumers(&self, line: &mut impl FnMut(&str, String) -> fmt::Result) -> fmt::Result {
        let Some(report) = self.leaders_report() else {
            return line("consumers", UNKNOWN.to_owned());
        };
        if !report.stream.is_empty() {
            return line("stream", self.stream_in_words(&report.stream));
        }
        line("consumers", report.consumers.len().to_string())?;
        for consumer in &report.consumers {
            let (in_flight, prefetch, rate) = (consumer.in_flight, consumer.prefetch, consumer.acked_per_s);
            let state = state_of(consumer);
            let place = if consumer.address.is_empty() { String::new() } else { format!("{} ", consumer.address) };
            line(
                &name_of(&consumer.id),
                format!("{place}{state}, {in_flight} of {prefetch} in flight, {rate:.0} per second"),
            )?;
        }
        report.missing.iter().try_for_each(|address| line("  -", format!("{address} {UNREACHABLE}")))?;
        report.sources.iter().try_for_each(|source| line("found by", source.in_words()))
    }
}

impl SourceReport {
    fn in_words(&self) -> String {
        let SourceReport { source, addresses, answer_age_s, error } = self;
        let age = answer_age_s.map_or_else(|| "never".to_owned(), |age| format!("{age:.0} s ago"));
        let error = if error.is_empty() { String::new() } else { format!(", now: {error}") };
        format!("{source}: {}, answered {age}{error}", addresses_in_words(*addresses))
    }
}

/// So many addresses.
pub(super) fn addresses_in_words(count: u64) -> String {
    if count == 1 { "1 address".to_owned() } else { format!("{count} addresses") }
}

impl Member {
    fn in_words(&self, without_report: &str) -> String {
        let Some(report) = &self.report else { return without_report.to_owned() };
        let role = if report.leads { "leader" } else { "standby" };
        let sync = match (&report.trouble, report.leads, report.in_sync) {
            (Some(trouble), ..) => format!(", {trouble}"),
            (None, false, true) => ", in sync".to_owned(),
            (None, ..) => String::new(),
        };
        let (uptime, ring) = (report.uptime_s, report.ring_bytes);
        format!("{role}{sync}, version {}, up for {uptime:.0} s, ring {ring} bytes", report.version)
    }
}
