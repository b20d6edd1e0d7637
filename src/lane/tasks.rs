//! What the courier and the redistributor send to each other: tasks in one direction, replies in the other.

use std::time::Duration;

use super::group_settings::KnownSettings;
use super::replays::Replayed;
use super::table::Again;
use crate::base::id::MessageId;
use crate::ledger::{Answer, Commit, Page, PageRequest, RequestId, Returned};

/// What the courier asks of the redistributor.
pub(super) enum Task {
    /// Read the next page of the backlog.
    Page(PageRequest),
    /// These came back without a result, some by a NACK that asks for a delay before the next delivery.
    Returned(Vec<(Returned, Option<Duration>)>),
    /// Pass this back, after all replies to earlier tasks.
    Replayed(Replayed),
    /// Read the group's settings again.
    Settings,
    /// Deliver these when they have waited for so long: they were replayed, or failed under an earlier leader.
    Again(Vec<(MessageId, Duration)>),
    /// These were redelivered after a lost link, with these delivery numbers.
    Count(Vec<(MessageId, u16)>),
    /// Record these for a consumer without Redis.
    Commit(CommitTask),
    /// Check whether these are pending: a consumer reports that it holds them.
    Verify(Claims),
    /// These consumers are linked now.
    Members(Vec<String>),
    /// Check whether this message, which no consumer received, is pending.
    CheckPending(MessageId),
    /// Write the answers to questions, after adding until when messages wait.
    Answer(Vec<(RequestId, Answer)>),
    /// This message was stored, no consumer received it, and Redis no longer has it.
    Vanished(MessageId),
}

/// Results to record, and the link whose places they free.
pub(super) struct CommitTask {
    pub(super) link: usize,
    pub(super) serial: u64,
    pub(super) commits: Vec<Commit>,
    pub(super) bytes: usize,
    /// Whether some of these messages are known only from HELD.
    pub(super) adopted: bool,
}

/// Messages that a consumer listed in HELD.
pub(super) struct Claims {
    pub(super) link: usize,
    pub(super) serial: u64,
    pub(super) ids: Vec<MessageId>,
}

/// What the redistributor reports to the courier.
pub(super) enum RedistributorReply {
    /// The page that was requested.
    Page(Page),
    /// Deliver these again.
    Back(Vec<Again>),
    /// These are done or dead letters.
    Done(Vec<MessageId>),
    /// These were replayed. Replies from now on count them as pending.
    Replayed(Replayed),
    /// The group's settings.
    Settings(KnownSettings),
    /// This one is not pending.
    Missing(MessageId),
    /// These of the messages that a consumer listed are not pending.
    NotPending(Claims),
    /// Results were recorded.
    Committed { link: usize, serial: u64, ids: Vec<MessageId>, bytes: usize },
}
