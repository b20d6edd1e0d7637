//! The rules of the protocol, each of which can be removed, and the bounds of a run.

use std::fmt;

use crate::liars::Lie;
use crate::refusals::Refusal;
use crate::servers::Servers;

/// A rule of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// A leader's scripts are refused once a newer epoch has begun.
    Fence,
    /// The intake script refuses a batch if the cursor is not where its leader left it.
    CursorCompare,
    /// A new leader waits until a marker of its epoch has come back before it locates the cursor.
    MarkerBarrier,
    /// A result is stored only if its message was removed in the same step.
    RemovalGatesResult,
    /// A ring drops a message only if a cursor that can no longer be rolled back has passed it.
    OnlyAnOldCursorTrims,
    /// When the lease is free, the dispatcher that can continue best leads first.
    OthersFirst,
    /// Ids follow the clock, so that none is assigned twice after Redis has lost its tail.
    IdsFollowTheClock,
    /// A consumer refuses leaders of an epoch lower than the highest it has seen.
    ConsumersFence,
    /// A dispatcher forgets the age of the cursor when its subscription drops: Redis may come back with an older
    /// cursor.
    NotesEndWithTheSubscription,
    /// A term continues past a break only as the first thing it does, and only if dispatchers that may hold more of
    /// what came before the break were waited for.
    RestBeforeBreaks,
    /// A term ends if the subscription with which it was elected has dropped, even while it is taking over.
    TermEndsWithItsSubscription,
    /// Part of the promise, not of the code: a dispatcher makes a message owed only if it would also be in sync with
    /// the cursor on Redis's disk.
    OwedOnceSettled,
    /// Only the eldest continues past a break in what it has received.
    EldestPassesBreaks,
    /// A new leader raises `recall` to all that is pending.
    AcquireRaisesRecall,
    /// A leader raises `recall` to a message that it redelivers or dead-letters while a consumer may still hold it.
    SettleRaisesRecall,
    /// A commit by a transaction does nothing if `recall` was written since it was read.
    CommitWatchesRecall,
    /// Messages that a consumer holds when its connection breaks are recorded by the script.
    ScriptAfterLostConnection,
    /// A commit that follows one of unknown outcome raises `recall`, so that the first can no longer succeed.
    RetryRaisesRecall,
    /// `recall` names the term that began last and the run of Redis in which it began. Only messages of that leader are
    /// recorded by a transaction, and only while Redis has not restarted.
    RecallNamesTheTerm,
    /// Replaces that rule where it is missing: after a restart of Redis, messages from leaders of epochs that the
    /// consumer already knew are not trusted.
    KnownEpochsDistrusted,
    /// An intake by a transaction does nothing if the epoch was written since it was read.
    IntakeWatchesEpoch,
    /// Nor if the cursor was written since.
    IntakeWatchesCursor,
    /// An intake of unknown outcome is offered again through the script, which compares the cursor.
    RetriedIntakeCompares,
    /// A step stores the result or the dead letter first and removes the message after that.
    ResultBeforeRemoval,
    /// Before it stores anything, a step proves that it may remove, with a command that changes nothing.
    RemovalProven,
    /// Before it adds members, an intake proves that it may move the cursor, with a command that changes nothing.
    CursorProven,
    /// An intake moves the cursor after it has added the members.
    CursorMovedLast,
    /// The commands of a transaction are sent only after MULTI was confirmed.
    MultiConfirmed,
    /// A removed message is put back once for each nonce, however many copies of that call arrive.
    PutBackOnce,
    /// A leader that had to rewind the cursor ends its term.
    RewindEndsTerm,
    /// An intake that repeats a transaction of unknown outcome writes a cursor of its own.
    DoubtNamesItsOwnCursor,
    /// Such an intake adds the members if the transaction moved the cursor without adding them.
    DoubtChecksMembers,
    /// A dispatcher judges whether the holder of the lease is subscribed only if its own subscription is counted there.
    OwnCounted,
    /// A dispatcher whose subscription is not counted writes into its lease that it ends only by expiring.
    UncountedByTime,
    /// A standby whose subscription is not counted subscribes again, once.
    UncountedSubscribesAnew,
    /// A leader whose own markers do not come back drops its subscription and resigns.
    NotReceivingLeaderResigns,
    /// A standby that sees the cursor move and receives no leader's marker subscribes again.
    NotReceivingStandbyResubscribes,
    /// Part of the model, not of the code: the dispatcher that goes first for a free lease is waited for, even while
    /// its commands do not reach the server that took over.
    MovingOnesGoFirst,
    /// A leader that comes to messages that its ring dropped resigns as it does before a break.
    OverrunLikeABreak,
    /// It resigns even if it sees no other dispatcher: one that holds more may be about to subscribe again.
    OverrunWaitsForOthers,
    /// A draining consumer answers new leaders until it holds nothing.
    DrainingAnswers,
    /// A message that a draining consumer has not started is returned uncounted.
    UnbegunIsUncounted,
    /// A message that was sent to a draining consumer before its DRAIN was read comes back when the link closes.
    UnreadDrainComesBack,
    /// An answer counts only for a message with a place at this consumer: one that was sent to it or that it listed in
    /// HELD, and that it has not answered.
    OnlyPlacesAnswer,
    /// An id in HELD takes a place only if Redis holds it pending.
    HeldIsPending,
    /// And only if its leader knows that it was stored: until then the leader may store it once more.
    HeldIsStored,
    /// A message that a consumer no longer reports is redelivered.
    OverdueRedelivered,
    /// The place of an overdue message is given away if no other consumer has a free one.
    OverduePlaceIsGivenAway,
    /// A message that came over an unproven link is recorded by the script, which checks that it is pending.
    UnprovenChecks,
    /// And that script raises `recall`: the true leader may deliver the message to another consumer, or has done so.
    UnprovenRaisesRecall,
    /// Dispatchers are told of replayed dead letters.
    ReplaysAreAnnounced,
    /// A new leader reads the group's settings in the step that acquires the lease.
    SettingsReadWithTheLease,
    /// Dispatchers are told that the group's settings have changed.
    SettingsAreAnnounced,
    /// With an order by key: only one message of a key is at a consumer.
    OneOfAKeyInHand,
    /// One that came back counts as in hand until it is done.
    ReturnedIsInHand,
    /// New messages queue behind the backlog, also while it can't be read.
    ArrivalsQueueBehindTheBacklog,
    /// A subscription that moves to another server begins a new segment.
    MoveEndsSegment,
    /// A consumer that refuses the newest epoch of its Redis says which it has seen, and the next one is higher.
    SeenEpochTold,
    /// An intake counts only once a replica has it.
    ReplicaHasIt,
    /// Also one that was repeated and found that it had been done.
    RepeatedWaitsToo,
    /// A new leader delivers what earlier ones stored only once a replica has it.
    BacklogIsReplicated,
    /// All keys of a group move to another node together.
    KeysMoveTogether,
    /// Leaders that were elected at two servers never assign the same id.
    IdsDifferByServer,
    /// A segment with earlier markers than that of the cursor, later ones, and not that one came from another server,
    /// and is not read.
    EarlierMarkersExclude,
    /// Part of the model, not of the code: after a failover nobody publishes at the old primary.
    NonePublishedAtOld,
    /// A new leader forgets what it was told before it acquires the lease, and nothing after that.
    ReplaysForgottenBefore,
}

