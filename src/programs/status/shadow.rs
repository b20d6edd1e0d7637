//! A shadow's report, written once a second: a JSON object under `<group>:status:shadow:<id>`.
//!
//! It is only shown. Missing fields and fields of another type are read as zero or empty, as in a dispatcher's report.

use serde_json::{Value, json};

use super::report::{count_of, number_of, tenths, text_of};
use crate::ledger::overview::DispatcherReport;

/// A shadow that is subscribed.
#[derive(Clone, Debug)]
pub struct ShadowMember {
    /// Its id.
    pub id: String,
    /// Its last report, if that is at most a few seconds old.
    pub report: Option<ShadowReport>,
}

/// See the module's text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ShadowReport {
    /// The program's version.
    pub version: String,
    /// What it listens to.
    pub channel: String,
    /// `comparing`, `waiting`, `no group`, `other interests` or `not subscribed`.
    pub state: String,
    /// Why it could not do its work the last time, if it could not.
    pub trouble: Option<String>,
    /// Seconds since its start.
    pub uptime_s: f64,
    /// Messages received since then, and the bytes of their payloads.
    pub messages: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
    /// Bytes of the largest payload.
    pub largest_bytes: u64,
    /// Copies that did not count because another interest owns the message.
    pub overlaps: u64,
    /// Messages in the last second.
    pub messages_per_s: f64,
    /// Bytes in the last second.
    pub bytes_per_s: f64,
    /// Messages in the busiest second.
    pub busiest_per_s: f64,
    /// What was compared.
    pub compared: Compared,
}

/// What a shadow has compared.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Compared {
    /// For how long, in seconds.
    pub seconds: f64,
    /// Messages that the cursor moved over, as the shadow heard them.
    pub heard: u64,
    /// By how many the group's pending messages, results, dead letters and entries rose.
    pub stored: i64,
    /// Gaps that the group recorded meanwhile.
    pub gaps: u64,
    /// Whether entries that were deleted from streams are counted.
    pub exact: bool,
    /// How often the comparison began anew.
    pub restarts: u64,
    /// Why the last time.
    pub last_restart: Option<String>,
}

/// What its state says while it compares.
pub const COMPARING: &str = "comparing";

impl ShadowMember {
    pub(super) fn new(found: DispatcherReport) -> ShadowMember {
        ShadowMember { id: found.id, report: found.report.as_deref().and_then(ShadowReport::parse) }
    }

    pub fn to_json(&self) -> Value {
        let mut json = self.report.clone().unwrap_or_default().to_json();
        json["id"] = self.id.as_str().into();
        json["reporting"] = self.report.is_some().into();
        json
    }

    /// What it received and what it compared, a line each; `without_report` if it reports nothing.
    pub(super) fn in_words(&self, without_report: &str) -> (String, Option<String>) {
        match &self.report {
            Some(report) => (report.in_words(), report.compared_in_words()),
            None => (without_report.to_owned(), None),
        }
    }
}

impl ShadowReport {
    /// The JSON that is written.
    pub fn to_json(&self) -> Value {
        let Compared { seconds, heard, stored, gaps, exact, restarts, last_restart } = &self.compared;
        json!({
            "version": self.version,
            "channel": self.channel,
            "state": self.state,
            "trouble": self.trouble,
            "uptime_s": tenths(self.uptime_s),
            "messages": self.messages,
            "bytes": self.bytes,
            "largest_bytes": self.largest_bytes,
            "overlaps": self.overlaps,
            "messages_per_s": tenths(self.messages_per_s),
            "bytes_per_s": tenths(self.bytes_per_s),
            "busiest_per_s": tenths(self.busiest_per_s),
            "compared": {
                "seconds": tenths(*seconds),
                "heard": heard,
                "stored": stored,
                "difference": self.difference(),
                "gaps": gaps,
                "exact": exact,
                "restarts": restarts,
                "last_restart": last_restart,
            },
        })
    }

