//! What an audit found, and its text.

use std::fmt;

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
}

impl AuditReport {
    /// Whether nothing was found to be lost or recorded twice.
    pub fn is_clean(&self) -> bool {
        self.twice == 0 && self.lost.unwrap_or(0) == 0
    }

    /// The exit code of a program that reports these results: 0, or 3 if something was lost or recorded twice.
    pub fn exit_code(&self) -> u8 {
        if self.is_clean() { 0 } else { 3 }
    }

    fn verdict(&self) -> String {
        let (twice, pending) = (self.twice, self.pending);
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
        let mut line = |name: &str, number: Option<u64>, note: &str, examples: &[String]| {
            let number = number.map_or_else(|| "unknown".to_owned(), |number| number.to_string());
            let space = if note.is_empty() { "" } else { "  " };
            writeln!(f, "{name:<18}{number:>12}{space}{note}")?;
            examples.iter().try_for_each(|id| writeln!(f, "{:>32}{}", "", EscapedId(id)))
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
        for part in ["1  2 entries too many\n", " a\\nb\n", "é…\n", "FAILED: 2 lost, 1 recorded twice", "unknown\n"]
        {
            assert!(text.contains(part), "{part:?} is missing in\n{text}");
        }
        assert!(AuditReport::default().to_string().contains("--expect or --ids"));
        let pending = AuditReport { pending: 7, lost: Some(0), ..Default::default() };
        assert!(pending.is_clean() && pending.to_string().contains("7 were pending"));
    }
}