/// The rules in force.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    missing: [Option<Rule>; 3],
}

impl Rules {
    pub const ALL: Rules = Rules { missing: [None; 3] };

    pub fn without(rule: Rule) -> Rules {
        Rules { missing: [Some(rule), None, None] }
    }

    pub fn and_without(self, rule: Rule) -> Rules {
        Rules { missing: [Some(rule), self.missing[0], self.missing[1]] }
    }

    pub fn has(self, rule: Rule) -> bool {
        !self.missing.contains(&Some(rule))
    }
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let missing: Vec<_> = self.missing.iter().flatten().collect();
        write!(f, "without {missing:?}")
    }
}

/// How often each event may happen that the programs do not bring about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Budget {
    /// All of the following faults together.
    pub faults: u8,
    /// A dispatcher is killed; it starts again.
    pub crashes: u8,
    /// A dispatcher's subscription drops; it is made again.
    pub cuts: u8,
    /// The lease expires under a leader that hangs and does not know it.
    pub pauses: u8,
    /// A request gets no answer: it is sent again, and the first may arrive late or never.
    pub timeouts: u8,
    /// Redis is killed and comes back without what is not on its disk.
    pub tail_losses: u8,
    /// A consumer is killed; it starts again.
    pub consumer_crashes: u8,
    /// A leader gives up a consumer that still works, or reads the backlog before a consumer has sent HELD.
    pub silences: u8,
    /// Redis refuses a command from now on, until it is allowed again.
    pub refusals: u8,
    /// New connections lead to the other server; existing ones are not closed.
    pub switches: u8,
    /// A replica takes over, with what it has.
    pub failovers: u8,
    /// A ring drops its oldest message for lack of memory.
    pub overruns: u8,
    /// A consumer sends something untrue, or a stranger takes the leader's place.
    pub lies: u8,
    /// A handler rejects its message. Not a fault.
    pub rejections: u8,
    /// A consumer is asked to stop. It drains and does not start again. Not a fault.
    pub drains: u8,
    /// A dispatcher is asked to stop; it starts again. Not a fault.
    pub stops: u8,
    /// An operator replays a dead letter. Not a fault.
    pub replays: u8,
    /// An operator pauses the group, or resumes it. Not a fault.
    pub holds: u8,
    /// The replica has received everything written so far. Not a fault.
    pub copies: u8,
    /// Time passes: everything written so far is on disk, and the programs know it. Not a fault.
    pub ticks: u8,
}

/// The size of a run.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub dispatchers: usize,
    pub consumers: usize,
    pub messages: u8,
    pub budget: Budget,
    /// What may be refused, if the budget has refusals.
    pub refusals: &'static [Refusal],
    pub servers: Servers,
    /// The lies that may be told, if the budget has lies.
    pub lies: &'static [Lie],
    /// The most messages that a consumer may hold.
    pub prefetch: u8,
    /// With an order by key: how many keys there are. 0: no order.
    pub keys: u8,
    /// Whether recorded gaps are remembered. That multiplies the states.
    pub gaps: bool,
    /// Whether an intake counts only once a replica has it.
    pub waits: bool,
}
