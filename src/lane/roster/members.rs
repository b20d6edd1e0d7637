//! The consumers that a lane is to be linked to: each has a slot, which stays the same while it is a member. Pure.
//!
//! A member whose address no source lists any more *leaves*: it keeps its slot until it is released. If its address is
//! listed again before that, it stays. Slots of members that were released are used again, the lowest first.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::found::{Answer, Found};
use super::source::{ConsumerSource, Target};

/// The most members that were found by name or in a file, those that leave included. Each costs a thread and a link.
pub const MOST_FOUND: usize = 512;

/// Tells a member from every other one, also from earlier ones in its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MemberId {
    pub(crate) slot: usize,
    pub(crate) serial: u64,
}

/// A consumer that a lane is to be linked to.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) id: MemberId,
    pub(crate) target: Arc<Target>,
    /// Since when it leaves, if it does.
    pub(crate) leaving_since: Option<Instant>,
    /// Whether its entry names it alone.
    is_fixed: bool,
}

/// What became of a member.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Added(Member),
    Leaves(Member),
    Stays(Member),
}

/// What is known of a source.
#[derive(Clone, Debug)]
pub struct SourceStatus {
    /// The entry of `--consumers`.
    pub source: String,
    /// Its addresses now.
    pub addresses: usize,
    /// When it last gave a list that could be used.
    pub answered: Option<Instant>,
    /// Why the last attempt gave none, if so.
    pub error: Option<String>,
    /// How often an attempt gave none.
    pub errors: u64,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Members {
    sources: Vec<(ConsumerSource, Found, SourceStatus)>,
    slots: Vec<Option<Member>>,
    serials: u64,
    /// Addresses that are listed and have no slot, because there are too many.
    left_out: usize,
}

impl MemberId {
    /// For links of unit tests.
    #[cfg(test)]
    pub(crate) fn first() -> MemberId {
        MemberId { slot: 0, serial: 1 }
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.target.fmt(f)
    }
}

impl Members {
    /// Those that need no search are members from the beginning, in their order.
    pub(super) fn new(sources: &[ConsumerSource]) -> Members {
        let status = |source: &ConsumerSource| SourceStatus {
            source: source.to_string(),
            addresses: 0,
            answered: None,
            error: None,
            errors: 0,
        };
        let sources = sources.iter().map(|source| (source.clone(), Found::new(source), status(source))).collect();
        let mut members = Members { sources, slots: Vec::new(), serials: 0, left_out: 0 };
        members.update(Instant::now());
        members
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Member> {
        self.slots.iter().flatten()
    }

    /// What is known of the sources that are followed.
    pub(super) fn sources(&self) -> impl Iterator<Item = &SourceStatus> {
        self.sources.iter().filter(|(source, ..)| source.is_followed()).map(|(.., status)| status)
    }

    /// What is known of a source.
    pub(super) fn status_of(&self, source: usize) -> &SourceStatus {
        &self.sources[source].2
    }

    /// A source still says what it said last. Addresses for which there was no slot may get one now.
    pub(super) fn confirm(&mut self, source: usize, now: Instant) -> Vec<Change> {
        let status = &mut self.sources[source].2;
        if status.error.is_none() {
            status.answered = status.answered.map(|_| now);
        }
        self.update(now)
    }

    /// How many addresses have no slot, because there are too many.
    pub(super) fn left_out(&self) -> usize {
        self.left_out
    }

    /// Whether each source has given a list or has failed to.
    pub(super) fn is_settled(&self) -> bool {
        self.sources().all(|status| status.answered.is_some() || status.errors > 0)
    }

    /// Takes the answer of a source into account.
    pub(super) fn take(&mut self, source: usize, answer: Answer, hold: Duration, now: Instant) -> Vec<Change> {
        let (_, found, status) = &mut self.sources[source];
        match &answer {
            Answer::Failed(error) => {
                status.errors += 1;
                status.error = Some(error.clone());
            }
            Answer::Addresses(_) | Answer::Lines(_) => {
                status.answered = Some(now);
                status.error = None;
            }
        }
        found.take(answer, hold, now);
        status.addresses = found.targets().count();
        self.update(now)
    }

    /// Frees the slot of a member that leaves. Returns the member. Addresses that had no slot are added at the next
    /// answer.
    pub(super) fn release(&mut self, id: MemberId) -> Option<Member> {
        let slot = self.slots.get_mut(id.slot)?;
        slot.take_if(|member| member.id == id && member.leaving_since.is_some())
    }

    /// Undoes an addition.
    pub(super) fn take_back(&mut self, id: MemberId) {
        if let Some(slot) = self.slots.get_mut(id.slot) {
            slot.take_if(|member| member.id == id);
        }
    }

    /// Brings the members in line with what the sources list.
    fn update(&mut self, now: Instant) -> Vec<Change> {
        let mut changes = Vec::new();
        let wanted = self.wanted();
        let listed: HashSet<&Target> = wanted.iter().map(|(target, _)| target).collect();
        for member in self.slots.iter_mut().flatten() {
            match (listed.contains(&*member.target), member.leaving_since) {
                (true, Some(_)) => {
                    member.leaving_since = None;
                    changes.push(Change::Stays(member.clone()));
                }
                (false, None) => {
                    member.leaving_since = Some(now);
                    changes.push(Change::Leaves(member.clone()));
                }
                (true, None) | (false, Some(_)) => {}
            }
        }
        self.left_out = 0;
        let mut found = self.iter().filter(|member| !member.is_fixed).count();
        let known: HashSet<Arc<Target>> = self.iter().map(|member| member.target.clone()).collect();
        for (target, is_fixed) in wanted.into_iter().filter(|(target, _)| !known.contains(target)) {
            if !is_fixed && found >= MOST_FOUND {
                self.left_out += 1;
                continue;
            }
            found += usize::from(!is_fixed);
            changes.push(Change::Added(self.add(target, is_fixed)));
        }
        changes
    }

    /// What the sources list, in their order; of several with one address the first.
    fn wanted(&self) -> Vec<(Target, bool)> {
        let mut places = HashSet::new();
        let listed = self.sources.iter().flat_map(|(source, found, _)| {
            let is_fixed = !source.is_followed();
            found.targets().map(move |target| (target, is_fixed))
        });
        listed.filter(|(target, _)| places.insert(target.host_port().to_owned())).collect()
    }

    fn add(&mut self, target: Target, is_fixed: bool) -> Member {
        let slot = self.slots.iter().position(Option::is_none).unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.serials += 1;
        let id = MemberId { slot, serial: self.serials };
        let member = Member { id, target: Arc::new(target), leaving_since: None, is_fixed };
        self.slots[slot] = Some(member.clone());
        member
    }
}

#[cfg(test)]
mod tests;
