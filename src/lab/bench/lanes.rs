//! What a message and an idle lane cost by the number of a group's lanes.
//!
//! Each run has a private Redis Cluster with as many primaries as the most lanes, so the traffic on the cluster bus is
//! the same whatever the number of lanes. There are two dispatchers and two consumers, and a load of its own for each
//! lane. A run first measures the processes without load, then at full load with the same number of messages for all
//! lanes together, then at each rate with the same load in each lane. The numbers of lanes are measured in turn.

use serde_json::{Value, json};

use self::rig::{CONSUMERS, DISPATCHERS, LaneRig};
use super::chart;
use super::contender::{Contender, Role};
use super::context::{Abort, Context};
use super::cpu::{Footprint, footprint};
use super::rig::redis_version;
use super::run::{Measurement, cpu_times, pause};
use super::settings::BenchConfig;
use crate::base::error::Error;
use crate::base::shutdown::ShutdownRequests;
use crate::lab::numbers::{grouped, median, rounded};

mod layout;
mod rig;
mod table;

/// The figures for all numbers of lanes.
pub(super) struct Lanes {
    nodes: usize,
    points: Vec<Point>,
}

/// The figures of all rounds for one number of lanes.
struct Point {
    lanes: usize,
    full: Vec<Measurement>,
    /// By the rate in each lane.
    at_rates: Vec<(u64, Vec<Measurement>)>,
    idle: Vec<Idle>,
}

/// A round without load.
struct Idle {
    /// CPU time in µs for each second, of all processes of a role.
    cpu_us: Vec<(Role, f64)>,
    footprints: Vec<(Role, Footprint)>,
}

/// The roles that belong to the group and its Redis.
const MEASURED: [Role; 3] = [Role::Redis, Role::Dispatchers, Role::Consumers];

/// Measures all numbers of lanes and prints the figures.
pub(super) fn measure(context: &mut Context<'_>) -> Result<Lanes, Abort> {
    let config = context.config;
    let version = redis_version(config)?;
    if version.starts_with("redis 6.") {
        let text = format!("--lanes: {version} has no sharded channels; they need Redis 7.0 or newer (--redis-server)");
        return Err(Error::Failed(text).into());
    }
    let nodes = config.lanes.iter().copied().max().unwrap_or(1);
    context.line(&format!(
        "lanes, on a Redis Cluster of {nodes} primaries: {DISPATCHERS} dispatchers, {CONSUMERS} consumers, {} rounds \
         of {} messages",
        config.rounds,
        grouped(config.messages)
    ));
    let at_rates = || config.rates.iter().map(|rate| (*rate, Vec::new())).collect();
    let point = |lanes: &usize| Point { lanes: *lanes, full: Vec::new(), at_rates: at_rates(), idle: Vec::new() };
    let mut points: Vec<Point> = config.lanes.iter().map(point).collect();
    for round in 1..=config.rounds {
        for point in &mut points {
            point.measure(nodes, config, &context.requests)?;
            let last = point.full.last().map_or(0.0, Measurement::per_s);
            let spent = point.full.last().map_or(0.0, all_us);
            let lanes = point.lanes;
            context.line(&format!(
                "round {round}  lanes {lanes:>2}  {:>9}/s  {spent:.2} µs of CPU per message",
                grouped(last as u64)
            ));
        }
    }
    let lanes = Lanes { nodes, points };
    lanes.lines().iter().for_each(|line| context.line(line));
    Ok(lanes)
}

impl Point {
    fn measure(&mut self, nodes: usize, config: &BenchConfig, requests: &ShutdownRequests) -> Result<(), Abort> {
        let mut rig = LaneRig::start((nodes, self.lanes), config, requests)?;
        self.idle.push(measure_idle(&mut rig, config, requests)?);
        let each = |messages: u64| messages.div_ceil(self.lanes as u64);
        let window = ["--window".to_owned(), each(config.window).max(2).to_string()];
        self.full.push(rig.run(each(config.messages), &window, config.payload, requests)?);
        for (rate, rounds) in &mut self.at_rates {
            let messages = (*rate as f64 * config.time.as_secs_f64()).ceil() as u64;
            let arguments = ["--rate".to_owned(), rate.to_string()];
            rounds.push(rig.run(messages, &arguments, config.payload, requests)?);
        }
        rig.stop()?;
        Ok(())
    }

    fn per_s(&self) -> f64 {
        median(self.full.iter().map(Measurement::per_s))
    }

    fn least_and_most(&self) -> (f64, f64) {
        let all = || self.full.iter().map(Measurement::per_s);
        (all().fold(f64::INFINITY, f64::min), all().fold(0.0, f64::max))
    }

