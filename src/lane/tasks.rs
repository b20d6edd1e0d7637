//! What the courier and the redistributor send to each other: tasks in one direction, news in the other.

use super::backlog::PageRequest;
use super::table::Again;
use crate::base::id::MessageId;
use crate::ledger::{Commit, Page, Returned};

/// What the courier asks of the redistributor.
pub(super) enum Task {
    /// Read the backlog on.
    Page(PageRequest),
    /// These came back without a result; a NACK says after how many milliseconds to send again, 0 leaves it open.
    Returned(Vec<(Returned, u32)>),
    /// These went out again after a lost link, with these numbers.
    Count(Vec<(MessageId, u16)>),
    /// Record these for a consumer without Redis.
    Commit(CommitTask),
    /// Check whether these are pending: a consumer reports that it holds them.
    Verify(Claims),
    /// These consumers are linked now.
    Members(Vec<String>),
    /// Check whether this message is pending: no consumer was given it.
    CheckPending(MessageId),
    /// This message was stored and delivered to no consumer, and Redis no longer has it.
    Vanished(MessageId),
}

/// Results to record, and whose places they free.
pub(super) struct CommitTask {
    pub(super) link: usize,
    pub(super) serial: u64,
    pub(super) commits: Vec<Commit>,
    pub(super) bytes: usize,
    /// Some of these the consumer only reported in HELD.
    pub(super) adopted: bool,
}

/// Messages that a consumer named in HELD.
pub(super) struct Claims {
    pub(super) link: usize,
    pub(super) serial: u64,
    pub(super) ids: Vec<MessageId>,
}

/// What the redistributor reports to the courier.
pub(super) enum RedistributorReply {
    /// The page that was asked for.
    Page(Page),
    /// These go out again.
    Back(Vec<Again>),
    /// These are done or dead letters.
    Done(Vec<MessageId>),
    /// This one is not pending.
    Missing(MessageId),
    /// Of what a consumer named these are not pending.
    NotPending(Claims),
    /// Results were recorded.
    Committed { link: usize, serial: u64, ids: Vec<MessageId>, bytes: usize },
}
