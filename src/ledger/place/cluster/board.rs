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

    /// Whether it says that it owns the slot; `None` if it has not answered.
    fn claims(&self, slot: u16, answers: &Answers) -> Option<bool> {
        let said = answers.get(self.address)?;
        Some(said.owner(slot).is_some_and(|owner| self.is(owner)))
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

    /// The owner that is known, and the other one that is told, of each slot for which these differ. Not those that the
    /// node which tells it can't be wrong about, because it is one of the two.
    pub(super) fn disputes(&self, node: &Address, told: &Topology) -> Vec<(Address, Address)> {
        let mut disputes: Vec<(Address, Address)> = Vec::new();
        for (slot, (known, told)) in (0..SLOTS).zip(self.topology.owners().into_iter().zip(told.owners())) {
            if let (Some(known), Some(told)) = (self.known(slot, known), told)
                && !known.is(told)
                && ![known.address, &told.address].contains(&node)
                && !disputes.iter().any(|(one, other)| one == known.address && *other == told.address)
            {
                disputes.push((known.address.clone(), told.address.clone()));
            }
        }
        disputes
    }

    /// Of the answers of a round in which so many nodes were asked, that of this node counts. The others say whether a
    /// slot has moved that it says has moved: the new owner knows best, then the known one. A slot for which it names
    /// no owner keeps the known one [for a while](KEPT_FOR). If it can't be right, other nodes are asked next.
    pub(super) fn note(&mut self, node: Address, answers: &Answers, asked: usize, now: Instant) {
        let told = &answers[&node];
        let were_known: Vec<Address> = self.topology.nodes().chain(self.moved.values()).cloned().collect();
        self.former.retain(|(node, last)| now.duration_since(*last) < REMEMBERED_FOR && !were_known.contains(node));
        self.former.extend(were_known.into_iter().map(|node| (node, now)));
        let owners: Vec<(Option<Owner<'_>>, Option<&Primary>)> = (0..SLOTS)
            .zip(self.topology.owners().into_iter().zip(told.owners()))
            .map(|(slot, (known, told))| (self.known(slot, known), told))
            .collect();
        let is_incomplete = owners.iter().any(|(known, told)| known.is_some() && told.is_none());
        // If nobody has asked for long, that it was incomplete then says nothing.
        let since = self.incomplete.filter(|_| self.read.is_some_and(|read| now.duration_since(read) < KEPT_FOR));
        let incomplete = is_incomplete.then(|| since.unwrap_or(now));
        let completes = incomplete.is_some_and(|since| now.duration_since(since) < KEPT_FOR);
        let kept: Vec<bool> = (0..SLOTS)
            .zip(&owners)
            .map(|(slot, owners)| match owners {
                (Some(known), Some(told)) if !known.is(told) => {
                    let has_moved = Owner::of(told).claims(slot, answers).or(known.claims(slot, answers).map(|it| !it));
                    has_moved == Some(false)
                }
                (Some(_), None) => completes,
                _ => false,
            })
            .collect();
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

    fn known<'a>(&'a self, slot: u16, told_before: Option<&'a Primary>) -> Option<Owner<'a>> {
        let moved = self.moved.get(&slot).map(|address| Owner { id: None, address });
        moved.or(told_before.map(Owner::of))
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
