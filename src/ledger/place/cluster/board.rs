//! What the nodes of a Redis Cluster said last, how long that is used, and who is asked next. Pure but for the clock.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::question::Silence;
use crate::ledger::topology::Topology;
use crate::net::Address;

/// How long an answer is used for further connections.
const FRESH_FOR: Duration = Duration::from_millis(300);
/// The least time between two questions after a failure.
pub(super) const PAUSE: Duration = Duration::from_millis(100);
/// How long a node is remembered that is named no longer.
const REMEMBERED_FOR: Duration = Duration::from_secs(60);
/// For how long a slot for which a node names no owner keeps the one that it had. A replica that takes the place of its
/// primary is known to all nodes much sooner.
const COMPLETED_FOR: Duration = Duration::from_secs(10);

/// What was learned last.
#[derive(Default)]
pub(super) struct Board {
    pub(super) topology: Topology,
    /// The nodes that were known before, each with the time of the answer that followed.
    pub(super) former: Vec<(Address, Instant)>,
    /// Owners that `MOVED` named since then.
    pub(super) moved: BTreeMap<u16, Address>,
    /// The node that answered last.
    pub(super) answered: Option<Address>,
    /// When that was.
    pub(super) read: Option<Instant>,
    /// When a node was asked last.
    pub(super) asked: Option<Instant>,
    /// Why no node answered, if none did.
    pub(super) silence: Option<Silence>,
    /// Whether there is a sign that the topology is no longer right.
    pub(super) suspect: bool,
    /// Since when nodes have not named owners that were known before.
    pub(super) incomplete: Option<Instant>,
    /// How many nodes were asked in vain: where to begin.
    pub(super) turns: usize,
}

impl Board {
    /// Whether it may be used without asking again.
    pub(super) fn is_usable(&self) -> bool {
        let since = |time: Option<Instant>, limit| time.is_some_and(|time: Instant| time.elapsed() < limit);
        if self.suspect { since(self.asked, PAUSE) } else { since(self.read, FRESH_FOR) }
    }

    /// A node, one of so many that were asked, has told the topology. Of a slot whose owner it does not know, what was
    /// known before still counts [for a while](COMPLETED_FOR), and other nodes are asked next.
    pub(super) fn note(&mut self, told: Topology, node: Address, asked: usize, now: Instant) {
        let known: Vec<Address> = self.topology.nodes().chain(self.moved.values()).cloned().collect();
        self.former.retain(|(node, last)| now.duration_since(*last) < REMEMBERED_FOR && !known.contains(node));
        self.former.extend(known.into_iter().map(|node| (node, now)));
        self.moved.retain(|slot, _| told.owner(*slot).is_none());
        let mut topology = told.clone();
        let is_incomplete = topology.complete_from(&self.topology);
        let incomplete = is_incomplete.then(|| self.incomplete.unwrap_or(now));
        if incomplete.is_some_and(|since| now.duration_since(since) >= COMPLETED_FOR) {
            // It stays so: the slots have no owner.
            topology = told;
            self.moved.clear();
        }
        let turns = match topology.nodes().position(|told| *told == node) {
            Some(at) if is_incomplete => at + 1,
            _ if self.suspect => self.turns + asked,
            _ => 0,
        };
        *self = Board {
            topology,
            former: std::mem::take(&mut self.former),
            moved: std::mem::take(&mut self.moved),
            answered: Some(node),
            read: Some(now),
            asked: Some(now),
            silence: None,
            suspect: is_incomplete,
            incomplete,
            turns,
        };
    }

    /// The node that owns a slot.
    pub(super) fn owner(&self, slot: u16) -> Option<Address> {
        let told = || self.topology.owner(slot).map(|primary| primary.address.clone());
        self.moved.get(&slot).cloned().or_else(told)
    }

    /// All nodes, in the order in which they are to be asked.
    pub(super) fn nodes(&self, seeds: &[Address], slot: Option<u16>) -> Vec<Address> {
        let mut nodes: Vec<Address> = Vec::new();
        for node in self.topology.nodes().chain(self.answered.as_ref()).chain(seeds) {
            if !nodes.contains(node) {
                nodes.push(node.clone());
            }
        }
        let count = nodes.len().max(1);
        nodes.rotate_left(self.turns % count);
        let owner = slot.and_then(|slot| self.owner(slot));
        // Sorting keeps the order among equals.
        match self.suspect {
            true => nodes.sort_by_key(|node| Some(node) == owner.as_ref()),
            false => nodes.sort_by_key(|node| Some(node) != self.answered.as_ref()),
        }
        nodes
    }
}
