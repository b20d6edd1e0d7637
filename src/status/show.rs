//! A group's status as text for people and as JSON for programs and the status page.

use std::fmt;

use serde_json::{Value, json};

use super::report::{Rates, tenths};
use super::{Member, SHOWN_GAPS, Status};
use crate::id::{MessageId, wall_clock_us};
use crate::ledger::Cursor;
use crate::ledger::reading::RecordedGap;
use crate::log::{Quoted, Timestamp};

/// Only a leader knows it.
const UNKNOWN: &str = "unknown, since no leader reports";

impl Status {
    /// The same as the text, by name.
    pub fn to_json(&self) -> Value {
        let problems = self.problems();
        let leader = self.leader().map(|leader| {
            json!({
                "id": leader.holder,
                "name": leader.name(),
                "epoch": leader.epoch.0,
                "by_time": leader.by_time,
                "lease_left_ms": self.snapshot.lease_left.unwrap_or_default().as_millis() as u64,
            })
        });
        let consumers = self.leaders_report().map(|report| report.consumers.as_slice()).unwrap_or_default();
        json!({
            "group": self.group,
            "time": Timestamp(self.now_us).to_string(),
            "health": if problems.is_empty() { "ok" } else { "attention" },
            "problems": problems,
            "notes": self.notes(),
            "leader": leader,
            "epoch": self.snapshot.epoch.0,
            "dispatchers": self.members.iter().map(Member::to_json).collect::<Value>(),
            "consumers": consumers.iter().map(|consumer| consumer.to_json()).collect::<Value>(),
            "pending": self.snapshot.pending,
            "oldest_age_s": self.oldest_age().map(|age| (age.as_secs_f64() * 1e3).round() / 1e3),
            "spilled": self.spilled(),
            "results": self.snapshot.processed,
            "delayed": self.delayed(),
            "dead_letters": self.snapshot.dead,
            "recent_deaths": self.recent_deaths(),
            "gaps": self.snapshot.gaps,
            "recent_gaps": self.gaps.iter().map(gap_to_json).collect::<Value>(),
            "rates": self.rates().map(Rates::to_json),
            "redis_warnings": self.redis_warnings(),
        })
    }
}

/// What there is to say of a group that can't be looked at.
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

/// When the last message before a gap was taken in.
fn begun(cursor: &str) -> Option<Timestamp> {
    let last_id = cursor.parse::<Cursor>().ok()?.last_id;
    (last_id > MessageId::ZERO).then_some(Timestamp(last_id.0))
}

fn gap_to_json(gap: &RecordedGap) -> Value {
    json!({
        "time": Timestamp(gap.at_ms * 1_000).to_string(),
        "since": begun(&gap.begin).map(|since| since.to_string()),
        "reason": gap.reason,
        "dispatcher": gap.dispatcher,
        "messages": gap.count,
    })
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let problems = self.problems();
        let mut line = |name: &str, text: String| writeln!(f, "{name:<13} {text}");
        let health = if problems.is_empty() { "ok" } else { "needs attention" };
        line("group", format!("{}: {health}", self.group))?;
        problems.into_iter().try_for_each(|problem| line("problem", problem))?;
        self.notes().into_iter().try_for_each(|note| line("note", note))?;
        self.redis_warnings().into_iter().try_for_each(|warning| line("redis", warning))?;
        line("leader", self.leader_in_words())?;
        line("dispatchers", self.members.len().to_string())?;
        for member in &self.members {
            line(&format!("  {}", Quoted(&member.id)), member.in_words())?;
        }
        self.show_consumers(&mut line)?;
        let age = self.oldest_age().map(|age| format!(", the oldest for {:.1} s", age.as_secs_f64()));
        let spilled = self.spilled().filter(|spilled| *spilled > 0);
        let spilled = spilled.map(|spilled| format!(", about {spilled} in Redis alone"));
        let delayed = self.delayed().filter(|delayed| *delayed > 0);
        let delayed = delayed.map(|delayed| format!(", {delayed} waiting for another delivery"));
        let notes: String = [age, spilled, delayed].into_iter().flatten().collect();
        line("pending", format!("{}{notes}", self.snapshot.pending))?;
        line("per second", self.rates().map_or_else(|| UNKNOWN.to_owned(), Rates::in_words))?;
        line("results", self.snapshot.processed.to_string())?;
        line("dead letters", self.snapshot.dead.to_string())?;
        line("gaps", self.snapshot.gaps.to_string())?;
        for RecordedGap { at_ms, reason, dispatcher, begin, count, .. } in &self.gaps {
            let at = Timestamp(at_ms * 1_000);
            let since = begun(begin).map_or_else(|| "an unknown time".to_owned(), |since| since.to_string());
            writeln!(f, "  {at} {reason}, found by {dispatcher}: published since {since}, messages: {count}")?;
        }
        let more = self.snapshot.gaps.saturating_sub(SHOWN_GAPS as u64);
        if more > 0 {
            writeln!(f, "  and {more} older ones in the stream {}:gaps", self.group)?;
        }
        Ok(())
    }
}

impl Rates {
    fn in_words(self) -> String {
        let Rates { published, taken_in, dispatched, acked, redelivered } = self;
        format!(
            "published {published:.0}, taken in {taken_in:.0}, dispatched {dispatched:.0}, acknowledged {acked:.0}, \
             again {redelivered:.0}"
        )
    }
}

impl Status {
    fn leader_in_words(&self) -> String {
        match (self.leader(), &self.snapshot.lease) {
            (Some(leader), _) => {
                let left = self.snapshot.lease_left.unwrap_or_default().as_millis();
                format!("{}, epoch {}, lease for {left} ms more", leader.holder, leader.epoch)
            }
            (None, Some(lease)) => format!("none; {}, the last, is gone", lease.holder),
            (None, None) => format!("none; the last epoch was {}", self.snapshot.epoch),
        }
    }

    fn show_consumers(&self, line: &mut impl FnMut(&str, String) -> fmt::Result) -> fmt::Result {
        let Some(report) = self.leaders_report() else {
            return line("consumers", UNKNOWN.to_owned());
        };
        line("consumers", report.consumers.len().to_string())?;
        for consumer in &report.consumers {
            let (in_flight, prefetch, rate) = (consumer.in_flight, consumer.prefetch, consumer.acked_per_s);
            // Whatever a consumer calls itself, it stays in its line.
            line(
                &format!("  {}", Quoted(&consumer.id)),
                format!("{in_flight} of {prefetch} in flight, {rate:.0} per second"),
            )?;
        }
        Ok(())
    }
}

impl Member {
    fn in_words(&self) -> String {
        let Some(report) = &self.report else { return "does not report".to_owned() };
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
