//! What an audit found, and its text.

use std::fmt::{self, Write};

use serde_json::{Map, Value, json};

use crate::base::text::Escaped;
use crate::ledger::LaneNumber;
use crate::programs::status::json_text;

/// The longest part of an id that is shown.
const MAX_SHOWN_BYTES: usize = 100;

/// What an audit found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditReport {
    /// Entries in the result stream.
    pub entries: u64,
    /// Different ids in it.
    pub distinct: u64,
    /// Ids that were recorded more than once.
    pub twice: u64,
    /// Entries that repeat an id.
    pub extra: u64,
    /// Entries without the field that holds the id.
    pub without_id: u64,
    /// Expected ids that are neither recorded nor dead letters nor pending; `None` if it is not known what is expected.
    pub lost: Option<u64>,
    /// Recorded ids that were not expected; if only a number was given, the ids beyond it.
    pub foreign: Option<u64>,
    /// Messages that are pending.
    pub pending: u64,
    /// Dead letters.
    pub dead: u64,
    /// Pending messages and dead letters whose payload has no id; counted only if it is known what is expected.
    pub unnamed: u64,
    /// Some ids recorded more than once.
    pub twice_examples: Vec<String>,
    /// Some lost ids; none if only a number was given.
    pub lost_examples: Vec<String>,
    /// Some foreign ids; none if only a number was given.
    pub foreign_examples: Vec<String>,
    /// What was counted in each lane, if the group has several.
    pub lanes: Vec<LaneCounts>,
    /// The lanes that could not be read: all counts lack them, and what is lost is not known.
    pub unread: Vec<UnreadLane>,
}

/// A lane that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreadLane {
    /// Its number.
    pub number: LaneNumber,
    /// Its node, and what is wrong with it.
    pub problem: String,
}

/// What was counted in one lane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaneCounts {
    /// Its number.
    pub number: LaneNumber,
    /// Entries in its result stream.
    pub entries: u64,
    /// Different ids in it.
    pub distinct: u64,
    /// Ids that were recorded more than once in this lane.
    pub twice: u64,
    /// Entries without the field that holds the id.
    pub without_id: u64,
    /// Messages that are pending in it.
    pub pending: u64,
    /// Its dead letters.
    pub dead: u64,
    /// Whether it could not be read.
    pub unread: bool,
}

impl LaneCounts {
    fn to_json(&self) -> Value {
        if self.unread {
            return Value::Null;
        }
        json!({
            "results": self.entries,
            "distinct_ids": self.distinct,
            "recorded_twice": self.twice,
            "without_id": self.without_id,
            "pending": self.pending,
            "dead_letters": self.dead,
        })
    }
}

impl AuditReport {
    /// Adds what was counted in each lane.
    pub(super) fn add_up(&mut self, lanes: Vec<LaneCounts>) {
        let sum = |pick: fn(&LaneCounts) -> u64| lanes.iter().map(pick).sum();
        self.pending = sum(|lane| lane.pending);
        self.dead = sum(|lane| lane.dead);
        self.without_id = sum(|lane| lane.without_id);
        self.lanes = if lanes.len() > 1 { lanes } else { Vec::new() };
    }

    /// The report as JSON on one line.
    pub(super) fn json(&self) -> String {
        let lanes = self.lanes.iter().map(|lane| (lane.number.to_string(), lane.to_json())).collect::<Map<_, _>>();
        let json = json!({
            "results": self.entries,
            "distinct_ids": self.distinct,
            "recorded_twice": self.twice,
            "extra_entries": self.extra,
            "without_id": self.without_id,
            "pending": self.pending,
            "dead_letters": self.dead,
            "unrecorded_without_id": self.unnamed,
            "lost": self.lost,
            "foreign": self.foreign,
            "recorded_twice_examples": self.twice_examples,
            "lost_examples": self.lost_examples,
            "foreign_examples": self.foreign_examples,
            "clean": self.is_clean(),
            "verdict": self.verdict(),
            "lanes": Some(lanes).filter(|lanes| !lanes.is_empty()),
            "unread_lanes": self.unread.iter().map(|lane| (lane.number.to_string(), lane.problem.clone().into()))
                .collect::<Map<_, _>>(),
        });
        json_text(&json) + "\n"
    }

