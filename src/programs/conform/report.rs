//! What a run found: a verdict for each case, as text and as JSON.

use std::fmt;

use serde_json::{Value, json};

use super::case::Case;
use crate::base::error::Error;
use crate::base::text::Escaped;

/// What a step expected, and what came instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What was expected.
    pub expected: String,
    /// What came.
    pub got: String,
    /// The frames that led to it, oldest first.
    pub frames: Vec<String>,
}

impl Failure {
    pub(super) fn new(expected: impl Into<String>, got: impl Into<String>) -> Failure {
        Failure { expected: expected.into(), got: got.into(), frames: Vec::new() }
    }
}

/// Why a case ends before its last step.
pub(super) enum Stop {
    /// The consumer has violated the protocol.
    Failed(Failure),
    /// The run can't continue.
    Ended(Error),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Stop {
        Stop::Failed(failure)
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Ended(error)
    }
}

/// What a case showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The consumer keeps the rule.
    Ok,
    /// It violates the rule.
    Failed(Failure),
    /// The case was not run, since it needs this.
    Skipped(String),
}

/// A case with its verdict.
#[derive(Clone, Debug)]
pub struct Judged {
    /// The case's name.
    pub name: String,
    /// The section of docs/PROTOCOL.md.
    pub section: String,
    /// The rule.
    pub rule: String,
    /// What it showed.
    pub verdict: Verdict,
}

impl Judged {
    pub(super) fn new(case: &Case, verdict: Verdict) -> Judged {
        Judged { name: case.name.clone(), section: case.section.clone(), rule: case.rule.clone(), verdict }
    }
}

/// The whole run.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The consumer's address.
    pub address: String,
    /// The consumer, as READY describes it.
    pub consumer: String,
    /// The cases, in the order in which they ran.
    pub cases: Vec<Judged>,
}

impl Report {
    fn count(&self, is: fn(&Verdict) -> bool) -> usize {
        self.cases.iter().filter(|case| is(&case.verdict)).count()
    }

    /// The names of the cases that failed.
    pub fn failed(&self) -> Vec<&str> {
        let failed = self.cases.iter().filter(|case| matches!(case.verdict, Verdict::Failed(_)));
        failed.map(|case| case.name.as_str()).collect()
    }

    /// The exit code of a program that reports this.
    pub fn exit_code(&self) -> u8 {
        if self.failed().is_empty() { 0 } else { 3 }
    }

    /// The last line.
    pub fn summary(&self) -> String {
        let skipped = self.count(|verdict| matches!(verdict, Verdict::Skipped(_)));
        let ok = self.count(|verdict| *verdict == Verdict::Ok);
        format!("{}: {ok} ok, {} failed, {skipped} skipped", self.consumer, self.failed().len())
    }

    /// All of it.
    pub fn to_json(&self) -> Value {
        let cases: Vec<Value> = self.cases.iter().map(case_as_json).collect();
        json!({
            "address": self.address,
            "consumer": self.consumer,
            "ok": self.count(|verdict| *verdict == Verdict::Ok),
            "failed": self.failed().len(),
            "skipped": self.count(|verdict| matches!(verdict, Verdict::Skipped(_))),
            "cases": cases,
        })
    }
}

fn case_as_json(case: &Judged) -> Value {
    let Judged { name, section, rule, verdict } = case;
    let mut value = json!({ "name": name, "section": section, "rule": rule });
    match verdict {
        Verdict::Ok => value["verdict"] = "ok".into(),
        Verdict::Failed(Failure { expected, got, frames }) => {
            value["verdict"] = "failed".into();
            value["expected"] = expected.as_str().into();
            value["got"] = got.as_str().into();
            value["frames"] = json!(frames);
        }
        Verdict::Skipped(needs) => {
            value["verdict"] = "skipped".into();
            value["needs"] = needs.as_str().into();
        }
    }
    value
}

impl fmt::Display for Judged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Judged { name, section, rule, verdict } = self;
        let place = format!("{name:<33} {section:<4}");
        match verdict {
            Verdict::Ok => writeln!(f, "ok       {}", place.trim_end()),
            Verdict::Skipped(needs) => writeln!(f, "skipped  {place} needs {needs}"),
            Verdict::Failed(Failure { expected, got, frames }) => {
                writeln!(f, "FAIL     {place} {rule}")?;
                writeln!(f, "           expected: {}", Escaped(expected))?;
                writeln!(f, "           got:      {}", Escaped(got))?;
                frames.iter().try_for_each(|line| writeln!(f, "           | {}", Escaped(line)))
            }
        }
    }
}
