//! A chart of a run: above, messages published and processed per second; below, messages pending; faults are marked. An
//! SVG that needs no other file and follows the reader's choice of light or dark. Pure.

use std::fmt::Write;
use std::time::Duration;

use super::report::ChaosReport;
use crate::lab::experiment::injector::InjectedFault;
use crate::lab::experiment::timeline::Sample;
use crate::lab::numbers::grouped;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = WIDTH - 16.0;
/// The top and the bottom of the two plots.
const RATES: (f64, f64) = (84.0, 264.0);
const PENDING: (f64, f64) = (306.0, 396.0);
/// The period over which a rate is computed: with the default settings longer than the time between two bursts.
const WINDOW: Duration = Duration::from_millis(1_500);
/// The most points of a line; more could not be distinguished.
const MAX_POINTS: usize = 900;

const STYLE: &str = "\
svg{--ink:#1f2328;--faint:#6e7781;--grid:#d8dee4;--published:#8aa4c8;--processed:#1a7f37;--pending:#9a6700;\
--fault:#cf222e;--outage:#cf222e1f;--page:#ffffff;font:12px system-ui,sans-serif}\
@media (prefers-color-scheme:dark){svg{--ink:#e6edf3;--faint:#8d96a0;--grid:#30363d;--published:#6f8fbf;\
--processed:#3fb950;--pending:#d29922;--fault:#ff7b72;--outage:#ff7b7226;--page:#0d1117}}\
text{fill:var(--ink)}.faint{fill:var(--faint)}.title{font-size:16px;font-weight:600}.grid{stroke:var(--grid)}\
.published{fill:none;stroke:var(--published);stroke-width:3}\
.processed{fill:none;stroke:var(--processed);stroke-width:1.5}\
.pending{fill:var(--pending);fill-opacity:.3;stroke:var(--pending)}\
.fault{stroke:var(--fault);stroke-dasharray:3 3}.outage{fill:var(--outage)}.dot{fill:var(--fault)}\
.number{fill:var(--page);font-size:10px;font-weight:600}";

/// A point in time and a value there.
type Point = (Duration, f64);

/// The chart.
pub(super) fn svg(report: &ChaosReport<'_>) -> String {
    let (samples, faults) = (&report.findings.timeline.samples, &report.findings.faults);
    let end = samples.last().map_or(Duration::from_secs(1), |last| last.at).max(Duration::from_secs(1));
    let published = thinned(&rates(samples, |sample| sample.published));
    let processed = thinned(&rates(samples, |sample| sample.processed));
    let pending: Vec<Point> = samples.iter().map(|sample| (sample.at, sample.pending as f64)).collect();
    let pending = thinned(&pending);
    let rate_scale = Scale { end, area: RATES, most: nice_above(most(&published).max(most(&processed))) };
    let pending_scale = Scale { end, area: PENDING, most: nice_above(most(&pending)) };
    [
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
             aria-label=\"Messages published, processed and pending over time, with faults\"><style>{STYLE}</style>\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" style=\"fill:var(--page)\"/>\
             <text class=\"title\" x=\"{LEFT}\" y=\"28\">{}</text>",
            title(report)
        ),
        legend(),
        outages(faults, &rate_scale),
        grid(&rate_scale, "messages/s, over 1.5 s"),
        grid(&pending_scale, "pending: stored and not yet processed"),
        format!("<path class=\"published\" d=\"{}\"/>", line(&published, &rate_scale)),
        format!("<path class=\"processed\" d=\"{}\"/>", line(&processed, &rate_scale)),
        filled(&pending, &pending_scale),
        fault_marks(faults, &rate_scale),
        times(&pending_scale),
        "</svg>\n".to_owned(),
    ]
    .concat()
}

/// Where points lie in one of the two plots.
struct Scale {
    /// The time at the right edge.
    end: Duration,
    /// The top and the bottom.
    area: (f64, f64),
    /// The value at the top.
    most: f64,
}

impl Scale {
    fn x(&self, at: Duration) -> f64 {
        LEFT + (RIGHT - LEFT) * (at.as_secs_f64() / self.end.as_secs_f64()).min(1.0)
    }

    fn y(&self, value: f64) -> f64 {
        let (top, bottom) = self.area;
        bottom - (bottom - top) * value / self.most
    }
}

fn legend() -> String {
    let lines = [
        ("published", "published/s", LEFT),
        ("processed", "processed/s", LEFT + 130.0),
        ("fault", "fault", LEFT + 260.0),
    ];
    let line = |(class, name, at): (&str, &str, f64)| {
        let text = at + 30.0;
        format!("<path class=\"{class}\" d=\"M{at} 50h24\"/><text class=\"faint\" x=\"{text}\" y=\"54\">{name}</text>")
    };
    let band = LEFT + 330.0;
    let text = band + 30.0;
    lines.into_iter().map(line).collect::<String>()
        + &format!(
            "<rect class=\"outage\" x=\"{band}\" y=\"43\" width=\"24\" height=\"14\"/>\
             <text class=\"faint\" x=\"{text}\" y=\"54\">down or paused</text>"
        )
}

/// A band for each fault that lasts.
fn outages(faults: &[InjectedFault], scale: &Scale) -> String {
    let (top, height) = (RATES.0, PENDING.1 - RATES.0);
    let band = |fault: &InjectedFault| {
        let from = scale.x(fault.at);
        let width = (scale.x(fault.at + fault.outage) - from).max(1.0);
        format!("<rect class=\"outage\" x=\"{from:.1}\" y=\"{top}\" width=\"{width:.1}\" height=\"{height}\"/>")
    };
    faults.iter().filter(|fault| fault.fault.lasts()).map(band).collect()
}