    /// CPU time in µs for each second without load, of all processes of a role.
    fn idle_us(&self, role: Role) -> f64 {
        median(self.idle.iter().map(|idle| sum_of(&idle.cpu_us, role)))
    }

    /// A figure of one process of a role.
    fn footprint(&self, role: Role, of: fn(&Footprint) -> u64) -> f64 {
        let mean = |idle: &Idle| {
            let all: Vec<u64> =
                idle.footprints.iter().filter(|(found, _)| *found == role).map(|(_, found)| of(found)).collect();
            all.iter().sum::<u64>() as f64 / all.len().max(1) as f64
        };
        median(self.idle.iter().map(mean))
    }

    fn json(&self) -> Value {
        let cpu = |rounds: &[Measurement]| {
            let of = |role: Role| (role.name().to_owned(), json!(rounded(cpu_us(rounds, role))));
            Role::ALL.map(of).into_iter().collect::<serde_json::Map<_, _>>()
        };
        let idle = MEASURED.map(|role| (role.name().to_owned(), json!(rounded(self.idle_us(role)))));
        let process = |role: Role| {
            json!({
                "threads": self.footprint(role, |found| found.threads),
                "sockets": self.footprint(role, |found| found.sockets),
                "memory_kib": self.footprint(role, |found| found.memory_kib),
            })
        };
        let at_rate = |(rate, rounds): &(u64, Vec<Measurement>)| {
            let cpu = cpu(rounds);
            json!({ "messages_per_s_in_each_lane": rate, "cpu_us_per_message": cpu })
        };
        json!({
            "lanes": self.lanes,
            "messages_per_s": self.full.iter().map(|round| round.per_s().round()).collect::<Vec<_>>(),
            "messages": self.full.first().map(|round| round.messages),
            "cpu_us_per_message": cpu(&self.full),
            "at_rates": self.at_rates.iter().map(at_rate).collect::<Vec<_>>(),
            "idle_cpu_us_per_s": idle.into_iter().collect::<serde_json::Map<_, _>>(),
            "dispatcher": process(Role::Dispatchers),
            "consumer": process(Role::Consumers),
        })
    }
}

fn measure_idle(rig: &mut LaneRig, config: &BenchConfig, requests: &ShutdownRequests) -> Result<Idle, Abort> {
    let processes = rig.processes();
    let before = cpu_times(&processes)?;
    pause(config.time, requests)?;
    rig.must_run()?;
    let after = cpu_times(&processes)?;
    let per_s = |used: u64| used as f64 / config.time.as_secs_f64();
    let cpu_us = before.iter().zip(after).map(|((role, before), (_, after))| (*role, per_s(after - before))).collect();
    let footprints = processes.iter().map(|(role, pid)| Ok((*role, footprint(*pid)?))).collect::<Result<_, Abort>>()?;
    Ok(Idle { cpu_us, footprints })
}

fn sum_of(figures: &[(Role, f64)], role: Role) -> f64 {
    figures.iter().filter(|(of, _)| *of == role).fold(0.0, |sum, (_, figure)| sum + figure)
}

/// CPU time per message in µs, of all processes of a role.
fn cpu_us(rounds: &[Measurement], role: Role) -> f64 {
    median(rounds.iter().map(|round| round.cpu_of(role)))
}

/// CPU time per message in µs, of all processes but the loads.
fn all_us(round: &Measurement) -> f64 {
    MEASURED.iter().map(|role| round.cpu_of(*role)).sum()
}

impl Lanes {
    /// The figures for the JSON file.
    pub(super) fn json(&self) -> Value {
        json!({
            "primaries": self.nodes,
            "dispatchers": DISPATCHERS,
            "consumers": CONSUMERS,
            "points": self.points.iter().map(Point::json).collect::<Vec<_>>(),
        })
    }

    /// The figures for the chart.
    pub(super) fn charts(&self) -> Vec<chart::Group> {
        let bar = |point: &Point, value: f64, spread: Option<(f64, f64)>| chart::Bar {
            contender: Contender::Oncecast,
            label: format!("{} lanes", point.lanes),
            value,
            spread,
        };
        let speed = self.points.iter().map(|point| bar(point, point.per_s(), Some(point.least_and_most()))).collect();
        let cpu = self.points.iter().map(|point| bar(point, median(point.full.iter().map(all_us)), None)).collect();
        vec![
            chart::Group { title: "messages/s by lanes".to_owned(), unit: "/s", digits: 0, bars: speed },
            chart::Group { title: "CPU time per message by lanes".to_owned(), unit: " µs", digits: 2, bars: cpu },
        ]
    }
}
