//! Messages per second, CPU and memory: the kinds in turn, several rounds.

use serde_json::{Value, json};

use super::kind::{Kind, Role};
use super::rig::Rig;
use super::run::{Measured, carry_out, idle as idle_share, measure as measure_run};
use super::setup::Setup;
use super::{Bench, Stop, chart, median, rounded};
use crate::base::error::{Error, Result};
use crate::lab::trial::screen::grouped;
use crate::ledger::Command;

/// What was measured.
pub(super) struct Throughput {
    kinds: Vec<Row>,
}

/// One kind's.
struct Row {
    kind: Kind,
    rounds: Vec<Measured>,
    /// Bytes of Redis's memory for each message that waits; of the relay none wait.
    memory: Option<f64>,
    /// The share of a core that the busiest process but Redis takes while there is nothing to do.
    idle: f64,
}

/// The most messages that are left waiting to see what memory they take.
const MAX_WAITING: u64 = 500_000;

/// Measures it, and prints it.
pub(super) fn measure(bench: &mut Bench<'_>) -> Result<Throughput, Stop> {
    let config = bench.config;
    bench.line(&format!("throughput: {} rounds of {} messages", config.rounds, grouped(config.messages)));
    let row = |kind: &Kind| Row { kind: *kind, rounds: Vec::new(), memory: None, idle: 0.0 };
    let mut kinds: Vec<Row> = config.kinds.iter().map(row).collect();
    for round in 1..=config.rounds {
        for row in &mut kinds {
            let measured = one_round(bench, row.kind)?;
            bench.line(&format!(
                "round {round}  {:9} {:>9}/s  in {:.1} s, Redis at {:.0} % of a core",
                row.kind.name(),
                grouped(measured.per_s() as u64),
                measured.elapsed.as_secs_f64(),
                100.0 * measured.redis_share(),
            ));
            row.rounds.push(measured);
        }
    }
    for row in &mut kinds {
        row.idle = idle(bench, row.kind)?;
        row.memory = if row.kind == Kind::Relay { None } else { Some(memory(bench, row.kind)?) };
    }
    let throughput = Throughput { kinds };
    throughput.lines().iter().for_each(|line| bench.line(line));
    Ok(throughput)
}

fn one_round(bench: &mut Bench<'_>, kind: Kind) -> Result<Measured, Stop> {
    let (config, requests) = (bench.config, &bench.requests);
    let mut rig = Rig::start(Setup::usual(kind, config), config, requests)?;
    let mut load = rig.load()?;
    load.args(["--count", &config.messages.to_string(), "--window", &config.window.to_string()]);
    let measured = measure_run(&mut rig, load, 0, requests)?;
    rig.stop()?;
    Ok(measured)
}

fn idle(bench: &mut Bench<'_>, kind: Kind) -> Result<f64, Stop> {
    let (config, requests) = (bench.config, &bench.requests);
    let mut rig = Rig::start(Setup::usual(kind, config), config, requests)?;
    let share = idle_share(&mut rig, config.time, requests)?;
    rig.stop()?;
    Ok(share)
}

/// The bytes of Redis's memory for each message that waits while nobody takes them.
fn memory(bench: &mut Bench<'_>, kind: Kind) -> Result<f64, Stop> {
    let (config, requests) = (bench.config, &bench.requests);
    let mut rig = Rig::start_idle(Setup::usual(kind, config), config, requests)?;
    let waiting = config.messages.min(MAX_WAITING);
    let before = used_memory(&mut rig)?;
    let mut fill = rig.fill()?;
    fill.args(["--count", &waiting.to_string(), "--window", &config.window.to_string()]);
    let summary = carry_out(&mut rig, fill, requests)?;
    if summary.recorded != waiting {
        let (kind, there) = (kind.name(), summary.recorded);
        return Err(Stop::Breach(format!("{kind}: of {waiting} messages {there} wait for a consumer")));
    }
    let after = used_memory(&mut rig)?;
    rig.stop()?;
    Ok(after.saturating_sub(before) as f64 / waiting as f64)
}

fn used_memory(rig: &mut Rig) -> Result<u64> {
    let info = rig.redis().connection().query("asking for the memory in use", Command::of(&["INFO", "memory"]))?;
    let text = match &info {
        redis::Value::BulkString(text) => String::from_utf8_lossy(text).into_owned(),
        redis::Value::VerbatimString { text, .. } => text.clone(),
        _ => String::new(),
    };
    let used = text.lines().find_map(|line| line.strip_prefix("used_memory:")?.trim().parse().ok());
    used.ok_or_else(|| Error::Failed("redis does not say how much memory it uses".to_owned()))
}

