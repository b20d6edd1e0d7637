//! What a run of `oncecast chaos` came to, as the last lines of its screen. Pure.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use super::settings::ChaosConfig;
use crate::lab::journal::Runs;
use crate::lab::trial::Findings;
use crate::lab::trial::screen::{Screen, Tone, grouped};
use crate::lab::trial::strikes::Struck;

/// See the module's text.
pub(super) struct Report<'a> {
    pub(super) config: &'a ChaosConfig,
    /// How many strikes there were to be.
    pub(super) planned: usize,
    /// What the consumers' journals hold.
    pub(super) runs: Runs,
    pub(super) findings: &'a Findings,
}

/// Strikes of one kind, and the times until results flowed again.
pub(super) struct Kind {
    pub(super) name: String,
    /// In order of length.
    pub(super) took: Vec<Duration>,
    /// After how many none were seen.
    pub(super) unseen: usize,
}

impl Kind {
    pub(super) fn median(&self) -> Option<Duration> {
        let last = self.took.len().checked_sub(1)?;
        Some((self.took[last / 2] + self.took[last.div_ceil(2)]) / 2)
    }

    pub(super) fn longest(&self) -> Option<Duration> {
        self.took.last().copied()
    }
}

impl Report<'_> {
    /// Whether every message that somebody received has one result.
    pub(super) fn is_clean(&self) -> bool {
        self.findings.audit.is_clean()
    }

    pub(super) fn lost(&self) -> u64 {
        self.findings.audit.lost.unwrap_or(0)
    }

    /// The strikes by kind.
    pub(super) fn kinds(&self) -> Vec<Kind> {
        let mut kinds: BTreeMap<String, Kind> = BTreeMap::new();
        for struck in &self.findings.struck {
            let name = kind_of(struck);
            let new = Kind { name: name.clone(), took: Vec::new(), unseen: 0 };
            let kind = kinds.entry(name).or_insert(new);
            match struck.took {
                Some(took) => kind.took.push(took),
                None => kind.unseen += 1,
            }
        }
        kinds.values_mut().for_each(|kind| kind.took.sort_unstable());
        kinds.into_values().collect()
    }

    /// A command that draws the same faults again.
    pub(super) fn command(&self) -> String {
        let ChaosConfig { plan, rate, batch, dispatchers, consumers, .. } = self.config;
        let time = |time: Duration| match time.as_millis() {
            ms if ms % 1_000 == 0 => format!("{}s", ms / 1_000),
            ms => format!("{ms}ms"),
        };
        let faults: Vec<&str> = plan.faults.iter().map(|fault| fault.name()).collect();
        format!(
            "oncecast chaos --seed {} --duration {} --rate {rate} --batch {} --every {} --least-outage {} --outage {} --faults {} --target {} \
             --dispatcher-count {dispatchers} --consumer-count {consumers}",
            plan.seed,
            time(plan.duration),
            batch.unwrap_or(0),
            time(plan.every),
            time(plan.least_outage),
            time(plan.outage),
            faults.join(","),
            plan.target.name()
        )
    }

    pub(super) fn lines<W: Write>(&self, screen: &Screen<W>) -> Vec<String> {
        let Findings { published, struck, timeline, audit, elapsed, .. } = self.findings;
        let good = |name: &str, number: u64| {
            let text = format!("{name} {}", grouped(number));
            screen.paint(if number == 0 { Tone::Good } else { Tone::Bad }, &text)
        };
        let equal = if audit.distinct == *published { "=" } else { "≠" };
        let counts = format!("published {} {equal} processed {}", grouped(*published), grouped(audit.distinct));
        let mut lines = vec![
            String::new(),
            format!(
                "  {}   {}   {}",
                screen.paint(Tone::Strong, &counts),
                good("lost", self.lost()),
                good("recorded twice", audit.twice)
            ),
            format!(
                "  handler runs {} (above one: {}), redelivered {}, in {:.1} s",
                grouped(self.runs.runs),
                grouped(self.runs.above_one()),
                grouped(self.runs.redelivered),
                elapsed.as_secs_f64()
            ),
            String::new(),
            format!(
                "  {} faults of {} planned (each waits until all is well again); until results flowed again:",
                struck.len(),
                self.planned
            ),
        ];
        lines.extend(self.kinds().iter().map(|kind| {
            let ms = |time: Option<Duration>| time.map_or("not seen".to_owned(), milliseconds);
            let unseen = if kind.unseen > 0 { format!("  in {} not seen", kind.unseen) } else { String::new() };
            let count = kind.took.len() + kind.unseen;
            format!(
                "    {:<22}{count:>4} ×  median {:>9}  longest {:>9}{unseen}",
                kind.name,
                ms(kind.median()),
                ms(kind.longest())
            )
        }));
        let peaks: Vec<String> =
            timeline.peaks.iter().map(|(name, bytes)| format!("{name} {}", megabytes(*bytes))).collect();
        lines.push(String::new());
        lines.push(format!("  most memory: {}", peaks.join(", ")));
        lines.push(format!("  {}", screen.paint(Tone::Faint, &self.command())));
        lines.push(String::new());
        if !self.is_clean() {
            lines.extend(audit.to_string().lines().map(|line| format!("  {line}")));
            lines.push(format!("  {}", screen.paint(Tone::Bad, "this must not happen: please report it")));
            lines.push(String::new());
        }
        lines
    }
}

/// What the times of strikes are compared by.
fn kind_of(struck: &Struck) -> String {
    let whom = match (struck.led, struck.whom.chars().next()) {
        (true, _) => " leader",
        (false, Some('d')) => " standby",
        (false, Some('c')) => " consumer",
        _ => "",
    };
    format!("{}{whom}", struck.fault)
}

pub(super) fn milliseconds(time: Duration) -> String {
    format!("{} ms", grouped(time.as_millis() as u64))
}

pub(super) fn megabytes(bytes: u64) -> String {
    format!("{} MB", bytes.div_ceil(1 << 20))
}
