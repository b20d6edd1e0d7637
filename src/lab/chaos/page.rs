//! The report as a web page that needs no other file: the chart, the faults, the memory. The chart is also written to a
//! file of its own.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use super::chart;
use super::report::{ChaosReport, megabytes, milliseconds};
use crate::base::error::{Error, Result};
use crate::base::id::wall_clock_us;
use crate::base::text::Escaped;
use crate::lab::numbers::grouped;
use crate::lab::stream_workers::ReadEntries;
use crate::process::log::Timestamp;

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1f2328;--faint:#6e7781;--grid:#d8dee4;--page:#fff;--good:#1a7f37;--bad:#cf222e}\
@media (prefers-color-scheme:dark){:root{--ink:#e6edf3;--faint:#8d96a0;--grid:#30363d;--page:#0d1117;--good:#3fb950;\
--bad:#ff7b72}}body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--page);max-width:62rem;\
margin:2rem auto;padding:0 1rem}svg{width:100%;height:auto}table{border-collapse:collapse;margin:1rem 0 2rem}\
th,td{text-align:left;padding:.25rem 1.5rem .25rem 0;border-bottom:1px solid var(--grid);\
font-variant-numeric:tabular-nums;white-space:nowrap}th{color:var(--faint);font-weight:500}\
.good{color:var(--good)}.bad{color:var(--bad)}\
code{overflow-wrap:anywhere}";

const REPEATED: &str = "\
<p>Repeated handler runs and redeliveries are expected: when a consumer dies or is disconnected, another consumer \
processes its messages again. Only one result is recorded for each message.</p>";
const ONE_ENTRY: &str = "\
<p>The dispatchers added each message to a stream, which workers read as a group of a Redis Streams client. Each \
message is one entry.</p>";

/// Creates the folder if need be, and checks that files can be written to it.
pub(super) fn make_folder(folder: &Path) -> Result<()> {
    let failed = |error| Error::io(format!("--report (ONCECAST_REPORT): {}", folder.display()))(error);
    let probe = folder.join(".oncecast-report");
    fs::create_dir_all(folder).map_err(failed)?;
    fs::write(&probe, "").map_err(failed)?;
    fs::remove_file(&probe).map_err(failed)
}

/// Writes the page and the chart. Returns the path of the page.
pub(super) fn write(folder: &Path, report: &ChaosReport<'_>) -> Result<PathBuf> {
    let svg = chart::svg(report);
    let page = folder.join("index.html");
    for (path, text) in [(page.clone(), html(report, &svg)), (folder.join("timeline.svg"), svg)] {
        fs::write(&path, text).map_err(Error::io(format!("writing {}", path.display())))?;
    }
    Ok(page)
}

fn html(report: &ChaosReport<'_>, svg: &str) -> String {
    let findings = report.findings;
    let verdict = if report.is_clean() { "good" } else { "bad" };
    let mut html = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width,initial-scale=1\"><title>oncecast chaos, seed {}</title><style>{STYLE}</style>\
         <h1>oncecast chaos <span class=\"{verdict}\">{}</span></h1>{svg}",
        report.config.plan.seed,
        if report.is_clean() { "✓" } else { "✗" }
    );
    let rows = [
        ("published", grouped(findings.published)),
        ("processed", grouped(findings.audit.distinct)),
        ("lost", grouped(report.lost())),
        ("recorded twice", grouped(findings.audit.twice)),
        ("processed, unknown to the publisher", grouped(findings.unknown())),
        ("dead letters", grouped(findings.audit.dead)),
    ];
    let work = match (findings.read, report.runs) {
        (None, None) => Vec::new(),
        (None, Some(runs)) => vec![
            ("handler runs", grouped(runs.runs)),
            ("handler runs repeated", grouped(runs.repeated())),
            ("redelivered", grouped(runs.redelivered)),
        ],
        (Some(ReadEntries { entries, again }), _) => {
            vec![("entries read by workers", grouped(entries)), ("entries read again", grouped(again))]
        }
    };
    let run = [
        ("from the first message to the last result", format!("{:.1} s", findings.elapsed.as_secs_f64())),
        ("server", findings.redis.clone()),
        ("oncecast", env!("CARGO_PKG_VERSION").to_owned()),
        ("run", Timestamp(wall_clock_us()).to_string()),
    ];
    let rows = rows.into_iter().chain(work).chain(run);
    table(&mut html, &["", ""], rows.map(|(name, value)| vec![name.to_owned(), value]));
    html.push_str(if findings.read.is_none() { REPEATED } else { ONE_ENTRY });
    html.push_str("<h2>Faults</h2>");
    let faults = findings.faults.iter().enumerate().map(|(number, fault)| {
        let target = &fault.target;
        vec![
            (number + 1).to_string(),
            format!("{:.1} s", fault.at.as_secs_f64()),
            fault.fault.to_string(),
            if fault.hit_leader { format!("{target}, the leader") } else { target.clone() },
            format!("{:.1} s", fault.outage.as_secs_f64()),
            fault.recovery.map_or("not seen".to_owned(), milliseconds),
            fault.leader_then.clone(),
        ]
    });
    let head = ["", "at", "fault", "target", "duration", "results resumed after", "leader then"];
    table(&mut html, &head, faults);
    html.push_str("<h2>Peak memory</h2>");
    let peaks = findings.timeline.peaks.iter().map(|(name, bytes)| vec![name.clone(), megabytes(*bytes)]);
    table(&mut html, &["process", "resident"], peaks);
    let _ = write!(html, "<h2>To repeat the run</h2><p><code>{}</code></p></html>", report.command());
    html
}

/// A text as HTML.
fn text_of(text: &str) -> String {
    Escaped(text).to_string().replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Appends a table. Its texts are never markup: some come from Redis.
fn table(html: &mut String, head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) {
    let row = |cells: &mut dyn Iterator<Item = &str>, tag: &str| {
        let cells = cells.map(|cell| format!("<{tag}>{}</{tag}>", text_of(cell))).collect::<String>();
        format!("<tr>{cells}</tr>")
    };
    html.push_str("<table>");
    if head.iter().any(|name| !name.is_empty()) {
        html.push_str(&row(&mut head.iter().copied(), "th"));
    }
    for cells in rows {
        html.push_str(&row(&mut cells.iter().map(String::as_str), "td"));
    }
    html.push_str("</table>");
}
