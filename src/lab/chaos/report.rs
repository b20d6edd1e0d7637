//! The findings of `oncecast chaos` as its last lines of output. Pure.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use super::settings::ChaosConfig;
use crate::lab::console::{Console, Tone};
use crate::lab::experiment::Findings;
use crate::lab::experiment::injector::InjectedFault;
use crate::lab::journal::Runs;
use crate::lab::numbers::grouped;
use crate::lab::settings::Deliver;
use crate::lab::stream_workers::ReadEntries;

/// See the module's text.
pub(super) struct ChaosReport<'a> {
    pub(super) config: &'a ChaosConfig,
    /// The number of faults that were planned.
    pub(super) planned: usize,
    /// The counts of the consumers' journals, if they keep any.
    pub(super) runs: Option<Runs>,
    pub(super) findings: &'a Findings,
}

/// Faults of one kind that hit the same kind of process, and the times until results resumed.
struct Recoveries {
    kind: String,
    /// Shortest first.
    times: Vec<Duration>,
    /// Faults after which results were not seen to resume.
    unseen: usize,
}

impl Recoveries {
    fn median(&self) -> Option<Duration> {
        let last = self.times.len().checked_sub(1)?;
        Some((self.times[last / 2] + self.times[last.div_ceil(2)]) / 2)
    }

    fn longest(&self) -> Option<Duration> {
        self.times.last().copied()
    }

    fn line(&self) -> String {
        let ms = |time: Option<Duration>| time.map_or("not seen".to_owned(), milliseconds);
        let unseen = if self.unseen > 0 { format!("  not seen in {}", self.unseen) } else { String::new() };
        let (kind, count) = (&self.kind, self.times.len() + self.unseen);
        format!(
            "    {kind:<22}{count:>4} ×  median {:>9}  longest {:>9}{unseen}",
            ms(self.median()),
            ms(self.longest())
        )
    }
}

impl ChaosReport<'_> {
    /// Whether every message that a subscriber received has exactly one result.
    pub(super) fn is_clean(&self) -> bool {
        self.findings.audit.is_clean()
    }

    pub(super) fn lost(&self) -> u64 {
        self.findings.audit.lost.unwrap_or(0)
    }

    /// The recoveries by kind of fault.
    fn recoveries(&self) -> Vec<Recoveries> {
        let mut kinds: BTreeMap<String, Recoveries> = BTreeMap::new();
        for fault in &self.findings.faults {
            let kind = kind_of(fault);
            let new = Recoveries { kind: kind.clone(), times: Vec::new(), unseen: 0 };
            let recoveries = kinds.entry(kind).or_insert(new);
            match fault.recovery {
                Some(time) => recoveries.times.push(time),
                None => recoveries.unseen += 1,
            }
        }
        kinds.values_mut().for_each(|kind| kind.times.sort_unstable());
        kinds.into_values().collect()
    }

    /// A command that draws the same faults again.
    pub(super) fn command(&self) -> String {
        let ChaosConfig { plan, cluster, sharded, rate, batch, channels, deliver, worker, .. } = self.config;
        let ChaosConfig { dispatchers, consumers, .. } = self.config;
        let cluster = if *cluster { " --cluster" } else { "" };
        let sharded = if *sharded { " --sharded" } else { "" };
        let deliver = if *deliver == Deliver::Stream { " --deliver stream" } else { "" };
        let channels = channels.map_or(String::new(), |channels| format!(" --channels {channels}"));
        let worker: String = worker.arguments().iter().map(|word| format!(" {}", in_shell(word))).collect();
        let time = |time: Duration| match time.as_millis() {
            ms if ms % 1_000 == 0 => format!("{}s", ms / 1_000),
            ms => format!("{ms}ms"),
        };
        let faults: Vec<&str> = plan.faults.iter().map(|fault| fault.name()).collect();
        format!(
            "oncecast chaos --seed {} --duration {} --rate {rate} --batch {} --every {} --least-outage {} --outage {} \
             --faults {} --target {} --dispatcher-count {dispatchers} --consumer-count {consumers}\
             {cluster}{sharded}{channels}{deliver}{worker}",
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

    pub(super) fn lines<W: Write>(&self, console: &Console<W>) -> Vec<String> {
        let Findings { faults, timeline, audit, .. } = self.findings;
        let mut lines = self.counts(console);
        lines.push(String::new());
        lines.push(format!(
            "  {} faults injected of {} planned (each waits until the cluster is healthy); time until results resumed:",
            faults.len(),
            self.planned
        ));
        lines.extend(self.recoveries().iter().map(Recoveries::line));
        let peaks: Vec<String> =
            timeline.peaks.iter().map(|(name, bytes)| format!("{name} {}", megabytes(*bytes))).collect();
        lines.push(String::new());
        lines.push(format!("  peak memory: {}", peaks.join(", ")));
        lines.push(format!("  {}", console.paint(Tone::Faint, &self.command())));
        lines.push(String::new());
        if !self.is_clean() {
            lines.extend(audit.to_string().lines().map(|line| format!("  {line}")));
            lines.push(format!("  {}", console.paint(Tone::Bad, "This is a bug: please report it.")));
            lines.push(String::new());
        }
        lines
    }

    fn counts<W: Write>(&self, console: &Console<W>) -> Vec<String> {
        let Findings { published, audit, elapsed, .. } = self.findings;
        let good_if_zero = |name: &str, number: u64| {
            console.paint(if number == 0 { Tone::Good } else { Tone::Bad }, &format!("{name} {}", grouped(number)))
        };
        let equal = if audit.distinct == *published { "=" } else { "≠" };
        let counts = format!("published {} {equal} processed {}", grouped(*published), grouped(audit.distinct));
        let unknown = match self.findings.unknown() {
            0 => String::new(),
            unknown => format!("   unknown to the publisher {}", grouped(unknown)),
        };
        vec![
            String::new(),
            format!(
                "  {}   {}   {}{unknown}",
                console.paint(Tone::Strong, &counts),
                good_if_zero("lost", self.lost()),
                good_if_zero("recorded twice", audit.twice)
            ),
            match (self.findings.read, self.runs) {
                (None, None) => format!("  in {:.1} s", elapsed.as_secs_f64()),
                (None, Some(runs)) => format!(
                    "  handler runs {} (repeated: {}), redelivered {}, in {:.1} s",
                    grouped(runs.runs),
                    grouped(runs.repeated()),
                    grouped(runs.redelivered),
                    elapsed.as_secs_f64()
                ),
                (Some(ReadEntries { entries, again }), _) => format!(
                    "  entries read by workers {} (read again: {}), in {:.1} s",
                    grouped(entries),
                    grouped(again),
                    elapsed.as_secs_f64()
                ),
            },
        ]
    }
}

/// A word as a shell takes it.
fn in_shell(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// The kind of a fault, by which recovery times are compared.
fn kind_of(fault: &InjectedFault) -> String {
    let target = match (fault.hit_leader, fault.target.chars().next()) {
        (true, _) => " leader",
        (false, Some('d')) => " standby",
        (false, Some('c')) => " consumer",
        _ => "",
    };
    format!("{}{target}", fault.fault)
}

pub(super) fn milliseconds(time: Duration) -> String {
    format!("{} ms", grouped(time.as_millis() as u64))
}

pub(super) fn megabytes(bytes: u64) -> String {
    format!("{} MB", bytes.div_ceil(1 << 20))
}
