//! What the demonstration came to, as the last lines of its screen. Pure.

use std::io::Write;

use crate::lab::trial::Findings;
use crate::lab::trial::screen::{Screen, Tone};

/// See the module's text.
pub(super) struct Verdict<'a>(pub(super) &'a Findings);

impl Verdict<'_> {
    pub(super) fn lines<W: Write>(&self, screen: &Screen<W>) -> Vec<String> {
        let Findings { published, struck, audit: report, .. } = self.0;
        let took = struck.iter().find_map(|struck| struck.took);
        let equal = if report.distinct == *published { "=" } else { "≠" };
        let counts = format!("published {published} {equal} processed {}", report.distinct);
        let took = took.map_or("not seen".to_owned(), |took| format!("{} ms", took.as_millis()));
        let shown = |name: &str, number: u64| {
            let text = format!("{name} {number}");
            screen.paint(if number == 0 { Tone::Good } else { Tone::Bad }, &text)
        };
        let mut lines = vec![
            String::new(),
            format!(
                "  {}   {}   {}   {}",
                screen.paint(Tone::Strong, &counts),
                shown("lost", report.lost.unwrap_or(0)),
                shown("recorded twice", report.twice),
                screen.paint(Tone::Strong, &format!("take-over {took}")),
            ),
            String::new(),
        ];
        if !report.is_clean() {
            lines.extend(report.to_string().lines().map(|line| format!("  {line}")));
            lines.push(format!("  {}", screen.paint(Tone::Bad, "this must not happen: please report it")));
            lines.push(String::new());
        }
        lines
    }
}
