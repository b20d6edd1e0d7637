//! Messages per second, CPU time and memory. Each round measures every contender once.

use serde_json::{Value, json};

use super::chart;
use super::contender::{Contender, Role};
use super::context::{Abort, Context};
use super::rig::Rig;
use super::run::{Measurement, idle as idle_share, measure as measure_run, run_load};
use super::setup::Setup;
use crate::base::error::{Error, Result};
use crate::lab::numbers::{grouped, median, rounded};
use crate::ledger::Command;

/// The figures of all contenders.
pub(super) struct Throughput {
    rows: Vec<Row>,
}

/// The figures of one contender.
struct Row {
    contender: Contender,
    rounds: Vec<Measurement>,
    /// The memory in Redis of a message that waits for a consumer, in bytes. The relay stores no messages.
    memory: Option<f64>,
    /// The share of a core that the busiest process except Redis uses while there is no load.
    idle: f64,
}

/// The most messages that are stored to measure their memory.
const MAX_WAITING: u64 = 500_000;

/// The ratios of interest: Oncecast against its peers, and what a pattern, an order by key, waiting for a replica and
/// a bridge cost.
const RATIOS: [(Contender, Contender); 8] = [
    (Contender::Oncecast, Contender::Streams),
    (Contender::Oncecast, Contender::Tidy),
    (Contender::Oncecast, Contender::Bullmq),
    (Contender::Oncecast, Contender::Relay),
    (Contender::Patterns, Contender::Oncecast),
    (Contender::Ordered, Contender::Patterns),
    (Contender::Confirmed, Contender::Replicated),
    (Contender::Bridge, Contender::Relay),
];

/// Measures the throughput and prints it.
pub(super) fn measure(context: &mut Context<'_>) -> Result<Throughput, Abort> {
    let config = context.config;
    context.line(&format!("throughput: {} rounds of {} messages", config.rounds, grouped(config.messages)));
    let row = |contender: &Contender| Row { contender: *contender, rounds: Vec::new(), memory: None, idle: 0.0 };
    let mut rows: Vec<Row> = config.kinds.iter().map(row).collect();
    for round in 1..=config.rounds {
        for row in &mut rows {
            let measured = measure_round(context, row.contender)?;
            context.line(&format!(
                "round {round}  {:9} {:>9}/s  in {:.1} s, Redis at {:.0} % of a core",
                row.contender.name(),
                grouped(measured.per_s() as u64),
                measured.elapsed.as_secs_f64(),
                100.0 * measured.redis_share(),
            ));
            row.rounds.push(measured);
        }
    }
    for row in &mut rows {
        row.idle = measure_idle(context, row.contender)?;
        row.memory =
            if row.contender == Contender::Relay { None } else { Some(measure_memory(context, row.contender)?) };
    }
    let throughput = Throughput { rows };
    throughput.lines().iter().for_each(|line| context.line(line));
    Ok(throughput)
}

fn measure_round(context: &mut Context<'_>, contender: Contender) -> Result<Measurement, Abort> {
    let (config, requests) = (context.config, &context.requests);
    let mut rig = Rig::start(Setup::usual(contender, config), config, requests)?;
    let mut load = rig.load()?;
    let messages = config.messages.min(contender.most_messages());
    load.args(["--count", &messages.to_string(), "--window", &config.window.to_string()]);
    let measured = measure_run(&mut rig, load, 0, requests)?;
    rig.stop()?;
    Ok(measured)
}

fn measure_idle(context: &mut Context<'_>, contender: Contender) -> Result<f64, Abort> {
    let (config, requests) = (context.config, &context.requests);
    let mut rig = Rig::start(Setup::usual(contender, config), config, requests)?;
    let share = idle_share(&mut rig, config.time, requests)?;
    rig.stop()?;
    Ok(share)
}

/// The memory in Redis of a message that waits for a consumer, in bytes.
fn measure_memory(context: &mut Context<'_>, contender: Contender) -> Result<f64, Abort> {
    let (config, requests) = (context.config, &context.requests);
    let mut rig = Rig::start_without_consumers(Setup::usual(contender, config), config, requests)?;
    let waiting = config.messages.min(MAX_WAITING).min(contender.most_messages());
    let before = used_memory(&mut rig)?;
    let mut fill = rig.fill()?;
    fill.args(["--count", &waiting.to_string(), "--window", &config.window.to_string()]);
    let summary = run_load(&mut rig, fill, requests)?;
    if summary.recorded != waiting {
        let (name, stored) = (contender.name(), summary.recorded);
        return Err(Abort::Violation(format!("{name}: of {waiting} messages {stored} are stored for a consumer")));
    }
    let after = used_memory(&mut rig)?;
    rig.stop()?;
    Ok(after.saturating_sub(before) as f64 / waiting as f64)
}

