//! What was seen during a trial: the counts over time, and the most memory each process took.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use crate::lab::{Cluster, Snapshot};

/// About the most samples that are kept.
const MAX_SAMPLES: u32 = 2_000;
/// The shortest time between two.
const LEAST_STEP: Duration = Duration::from_millis(100);
/// The stretch of time that rates are taken over.
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
    /// Messages taken in and not yet done.
    pub pending: u64,
}

/// See the module's text.
#[derive(Clone, Debug)]
pub struct Timeline {
    /// In order of time.
    pub samples: Vec<Sample>,
    /// The most resident memory of each process in bytes, over all its lives, by its name.
    pub peaks: BTreeMap<String, u64>,
    step: Duration,
    markers: Markers,
    /// Calls of PUBLISH before it: they are not of this trial.
    before: u64,
}

impl Timeline {
    /// For a trial that takes about this long, before which the group looked like this.
    pub(super) fn new(duration: Duration, before: &Snapshot) -> Timeline {
        let step = (duration / MAX_SAMPLES).max(LEAST_STEP);
        let mut markers = Markers::default();
        let before = before.publish_calls.saturating_sub(markers.count(before));
        Timeline { samples: Vec::new(), peaks: BTreeMap::new(), step, markers, before }
    }

    /// Takes a look into account; `false` if the last was only a moment ago.
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

    /// Messages published and processed per second, over the last second or the last two looks.
    pub(super) fn rates(&self) -> (u64, u64) {
        let [before @ .., last] = self.samples.as_slice() else { return (0, 0) };
        let recent = |sample: &&Sample| sample.at + WINDOW >= last.at;
        let Some(first) = before.iter().find(recent).or(before.last()) else { return (0, 0) };
        let seconds = (last.at - first.at).as_secs_f64();
        let rate = |from: u64, to: u64| (to.saturating_sub(from) as f64 / seconds).round() as u64;
        (rate(first.published, last.published), rate(first.processed, last.processed))
    }

    /// Takes the memory of all processes that run into account.
    pub(super) fn look_at_memory(&mut self, cluster: &mut Cluster) {
        for (name, pid) in cluster.processes() {
            if let Some(bytes) = peak_memory(pid) {
                let peak = self.peaks.entry(name).or_default();
                *peak = bytes.max(*peak);
            }
        }
    }
}

/// How many markers leaders have published: they are among the calls of PUBLISH, and the cursor says their number.
#[derive(Clone, Debug, Default)]
struct Markers {
    /// Those of earlier epochs.
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

/// The most resident memory that a running process ever had, in bytes.
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
        let mut look = |ms, cursor: &str, publish_calls, processed| {
            let cursor = Some(cursor.parse().expect("a cursor"));
            let snapshot = Snapshot { cursor, publish_calls, processed, ..Snapshot::default() };
            timeline.add(Duration::from_millis(ms), &snapshot);
            timeline.rates()
        };
        assert_eq!(look(0, "7.4 0 1", 5, 0), (0, 0));
        assert_eq!(look(500, "7.9 3 2", 110, 90), (200, 180));
        assert_eq!(look(550, "7.9 9 3", 150, 99), (200, 180), "a moment later nothing is added");
        assert_eq!(look(1_000, "8.0 0 3", 211, 200), (200, 200));
        // A second later the first look no longer counts.
        assert_eq!(look(1_500, "8.5 0 4", 216, 200), (100, 110));
    }

    #[test]
    fn this_process_has_taken_some_memory() {
        assert!(peak_memory(std::process::id()).is_some_and(|bytes| bytes > 100_000));
        assert_eq!(peak_memory(u32::MAX), None);
    }
}
