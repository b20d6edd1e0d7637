//! A picture of a run: published and processed per second above, pending below, faults marked. SVG that needs nothing
//! else, in the reader's choice of light or dark. Pure.

use std::fmt::Write;
use std::time::Duration;

use super::report::Report;
use crate::lab::trial::plan::Fault;
use crate::lab::trial::screen::grouped;
use crate::lab::trial::timeline::Sample;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = WIDTH - 16.0;
/// The two plots: top and bottom of each.
const RATES: (f64, f64) = (84.0, 264.0);
const PENDING: (f64, f64) = (306.0, 396.0);
/// The stretch of time that a rate is taken over: bursts come a few times a second.
const WINDOW: Duration = Duration::from_millis(1_500);
/// The most points of a line; more could not be told apart.
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

/// The picture.
pub(super) fn svg(report: &Report<'_>) -> String {
    let samples = &report.findings.timeline.samples;
    let end = samples.last().map_or(Duration::from_secs(1), |last| last.at).max(Duration::from_secs(1));
    let x = |at: Duration| LEFT + (RIGHT - LEFT) * (at.as_secs_f64() / end.as_secs_f64()).min(1.0);
    let published = thinned(&rates(samples, |sample| sample.published));
    let processed = thinned(&rates(samples, |sample| sample.processed));
    let pending: Vec<Point> = samples.iter().map(|sample| (sample.at, sample.pending as f64)).collect();
    let pending = thinned(&pending);
    let most_rate = nice_above(most(&published).max(most(&processed)));
    let most_pending = nice_above(most(&pending));

    let mut svg = String::new();
    let mut add = |part: String| svg.push_str(&part);
    add(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
         aria-label=\"Messages published, processed and pending over time, with faults\"><style>{STYLE}</style>"
    ));
    add(format!(
        "<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" style=\"fill:var(--page)\"/><text class=\"title\" x=\"{LEFT}\" y=\"28\">{}</text>",
        title(report)
    ));
    for (class, name, at) in [
        ("published", "published/s", LEFT),
        ("processed", "processed/s", LEFT + 130.0),
        ("fault", "fault", LEFT + 260.0),
    ] {
        add(format!(
            "<path class=\"{class}\" d=\"M{at} 50h24\"/><text class=\"faint\" x=\"{}\" y=\"54\">{name}</text>",
            at + 30.0
        ));
    }
    let band = LEFT + 330.0;
    add(format!("<rect class=\"outage\" x=\"{band}\" y=\"43\" width=\"24\" height=\"14\"/>"));
    add(format!("<text class=\"faint\" x=\"{}\" y=\"54\">away or stopped</text>", band + 30.0));
    for struck in &report.findings.struck {
        let (from, to) = (x(struck.at), x(struck.at + struck.outage));
        if struck.fault != Fault::Cut {
            let width = (to - from).max(1.0);
            let height = PENDING.1 - RATES.0;
            add(format!(
                "<rect class=\"outage\" x=\"{from:.1}\" y=\"{}\" width=\"{width:.1}\" height=\"{height}\"/>",
                RATES.0
            ));
        }
    }
    for ((top, bottom), most, name) in
        [(RATES, most_rate, "messages/s, over 1.5 s"), (PENDING, most_pending, "pending: taken in and not yet done")]
    {
        for part in 0..=2 {
            let y = bottom - (bottom - top) * f64::from(part) / 2.0;
            let value = grouped((most * f64::from(part) / 2.0) as u64);
            add(format!("<path class=\"grid\" d=\"M{LEFT} {y}H{RIGHT}\"/>"));
            add(format!(
                "<text class=\"faint\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{value}</text>",
                LEFT - 8.0,
                y + 4.0
            ));
        }
        add(format!("<text class=\"faint\" x=\"{}\" y=\"{}\">{name}</text>", LEFT + 6.0, top + 15.0));
    }
    let line = |points: &[Point], (top, bottom): (f64, f64), most: f64| {
        points.iter().fold(String::new(), |mut path, (at, value)| {
            let command = if path.is_empty() { 'M' } else { 'L' };
            let y = bottom - (bottom - top) * value / most;
            let _ = write!(path, "{command}{:.1} {y:.1}", x(*at));
            path
        })
    };
    add(format!("<path class=\"published\" d=\"{}\"/>", line(&published, RATES, most_rate)));
    add(format!("<path class=\"processed\" d=\"{}\"/>", line(&processed, RATES, most_rate)));
    if let (Some(first), Some(last)) = (pending.first(), pending.last()) {
        let area = line(&pending, PENDING, most_pending);
        let bottom = PENDING.1;
        add(format!("<path class=\"pending\" d=\"{area}L{:.1} {bottom}L{:.1} {bottom}Z\"/>", x(last.0), x(first.0)));
    }
    for (number, struck) in report.findings.struck.iter().enumerate() {
        let at = x(struck.at);
        add(format!("<path class=\"fault\" d=\"M{at:.1} {}V{}\"/>", RATES.0 - 6.0, PENDING.1));
        add(format!("<circle class=\"dot\" cx=\"{at:.1}\" cy=\"{}\" r=\"9\"/>", RATES.0 - 14.0));
        add(format!(
            "<text class=\"number\" x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            RATES.0 - 10.5,
            number + 1
        ));
    }
    let step = nice_above(end.as_secs_f64() / 10.0).max(1.0);
    let mut second = 0.0;
    while second <= end.as_secs_f64() {
        let at = x(Duration::from_secs_f64(second));
        add(format!(
            "<text class=\"faint\" x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{second} s</text>",
            PENDING.1 + 20.0
        ));
        second += step;
    }
    svg.push_str("</svg>\n");
    svg
}

/// The picture's headline.
pub(super) fn title(report: &Report<'_>) -> String {
    format!(
        "{} messages, {} faults: lost {}, recorded twice {}",
        grouped(report.findings.published),
        report.findings.struck.len(),
        grouped(report.lost()),
        grouped(report.findings.audit.twice)
    )
}

/// The growth of a count per second, over the window that ends at each sample.
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

/// Points so close that they fall together become one: the highest of them, so that no peak is hidden.
fn thinned(points: &[Point]) -> Vec<Point> {
    let together = points.len().div_ceil(MAX_POINTS).max(1);
    let highest = |points: &[Point]| points.iter().copied().reduce(|a, b| if b.1 > a.1 { b } else { a });
    points.chunks(together).filter_map(highest).collect()
}

fn most(points: &[Point]) -> f64 {
    points.iter().map(|point| point.1).fold(0.0, f64::max)
}

/// 1, 2 or 5 times a power of ten, not below `value`.
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
