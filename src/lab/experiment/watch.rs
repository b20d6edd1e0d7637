//! Watches the group of an experiment: the state of its lanes, and their sum. Used by the thread that runs the
//! experiment.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::base::error::Result;
use crate::lab::cluster::{Cluster, Node};
use crate::lab::lanes::LanesView;
use crate::lab::stream_workers::StreamWorkers;
use crate::ledger::overview::{GroupView, Snapshot};
use crate::ledger::{LaneNumber, Lease};

/// A lane without a new result for this long listens no more, or has no messages.
const BUSY_FOR: Duration = Duration::from_secs(2);

/// See the module's text.
pub(super) struct GroupWatch {
    view: LanesView,
    /// How many lanes listen, if the group has several.
    listening: Option<usize>,
    /// How many results each lane had, and when that last changed.
    results: BTreeMap<LaneNumber, (u64, Instant)>,
}

/// The state of a group, as it was read.
pub(super) struct Seen {
    /// The state of its only lane, or the sum over all lanes: then without a lease and a cursor, and with the consumers
    /// that all lanes have.
    pub(super) sum: Snapshot,
    /// Each lane.
    pub(super) lanes: BTreeMap<LaneNumber, Snapshot>,
    /// Those in which results come.
    pub(super) busy: BTreeSet<LaneNumber>,
    /// How many lanes should listen.
    pub(super) listening: usize,
}

impl GroupWatch {
    /// Watches the only lane of a cluster's group, or as many as listen to sharded channels.
    pub(super) fn new(cluster: &Cluster, listening: Option<usize>) -> GroupWatch {
        let make = if listening.is_some() { LanesView::new } else { LanesView::of_one };
        GroupWatch { view: make(cluster.server(), cluster.keys()), listening, results: BTreeMap::new() }
    }

    /// The group's state. With a stream, entries that workers have read count as processed, and the others as pending.
    pub(super) fn read(&mut self, workers: Option<&StreamWorkers>) -> Result<Seen> {
        let mut lanes = self.view.read_with_publishes()?;
        if let Some((workers, snapshot)) = workers.zip(lanes.get_mut(&0)) {
            let entries = self.view.view(0).count_entries(workers.key())?.unwrap_or(0);
            snapshot.processed = workers.read().entries;
            snapshot.pending = entries.saturating_sub(snapshot.processed);
        }
        let sum = Snapshot { publish_calls: self.view.published(), ..sum_of(&lanes) };
        let busy = if self.listening.is_some() { self.busy(&lanes, Instant::now()) } else { [0].into() };
        Ok(Seen { sum, lanes, busy, listening: self.listening.unwrap_or(1) })
    }

    fn busy(&mut self, lanes: &BTreeMap<LaneNumber, Snapshot>, now: Instant) -> BTreeSet<LaneNumber> {
        for (lane, seen) in lanes {
            // Results from before the first reading say nothing.
            let (results, changed) = self.results.entry(*lane).or_insert((seen.processed, now - BUSY_FOR));
            if *results != seen.processed {
                (*results, *changed) = (seen.processed, now);
            }
        }
        let is_busy =
            |(lane, (_, changed)): (&LaneNumber, &(u64, Instant))| (*changed + BUSY_FOR > now).then_some(*lane);
        self.results.iter().filter_map(is_busy).collect()
    }

    /// The view of one lane, for other commands.
    pub(super) fn view(&mut self, lane: LaneNumber) -> &mut GroupView {
        self.view.view(lane)
    }
}

impl Seen {
    /// Whether as many lanes as should listen have a leader, and each that has one is connected to all consumers.
    pub(super) fn is_whole(&self, cluster: &mut Cluster) -> bool {
        let led: Vec<&Snapshot> = self.lanes.values().filter(|seen| seen.lease.is_some()).collect();
        let whole = |seen: &Snapshot| seen.consumers.len() == cluster.consumers() && cluster.leader(seen).is_some();
        led.len() >= self.listening && led.into_iter().all(whole)
    }

    /// One of the lanes that have a leader which runs: the lane, its leader and the lease.
    pub(super) fn pick(&self, pick: u64, cluster: &mut Cluster) -> Option<(LaneNumber, Node, Lease)> {
        let led = self.busy.iter().filter_map(|lane| {
            let seen = self.lanes.get(lane)?;
            Some((*lane, cluster.leader(seen)?, seen.lease.clone()?))
        });
        let led: Vec<_> = led.collect();
        let count = u64::try_from(led.len()).ok().filter(|count| *count > 0)?;
        led.into_iter().nth((pick % count) as usize)
    }

    /// The lanes with results that a node leads, with their leases.
    pub(super) fn led_by(&self, node: Node, cluster: &mut Cluster) -> BTreeMap<LaneNumber, Lease> {
        let is_its = |lane: &&LaneNumber| self.lanes.get(lane).and_then(|seen| cluster.leader(seen)) == Some(node);
        let lanes: Vec<&LaneNumber> = self.busy.iter().filter(is_its).collect();
        lanes.into_iter().filter_map(|lane| Some((*lane, self.lanes.get(lane)?.lease.clone()?))).collect()
    }

    /// The leaders that run, each once.
    pub(super) fn leaders(&self, cluster: &mut Cluster) -> String {
        let names = self.lanes.values().filter_map(|seen| Some(cluster.leader(seen)?.to_string()));
        let names: BTreeSet<String> = names.collect();
        names.into_iter().collect::<Vec<_>>().join(" ")
    }
}

fn sum_of(lanes: &BTreeMap<LaneNumber, Snapshot>) -> Snapshot {
    if let (1, Some(only)) = (lanes.len(), lanes.values().next()) {
        return only.clone();
    }
    let sum = |figure: fn(&Snapshot) -> u64| lanes.values().map(figure).sum();
    let mut led = lanes.values().filter(|seen| seen.lease.is_some());
    let mut consumers = led.next().map_or_else(Vec::new, |first| first.consumers.clone());
    led.for_each(|seen| consumers.retain(|consumer| seen.consumers.contains(consumer)));
    Snapshot {
        processed: sum(|seen| seen.processed),
        pending: sum(|seen| seen.pending),
        dead: sum(|seen| seen.dead),
        gaps: sum(|seen| seen.gaps),
        consumers,
        ..Snapshot::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::Epoch;

    #[test]
    fn lanes_are_summed() {
        let lane = |processed, consumers: &[&str], lease: Option<&str>| Snapshot {
            processed,
            consumers: consumers.iter().map(|name| (*name).to_owned()).collect(),
            lease: lease.map(|holder| Lease { holder: holder.to_owned(), epoch: Epoch(1), by_time: false }),
            ..Snapshot::default()
        };
        let first = lane(3, &["c0", "c1"], Some("d0-x"));
        assert_eq!(sum_of(&[(0, first.clone())].into()), first);
        let several = [(0, first), (4, lane(4, &["c1"], Some("d1-y"))), (5, lane(5, &[], None))].into();
        let sum = sum_of(&several);
        assert_eq!((sum.processed, sum.consumers, sum.lease), (12, vec!["c1".to_owned()], None));
    }
}
