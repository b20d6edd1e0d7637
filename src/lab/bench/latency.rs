//! From the time at which a message was to be sent until a reader has its result, at fixed rates.

use std::time::Duration;

use serde_json::{Value, json};

use super::histogram::Histogram;
use super::kind::Kind;
use super::rig::Rig;
use super::run::{measure as measure_run, wait_for_end};
use super::setup::Setup;
use super::{Bench, Stop, chart, rounded};
use crate::base::error::Result;
use crate::lab::ChildProcess;
use crate::lab::trial::screen::grouped;

/// What was measured.
pub(super) struct Latency {
    points: Vec<Point>,
}

/// One kind's at one rate.
struct Point {
    kind: Kind,
    rate: u64,
    times: Histogram,
}

/// The share of the messages, the first ones, that are not measured: they find connections new and caches cold.
const WARM_UP: f64 = 0.1;
/// How long the reader may take until it is there.
const READY_LIMIT: Duration = Duration::from_secs(10);
/// What is shown of a distribution.
const SHARES: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)];

/// Measures it, and prints it.
pub(super) fn measure(bench: &mut Bench<'_>) -> Result<Latency, Stop> {
    let config = bench.config;
    bench.line(&format!(
        "latency in ms, from when a message was to be sent to when a reader has its result; {:?} each",
        config.time
    ));
    bench.line(&format!("{:9} {:>9} {:>9} {:>9} {:>9} {:>9}", "", "rate", "p50", "p99", "p99.9", "longest"));
    let mut points = Vec::new();
    for rate in &config.rates {
        for kind in &config.kinds {
            let point = one_point(bench, *kind, *rate)?;
            bench.line(&point.line());
            points.push(point);
        }
    }
    bench.line("");
    Ok(Latency { points })
}

fn one_point(bench: &mut Bench<'_>, kind: Kind, rate: u64) -> Result<Point, Stop> {
    let (config, requests) = (bench.config, &bench.requests);
    let mut rig = Rig::start(Setup::usual(kind, config), config, requests)?;
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
    let times = times.ok_or_else(|| reader.failure("gave no histogram"))?;
    Ok(Point { kind, rate, times })
}

fn ms(micros: u64) -> f64 {
    micros as f64 / 1e3
}

impl Point {
    fn line(&self) -> String {
        let shares: String = SHARES.iter().map(|(_, share)| format!(" {:>9.2}", ms(self.times.at(*share)))).collect();
        format!("{:9} {:>9}{shares} {:>9.2}", self.kind.name(), grouped(self.rate), ms(self.times.most_us()))
    }

    fn json(&self) -> Value {
        let shares = SHARES.map(|(name, share)| (name.to_owned(), json!(rounded(ms(self.times.at(share))))));
        json!({
            "kind": self.kind.name(),
            "messages_per_s": self.rate,
            "messages": self.times.count(),
            "ms": shares.into_iter().collect::<serde_json::Map<_, _>>(),
            "longest_ms": rounded(ms(self.times.most_us())),
            "buckets_up_to_us": self.times.buckets().collect::<Vec<_>>(),
        })
    }
}

impl Latency {
    /// For the file.
    pub(super) fn json(&self) -> Value {
        self.points.iter().map(Point::json).collect()
    }

    /// For the picture.
    pub(super) fn groups(&self) -> Vec<chart::Group> {
        let mut groups: Vec<chart::Group> = Vec::new();
        for (name, share) in &SHARES[..2] {
            for points in self.points.chunk_by(|a, b| a.rate == b.rate) {
                let bar = |point: &Point| chart::Bar {
                    kind: point.kind,
                    label: point.kind.name().to_owned(),
                    value: ms(point.times.at(*share)),
                    spread: None,
                };
                let title = format!("latency, {name} at {} messages/s", grouped(points[0].rate));
                groups.push(chart::Group { title, unit: " ms", digits: 2, bars: points.iter().map(bar).collect() });
            }
        }
        groups
    }
}
