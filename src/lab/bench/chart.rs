//! The figures as bar charts. An SVG that needs no other file and follows the reader's choice of light or dark. Pure.

use super::contender::Contender;
use crate::lab::numbers::grouped;

/// Bars with a common scale.
pub(super) struct Group {
    pub(super) title: String,
    /// Shown after each value.
    pub(super) unit: &'static str,
    /// Decimal places of the values.
    pub(super) digits: usize,
    pub(super) bars: Vec<Bar>,
}

/// A bar.
pub(super) struct Bar {
    pub(super) contender: Contender,
    pub(super) label: String,
    pub(super) value: f64,
    /// The least and the largest value over all rounds.
    pub(super) spread: Option<(f64, f64)>,
}

const WIDTH: f64 = 960.0;
/// Where bars begin, and where the longest ends. Its value follows it.
const LEFT: f64 = 210.0;
const RIGHT: f64 = WIDTH - 130.0;
const TOP: f64 = 60.0;
const TITLE_HEIGHT: f64 = 30.0;
const BAR_HEIGHT: f64 = 22.0;
const GAP: f64 = 16.0;

const STYLE: &str = "\
svg{--ink:#1f2328;--faint:#6e7781;--oncecast:#1a7f37;--streams:#8aa4c8;--relay:#afb8c1;--page:#ffffff;\
font:12px system-ui,sans-serif}\
@media (prefers-color-scheme:dark){svg{--ink:#e6edf3;--faint:#8d96a0;--oncecast:#3fb950;--streams:#6f8fbf;\
--relay:#6e7681;--page:#0d1117}}\
text{fill:var(--ink)}.faint{fill:var(--faint)}.title{font-size:16px;font-weight:600}.group{font-weight:600}\
.oncecast,.patterns,.ordered,.bridge{fill:var(--oncecast)}.streams{fill:var(--streams)}.relay{fill:var(--relay)}\
.spread{stroke:var(--ink)}";

/// The chart.
pub(super) fn svg(title: &str, groups: &[Group]) -> String {
    let height_of = |group: &Group| TITLE_HEIGHT + BAR_HEIGHT * group.bars.len() as f64 + GAP;
    let height = TOP + groups.iter().map(height_of).sum::<f64>();
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         aria-label=\"Figures as bars\"><style>{STYLE}</style>\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" style=\"fill:var(--page)\"/>\
         <text class=\"title\" x=\"20\" y=\"34\">{}</text>\n",
        escaped(title)
    );
    let mut top = TOP;
    for group in groups {
        svg.push_str(&drawn(group, top));
        top += height_of(group);
    }
    svg.push_str("</svg>\n");
    svg
}

fn drawn(group: &Group, top: f64) -> String {
    let largest = |bar: &Bar| bar.spread.map_or(bar.value, |(_, most)| bar.value.max(most));
    let most = group.bars.iter().map(largest).fold(f64::MIN_POSITIVE, f64::max);
    let x = |value: f64| LEFT + (RIGHT - LEFT) * (value / most).clamp(0.0, 1.0);
    let mut svg = format!("<text class=\"group\" x=\"20\" y=\"{:.1}\">{}</text>\n", top + 18.0, escaped(&group.title));
    for (number, bar) in group.bars.iter().enumerate() {
        let y = top + TITLE_HEIGHT + BAR_HEIGHT * number as f64;
        let (middle, text) = (y + BAR_HEIGHT / 2.0 - 2.0, y + BAR_HEIGHT / 2.0 + 2.0);
        let end = x(bar.value);
        svg.push_str(&format!(
            "<text class=\"faint\" x=\"{:.1}\" y=\"{text:.1}\" text-anchor=\"end\">{}</text>\
             <rect class=\"{}\" x=\"{LEFT}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>",
            LEFT - 8.0,
            escaped(&bar.label),
            bar.contender.name(),
            (end - LEFT).max(1.0),
            BAR_HEIGHT - 4.0,
        ));
        let mut text_after = end;
        if let Some((least, most)) = bar.spread {
            let (from, to) = (x(least), x(most));
            svg.push_str(&format!("<path class=\"spread\" d=\"M{from:.1} {middle:.1}H{to:.1}\"/>"));
            text_after = text_after.max(to);
        }
        let value = match group.digits {
            0 => grouped(bar.value.round() as u64),
            digits => format!("{:.digits$}", bar.value),
        };
        let unit = group.unit;
        svg.push_str(&format!("<text x=\"{:.1}\" y=\"{text:.1}\">{value}{unit}</text>\n", text_after + 8.0));
    }
    svg
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_long_as_their_values_and_stay_in_the_chart() {
        let bar = |contender: Contender, value: f64| Bar {
            contender,
            label: "a<b".into(),
            value,
            spread: Some((value, 2.0 * value)),
        };
        let bars =
            vec![bar(Contender::Oncecast, 100_000.0), bar(Contender::Relay, 50_000.0), bar(Contender::Streams, 0.0)];
        let group = Group { title: "t & t".into(), unit: "/s", digits: 0, bars };
        let svg = svg("title", &[group]);
        let width = |class: &str| {
            let (_, rest) = svg.split_once(&format!("<rect class=\"{class}\"")).expect("there is a bar");
            let (_, rest) = rest.split_once("width=\"").expect("it has a width");
            rest.split_once('"').expect("a quote").0.parse::<f64>().expect("a number")
        };
        assert!((width("oncecast") - 2.0 * width("relay")).abs() < 0.2 && width("streams") == 1.0);
        assert!(width("oncecast") <= (RIGHT - LEFT) / 2.0 + 0.1);
        assert!(svg.contains("100,000/s") && svg.contains("a&lt;b") && svg.contains("t &amp; t"));
        assert_eq!(svg.matches("<rect").count(), 4);
    }
}
