//! The audit: is every message recorded, and none twice? With `--stream` it audits the entries of the stream that the
//! group delivers to, in place of results.
//!
//! Reads the whole result stream, page by page, on the caller's thread. For each id it keeps only a 128-bit
//! fingerprint: ten million results need about 160 MB, and a file of ids needs the same amount again. A second pass
//! finds the texts of the few ids that are shown as examples.
//!
//! It reads the backlog first, then the dead letters, then the results. Messages move in this order, so one that moves
//! during the audit is seen at least once. Limitations: a message put back from the dead letters during the audit may
//! be missed; different ids may have the same fingerprint, but for ten million ids the chance is less than 1 in 10^24.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::base::error::{Error, Result};
use crate::base::setting::ConfigError;
use crate::ledger::Ledger;
use crate::ledger::reading::EntryStream;
use crate::process::{log as process_log, output};
use crate::programs::lanes::{LaneConfig, lanes_to_show_patiently};

mod auditor;
mod expected;
mod fingerprints;
mod report;
pub mod settings;

use self::auditor::{Auditor, ExampleKind, Wanted};
use self::expected::read_expected;
use self::fingerprints::{Fingerprint, Walk, repeated};
use self::settings::AuditConfig;

pub use self::auditor::MAX_EXAMPLES;
#[cfg(test)]
pub(crate) use self::auditor::id_in_payload;
pub use self::expected::each_id;
pub use self::report::{AuditReport, LaneCounts, UnreadLane};

/// How long to wait for a reply.
const REPLY_TIME: Duration = Duration::from_secs(10);

/// The subcommand: audits, prints the report and returns the exit code.
pub fn run(config: &AuditConfig) -> Result<u8> {
    let _log = process_log::init(config.common.log_level, "oncecast", "audit")?;
    let report = audit(config)?;
    output::print(if config.json { report.json() } else { report.to_string() }).map(|_| report.exit_code())
}

/// Counts what a group has recorded, and compares it with what is expected, if that is known.
pub fn audit(config: &AuditConfig) -> Result<AuditReport> {
    if config.expect.is_some() && config.ids.is_some() {
        return Err(ConfigError::new("expect", "a number beside --ids", "a number if there is no --ids").into());
    }
    let expected = config.ids.as_deref().map(read_expected).transpose()?;
    let lanes = lanes_to_show_patiently(&config.common, config.patience)?;
    let counts = |lane: &LaneConfig| LaneCounts { number: lane.number, ..LaneCounts::default() };
    let mut counts: Vec<LaneCounts> = lanes.iter().map(counts).collect();
    let lane = |lane: LaneConfig| Ledger::new(lane.common.redis, Arc::new(lane.common.keys), REPLY_TIME);
    let lanes: Vec<Ledger> = lanes.into_iter().map(lane).collect();
    let results = config.common.keys.stream.as_ref().map_or(EntryStream::Processed, |_| EntryStream::Messages);
    let (id_field, patience) = (config.id_field.clone(), config.patience);
    let unread = lanes.iter().map(|_| None).collect();
    let mut auditor = Auditor { lanes, unread, id_field, results, reported: Instant::now(), patience };
    let mut report = AuditReport::default();
    // The order matters, see the module's text.
    let others = auditor.read_unrecorded(config.expect.is_some() || expected.is_some(), &mut counts, &mut report)?;
    let mut recorded = auditor.read_results(&mut counts, &mut report)?;
    report.unread = auditor.unread_lanes(&mut counts)?;
    count_ids(&mut recorded, &mut counts);
    report.add_up(counts);
    recorded.sort_unstable();
    let mut wanted = Wanted::default();
    for (print, times) in repeated(&recorded) {
        report.twice += 1;
        report.extra += times - 1;
        wanted.add(ExampleKind::Twice, print);
    }
    recorded.dedup();
    report.distinct = recorded.len() as u64;
    if report.entries > 0 && report.without_id == report.entries {
        // Without ids, "nothing recorded twice" would be meaningless.
        return Err(Error::Failed(format!(
            "none of the {} results has a field {:?}: name the field that holds the id with --id-field",
            report.entries, config.id_field
        )));
    }
    if let Some(expected) = expected {
        let (mut among_recorded, mut among_others) = (Walk::new(&recorded), Walk::new(&others));
        let lost = expected.iter().filter(|print| !(among_recorded.has(**print) | among_others.has(**print)));
        // Those that are missing may be in a lane that could not be read.
        if report.is_whole() {
            report.lost = Some(lost.inspect(|print| wanted.add(ExampleKind::Lost, **print)).count() as u64);
        }
        let mut among_expected = Walk::new(&expected);
        let foreign = recorded.iter().filter(|print| !among_expected.has(**print));
        report.foreign = Some(foreign.inspect(|print| wanted.add(ExampleKind::Foreign, **print)).count() as u64);
    } else if let Some(expect) = config.expect {
        let mut among_recorded = Walk::new(&recorded);
        let elsewhere = others.iter().filter(|print| !among_recorded.has(**print)).count() as u64;
        let found = report.distinct + elsewhere;
        report.lost = report.is_whole().then(|| expect.saturating_sub(found));
        report.foreign = Some(found.saturating_sub(expect));
    }
    drop((recorded, others));
    auditor.find_examples(config.ids.as_deref(), wanted, &mut report)?;
    Ok(report)
}

/// Counts the ids of each lane. Their fingerprints are sorted lane by lane.
fn count_ids(recorded: &mut [Fingerprint], counts: &mut [LaneCounts]) {
    let mut rest = recorded;
    for lane in counts {
        let with_id = usize::try_from(lane.entries - lane.without_id).unwrap_or(usize::MAX).min(rest.len());
        let (own, others) = rest.split_at_mut(with_id);
        own.sort_unstable();
        let extra: u64 = repeated(own).map(|(_, times)| times - 1).sum();
        lane.twice = repeated(own).count() as u64;
        lane.distinct = own.len() as u64 - extra;
        rest = others;
    }
}
