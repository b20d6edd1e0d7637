//! Latency at fixed rates: from the time at which a message was due until a reader has its result.

use std::time::Duration;

use serde_json::{Value, json};

use super::chart;
use super::contender::Contender;
use super::context::{Abort, Context};
use super::histogram::Histogram;
use super::rig::Rig;
use super::run::{measure as measure_run, wait_for_end};
use super::setup::Setup;
use crate::base::error::Result;
use crate::lab::child::ChildProcess;
use crate::lab::numbers::{grouped, rounded};

/// The latency of all contenders at all rates.
pub(super) struct Latency {
    points: Vec<Point>,
}

/// The latency of one contender at one rate.
struct Point {
    contender: Contender,
    rate: u64,
    times: Histogram,
}

/// The share of the first messages that are not measured, since connections are new and caches cold.
const WARM_UP: f64 = 0.1;
/// How long the reader may take to become ready.
const READY_LIMIT: Duration = Duration::from_secs(10);
/// The percentiles that are shown.
const PERCENTILES: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)];

/// Measures the latency and prints it.
pub(super) fn measure(context: &mut Context<'_>) -> Result<Latency, Abort> {
    let config = context.config;
    context.line(&format!(
        "latency in ms, from when a message was due until a reader has its result; {:?} each",
        config.time
    ));
    context.line(&format!("{:9} {:>9} {:>9} {:>9} {:>9} {:>9}", "", "rate", "p50", "p99", "p99.9", "longest"));
    let mut points = Vec::new();
    for rate in &config.rates {
        for contender in &config.kinds {
            let point = measure_point(context, *contender, *rate)?;
            context.line(&point.line());
            points.push(point);
        }
    }
    context.line("");
    Ok(Latency { points })
}

fn measure_point(context: &mut Context<'_>, contender: Contender, rate: u64) -> Result<Point, Abort> {
    let (config, requests) = (context.config, &context.requests);
    let mut rig = Rig::start(Setup::usual(contender, config), config, requests)?;
    let count = (rate as f64 * config.time.as_secs_f64()).ceil() as u64;
    let skip = (count as f64 * WARM_UP) as u64;
    let mut reader = ChildProcess::spawn("reader", rig.reader(count, skip)?)?;
    reader.stdout().wait_for("ready", READY_LIMIT)?;
    let mut load = rig.load()?;
    load.args(["--count", &count.to_string(), "--rate", &rate.to_string()]);
    measure_run(&mut rig, load, 0, requests)?;
    wait_for_end(&mut rig, &mut reader, requests)?;
    rig.stop()?;
    let lines = reader.stdout().all();
    let times = Histogram::read(lines.iter().skip(1).map(String::as_str)).filter(|times| times.count() + skip == count);
    let times = times.ok_or_else(|| reader.failure("printed no histogram"))?;
    Ok(Point { contender, rate, times })
}

fn ms(micros: u64) -> f64 {
    micros as f64 / 1e3
}

impl Point {
    fn line(&self) -> String {
        let shares: String =
            PERCENTILES.iter().map(|(_, share)| format!(" {:>9.2}", ms(self.times.percentile(*share)))).collect();
        format!("{:9} {:>9}{shares} {:>9.2}", self.contender.name(), grouped(self.rate), ms(self.times.most_us()))
    }

    fn json(&self) -> Value {
        let shares =
            PERCENTILES.map(|(name, share)| (name.to_owned(), json!(rounded(ms(self.times.percentile(share))))));
        json!({
            "kind": self.contender.name(),
            "messages_per_s": self.rate,
            "messages": self.times.count(),
            "ms": shares.into_iter().collect::<serde_json::Map<_, _>>(),
            "longest_ms": rounded(ms(self.times.most_us())),
            "buckets_up_to_us": self.times.buckets().collect::<Vec<_>>(),
        })
    }
}

impl Latency {
    /// The figures for the JSON file.
    pub(super) fn json(&self) -> Value {
        self.points.iter().map(Point::json).collect()
    }

    /// The figures for the chart.
    pub(super) fn charts(&self) -> Vec<chart::Group> {
        let mut groups: Vec<chart::Group> = Vec::new();
        for (name, share) in &PERCENTILES[..2] {
            for points in self.points.chunk_by(|a, b| a.rate == b.rate) {
                let bar = |point: &Point| chart::Bar {
                    contender: point.contender,
                    label: point.contender.name().to_owned(),
                    value: ms(point.times.percentile(*share)),
                    spread: None,
                };
                let title = format!("latency, {name} at {} messages/s", grouped(points[0].rate));
                groups.push(chart::Group { title, unit: " ms", digits: 2, bars: points.iter().map(bar).collect() });
            }
        }
        groups
    }
}
