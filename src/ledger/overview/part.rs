//! The parts of a group's overview, and the command that each needs. Pure.

use std::fmt;

/// A part of the overview that is left out when Redis refuses the command that it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Who leads.
    Lease,
    /// How long the lease lasts.
    LeaseLeft,
    /// The highest epoch.
    Epoch,
    /// The number of subscribed dispatchers and shadows.
    Subscribers,
    /// How far the channel has been stored.
    Cursor,
    /// The number of results.
    Results,
    /// The number of entries in the stream that messages are added to.
    Stream,
    /// The number of pending messages.
    Pending,
    /// How many of the members are bundles, without which that number is not known.
    Bundles,
    /// The oldest pending message.
    Oldest,
    /// The number of dead letters.
    Dead,
    /// The number of gaps.
    Gaps,
    /// The consumers' ids.
    Consumers,
    /// Which dispatchers are subscribed.
    Members,
    /// What the dispatchers report.
    Reports,
    /// The newest gaps.
    RecentGaps,
    /// The newest dead letters.
    RecentLetters,
}

impl Part {
    /// The command that it needs.
    pub fn command(self) -> &'static str {
        match self {
            Part::Lease | Part::Epoch | Part::Cursor => "GET",
            Part::LeaseLeft => "PTTL",
            Part::Subscribers => "PUBSUB NUMSUB",
            Part::Results | Part::Stream | Part::Dead | Part::Gaps => "XLEN",
            Part::Pending => "ZCARD",
            Part::Bundles => "ZCOUNT",
            Part::Oldest => "ZRANGE",
            Part::Consumers => "LRANGE",
            Part::Members => "PUBSUB CHANNELS",
            Part::Reports => "MGET",
            Part::RecentGaps | Part::RecentLetters => "XREVRANGE",
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Part::Lease => "the leader",
            Part::LeaseLeft => "the time left of the lease",
            Part::Epoch => "the epoch",
            Part::Subscribers => "the number of dispatchers",
            Part::Cursor => "the cursor",
            Part::Results => "the number of results",
            Part::Stream => "the number of entries in the stream",
            Part::Pending => "the number of pending messages",
            Part::Bundles => "the number of bundles, so also of pending messages",
            Part::Oldest => "the age of the oldest pending message",
            Part::Dead => "the number of dead letters",
            Part::Gaps => "the number of gaps",
            Part::Consumers => "the list of consumers",
            Part::Members => "the dispatchers other than the leader",
            Part::Reports => "the dispatchers' reports",
            Part::RecentGaps => "the newest gaps",
            Part::RecentLetters => "the newest dead letters",
        })
    }
}