/// A plot's horizontal lines with their values, and its name.
fn grid(scale: &Scale, name: &str) -> String {
    let line = |part: i32| {
        let value = scale.most * f64::from(part) / 2.0;
        let (y, number) = (scale.y(value), grouped(value as u64));
        let (x, text) = (LEFT - 8.0, y + 4.0);
        format!(
            "<path class=\"grid\" d=\"M{LEFT} {y}H{RIGHT}\"/>\
             <text class=\"faint\" x=\"{x}\" y=\"{text}\" text-anchor=\"end\">{number}</text>"
        )
    };
    let (x, y) = (LEFT + 6.0, scale.area.0 + 15.0);
    (0..=2).map(line).collect::<String>() + &format!("<text class=\"faint\" x=\"{x}\" y=\"{y}\">{name}</text>")
}

fn line(points: &[Point], scale: &Scale) -> String {
    points.iter().fold(String::new(), |mut path, (at, value)| {
        let command = if path.is_empty() { 'M' } else { 'L' };
        let _ = write!(path, "{command}{:.1} {:.1}", scale.x(*at), scale.y(*value));
        path
    })
}

/// The area below a line.
fn filled(points: &[Point], scale: &Scale) -> String {
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return String::new() };
    let (line, bottom) = (line(points, scale), scale.area.1);
    let (left, right) = (scale.x(first.0), scale.x(last.0));
    format!("<path class=\"pending\" d=\"{line}L{right:.1} {bottom}L{left:.1} {bottom}Z\"/>")
}

/// A dashed line and a number for each fault.
fn fault_marks(faults: &[InjectedFault], scale: &Scale) -> String {
    let (top, bottom, circle, text) = (RATES.0 - 6.0, PENDING.1, RATES.0 - 14.0, RATES.0 - 10.5);
    let mark = |(number, fault): (usize, &InjectedFault)| {
        let (x, number) = (scale.x(fault.at), number + 1);
        format!(
            "<path class=\"fault\" d=\"M{x:.1} {top}V{bottom}\"/>\
             <circle class=\"dot\" cx=\"{x:.1}\" cy=\"{circle}\" r=\"9\"/>\
             <text class=\"number\" x=\"{x:.1}\" y=\"{text}\" text-anchor=\"middle\">{number}</text>"
        )
    };
    faults.iter().enumerate().map(mark).collect()
}

/// The times below the plots.
fn times(scale: &Scale) -> String {
    let (end, y) = (scale.end.as_secs_f64(), PENDING.1 + 20.0);
    let step = nice_above(end / 10.0).max(1.0);
    let seconds = (0..).map(|number| f64::from(number) * step).take_while(|second| *second <= end);
    let text = |second: f64| {
        let x = scale.x(Duration::from_secs_f64(second));
        format!("<text class=\"faint\" x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{second} s</text>")
    };
    seconds.map(text).collect()
}

/// The chart's title.
fn title(report: &ChaosReport<'_>) -> String {
    format!(
        "{} messages, {} faults: lost {}, recorded twice {}",
        grouped(report.findings.published),
        report.findings.faults.len(),
        grouped(report.lost()),
        grouped(report.findings.audit.twice)
    )
}

/// The growth of a count per second, over the period that ends at each sample.
fn rates(samples: &[Sample], count: fn(&Sample) -> u64) -> Vec<Point> {
    let mut first = 0;
    let points = samples.iter().enumerate().skip(1).map(|(number, sample)| {
        while first + 1 < number && samples[first + 1].at + WINDOW <= sample.at {
            first += 1;
        }
        let before = &samples[first];
        let grown = count(sample).saturating_sub(count(before)) as f64;
        (sample.at, grown / (sample.at - before.at).as_secs_f64())
    });
    points.collect()
}

/// Replaces neighbouring points by the highest of them, so that no peak is hidden.
fn thinned(points: &[Point]) -> Vec<Point> {
    let together = points.len().div_ceil(MAX_POINTS).max(1);
    let highest = |points: &[Point]| points.iter().copied().reduce(|a, b| if b.1 > a.1 { b } else { a });
    points.chunks(together).filter_map(highest).collect()
}

fn most(points: &[Point]) -> f64 {
    points.iter().map(|point| point.1).fold(0.0, f64::max)
}

/// The least number not below `value` that is 1, 2 or 5 times a power of ten.
fn nice_above(value: f64) -> f64 {
    let unit = 10f64.powf(value.max(1.0).log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|times| times * unit).find(|nice| *nice >= value).unwrap_or(10.0 * unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_end_at_round_numbers() {
        let ends = [0.0, 1.0, 3.0, 12.0, 26_000.0, 99_999.0].map(nice_above);
        assert_eq!(ends, [1.0, 1.0, 5.0, 20.0, 50_000.0, 100_000.0]);
    }

    #[test]
    fn rates_are_over_the_window_and_no_peak_is_thinned_out() {
        let sample = |ms, published| Sample { at: Duration::from_millis(ms), published, processed: 0, pending: 0 };
        let samples: Vec<Sample> = (0..50).map(|step| sample(step * 100, step * 200)).collect();
        assert!(rates(&samples, |sample| sample.published).iter().all(|(_, rate)| (*rate - 2_000.0).abs() < 1e-6));
        let points: Vec<Point> =
            (0..5_000).map(|n| (Duration::from_millis(n), if n == 777 { 9.0 } else { 1.0 })).collect();
        let thinned = thinned(&points);
        assert!(thinned.len() <= MAX_POINTS);
        assert_eq!(most(&thinned), 9.0);
    }
}
