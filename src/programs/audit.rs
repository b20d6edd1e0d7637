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

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::base::error::{Error, Result};
use crate::base::setting::ConfigError;
use crate::ledger::Ledger;
use crate::ledger::reading::{Entry, EntryStream, ReadPosition};
use crate::process::{log as process_log, output};
use crate::programs::consumer::outcome_of;
use crate::programs::lanes::{LaneConfig, lanes_of};
use crate::programs::patience::patiently;

mod fingerprints;
mod report;
pub mod settings;

use self::fingerprints::{Fingerprint, Walk, fingerprint, repeated};
use self::settings::AuditConfig;

pub use self::report::AuditReport;

/// The most ids of a kind that are shown.
pub const MAX_EXAMPLES: usize = 10;
/// How long to wait for a reply.
const REPLY_TIME: Duration = Duration::from_secs(10);
/// How often a long audit logs its progress.
const REPORT_EVERY: Duration = Duration::from_secs(3);

/// The subcommand: audits, prints the report and returns the exit code.
pub fn run(config: &AuditConfig) -> Result<u8> {
    let _log = process_log::init(config.common.log_level, "oncecast", "audit")?;
    let report = audit(config)?;
    output::print(&report).map(|_| report.exit_code())
}

/// Counts what a group has recorded, and compares it with what is expected, if that is known.
pub fn audit(config: &AuditConfig) -> Result<AuditReport> {
    if config.expect.is_some() && config.ids.is_some() {
        return Err(ConfigError::new("expect", "a number beside --ids", "a number if there is no --ids").into());
    }
    let expected = config.ids.as_deref().map(read_expected).transpose()?;
    let lane = |lane: LaneConfig| Ledger::new(lane.common.redis, Arc::new(lane.common.keys), REPLY_TIME);
    let lanes = lanes_of(&config.common, config.patience)?.into_iter().map(lane).collect();
    let results = config.common.keys.stream.as_ref().map_or(EntryStream::Processed, |_| EntryStream::Messages);
    let (id_field, patience) = (config.id_field.clone(), config.patience);
    let mut auditor = Auditor { lanes, id_field, results, reported: Instant::now(), patience };
    let mut report = AuditReport::default();
    // The order matters, see the module's text.
    let others = auditor.read_unrecorded(config.expect.is_some() || expected.is_some(), &mut report)?;
    let mut recorded = auditor.read_results(&mut report)?;
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
        report.lost = Some(lost.inspect(|print| wanted.add(ExampleKind::Lost, **print)).count() as u64);
        let mut among_expected = Walk::new(&expected);
        let foreign = recorded.iter().filter(|print| !among_expected.has(**print));
        report.foreign = Some(foreign.inspect(|print| wanted.add(ExampleKind::Foreign, **print)).count() as u64);
    } else if let Some(expect) = config.expect {
        let mut among_recorded = Walk::new(&recorded);
        let elsewhere = others.iter().filter(|print| !among_recorded.has(**print)).count() as u64;
        let found = report.distinct + elsewhere;
        report.lost = Some(expect.saturating_sub(found));
        report.foreign = Some(found.saturating_sub(expect));
    }
    drop((recorded, others));
    auditor.find_examples(config.ids.as_deref(), wanted, &mut report)?;
    Ok(report)
}

/// The kinds of ids that are shown as examples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum ExampleKind {
    Twice,
    Foreign,
    Lost,
}

/// Fingerprints whose texts are needed for the examples.
#[derive(Default)]
struct Wanted(BTreeMap<(ExampleKind, Fingerprint), Option<String>>);

impl Wanted {
    fn add(&mut self, kind: ExampleKind, print: Fingerprint) {
        if self.0.keys().filter(|(other, _)| *other == kind).count() < MAX_EXAMPLES {
            self.0.insert((kind, print), None);
        }
    }

    /// Whether the texts of all kinds for which `of` is true are found.
    fn is_found(&self, of: fn(ExampleKind) -> bool) -> bool {
        self.0.iter().all(|((kind, _), text)| text.is_some() || !of(*kind))
    }

    fn offer(&mut self, id: &[u8]) {
        let print = fingerprint(id);
        for kind in [ExampleKind::Twice, ExampleKind::Foreign, ExampleKind::Lost] {
            if let Some(text) = self.0.get_mut(&(kind, print)) {
                text.get_or_insert_with(|| String::from_utf8_lossy(id).into_owned());
            }
        }
    }

    fn texts(&self, kind: ExampleKind) -> Vec<String> {
        let mut texts: Vec<String> =
            self.0.iter().filter(|((of, _), _)| *of == kind).filter_map(|(_, text)| text.clone()).collect();
        texts.sort_unstable();
        texts
    }
}

/// Reads through one connection for each lane.
struct Auditor {
    lanes: Vec<Ledger>,
    id_field: String,
    /// What is audited.
    results: EntryStream,
    reported: Instant,
    patience: Duration,
}

impl Auditor {
    /// Counts the backlog and the dead letters; if `ids` is set, also gives the fingerprints of their ids, sorted.
    fn read_unrecorded(&mut self, ids: bool, report: &mut AuditReport) -> Result<Vec<Fingerprint>> {
        let mut prints = Vec::new();
        for lane in 0..self.lanes.len() {
            report.pending += self.patiently(lane, Ledger::count_pending)?;
            let mut position = ReadPosition::default();
            while ids && let Some(page) = self.patiently(lane, |ledger| ledger.read_pending(&mut position))? {
                self.add_payloads(page.iter().map(|(_, body)| body.payload()), &mut prints, report);
            }
            report.dead += self.patiently(lane, Ledger::count_dead)?;
            let mut position = ReadPosition::default();
            let mut read = |ledger: &mut Ledger| ledger.read_stream(EntryStream::Dead, &mut position);
            while ids && let Some(page) = self.patiently(lane, &mut read)? {
                let payloads = page.iter().map(|letter| letter.field("payload").unwrap_or_default());
                self.add_payloads(payloads, &mut prints, report);
            }
        }
        prints.sort_unstable();
        prints.dedup();
        Ok(prints)
    }