fn used_memory(rig: &mut Rig) -> Result<u64> {
    let info = rig.redis().connection().query("reading the memory in use", Command::of(&["INFO", "memory"]))?;
    let text = match &info {
        redis::Value::BulkString(text) => String::from_utf8_lossy(text).into_owned(),
        redis::Value::VerbatimString { text, .. } => text.clone(),
        _ => String::new(),
    };
    let used = text.lines().find_map(|line| line.strip_prefix("used_memory:")?.trim().parse().ok());
    used.ok_or_else(|| Error::Failed("INFO of Redis contains no used_memory".to_owned()))
}

impl Row {
    fn per_s(&self) -> f64 {
        median(self.rounds.iter().map(Measurement::per_s))
    }

    fn least_and_most(&self) -> (f64, f64) {
        let all = || self.rounds.iter().map(Measurement::per_s);
        (all().fold(f64::INFINITY, f64::min), all().fold(0.0, f64::max))
    }

    fn cpu(&self, role: Role) -> f64 {
        median(self.rounds.iter().map(|round| round.cpu_of(role)))
    }

    fn json(&self) -> Value {
        let (least, most) = self.least_and_most();
        let cpu = Role::ALL.map(|role| (role.name().to_owned(), json!(rounded(self.cpu(role)))));
        json!({
            "kind": self.contender.name(),
            "messages_per_s": self.rounds.iter().map(|round| round.per_s().round()).collect::<Vec<_>>(),
            "median": self.per_s().round(),
            "least": least.round(),
            "most": most.round(),
            "cpu_us_per_message": cpu.into_iter().collect::<serde_json::Map<_, _>>(),
            "redis_share_of_a_core": rounded(median(self.rounds.iter().map(Measurement::redis_share))),
            "idle_share_of_a_core": rounded(self.idle),
            "redis_bytes_per_waiting_message": self.memory.map(rounded),
            "messages": self.rounds.first().map(|round| round.messages),
        })
    }
}

impl Throughput {
    /// The throughput of a contender relative to another.
    fn ratio(&self, one: Contender, other: Contender) -> Option<f64> {
        let per_s = |contender: Contender| self.rows.iter().find(|row| row.contender == contender).map(Row::per_s);
        Some(per_s(one)? / per_s(other)?)
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = vec![String::new()];
        lines.push(format!(
            "{:9} {:>10} {:>19} {:>35} {:>9} {:>8}",
            "", "messages/s", "spread", "µs of CPU per message", "waiting", "idle"
        ));
        lines.push(format!(
            "{:9} {:>10} {:>19} {:>8} {:>8} {:>8} {:>8} {:>9} {:>8}",
            "", "median", "", "redis", "publish", "dispatch", "consume", "bytes", "of a core"
        ));
        for row in &self.rows {
            let (least, most) = row.least_and_most();
            let [redis, publisher, dispatchers, consumers] = Role::ALL.map(|role| row.cpu(role));
            lines.push(format!(
                "{:9} {:>10} {:>19} {redis:>8.2} {publisher:>8.2} {dispatchers:>8.2} {consumers:>8.2} {:>9} {:>7.1} %",
                row.contender.name(),
                grouped(row.per_s() as u64),
                format!("{}–{}", grouped(least as u64), grouped(most as u64)),
                row.memory.map_or("-".to_owned(), |bytes| format!("{bytes:.0}")),
                100.0 * row.idle,
            ));
        }
        lines.push(
            "waiting: memory in Redis of a message that waits for a consumer; idle: the busiest process except Redis"
                .to_owned(),
        );
        lines.push(String::new());
        for (one, other) in RATIOS {
            let ratio = self.ratio(one, other);
            lines.extend(ratio.map(|ratio| format!("{} / {} = {ratio:.2}", one.name(), other.name())));
        }
        lines.push(String::new());
        lines
    }

    /// The figures for the JSON file.
    pub(super) fn json(&self) -> Value {
        let mut figures = json!({
            "kinds": self.rows.iter().map(Row::json).collect::<Vec<_>>(),
        });
        for (one, other) in RATIOS {
            figures[format!("{}_to_{}", one.name(), other.name())] = json!(self.ratio(one, other).map(rounded));
        }
        figures
    }

    /// The figures for the chart.
    pub(super) fn charts(&self) -> Vec<chart::Group> {
        let bar = |row: &Row| {
            let (least, most) = row.least_and_most();
            chart::Bar {
                contender: row.contender,
                label: row.contender.name().to_owned(),
                value: row.per_s(),
                spread: Some((least, most)),
            }
        };
        let title = "messages/s, median and spread of the rounds".to_owned();
        let speed = chart::Group { title, unit: "/s", digits: 0, bars: self.rows.iter().map(bar).collect() };
        let bar = |row: &Row| {
            let cpu = row.cpu(Role::Redis);
            chart::Bar { contender: row.contender, label: row.contender.name().to_owned(), value: cpu, spread: None }
        };
        let title = "Redis CPU time per message".to_owned();
        let cpu = chart::Group { title, unit: " µs", digits: 2, bars: self.rows.iter().map(bar).collect() };
        vec![speed, cpu]
    }
}
