//! The roster as the courier sees it: each change is seen once, and only the courier releases members meanwhile.

use std::sync::Arc;

use super::members::{Change, Member, MemberId};
use super::state::Roster;

/// Ends when it is dropped, even after a panic. There is at most one for a roster.
pub(crate) struct Follower {
    roster: Arc<Roster>,
    seen: u64,
    /// The members by slot, as last seen.
    members: Vec<Option<Member>>,
}

impl Roster {
    /// Begins to follow.
    pub(crate) fn follow(self: &Arc<Roster>) -> Follower {
        self.set_followed(true);
        Follower { roster: self.clone(), seen: 0, members: Vec::new() }
    }
}

impl Follower {
    /// What has changed since the last call; at the first call all members are new.
    pub(crate) fn changes(&mut self) -> Vec<Change> {
        let version = self.roster.version();
        if self.seen == version {
            return Vec::new();
        }
        self.seen = version;
        let mut changes = Vec::new();
        for member in self.roster.members() {
            let slot = member.id.slot;
            if self.members.len() <= slot {
                self.members.resize(slot + 1, None);
            }
            let known = self.members[slot].replace(member.clone()).filter(|known| known.id == member.id);
            let is_leaving = member.leaving_since.is_some();
            match known.map(|known| known.leaving_since.is_some()) {
                None => changes.push(Change::Added(member)),
                Some(false) if is_leaving => changes.push(Change::Leaves(member)),
                Some(true) if !is_leaving => changes.push(Change::Stays(member)),
                Some(_) => {}
            }
        }
        changes
    }

    /// The member in a slot.
    pub(crate) fn get(&self, slot: usize) -> Option<&Member> {
        self.members.get(slot)?.as_ref()
    }

    /// Whether this is a member.
    pub(crate) fn has(&self, id: MemberId) -> bool {
        self.get(id.slot).is_some_and(|member| member.id == id)
    }

    /// Whether the member in a slot leaves.
    pub(crate) fn leaves(&self, slot: usize) -> bool {
        self.get(slot).is_some_and(|member| member.leaving_since.is_some())
    }

    /// The slots of the members that leave.
    pub(crate) fn leaving(&self) -> Vec<usize> {
        self.members.iter().flatten().map(|member| member.id.slot).filter(|slot| self.leaves(*slot)).collect()
    }

    /// The address of the member in a slot.
    pub(crate) fn address(&self, slot: usize) -> String {
        self.get(slot).map(ToString::to_string).unwrap_or_default()
    }

    /// Whether each source has given a list or has failed to.
    pub(crate) fn is_settled(&self) -> bool {
        self.roster.is_settled()
    }

    /// Frees the slot of a member that leaves, unless it stays after all. Returns the member.
    pub(crate) fn release(&mut self, slot: usize) -> Option<Member> {
        let released = self.roster.release(self.get(slot)?.id)?;
        self.members[slot] = None;
        Some(released)
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.roster.set_followed(false);
    }
}
