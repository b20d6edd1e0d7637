//! What the nodes of a Redis Cluster said last, how long that is used, and who is asked next. Pure but for the clock.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use super::question::Silence;
use crate::ledger::topology::{Primary, SLOTS, Topology};
use crate::net::Address;

/// How long an answer is used for further connections.
const FRESH_FOR: Duration = Duration::from_millis(300);
/// The least time between two questions after a failure.
pub(super) const PAUSE: Duration = Duration::from_millis(100);
/// How long a node is remembered that is named no longer.
const REMEMBERED_FOR: Duration = Duration::from_secs(60);
/// For how long a slot for which nodes name no owner keeps the one that it had. A replica that takes the place of its
/// primary is known to all nodes much sooner.
const KEPT_FOR: Duration = Duration::from_secs(10);

/// What was learned last.
#[derive(Default)]
pub(super) struct Board {
    pub(super) topology: Topology,
    /// The nodes that were known before, each with the time of the answer that followed.
    pub(super) former: Vec<(Address, Instant)>,
    /// Owners that `MOVED` named, and that no answer has confirmed or refuted.
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
    /// Since when nodes have not named owners that were known before: one time for all such slots.
    pub(super) incomplete: Option<Instant>,
    /// How many nodes were asked in vain: where to begin.
    pub(super) turns: usize,
}

/// A slot's owner, as far as it is known: `MOVED` names no id.
#[derive(Clone, Copy)]
struct Owner<'a> {
    id: Option<&'a str>,
    address: &'a Address,
}

impl<'a> Owner<'a> {
    fn of(primary: &'a Primary) -> Owner<'a> {
        Owner { id: Some(&primary.id), address: &primary.address }
    }

    fn is(&self, primary: &Primary) -> bool {
        self.id.map_or(*self.address == primary.address, |id| id == primary.id)
    }

    /// Whether it has lost the slot to the one that `node` tells. Each of the two speaks for itself; if neither
    /// answers, the third is believed.
    fn has_lost(&self, slot: u16, told: &Primary, node: &Address, answers: &Answers) -> bool {
        let claims = answers.get(&told.address).map(|said| said.owner(slot).is_some_and(|owner| owner.id == told.id));
        let gives = || {
            let said = answers.get(self.address)?;
            Some(said.owner(slot).is_none_or(|owner| owner.id == told.id))
        };
        [self.address, &told.address].contains(&node) || claims.or_else(gives).unwrap_or(true)
    }
}

/// What nodes answered in one round.
pub(super) type Answers = HashMap<Address, Topology>;

impl Board {
    /// Whether it may be used without asking again.
    pub(super) fn is_usable(&self) -> bool {
        let since = |time: Option<Instant>, limit| time.is_some_and(|time: Instant| time.elapsed() < limit);
        if self.suspect { since(self.asked, PAUSE) } else { since(self.read, FRESH_FOR) }
    }

    /// The owners that know whether a slot has moved that this node says has moved: the known one and the one that it
    /// names. None if it is one of the two itself.
    pub(super) fn witnesses(&self, node: &Address, told: &Topology) -> Vec<Address> {
        let mut witnesses: Vec<Address> = Vec::new();
        for (_, known, told) in self.owners(told) {
            if let (Some(known), Some(told)) = (known, told)
                && !known.is(told)
                && ![known.address, &told.address].contains(&node)
            {
                for owner in [known.address, &told.address] {
                    if !witnesses.contains(owner) {
                        witnesses.push(owner.clone());
                    }
                }
            }
        }
        witnesses
    }

    /// Of the answers of a round in which so many nodes were asked, that of this node counts. The others are those of
    /// its [witnesses](Board::witnesses). A slot for which it names no owner keeps the known one
    /// [for a while](KEPT_FOR). If it can't be right, other nodes are asked next.
    pub(super) fn note(&mut self, node: Address, answers: &Answers, asked: usize, now: Instant) {
        let told = &answers[&node];
        let were_known: Vec<Address> = self.topology.nodes().chain(self.moved.values()).cloned().collect();
        self.former.retain(|(node, last)| now.duration_since(*last) < REMEMBERED_FOR && !were_known.contains(node));
        self.former.extend(were_known.into_iter().map(|node| (node, now)));
        let is_incomplete = self.owners(told).any(|(_, known, told)| known.is_some() && told.is_none());
        // If nobody has asked for long, that it was incomplete then says nothing.
        let since = self.incomplete.filter(|_| self.read.is_some_and(|read| now.duration_since(read) < KEPT_FOR));
        let incomplete = is_incomplete.then(|| since.unwrap_or(now));
        let completes = incomplete.is_some_and(|since| now.duration_since(since) < KEPT_FOR);
        let is_kept = |(slot, known, told): (u16, Option<Owner<'_>>, Option<&Primary>)| match (known, told) {
            (Some(known), Some(told)) => !known.is(told) && !known.has_lost(slot, told, &node, answers),
            (Some(_), None) => completes,
            (None, _) => false,
        };
        let kept: Vec<bool> = self.owners(told).map(is_kept).collect();
        let topology = told.keeping(&kept, &self.topology);
        let is_doubtful = is_incomplete || kept.contains(&true);
        let turns = match topology.nodes().position(|told| *told == node) {
            Some(at) if is_doubtful => at + 1,
            _ if self.suspect => self.turns + asked,
            _ => 0,
        };
        self.moved.retain(|slot, _| kept[usize::from(*slot)]);
        *self = Board {
            topology,
            former: std::mem::take(&mut self.former),
            moved: std::mem::take(&mut self.moved),
            answered: Some(node),
            read: Some(now),
            asked: Some(now),
            silence: None,
            suspect: is_doubtful,
            incomplete,
            turns,
        };
    }

    /// Of each slot the owner that is known, and the one that is told.
    fn owners<'a>(&'a self, told: &'a Topology) -> impl Iterator<Item = (u16, Option<Owner<'a>>, Option<&'a Primary>)> {
        (0..SLOTS).zip(self.topology.owners().into_iter().zip(told.owners())).map(|(slot, (known, told))| {
            let moved = self.moved.get(&slot).map(|address| Owner { id: None, address });
            (slot, moved.or(known.map(Owner::of)), told)
        })
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
