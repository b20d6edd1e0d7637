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
/// For how long a slot keeps the owner that it had if a node names none, or one that does not say so itself. A replica
/// that takes the place of its primary is known to all nodes much sooner.
const KEPT_FOR: Duration = Duration::from_secs(10);

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
    /// Since when nodes name no owner, or another one, for slots whose owner is known otherwise.
    pub(super) doubtful: Option<Instant>,
    /// How many nodes were asked in vain: where to begin.
    pub(super) turns: usize,
}

impl Board {
    /// Whether it may be used without asking again.
    pub(super) fn is_usable(&self) -> bool {
        let since = |time: Option<Instant>, limit| time.is_some_and(|time: Instant| time.elapsed() < limit);
        if self.suspect { since(self.asked, PAUSE) } else { since(self.read, FRESH_FOR) }
    }

    /// A node, one of so many that were asked, has told the topology. Where that is [in doubt](Topology::believed),
    /// what was known before still counts [for a while](KEPT_FOR). Returns the owners that it names and that should be
    /// asked themselves now.
    pub(super) fn note(&mut self, told: Topology, node: Address, asked: usize, now: Instant) -> Vec<Address> {
        let known: Vec<Address> = self.topology.nodes().chain(self.moved.values()).cloned().collect();
        self.former.retain(|(node, last)| now.duration_since(*last) < REMEMBERED_FOR && !known.contains(node));
        self.former.extend(known.into_iter().map(|node| (node, now)));
        let (mut topology, mut doubts) = told.clone().believed(&node, &self.topology);
        self.moved.retain(|slot, owner| match told.owner(*slot).map(|primary| &primary.address) {
            Some(told) if node == *told || node == *owner => false,
            Some(told) if told != owner => {
                doubts.note_named(told);
                true
            }
            _ => topology.owner(*slot).is_none_or(|primary| primary.address != *owner),
        });
        let is_doubtful = !doubts.is_none();
        let doubtful = is_doubtful.then(|| self.doubtful.unwrap_or(now));
        if doubtful.is_some_and(|since| now.duration_since(since) >= KEPT_FOR) {
            // It stays so.
            topology = told;
            self.moved.clear();
        }
        let turns = match topology.nodes().position(|told| *told == node) {
            Some(at) if is_doubtful => at + 1,
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
            suspect: is_doubtful,
            doubtful,
            turns,
        };
        doubts.named
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