    /// Parses a report; `None` if it is not a JSON object.
    pub fn parse(text: &str) -> Option<ShadowReport> {
        let report: Value = serde_json::from_str(text).ok().filter(Value::is_object)?;
        let compared = &report["compared"];
        Some(ShadowReport {
            version: text_of(&report["version"]),
            channel: text_of(&report["channel"]),
            state: text_of(&report["state"]),
            trouble: report["trouble"].as_str().map(str::to_owned),
            uptime_s: number_of(&report["uptime_s"]),
            messages: count_of(&report["messages"]),
            bytes: count_of(&report["bytes"]),
            largest_bytes: count_of(&report["largest_bytes"]),
            overlaps: count_of(&report["overlaps"]),
            messages_per_s: number_of(&report["messages_per_s"]),
            bytes_per_s: number_of(&report["bytes_per_s"]),
            busiest_per_s: number_of(&report["busiest_per_s"]),
            compared: Compared {
                seconds: number_of(&compared["seconds"]),
                heard: count_of(&compared["heard"]),
                stored: compared["stored"].as_i64().unwrap_or_default(),
                gaps: count_of(&compared["gaps"]),
                exact: compared["exact"].as_bool().unwrap_or_default(),
                restarts: count_of(&compared["restarts"]),
                last_restart: compared["last_restart"].as_str().map(str::to_owned),
            },
        })
    }

    /// How many messages were heard and not stored; negative if more were stored.
    pub fn difference(&self) -> i64 {
        i64::try_from(self.compared.heard).unwrap_or(i64::MAX).saturating_sub(self.compared.stored)
    }

    /// Its state and what it received, on one line.
    fn in_words(&self) -> String {
        let trouble = self.trouble.as_ref().map(|trouble| format!(" ({trouble})")).unwrap_or_default();
        let ShadowReport { state, uptime_s, messages, bytes, largest_bytes, overlaps, .. } = self;
        let (now, busiest) = (self.messages_per_s, self.busiest_per_s);
        format!(
            "{state}{trouble}, up for {uptime_s:.0} s: {messages} messages, {bytes} bytes, the largest \
             {largest_bytes}; {now:.0} per second, {busiest:.0} in the busiest; overlaps {overlaps}"
        )
    }

    /// What it compared, on one line; `None` if it has compared nothing yet.
    fn compared_in_words(&self) -> Option<String> {
        let Compared { seconds, heard, stored, gaps, exact, restarts, last_restart } = &self.compared;
        if self.state != COMPARING && *seconds == 0.0 {
            return None;
        }
        let exact = if *exact { "" } else { " (trimmed or deleted entries count as not stored: Redis before 7)" };
        let restarts = match last_restart {
            Some(why) => format!(", restarts {restarts}, the last because {why}"),
            None => String::new(),
        };
        Some(format!(
            "compared for {seconds:.0} s: heard {heard}, stored {stored}, difference {}{exact}, gaps {gaps}{restarts}",
            self.difference()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> ShadowReport {
        ShadowReport {
            version: "0.1.0".into(),
            channel: "orders.*".into(),
            state: COMPARING.into(),
            trouble: Some("a \"quoted\" reason".into()),
            uptime_s: 12.3,
            messages: 700,
            bytes: 70_000,
            largest_bytes: 150,
            overlaps: 30,
            messages_per_s: 60.5,
            bytes_per_s: 6_050.0,
            busiest_per_s: 80.0,
            compared: Compared {
                seconds: 10.0,
                heard: 600,
                stored: -5,
                gaps: 2,
                exact: true,
                restarts: 1,
                last_restart: Some("its subscription dropped".into()),
            },
        }
    }

    #[test]
    fn it_reads_back() {
        assert_eq!(ShadowReport::parse(&report().to_json().to_string()), Some(report()));
        assert_eq!(ShadowReport::parse("{}"), Some(ShadowReport::default()));
        assert_eq!((ShadowReport::parse("[]"), ShadowReport::parse("no JSON")), (None, None));
        let forged = format!(r#"{{"compared":{{"heard":1,"stored":{}}}}}"#, i64::MIN);
        assert_eq!(ShadowReport::parse(&forged).map(|report| report.difference()), Some(i64::MAX));
    }

    #[test]
    fn a_difference_is_what_was_heard_and_not_stored() {
        assert_eq!(report().difference(), 605);
        let words = report().compared_in_words().expect("it has compared");
        for part in ["heard 600, stored -5, difference 605", "gaps 2", "restarts 1, the last because"] {
            assert!(words.contains(part), "{words}");
        }
        let starting = ShadowReport { state: "no group".into(), ..ShadowReport::default() };
        assert_eq!(starting.compared_in_words(), None);
    }
}
