//! The set of links: at most one for each slot of the roster, and what outlives a link in its slot.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use super::choice::choose;
use crate::base::id::MessageId;
use crate::lane::link::{Link, NewLink};
use crate::lane::table::Line;
use crate::ledger::Pending;

pub(super) struct LinkSet {
    links: Vec<Option<Link>>,
    /// Up to when the rate limit has charged the stray answers of each address's last link.
    debts: Vec<Option<Instant>>,
    /// The number of links made so far. Each link's serial number tells it from earlier ones at its address.
    serials: u64,
    /// Where the search for the freest link begins, so that ties are resolved in rotation.
    turn: usize,
    /// Links to be read again although the poller reports nothing new for their socket.
    unread: Vec<usize>,
    /// Links that were not read because too many results wait to be recorded.
    put_off: BTreeSet<usize>,
    /// At which address a consumer last reported that a newer link of this term has replaced the one there.
    replaced_at: HashMap<Arc<str>, usize>,
    /// Consumers for which two addresses have been logged.
    logged_duplicates: HashSet<Arc<str>>,
}

impl LinkSet {
    pub(super) fn new() -> LinkSet {
        LinkSet {
            links: Vec::new(),
            debts: Vec::new(),
            serials: 0,
            turn: 0,
            unread: Vec::new(),
            put_off: BTreeSet::new(),
            replaced_at: HashMap::new(),
            logged_duplicates: HashSet::new(),
        }
    }

    /// There may be a link in this slot from now on. Nothing is left of an earlier consumer's.
    pub(super) fn open(&mut self, slot: usize) {
        if self.links.len() <= slot {
            self.links.resize_with(slot + 1, || None);
            self.debts.resize(slot + 1, None);
        }
        self.debts[slot] = None;
        self.replaced_at.retain(|_, other| *other != slot);
    }

    /// The number of slots, whether linked or not.
    pub(super) fn slots(&self) -> usize {
        self.links.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Link> {
        self.links.iter().flatten()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Link> {
        self.links.iter_mut().flatten()
    }

    pub(super) fn get(&self, index: usize) -> Option<&Link> {
        self.links.get(index)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, index: usize) -> Option<&mut Link> {
        self.links.get_mut(index)?.as_mut()
    }

    /// The link at this address, if it is still the one with this serial number.
    pub(super) fn get_same(&mut self, index: usize, serial: u64) -> Option<&mut Link> {
        self.get_mut(index).filter(|link| link.serial == serial)
    }

    /// Makes a link of a new connection. It is not in the set yet.
    pub(super) fn make(&mut self, new: NewLink) -> Link {
        self.serials += 1;
        let debt = self.debts[new.member.slot];
        Link::new(new, self.serials, debt)
    }

    pub(super) fn put(&mut self, index: usize, link: Link) {
        self.links[index] = Some(link);
    }

    /// Removes a link. The next one at its address inherits its debt.
    pub(super) fn take(&mut self, index: usize) -> Option<Link> {
        let link = self.links.get_mut(index)?.take()?;
        self.debts[index] = Some(link.strays.paid_until());
        Some(link)
    }

    /// Chooses the link that a message is delivered to; see [`choose`].
    pub(super) fn choose(&mut self, line: Line, message: &Pending, takes_out: bool) -> Option<usize> {
        let index = choose(&self.links, self.turn, line, message, takes_out)?;
        self.turn = (index + 1) % self.links.len();
        Some(index)
    }

    /// Assigns a message to the first link whose consumer holds it as well. Returns that link.
    pub(super) fn inherit(&mut self, id: MessageId) -> Option<usize> {
        self.links.iter_mut().position(|link| link.as_mut().is_some_and(|link| link.places.inherit(id)))
    }

    /// The consumer at this address reports that a newer link has replaced this one.
    pub(super) fn note_replaced(&mut self, index: usize) {
        if let Some(link) = &self.links[index] {
            self.replaced_at.insert(link.consumer.clone(), index);
        }
    }

    /// Returns another address that leads to the same consumer: one that is linked, or whose link was replaced in this
    /// term. Each consumer is returned only once.
    ///
    /// The end of the replaced link may be noticed before the newer link is up, so comparing links alone is not enough.
    pub(super) fn new_duplicate(&mut self, index: usize, consumer: &Arc<str>) -> Option<usize> {
        let is_linked = |link: &Option<Link>| link.as_ref().is_some_and(|link| link.consumer == *consumer);
        let is_same = |other: &usize| is_linked(&self.links[*other]) || self.replaced_at.get(consumer) == Some(other);
        let other = (0..self.links.len()).find(|other| *other != index && is_same(other))?;
        self.logged_duplicates.insert(consumer.clone()).then_some(other)
    }

    /// Marks a link to be read in the next iteration, whatever the poller reports.
    pub(super) fn read_again(&mut self, index: usize) {
        self.unread.push(index);
    }

    /// A link must not be read now, although there may be something.
    pub(super) fn put_off(&mut self, index: usize) {
        self.put_off.insert(index);
    }

    /// Marks the links that were put off to be read in the next iteration. The poller has reported them already.
    pub(super) fn read_put_off(&mut self) {
        self.unread.extend(std::mem::take(&mut self.put_off));
    }

    pub(super) fn is_unread(&self, index: usize) -> bool {
        self.unread.contains(&index)
    }

    pub(super) fn has_unread(&self) -> bool {
        !self.unread.is_empty()
    }

    pub(super) fn take_unread(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.unread)
    }
}