    /// A line for each lane, if there are several.
    fn lanes_in_words(&self) -> String {
        let mut text = String::new();
        if !self.lanes.is_empty() {
            text += "lane       results  distinct ids  recorded twice  without an id    pending  dead letters\n";
        }
        for LaneCounts { number, entries, distinct, twice, without_id, pending, dead, .. } in &self.lanes {
            // Writing to a text can't fail.
            if let Some(lane) = self.unread.iter().find(|lane| lane.number == *number) {
                let _ = writeln!(text, "{number:<5} could not be read: {}", Escaped(&lane.problem));
                continue;
            }
            let _ = writeln!(
                text,
                "{number:<5} {entries:>12}  {distinct:>12}  {twice:>14}  {without_id:>13}  {pending:>9}  {dead:>12}"
            );
        }
        if !self.lanes.is_empty() {
            text += "\n";
            text += if self.is_whole() { "all lanes:\n" } else { "the lanes that could be read:\n" };
        }
        text
    }

    /// Whether all lanes could be read.
    pub fn is_whole(&self) -> bool {
        self.unread.is_empty()
    }

    /// Whether all was read, and nothing was found to be lost or recorded twice.
    pub fn is_clean(&self) -> bool {
        self.is_whole() && self.twice == 0 && self.lost.unwrap_or(0) == 0
    }

    /// The exit code of a program that reports these results: 0, or 3 if something was lost or recorded twice, or if
    /// that is not known of a lane.
    pub fn exit_code(&self) -> u8 {
        if self.is_clean() { 0 } else { 3 }
    }

    fn verdict(&self) -> String {
        let (twice, pending) = (self.twice, self.pending);
        if !self.is_whole() {
            let numbers: Vec<String> = self.unread.iter().map(|lane| lane.number.to_string()).collect();
            let lanes = if numbers.len() == 1 { "lane" } else { "lanes" };
            let found = if twice > 0 { format!("FAILED: {twice} recorded twice, and") } else { "unknown:".to_owned() };
            return format!(
                "{found} {lanes} {} could not be read, so nothing is known of what is there",
                numbers.join(", ")
            );
        }
        match (self.is_clean(), self.lost) {
            (true, None) => "nothing recorded twice; use --expect or --ids to find lost messages".to_owned(),
            (true, Some(_)) if pending > 0 => {
                format!("clean so far: nothing lost or recorded twice; {pending} were pending when the audit began")
            }
            (true, Some(_)) => "clean: nothing lost, nothing recorded twice".to_owned(),
            (false, None) => format!("FAILED: {twice} recorded twice"),
            (false, Some(lost)) if twice == 0 && lost <= self.without_id => {
                format!("unknown: {lost} lost, unless they are among the {} results without an id", self.without_id)
            }
            (false, Some(lost)) => format!("FAILED: {lost} lost, {twice} recorded twice"),
        }
    }
}

