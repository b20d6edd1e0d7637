//! The findings of the demonstration as its last lines of output. Pure.

use std::io::Write;

use crate::lab::console::{Console, Tone};
use crate::lab::experiment::Findings;

/// The lines, styled for `console`.
pub(super) fn lines<W: Write>(findings: &Findings, console: &Console<W>) -> Vec<String> {
    let Findings { published, faults, audit, .. } = findings;
    let equal = if audit.distinct == *published { "=" } else { "≠" };
    let counts = format!("published {published} {equal} processed {}", audit.distinct);
    let recovery = faults.iter().find_map(|fault| fault.recovery);
    let recovery = recovery.map_or("not seen".to_owned(), |took| format!("{} ms", took.as_millis()));
    let unknown = match findings.unknown() {
        0 => String::new(),
        unknown => format!("   unknown to the publisher {unknown}"),
    };
    let good_if_zero = |name: &str, number: u64| {
        console.paint(if number == 0 { Tone::Good } else { Tone::Bad }, &format!("{name} {number}"))
    };
    let mut lines = vec![
        String::new(),
        format!(
            "  {}   {}   {}{unknown}   {}",
            console.paint(Tone::Strong, &counts),
            good_if_zero("lost", audit.lost.unwrap_or(0)),
            good_if_zero("recorded twice", audit.twice),
            console.paint(Tone::Strong, &format!("take-over {recovery}")),
        ),
        String::new(),
    ];
    if !audit.is_clean() {
        lines.extend(audit.to_string().lines().map(|line| format!("  {line}")));
        lines.push(format!("  {}", console.paint(Tone::Bad, "This is a bug: please report it.")));
        lines.push(String::new());
    }
    lines
}