    /// The id of a result, or of the message in an entry.
    fn id_of<'a>(&self, entry: &'a Entry) -> Option<Cow<'a, [u8]>> {
        match self.results {
            EntryStream::Messages => {
                id_in_payload(entry.field("payload").unwrap_or_default(), &self.id_field).map(Cow::Owned)
            }
            _ => entry.field(&self.id_field).map(Cow::Borrowed),
        }
    }

    fn add_payloads<'a>(
        &self,
        payloads: impl Iterator<Item = &'a [u8]>,
        prints: &mut Vec<Fingerprint>,
        report: &mut AuditReport,
    ) {
        for payload in payloads {
            match id_in_payload(payload, &self.id_field) {
                Some(id) => prints.push(fingerprint(&id)),
                None => report.unnamed += 1,
            }
        }
    }

    /// Counts the results and gives the fingerprints of their ids, in order of recording in each lane.
    fn read_results(&mut self, report: &mut AuditReport) -> Result<Vec<Fingerprint>> {
        let (mut count, results) = (0, self.results);
        let count_of = match results {
            EntryStream::Messages => Ledger::count_messages,
            _ => Ledger::count_results,
        };
        for lane in 0..self.lanes.len() {
            count += self.patiently(lane, count_of)?;
        }
        // Reserved in advance: while a vector grows by doubling, it needs up to three times its size.
        let mut prints = Vec::with_capacity(usize::try_from(count).unwrap_or_default());
        for lane in 0..self.lanes.len() {
            let mut position = ReadPosition::default();
            while let Some(page) = self.patiently(lane, |ledger| ledger.read_stream(results, &mut position))? {
                for entry in &page {
                    report.entries += 1;
                    match self.id_of(entry) {
                        Some(id) => prints.push(fingerprint(&id)),
                        None => report.without_id += 1,
                    }
                }
                if self.reported.elapsed() >= REPORT_EVERY {
                    self.reported = Instant::now();
                    log::info!("event=audit-reading entries={}", report.entries);
                }
            }
        }
        Ok(prints)
    }

    /// Reads again to find the texts of the examples.
    fn find_examples(&mut self, expected: Option<&Path>, mut wanted: Wanted, report: &mut AuditReport) -> Result<()> {
        let in_results = |kind| kind != ExampleKind::Lost;
        let results = self.results;
        for lane in 0..self.lanes.len() {
            let mut position = ReadPosition::default();
            while !wanted.is_found(in_results)
                && let Some(page) = self.patiently(lane, |ledger| ledger.read_stream(results, &mut position))?
            {
                page.iter().filter_map(|entry| self.id_of(entry)).for_each(|id| wanted.offer(&id));
            }
        }
        if let Some(path) = expected {
            each_expected(path, |id| {
                wanted.offer(id);
                !wanted.is_found(|kind| kind == ExampleKind::Lost)
            })?;
        }
        report.twice_examples = wanted.texts(ExampleKind::Twice);
        report.lost_examples = wanted.texts(ExampleKind::Lost);
        report.foreign_examples = wanted.texts(ExampleKind::Foreign);
        Ok(())
    }

    fn patiently<T>(&mut self, lane: usize, ask: impl FnMut(&mut Ledger) -> Result<T>) -> Result<T> {
        patiently(&mut self.lanes[lane], self.patience, ask)
    }
}

/// The id in the payload of an unprocessed message, as the handler `stamp` would record it.
pub(crate) fn id_in_payload(payload: &[u8], id_field: &str) -> Option<Vec<u8>> {
    let outcome = outcome_of(payload);
    outcome.fields().find(|(name, _)| *name == id_field.as_bytes()).map(|(_, id)| id.to_vec())
}

/// The fingerprints of the ids in a file, sorted, each once.
fn read_expected(path: &Path) -> Result<Vec<Fingerprint>> {
    let mut prints = Vec::new();
    each_expected(path, |id| {
        prints.push(fingerprint(id));
        true
    })?;
    prints.sort_unstable();
    prints.dedup();
    Ok(prints)
}

/// Passes each id in a file to `take`, until that returns `false`.
fn each_expected(path: &Path, take: impl FnMut(&[u8]) -> bool) -> Result<()> {
    let failed = || Error::io(format!("--ids {}: reading", path.display()));
    let mut file = BufReader::new(File::open(path).map_err(failed())?);
    each_id(&mut file, take).map_err(failed())
}

/// The longest line of a file of ids. Any other file is refused before its lines fill the memory.
const MAX_ID_BYTES: u64 = 1 << 20;

/// Passes each line that is not empty to `take`, without the end of the line, until that returns `false`.
pub fn each_id(file: &mut impl BufRead, mut take: impl FnMut(&[u8]) -> bool) -> io::Result<()> {
    let mut line = Vec::new();
    while file.take(MAX_ID_BYTES + 1).read_until(b'\n', &mut line)? > 0 {
        if line.len() as u64 > MAX_ID_BYTES {
            let problem = format!("a line has more than {MAX_ID_BYTES} bytes; the file must have one id on each line");
            return Err(io::Error::new(ErrorKind::InvalidData, problem));
        }
        let id = line.strip_suffix(b"\n").unwrap_or(&line);
        let id = id.strip_suffix(b"\r").unwrap_or(id);
        if !id.is_empty() && !take(id) {
            break;
        }
        line.clear();
    }
    Ok(())
}
