//! Reads a group's lanes for the audit, through one connection for each lane.
//!
//! A lane of several whose node fails or refuses is left out from then on, and named in the report.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use super::expected::each_expected;
use super::fingerprints::{Fingerprint, fingerprint};
use super::report::{AuditReport, LaneCounts, UnreadLane};
use crate::base::error::{Error, Result};
use crate::ledger::Ledger;
use crate::ledger::reading::{Entry, EntryStream, ReadPosition};
use crate::programs::consumer::outcome_of;
use crate::programs::patience::patiently;

/// The most ids of a kind that are shown.
pub const MAX_EXAMPLES: usize = 10;
/// How often a long audit logs its progress.
const REPORT_EVERY: Duration = Duration::from_secs(3);

/// The kinds of ids that are shown as examples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ExampleKind {
    Twice,
    Foreign,
    Lost,
}

/// Fingerprints whose texts are needed for the examples.
#[derive(Default)]
pub(super) struct Wanted(BTreeMap<(ExampleKind, Fingerprint), Option<String>>);

impl Wanted {
    pub(super) fn add(&mut self, kind: ExampleKind, print: Fingerprint) {
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
pub(super) struct Auditor {
    pub(super) lanes: Vec<Ledger>,
    /// Why a lane is read no further, for each.
    pub(super) unread: Vec<Option<Error>>,
    pub(super) id_field: String,
    /// What is audited.
    pub(super) results: EntryStream,
    pub(super) reported: Instant,
    pub(super) patience: Duration,
}

impl Auditor {
    /// Counts the backlog and the dead letters; if `ids` is set, also gives the fingerprints of their ids, sorted.
    pub(super) fn read_unrecorded(
        &mut self,
        ids: bool,
        counts: &mut [LaneCounts],
        report: &mut AuditReport,
    ) -> Result<Vec<Fingerprint>> {
        let mut prints = Vec::new();
        for (lane, count) in counts.iter_mut().enumerate() {
            let outcome = self.read_unrecorded_of(lane, ids, count, &mut prints, report);
            self.note(lane, outcome)?;
        }
        prints.sort_unstable();
        prints.dedup();
        Ok(prints)
    }

    /// The same of one lane.
    fn read_unrecorded_of(
        &mut self,
        lane: usize,
        ids: bool,
        count: &mut LaneCounts,
        prints: &mut Vec<Fingerprint>,
        report: &mut AuditReport,
    ) -> Result<()> {
        count.pending = self.patiently(lane, Ledger::count_pending)?;
        let mut position = ReadPosition::default();
        while ids && let Some(page) = self.patiently(lane, |ledger| ledger.read_pending(&mut position))? {
            self.add_payloads(page.iter().map(|(_, body)| body.payload()), prints, report);
        }
        count.dead = self.patiently(lane, Ledger::count_dead)?;
        let mut position = ReadPosition::default();
        let mut read = |ledger: &mut Ledger| ledger.read_stream(EntryStream::Dead, &mut position);
        while ids && let Some(page) = self.patiently(lane, &mut read)? {
            let payloads = page.iter().map(|letter| letter.field("payload").unwrap_or_default());
            self.add_payloads(payloads, prints, report);
        }
        Ok(())
    }

    /// A lane of several whose node fails is left out from then on; in a group with one lane that ends the audit.
    fn note(&mut self, lane: usize, outcome: Result<()>) -> Result<()> {
        match outcome {
            Err(error @ Error::Redis { .. }) if self.lanes.len() > 1 => {
                self.unread[lane] = Some(error);
                Ok(())
            }
            outcome => outcome,
        }
    }

    /// The lanes that could not be read, with the reason. Nothing is counted of them. An error if there are no others.
    pub(super) fn unread_lanes(&mut self, counts: &mut [LaneCounts]) -> Result<Vec<UnreadLane>> {
        if self.unread.iter().all(Option::is_some)
            && let Some(error) = self.unread.iter_mut().find_map(Option::take)
        {
            return Err(error);
        }
        let lanes = counts.iter_mut().zip(&self.unread).filter_map(|(count, error)| {
            let number = count.number;
            let problem = error.as_ref()?.to_string();
            *count = LaneCounts { number, unread: true, ..LaneCounts::default() };
            Some(UnreadLane { number, problem })
        });
        Ok(lanes.collect())
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
    pub(super) fn read_results(
        &mut self,
        counts: &mut [LaneCounts],
        report: &mut AuditReport,
    ) -> Result<Vec<Fingerprint>> {
        let (mut total, results) = (0, self.results);
        let count_of = match results {
            EntryStream::Messages => Ledger::count_messages,
            _ => Ledger::count_results,
        };
        for lane in 0..self.lanes.len() {
            if self.unread[lane].is_none() {
                let outcome = self.patiently(lane, count_of).map(|count| total += count);
                self.note(lane, outcome)?;
            }
        }
        // Reserved in advance: while a vector grows by doubling, it needs up to three times its size.
        let mut prints = Vec::with_capacity(usize::try_from(total).unwrap_or_default());
        for (lane, count) in counts.iter_mut().enumerate() {
            if self.unread[lane].is_some() {
                continue;
            }
            let before = prints.len();
            let outcome = self.read_results_of(lane, count, report.entries, &mut prints);
            if outcome.is_err() {
                prints.truncate(before);
            } else {
                report.entries += count.entries;
            }
            self.note(lane, outcome)?;
        }
        Ok(prints)
    }

    /// The same of one lane; `before` were read of others.
    fn read_results_of(
        &mut self,
        lane: usize,
        count: &mut LaneCounts,
        before: u64,
        prints: &mut Vec<Fingerprint>,
    ) -> Result<()> {
        let (mut position, results) = (ReadPosition::default(), self.results);
        while let Some(page) = self.patiently(lane, |ledger| ledger.read_stream(results, &mut position))? {
            for entry in &page {
                count.entries += 1;
                match self.id_of(entry) {
                    Some(id) => prints.push(fingerprint(&id)),
                    None => count.without_id += 1,
                }
            }
            if self.reported.elapsed() >= REPORT_EVERY {
                self.reported = Instant::now();
                log::info!("event=audit-reading entries={}", before + count.entries);
            }
        }
        Ok(())
    }

    /// Reads again to find the texts of the examples.
    pub(super) fn find_examples(
        &mut self,
        expected: Option<&Path>,
        mut wanted: Wanted,
        report: &mut AuditReport,
    ) -> Result<()> {
        let in_results = |kind| kind != ExampleKind::Lost;
        let results = self.results;
        for lane in 0..self.lanes.len() {
            let mut position = ReadPosition::default();
            while !wanted.is_found(in_results)
                && self.unread[lane].is_none()
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
