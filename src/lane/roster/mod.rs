//! The roster: the consumers of a lane, shared by its threads. A list of plain addresses is a roster that never
//! changes.
//!
//! `source` has the entries of `--consumers`, `found` what each has led to, `members` the consumers with their slots,
//! `list_file` reads files with addresses. The [discovery](super::discovery) passes in answers. The courier
//! [follows](Roster::follow) the roster and releases the members that leave, once they hold nothing. While no courier
//! runs, a member that leaves is kept for a while: if a term begins meanwhile, it is asked what it holds. The lock is
//! held only for copying and comparing lists.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;

mod follower;
mod found;
mod list_file;
mod members;
mod source;

pub(super) use self::follower::Follower;
pub(super) use self::found::Answer;
pub(super) use self::list_file::ListFile;
pub use self::list_file::read_list;
pub(super) use self::members::{Change, Member, MemberId};
pub use self::members::{MOST_FOUND, SourceStatus};
pub use self::source::{ConsumerSource, DNS_SCHEME, FILE_SCHEME, SECURE_SCHEME, Target};

use self::members::Members;

/// How long a member that leaves is kept while this dispatcher does not lead.
const KEPT_UNLED: Duration = Duration::from_secs(60);

/// See the module's text.
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
    pub(super) fn new(sources: &[ConsumerSource]) -> Arc<Roster> {
        let state = State { members: Members::new(sources), is_followed: false };
        Arc::new(Roster { state: Mutex::new(state), version: AtomicU64::new(1), doubts: bounded(1) })
    }

    /// All members, also those that leave.
    pub(super) fn members(&self) -> Vec<Member> {
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
    pub(super) fn error_of(&self, source: usize) -> Option<String> {
        self.state.lock().members.status_of(source).error.clone()
    }

    /// A source still says what it said last.
    pub(super) fn confirm(&self, source: usize) {
        self.state.lock().members.confirm(source, Instant::now());
    }

    /// Whether each source has given a list or has failed to.
    pub(super) fn is_settled(&self) -> bool {
        self.state.lock().members.is_settled()
    }

    /// How many addresses have no link, because there are too many.
    pub fn left_out(&self) -> usize {
        self.state.lock().members.left_out()
    }

    /// Takes the answer of a source into account. `start` starts what each new member needs; a member for which that
    /// fails is no member, until the next answer.
    pub(super) fn take(
        &self,
        source: usize,
        answer: Answer,
        hold: Duration,
        mut start: impl FnMut(&Member) -> bool,
    ) -> Vec<Change> {
        let mut state = self.state.lock();
        let mut changes = state.members.take(source, answer, hold, Instant::now());
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

    /// Frees the slot of a member that leaves.
    fn release(&self, id: MemberId) -> Option<Member> {
        let released = self.state.lock().members.release(id)?;
        self.version.fetch_add(1, Ordering::Release);
        Some(released)
    }

    /// While no courier runs: frees the slots of members that have left for long enough. Returns them.
    pub(super) fn release_unled(&self, now: Instant) -> Vec<Member> {
        let mut state = self.state.lock();
        if state.is_followed {
            return Vec::new();
        }
        let is_due = |since: Instant| now.saturating_duration_since(since) >= KEPT_UNLED;
        let due = state.members.iter().filter(|member| member.leaving_since.is_some_and(is_due));
        let due: Vec<MemberId> = due.map(|member| member.id).collect();
        due.into_iter().filter_map(|id| state.members.release(id)).collect()
    }

    /// A link was lost: its consumer may be gone for good, or have moved.
    pub(super) fn doubt(&self) {
        // A full channel already holds a doubt.
        let _ = self.doubts.0.try_send(());
    }

    /// Where doubts are announced, to one receiver.
    pub(super) fn doubts(&self) -> &Receiver<()> {
        &self.doubts.1
    }
}

impl fmt::Debug for Roster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Roster").field("addresses", &self.addresses()).finish_non_exhaustive()
    }
}
