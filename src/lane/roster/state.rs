//! The roster as the lane's threads share it. The lock is held only for copying and comparing lists, and while new
//! members get what they need.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;

use super::found::Answer;
use super::members::{Change, Member, MemberId, Members, SourceStatus};
use super::source::ConsumerSource;

/// See the text of [`roster`](super).
pub struct Roster {
    state: Mutex<State>,
    /// Rises with each change of the members.
    version: AtomicU64,
    /// A link was lost, so lists should be read again soon.
    doubts: (Sender<()>, Receiver<()>),
}

struct State {
    members: Members,
    /// Whether a courier follows.
    is_followed: bool,
}

impl Roster {
    pub(crate) fn new(sources: &[ConsumerSource]) -> Arc<Roster> {
        let state = State { members: Members::new(sources), is_followed: false };
        Arc::new(Roster { state: Mutex::new(state), version: AtomicU64::new(1), doubts: bounded(1) })
    }

    /// All members, also those that leave.
    pub(crate) fn members(&self) -> Vec<Member> {
        self.state.lock().members.iter().cloned().collect()
    }

    /// The addresses of all members that don't leave, by slot.
    pub fn addresses(&self) -> Vec<(usize, String)> {
        let state = self.state.lock();
        let staying = state.members.iter().filter(|member| member.leaving_since.is_none());
        staying.map(|member| (member.id.slot, member.to_string())).collect()
    }

    /// What is known of the sources that are followed.
    pub fn sources(&self) -> Vec<SourceStatus> {
        self.state.lock().members.sources().cloned().collect()
    }

    /// Why the last attempt of a source gave no list, if so.
    pub(crate) fn error_of(&self, source: usize) -> Option<String> {
        self.state.lock().members.status_of(source).error.clone()
    }

    /// A source still says what it said last. Otherwise like [`take`](Roster::take).
    pub(crate) fn confirm(&self, source: usize, start: impl FnMut(&Member) -> bool) -> Vec<Change> {
        self.change(|members| members.confirm(source, Instant::now()), start)
    }

    /// Whether each source has given a list or has failed to.
    pub(crate) fn is_settled(&self) -> bool {
        self.state.lock().members.is_settled()
    }

    /// How many addresses have no link, because there are too many.
    pub fn left_out(&self) -> usize {
        self.state.lock().members.left_out()
    }

    /// Takes the answer of a source into account. `start` starts what each new member needs; a member for which that
    /// fails is no member, until the next answer.
    pub(crate) fn take(
        &self,
        source: usize,
        answer: Answer,
        hold: Duration,
        start: impl FnMut(&Member) -> bool,
    ) -> Vec<Change> {
        self.change(|members| members.take(source, answer, hold, Instant::now()), start)
    }

    fn change(
        &self,
        change: impl FnOnce(&mut Members) -> Vec<Change>,
        mut start: impl FnMut(&Member) -> bool,
    ) -> Vec<Change> {
        let mut state = self.state.lock();
        let mut changes = change(&mut state.members);
        changes.retain(|change| match change {
            Change::Added(member) if !start(member) => {
                state.members.take_back(member.id);
                false
            }
            _ => true,
        });
        if !changes.is_empty() {
            self.version.fetch_add(1, Ordering::Release);
        }
        changes
    }

    /// Rises with each change of the members.
    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Whether a courier follows.
    pub(super) fn set_followed(&self, is_followed: bool) {
        self.state.lock().is_followed = is_followed;
    }

    /// Frees the slot of a member that leaves.
    pub(super) fn release(&self, id: MemberId) -> Option<Member> {
        let released = self.state.lock().members.release(id)?;
        self.version.fetch_add(1, Ordering::Release);
        Some(released)
    }

    /// While no courier runs: frees the slots of members that have left for so long. Returns them.
    pub(crate) fn release_unled(&self, kept: Duration, now: Instant) -> Vec<Member> {
        let mut state = self.state.lock();
        if state.is_followed {
            return Vec::new();
        }
        let is_due = |since: Instant| now.saturating_duration_since(since) >= kept;
        let due = state.members.iter().filter(|member| member.leaving_since.is_some_and(is_due));
        let due: Vec<MemberId> = due.map(|member| member.id).collect();
        due.into_iter().filter_map(|id| state.members.release(id)).collect()
    }

    /// A link was lost: its consumer may be gone for good, or have moved.
    pub(crate) fn doubt(&self) {
        // A full channel already holds a doubt.
        let _ = self.doubts.0.try_send(());
    }

    /// Where doubts are announced, to one receiver.
    pub(crate) fn doubts(&self) -> &Receiver<()> {
        &self.doubts.1
    }
}

impl fmt::Debug for Roster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Roster").field("addresses", &self.addresses()).finish_non_exhaustive()
    }
}