impl Row {
    fn per_s(&self) -> f64 {
        median(self.rounds.iter().map(Measured::per_s))
    }

    fn least_and_most(&self) -> (f64, f64) {
        let all = || self.rounds.iter().map(Measured::per_s);
        (all().fold(f64::INFINITY, f64::min), all().fold(0.0, f64::max))
    }

    fn cpu(&self, role: Role) -> f64 {
        median(self.rounds.iter().map(|round| round.cpu_of(role)))
    }

    fn json(&self) -> Value {
        let (least, most) = self.least_and_most();
        let cpu = Role::ALL.map(|role| (role.name().to_owned(), json!(rounded(self.cpu(role)))));
        json!({
            "kind": self.kind.name(),
            "messages_per_s": self.rounds.iter().map(|round| round.per_s().round()).collect::<Vec<_>>(),
            "median": self.per_s().round(),
            "least": least.round(),
            "most": most.round(),
            "cpu_us_per_message": cpu.into_iter().collect::<serde_json::Map<_, _>>(),
            "redis_share_of_a_core": rounded(median(self.rounds.iter().map(Measured::redis_share))),
            "idle_share_of_a_core": rounded(self.idle),
            "redis_bytes_per_waiting_message": self.memory.map(rounded),
            "messages": self.rounds.first().map(|round| round.messages),
        })
    }
}

impl Throughput {
    /// How much faster ours is than another.
    fn ratio(&self, other: Kind) -> Option<f64> {
        let per_s = |kind: Kind| self.kinds.iter().find(|row| row.kind == kind).map(Row::per_s);
        Some(per_s(Kind::Oncecast)? / per_s(other)?)
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = vec![String::new()];
        lines.push(format!(
            "{:9} {:>10} {:>19} {:>35} {:>9} {:>8}",
            "", "messages/s", "spread", "µs of CPU for a message", "waiting", "idle"
        ));
        lines.push(format!(
            "{:9} {:>10} {:>19} {:>8} {:>8} {:>8} {:>8} {:>9} {:>8}",
            "", "median", "", "redis", "publish", "dispatch", "consume", "bytes", "of a core"
        ));
        for row in &self.kinds {
            let (least, most) = row.least_and_most();
            let [redis, publisher, dispatchers, consumers] = Role::ALL.map(|role| row.cpu(role));
            lines.push(format!(
                "{:9} {:>10} {:>19} {redis:>8.2} {publisher:>8.2} {dispatchers:>8.2} {consumers:>8.2} {:>9} {:>7.1} %",
                row.kind.name(),
                grouped(row.per_s() as u64),
                format!("{}–{}", grouped(least as u64), grouped(most as u64)),
                row.memory.map_or("-".to_owned(), |bytes| format!("{bytes:.0}")),
                100.0 * row.idle,
            ));
        }
        lines.push(
            "waiting: Redis's memory for a message that waits for a consumer; idle: the busiest process but Redis"
                .to_owned(),
        );
        lines.push(String::new());
        for other in [Kind::Streams, Kind::Relay] {
            lines.extend(self.ratio(other).map(|ratio| format!("oncecast / {} = {ratio:.2}", other.name())));
        }
        lines.push(String::new());
        lines
    }

    /// For the file.
    pub(super) fn json(&self) -> Value {
        json!({
            "kinds": self.kinds.iter().map(Row::json).collect::<Vec<_>>(),
            "oncecast_to_streams": self.ratio(Kind::Streams).map(rounded),
            "oncecast_to_relay": self.ratio(Kind::Relay).map(rounded),
        })
    }

    /// For the picture.
    pub(super) fn groups(&self) -> Vec<chart::Group> {
        let bar = |row: &Row| {
            let (least, most) = row.least_and_most();
            chart::Bar {
                kind: row.kind,
                label: row.kind.name().to_owned(),
                value: row.per_s(),
                spread: Some((least, most)),
            }
        };
        let title = "messages/s, median of the rounds, and their spread".to_owned();
        let speed = chart::Group { title, unit: "/s", digits: 0, bars: self.kinds.iter().map(bar).collect() };
        let bar = |row: &Row| {
            let cpu = row.cpu(Role::Redis);
            chart::Bar { kind: row.kind, label: row.kind.name().to_owned(), value: cpu, spread: None }
        };
        let title = "µs of Redis's CPU for a message".to_owned();
        let cpu = chart::Group { title, unit: " µs", digits: 2, bars: self.kinds.iter().map(bar).collect() };
        vec![speed, cpu]
    }
}
