//! Throughput as one parameter varies: the number of dispatchers or consumers, the size of messages, the backlog, or
//! the time that a handler takes.

use std::time::Duration;

use serde_json::{Value, json};

use super::chart;
use super::contender::Contender;
use super::context::{Abort, Context};
use super::rig::Rig;
use super::run::{measure as measure_run, run_load};
use super::settings::BenchConfig;
use super::setup::Setup;
use crate::base::error::Result;
use crate::lab::numbers::{grouped, rounded};

/// The throughput at all points.
pub(super) struct Sweep {
    points: Vec<Point>,
}

/// The throughput of one contender with one value of a parameter.
struct Point {
    /// The parameter that varies.
    axis: &'static str,
    /// Its value.
    value: u64,
    unit: &'static str,
    contender: Contender,
    per_s: f64,
    /// The rate that would be reached if only the handlers took time.
    possible: Option<f64>,
}

/// A parameter and its values.
struct Axis {
    name: &'static str,
    unit: &'static str,
    contenders: &'static [Contender],
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
    // All but one are standbys.
    Axis { name: DISPATCHERS, unit: "", contenders: &[Contender::Oncecast], values: &[1, 2, 3], quick: &[1] },
    Axis {
        name: CONSUMERS,
        unit: "",
        contenders: &[Contender::Oncecast, Contender::Streams],
        values: &[1, 2, 3, 4, 5, 6],
        quick: &[2],
    },
    Axis {
        name: PAYLOAD,
        unit: " B",
        contenders: &[Contender::Oncecast, Contender::Streams, Contender::Relay],
        values: &[16, 64, 256, 1_024, 4_096, 16_384, 65_536],
        quick: &[1_024],
    },
    // The relay has no backlog.
    Axis {
        name: BACKLOG,
        unit: "",
        contenders: &[Contender::Oncecast, Contender::Streams],
        values: &[0, 100_000, 1_000_000],
        quick: &[5_000],
    },
    // The peers process one message at a time.
    Axis { name: HANDLER, unit: " ms", contenders: &[Contender::Oncecast], values: &[0, 1, 10], quick: &[1] },
];

/// How many handlers run at the same time in each consumer, when they take time.
const CONCURRENCY: usize = 16;
/// How far the load may be ahead of handlers that take time, in seconds of their work. A larger backlog would only
/// prolong the run.
const AHEAD_S: f64 = 0.1;
/// The most bytes that are sent for a point, since results stay in Redis.
const MAX_BYTES: u64 = 512 << 20;

/// Measures the throughput at all points and prints it.
pub(super) fn measure(context: &mut Context<'_>) -> Result<Sweep, Abort> {
    let config = context.config;
    context.line(&format!("messages/s over {:?} at each point", config.time));
    let mut points = Vec::new();
    for axis in AXES {
        let values = if config.quick { axis.quick } else { axis.values };
        for value in values {
            for contender in axis.contenders.iter().filter(|contender| config.kinds.contains(contender)) {
                let point = measure_point(context, &axis, *value, *contender)?;
                context.line(&point.line());
                points.push(point);
            }
        }
    }
    context.line("");
    Ok(Sweep { points })
}

fn measure_point(context: &mut Context<'_>, axis: &Axis, value: u64, contender: Contender) -> Result<Point, Abort> {
    let (config, requests) = (context.config, &context.requests);
    let setup = setup(axis.name, value, contender, config);
    let mut rig;
    let mut first = 0;
    if axis.name == BACKLOG && value > 0 {
        rig = Rig::start_without_consumers(setup, config, requests)?;
        let mut fill = rig.fill()?;
        fill.args(["--count", &value.to_string(), "--window", &config.window.to_string()]);
        first = run_load(&mut rig, fill, requests)?.sent;
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
    Ok(Point { axis: axis.name, value, unit: axis.unit, contender, per_s: measured.per_s_while_sending, possible })
}

fn setup(axis: &str, value: u64, contender: Contender, config: &BenchConfig) -> Setup {
    let usual = Setup::usual(contender, config);
    match axis {
        DISPATCHERS => Setup { dispatchers: value as usize, ..usual },
        CONSUMERS => Setup { consumers: value as usize, ..usual },
        PAYLOAD => Setup { payload: value as usize, ..usual },
        HANDLER => Setup { handler: Some((Duration::from_millis(value), CONCURRENCY)), ..usual },
        _ => usual,
    }
}

impl Point {
    fn label(&self) -> String {
        format!("{} {}{}", self.axis, grouped(self.value), self.unit)
    }

    fn line(&self) -> String {
        let (label, name, per_s) = (self.label(), self.contender.name(), grouped(self.per_s as u64));
        let share = self.possible.map(|possible| {
            format!(
                "  {:.0} % of the {}/s that the handlers allow",
                100.0 * self.per_s / possible,
                grouped(possible as u64)
            )
        });
        format!("{label:26} {name:9} {per_s:>9}/s{}", share.unwrap_or_default())
    }

    fn json(&self) -> Value {
        json!({
            "axis": self.axis,
            "at": self.value,
            "kind": self.contender.name(),
            "messages_per_s": self.per_s.round(),
            "share_of_possible": self.possible.map(|possible| rounded(self.per_s / possible)),
        })
    }
}

impl Sweep {
    /// The figures for the JSON file.
    pub(super) fn json(&self) -> Value {
        self.points.iter().map(Point::json).collect()
    }

    /// The figures for the chart.
    pub(super) fn charts(&self) -> Vec<chart::Group> {
        let group = |points: &[Point]| {
            // The rates differ too much for a common scale.
            let sizes = points[0].axis == PAYLOAD;
            let label = |point: &Point| match sizes {
                true => point.contender.name().to_owned(),
                false => format!("{}{} {}", grouped(point.value), point.unit, point.contender.name()),
            };
            let bar = |point: &Point| chart::Bar {
                contender: point.contender,
                label: label(point),
                value: point.per_s,
                spread: None,
            };
            let by = if sizes { points[0].label() } else { points[0].axis.to_owned() };
            let title = format!("messages/s by {by}");
            chart::Group { title, unit: "/s", digits: 0, bars: points.iter().map(bar).collect() }
        };
        let same = |a: &Point, b: &Point| a.axis == b.axis && (a.axis != PAYLOAD || a.value == b.value);
        self.points.chunk_by(same).map(group).collect()
    }
}
