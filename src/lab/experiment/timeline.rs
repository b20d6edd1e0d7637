//! Records of an experiment: the counts over time, and the peak memory of each process.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use crate::lab::cluster::Cluster;
use crate::ledger::overview::Snapshot;

/// Roughly the most samples that are kept.
const MAX_SAMPLES: u32 = 2_000;
/// The shortest time between two samples.
const LEAST_STEP: Duration = Duration::from_millis(100);
/// The period over which rates are computed.
const WINDOW: Duration = Duration::from_secs(1);

/// The counts at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Since publishing began.
    pub at: Duration,
    /// Messages published so far.
    pub published: u64,
    /// Results recorded so far.
    pub processed: u64,
    /// Messages stored and not yet processed.
    pub pending: u64,
}

/// See the module's text.
#[derive(Clone, Debug)]
pub struct Timeline {
    /// In order of time.
    pub samples: Vec<Sample>,
    /// The peak resident memory of each process in bytes, across restarts, by its name.
    pub peaks: BTreeMap<String, u64>,
    step: Duration,
    markers: Markers,
    /// Calls of PUBLISH before the experiment.
    before: u64,
}

impl Timeline {
    /// For an experiment of about this duration. `before` is the group's state before it.
    pub(super) fn new(duration: Duration, before: &Snapshot) -> Timeline {
        let step = (duration / MAX_SAMPLES).max(LEAST_STEP);
        let mut markers = Markers::default();
        let before = before.publish_calls.saturating_sub(markers.count(before));
        Timeline { samples: Vec::new(), peaks: BTreeMap::new(), step, markers, before }
    }

    /// Adds a sample; `false` if the last one is too recent.
    pub(super) fn add(&mut self, at: Duration, snapshot: &Snapshot) -> bool {
        let calls = snapshot.publish_calls.saturating_sub(self.markers.count(snapshot));
        if self.samples.last().is_some_and(|last| at < last.at + self.step) {
            return false;
        }
        let published = calls.saturating_sub(self.before);
        let (processed, pending) = (snapshot.processed, snapshot.pending);
        self.samples.push(Sample { at, published, processed, pending });
        true
    }

    /// Messages published and processed per second, over the last second or the last two samples.
    pub(super) fn rates(&self) -> (u64, u64) {
        let [before @ .., last] = self.samples.as_slice() else { return (0, 0) };
        let recent = |sample: &&Sample| sample.at + WINDOW >= last.at;
        let Some(first) = before.iter().find(recent).or(before.last()) else { return (0, 0) };
        let seconds = (last.at - first.at).as_secs_f64();
        let rate = |from: u64, to: u64| (to.saturating_sub(from) as f64 / seconds).round() as u64;
        (rate(first.published, last.published), rate(first.processed, last.processed))
    }

    /// Updates the peaks with the memory of all processes that run.
    pub(super) fn sample_memory(&mut self, cluster: &mut Cluster) {
        for (name, pid) in cluster.processes() {
            if let Some(bytes) = peak_memory(pid) {
                let peak = self.peaks.entry(name).or_default();
                *peak = bytes.max(*peak);
            }
        }
    }
}

/// How many markers leaders have published. They count as calls of PUBLISH; the cursor holds their number.
#[derive(Clone, Debug, Default)]
struct Markers {
    /// Markers of earlier epochs.
    before: u64,
    epoch: String,
    in_epoch: u64,
}

impl Markers {
    fn count(&mut self, snapshot: &Snapshot) -> u64 {
        let marker = snapshot.cursor.as_ref().and_then(|cursor| cursor.position.marker.as_str().rsplit_once('.'));
        if let Some((epoch, Ok(number))) = marker.map(|(epoch, number)| (epoch, number.parse::<u64>())) {
            if epoch != self.epoch {
                self.before += self.in_epoch;
                self.epoch = epoch.to_owned();
            }
            self.in_epoch = number + 1;
        }
        self.before + self.in_epoch
    }
}

/// The peak resident memory of a running process in bytes.
fn peak_memory(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_are_not_counted_as_messages() {
        let mut timeline = Timeline::new(Duration::from_secs(10), &Snapshot::default());
        assert_eq!(timeline.rates(), (0, 0));
        let mut sample = |ms, cursor: &str, publish_calls, processed| {
            let cursor = Some(cursor.parse().expect("a cursor"));
            let snapshot = Snapshot { cursor, publish_calls, processed, ..Snapshot::default() };
            timeline.add(Duration::from_millis(ms), &snapshot);
            timeline.rates()
        };
        assert_eq!(sample(0, "7.4 0 1", 5, 0), (0, 0));
        assert_eq!(sample(500, "7.9 3 2", 110, 90), (200, 180));
        assert_eq!(sample(550, "7.9 9 3", 150, 99), (200, 180), "too soon after the last: nothing is added");
        assert_eq!(sample(1_000, "8.0 0 3", 211, 200), (200, 200));
        // A second later the first sample no longer counts.
        assert_eq!(sample(1_500, "8.5 0 4", 216, 200), (100, 110));
    }

    #[test]
    fn this_process_uses_memory() {
        assert!(peak_memory(std::process::id()).is_some_and(|bytes| bytes > 100_000));
        assert_eq!(peak_memory(u32::MAX), None);
    }
}
