//! How throughput changes with the number of consumers, the size of messages, the backlog, and the time a handler takes.

use std::time::Duration;

use serde_json::{Value, json};

use super::kind::Kind;
use super::rig::Rig;
use super::run::{carry_out, measure as measure_run};
use super::settings::BenchConfig;
use super::setup::Setup;
use super::{Bench, Stop, chart, rounded};
use crate::base::error::Result;
use crate::lab::trial::screen::grouped;

/// What was measured.
pub(super) struct Sweep {
    points: Vec<Point>,
}

/// One point of it.
struct Point {
    /// What is varied.
    axis: &'static str,
    /// Its value.
    at: u64,
    unit: &'static str,
    kind: Kind,
    per_s: f64,
    /// What would be reached if nothing but the handlers took time.
    possible: Option<f64>,
}

/// What is varied, and over which values.
struct Axis {
    name: &'static str,
    unit: &'static str,
    kinds: &'static [Kind],
    values: &'static [u64],
    /// With --quick.
    quick: &'static [u64],
}

const DISPATCHERS: &str = "dispatchers";
const CONSUMERS: &str = "consumers";
const PAYLOAD: &str = "payload";
const BACKLOG: &str = "backlog";
const HANDLER: &str = "handler";

const AXES: [Axis; 5] = [
    // Each but the first is a standby.
    Axis { name: DISPATCHERS, unit: "", kinds: &[Kind::Oncecast], values: &[1, 2, 3], quick: &[1] },
    Axis {
        name: CONSUMERS,
        unit: "",
        kinds: &[Kind::Oncecast, Kind::Streams],
        values: &[1, 2, 3, 4, 5, 6],
        quick: &[2],
    },
    Axis {
        name: PAYLOAD,
        unit: " B",
        kinds: &Kind::ALL,
        values: &[16, 64, 256, 1_024, 4_096, 16_384, 65_536],
        quick: &[1_024],
    },
    // The relay has none.
    Axis {
        name: BACKLOG,
        unit: "",
        kinds: &[Kind::Oncecast, Kind::Streams],
        values: &[0, 100_000, 1_000_000],
        quick: &[5_000],
    },
    // The peers work on one message at a time.
    Axis { name: HANDLER, unit: " ms", kinds: &[Kind::Oncecast], values: &[0, 1, 10], quick: &[1] },
];

/// Handlers at the same time in each consumer, where they take time.
const CONCURRENCY: usize = 16;
/// How far the load may be ahead of handlers that take time, in seconds of their work: a backlog that took longer to work
/// off than was measured would only cost time.
const AHEAD_S: f64 = 0.1;
/// The most bytes that are sent at a point: results stay in Redis.
const MAX_BYTES: u64 = 512 << 20;

/// Measures it, and prints it.
pub(super) fn measure(bench: &mut Bench<'_>) -> Result<Sweep, Stop> {
    let config = bench.config;
    bench.line(&format!("messages/s over {:?} at each point", config.time));
    let mut points = Vec::new();
    for axis in AXES {
        let values = if config.quick { axis.quick } else { axis.values };
        for value in values {
            for kind in axis.kinds.iter().filter(|kind| config.kinds.contains(kind)) {
                let point = one_point(bench, &axis, *value, *kind)?;
                bench.line(&point.line());
                points.push(point);
            }
        }
    }
    bench.line("");
    Ok(Sweep { points })
}

fn one_point(bench: &mut Bench<'_>, axis: &Axis, at: u64, kind: Kind) -> Result<Point, Stop> {
    let (config, requests) = (bench.config, &bench.requests);
    let setup = setup(axis.name, at, kind, config);
    let mut rig;
    let mut first = 0;
    if axis.name == BACKLOG && at > 0 {
        rig = Rig::start_idle(setup, config, requests)?;
        let mut fill = rig.fill()?;
        fill.args(["--count", &at.to_string(), "--window", &config.window.to_string()]);
        first = carry_out(&mut rig, fill, requests)?.sent;
        rig.start_consumers(requests)?;
    } else {
        rig = Rig::start(setup, config, requests)?;
    }
    let mut load = rig.load()?;
    load.args(["--first", &first.to_string(), "--duration", &format!("{}ms", config.time.as_millis())]);
    load.args(["--count", &(MAX_BYTES / setup.payload as u64).to_string()]);
    let takes = setup.handler.map(|(takes, _)| takes.as_secs_f64()).filter(|takes| *takes > 0.0);
    let possible = takes.map(|takes| (setup.consumers * CONCURRENCY) as f64 / takes);
    let window = possible.map_or(config.window, |possible| config.window.min((possible * AHEAD_S) as u64));
    load.args(["--window", &window.to_string()]);
    let measured = measure_run(&mut rig, load, first, requests)?;
    rig.stop()?;
    Ok(Point { axis: axis.name, at, unit: axis.unit, kind, per_s: measured.meanwhile_per_s, possible })
}

fn setup(axis: &str, at: u64, kind: Kind, config: &BenchConfig) -> Setup {
    let usual = Setup::usual(kind, config);
    match axis {
        DISPATCHERS => Setup { dispatchers: at as usize, ..usual },
        CONSUMERS => Setup { consumers: at as usize, ..usual },
        PAYLOAD => Setup { payload: at as usize, ..usual },
        HANDLER => Setup { handler: Some((Duration::from_millis(at), CONCURRENCY)), ..usual },
        _ => usual,
    }
}

impl Point {
    fn place(&self) -> String {
        format!("{} {}{}", self.axis, grouped(self.at), self.unit)
    }

    fn line(&self) -> String {
        let (place, kind, per_s) = (self.place(), self.kind.name(), grouped(self.per_s as u64));
        let share = self.possible.map(|possible| {
            format!(
                "  {:.0} % of the {} that the handlers allow",
                100.0 * self.per_s / possible,
                grouped(possible as u64)
            )
        });
        format!("{place:26} {kind:9} {per_s:>9}/s{}", share.unwrap_or_default())
    }

    fn json(&self) -> Value {
        json!({
            "axis": self.axis,
            "at": self.at,
            "kind": self.kind.name(),
            "messages_per_s": self.per_s.round(),
            "share_of_possible": self.possible.map(|possible| rounded(self.per_s / possible)),
        })
    }
}

impl Sweep {
    /// For the file.
    pub(super) fn json(&self) -> Value {
        self.points.iter().map(Point::json).collect()
    }

    /// For the picture.
    pub(super) fn groups(&self) -> Vec<chart::Group> {
        let group = |points: &[Point]| {
            // Sizes differ too much for one scale.
            let sizes = points[0].axis == PAYLOAD;
            let label = |point: &Point| match sizes {
                true => point.kind.name().to_owned(),
                false => format!("{}{} {}", grouped(point.at), point.unit, point.kind.name()),
            };
            let bar =
                |point: &Point| chart::Bar { kind: point.kind, label: label(point), value: point.per_s, spread: None };
            let by = if sizes { points[0].place() } else { points[0].axis.to_owned() };
            let title = format!("messages/s by {by}");
            chart::Group { title, unit: "/s", digits: 0, bars: points.iter().map(bar).collect() }
        };
        let same = |a: &Point, b: &Point| a.axis == b.axis && (a.axis != PAYLOAD || a.at == b.at);
        self.points.chunk_by(same).map(group).collect()
    }
}