impl fmt::Display for AuditReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lanes_in_words())?;
        let mut line = |name: &str, number: Option<u64>, note: &str, examples: &[String]| {
            let shown = number.map_or_else(|| "unknown".to_owned(), |number| number.to_string());
            let space = if note.is_empty() { "" } else { "  " };
            writeln!(f, "{name:<18}{shown:>12}{space}{note}")?;
            examples.iter().try_for_each(|id| writeln!(f, "{:>32}{}", "", EscapedId(id)))?;
            let more = number.unwrap_or(0).saturating_sub(examples.len() as u64);
            if examples.is_empty() || more == 0 { Ok(()) } else { writeln!(f, "{:>32}and {more} more", "") }
        };
        let extra = if self.twice > 0 { format!("{} entries too many", self.extra) } else { String::new() };
        line("results", Some(self.entries), "", &[])?;
        line("distinct ids", Some(self.distinct), "", &[])?;
        line("recorded twice", Some(self.twice), &extra, &self.twice_examples)?;
        let may_be_lost = self.without_id > 0 && self.lost.is_some_and(|lost| lost > 0);
        let note = if may_be_lost { "results whose message may be counted as lost; see --id-field" } else { "" };
        line("without an id", Some(self.without_id), note, &[])?;
        let note = if self.pending > 0 { "when the audit began" } else { "" };
        line("pending", Some(self.pending), note, &[])?;
        line("dead letters", Some(self.dead), "", &[])?;
        if self.unnamed > 0 {
            let note = "pending messages or dead letters; they may be counted as lost";
            line("  without an id", Some(self.unnamed), note, &[])?;
        }
        line("lost", self.lost, "", &self.lost_examples)?;
        line("foreign", self.foreign, "", &self.foreign_examples)?;
        writeln!(f, "verdict: {}", self.verdict())
    }
}

/// An id on one line, truncated if it is long.
struct EscapedId<'a>(&'a str);

impl fmt::Display for EscapedId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = crate::base::text::beginning(self.0, MAX_SHOWN_BYTES);
        let cut = if kept.len() < self.0.len() { "…" } else { "" };
        write!(f, "{}{cut}", kept.escape_debug())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clean_report_reads_well() {
        let report = AuditReport { entries: 3, distinct: 3, lost: Some(0), foreign: Some(0), ..Default::default() };
        assert!(report.is_clean());
        let expected = "\
results                      3
distinct ids                 3
recorded twice               0
without an id                0
pending                      0
dead letters                 0
lost                         0
foreign                      0
verdict: clean: nothing lost, nothing recorded twice
";
        assert_eq!(report.to_string(), expected);
    }

    #[test]
    fn lanes_are_counted_and_summed() {
        let lane = |number, entries| LaneCounts { number, entries, distinct: 1, dead: 2, ..LaneCounts::default() };
        let mut report = AuditReport { entries: 5, ..AuditReport::default() };
        report.add_up(vec![lane(0, 2)]);
        assert_eq!((report.dead, report.lanes.len()), (2, 0), "of one lane there is nothing more to say");
        report.add_up(vec![lane(0, 2), lane(31, 3)]);
        let text = report.to_string();
        assert!(text.starts_with("lane       results  distinct ids"), "{text}");
        assert!(text.contains("\n31               3             1               0  "), "{text}");
        assert!(text.contains("\nall lanes:\nresults                      5\n"), "{text}");
        let json: Value = serde_json::from_str(&report.json()).expect("JSON");
        assert_eq!((&json["lanes"]["31"]["results"], &json["dead_letters"]), (&json!(3), &json!(4)));
        assert_eq!((&json["lost"], &json["clean"]), (&Value::Null, &json!(true)));
    }

    #[test]
    fn trouble_is_named_with_examples() {
        let report = AuditReport {
            twice: 1,
            extra: 2,
            lost: Some(2),
            unnamed: 4,
            twice_examples: vec!["a\nb".to_owned()],
            lost_examples: vec!["é".repeat(60)],
            ..Default::default()
        };
        assert!(!report.is_clean());
        let text = report.to_string();
        for part in [
            "1  2 entries too many\n",
            " a\\nb\n",
            "é…\n",
            " and 1 more\n",
            "FAILED: 2 lost, 1 recorded twice",
            "unknown\n",
        ] {
            assert!(text.contains(part), "{part:?} is missing in\n{text}");
        }
        assert!(AuditReport::default().to_string().contains("--expect or --ids"));
        let pending = AuditReport { pending: 7, lost: Some(0), ..Default::default() };
        assert!(pending.is_clean() && pending.to_string().contains("7 were pending"));
    }
}
