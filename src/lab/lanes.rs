//! The lanes of a group, for experiments and tests: their state, and sharded channels for each of them. Owned by one
//! thread.
//!
//! Limitation: the lanes are read one after the other, so they are not a picture of one moment.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::redis::REPLY_LIMIT;
use crate::base::error::Result;
use crate::ledger::overview::{GroupView, Snapshot};
use crate::ledger::{Connection, Keys, LaneNumber, Ledger, SLOTS, Server, slot_of};

/// A channel for each node of a new Redis Cluster with so many primaries, whose slot the node owns. Their names begin
/// with `prefix`.
pub fn channels_of_nodes(prefix: &str, primaries: usize) -> Vec<String> {
    let share = usize::from(SLOTS).div_ceil(primaries);
    let node_of = |name: &String| usize::from(slot_of(name.as_bytes())) / share;
    let on_node = |node| (0..).map(|number| format!("{prefix}{number}")).find(|name| node_of(name) == node);
    (0..primaries).map(|node| on_node(node).expect("there are many names")).collect()
}

/// Reads the state of a group's lanes.
pub struct LanesView {
    server: Server,
    keys: Keys,
    /// Of lane 0, which lists the lanes; `None` if there is no other.
    list: Option<Ledger>,
    views: BTreeMap<LaneNumber, GroupView>,
    /// The calls of PUBLISH and SPUBLISH at each server.
    calls: BTreeMap<String, Calls>,
}

/// A server begins to count anew when it is started again.
#[derive(Default)]
struct Calls {
    before: u64,
    last: u64,
}

impl LanesView {
    /// A view of all lanes of the group with these keys. If they name a stream, its entries count as results. Opens no
    /// connection yet.
    pub fn new(server: Server, keys: Keys) -> LanesView {
        let list = Ledger::new(server.clone(), Arc::new(keys.clone()), REPLY_LIMIT);
        LanesView { list: Some(list), ..LanesView::of_one(server, keys) }
    }

    /// A view of a group that has lane 0 only.
    pub fn of_one(server: Server, keys: Keys) -> LanesView {
        LanesView { server, keys, list: None, views: BTreeMap::new(), calls: BTreeMap::new() }
    }

    /// The state of each lane that is recorded, those included that have nothing to do any more.
    pub fn read(&mut self) -> Result<BTreeMap<LaneNumber, Snapshot>> {
        self.read_with(GroupView::snapshot)
    }

    /// The same, and counts what is [published](LanesView::published).
    pub fn read_with_publishes(&mut self) -> Result<BTreeMap<LaneNumber, Snapshot>> {
        let lanes = self.read_with(GroupView::snapshot_with_publishes)?;
        for (lane, seen) in &lanes {
            let server = self.view(*lane).connection().server().shown();
            self.calls.entry(server).or_default().note(seen.publish_calls);
        }
        Ok(lanes)
    }

    fn read_with(&mut self, read: fn(&mut GroupView) -> Result<Snapshot>) -> Result<BTreeMap<LaneNumber, Snapshot>> {
        let lanes = self.list.as_mut().map_or_else(|| Ok([0].into()), Ledger::lanes)?;
        let lanes = lanes.into_iter().map(|lane| {
            let view = self.view(lane);
            let seen = read(view)?;
            let Some(stream) = view.keys().stream.clone() else { return Ok((lane, seen)) };
            let processed = view.count_entries(&stream)?.unwrap_or_default();
            Ok((lane, Snapshot { processed, ..seen }))
        });
        lanes.collect()
    }

    /// The view of one lane. Panics if the group can have no lane of this number.
    pub fn view(&mut self, lane: LaneNumber) -> &mut GroupView {
        let LanesView { server, keys, views, .. } = self;
        views.entry(lane).or_insert_with(|| {
            let keys = keys.lane(lane).expect("such lanes are not recorded");
            GroupView::new(Connection::new(server.for_key(&keys.leader), REPLY_LIMIT), keys)
        })
    }

    /// How many messages were published on the servers that had lanes, their leaders' markers included.
    pub fn published(&self) -> u64 {
        self.calls.values().map(|calls| calls.before + calls.last).sum()
    }
}

impl Calls {
    fn note(&mut self, calls: u64) {
        if calls < self.last {
            self.before += self.last;
        }
        self.last = calls;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_node_owns_one_of_the_channels() {
        for primaries in [3, 6] {
            let share = usize::from(SLOTS).div_ceil(primaries);
            let channels = channels_of_nodes("orders.", primaries);
            let nodes = channels.iter().map(|name| usize::from(slot_of(name.as_bytes())) / share);
            assert_eq!(nodes.collect::<Vec<_>>(), (0..primaries).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_server_that_was_started_again_counts_on() {
        let mut calls = Calls::default();
        [5, 9, 2, 3].into_iter().for_each(|seen| calls.note(seen));
        assert_eq!(calls.before + calls.last, 12);
    }
}
