//! The rules the protocol rests on, each of which can be taken away, and the bounds of a run.

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
    /// A new leader waits until a marker of its epoch has come back before it looks the cursor up.
    MarkerBarrier,
    /// A result is stored only if its message was removed in the same step.
    RemovalGatesResult,
    /// A ring lets go only of what a cursor has passed that can no longer be rolled back.
    OnlyAnOldCursorTrims,
    /// Who can do more goes first when the lease is free.
    OthersFirst,
    /// Ids follow the clock, so that none is given out again after Redis has lost its tail.
    IdsFollowTheClock,
    /// A consumer refuses leaders of an epoch lower than the highest it has seen.
    ConsumersFence,
    /// What was known of the cursor's age is forgotten when the subscription drops: Redis may come back with an older
    /// one.
    NotesEndWithTheSubscription,
    /// A term goes over a break only if it had waited for those that hold more of what lies before it, and first of
    /// all.
    RestBeforeBreaks,
    /// A term ends if the subscription it was elected with has dropped, even while it is still taking over.
    TermEndsWithItsSubscription,
    /// Not of the code but of the promise: a dispatcher makes a message owed only if it would be in sync with the
    /// cursor on Redis's disk, too.
    OwedOnceSettled,
    /// Only the eldest goes on over a break in what it has heard.
    EldestPassesBreaks,
    /// A new leader raises `recall` to all that is pending.
    AcquireRaisesRecall,
    /// A leader raises `recall` to what it hands out again or buries although it may still be in somebody's hands.
    SettleRaisesRecall,
    /// A commit as a transaction does nothing if `recall` was written since it was read.
    CommitWatchesRecall,
    /// What a consumer has in hand when its connection breaks is recorded by the script.
    ScriptAfterLostConnection,
    /// A commit that follows one of unknown outcome raises `recall`, so that the first can take place no more.
    RetryRaisesRecall,
    /// `recall` names the term that began last and the incarnation of Redis in which it did: only what came from that
    /// leader, while Redis is still the same, is recorded by a transaction.
    RecallNamesTheTerm,
    /// Where that rule is missing, what stands in for it: when Redis has restarted, nothing is trusted that comes from
    /// leaders of the epochs that the consumer knew.
    KnownEpochsDistrusted,
    /// An intake as a transaction does nothing if the epoch was written since it was read.
    IntakeWatchesEpoch,
    /// And nothing if the cursor was.
    IntakeWatchesCursor,
    /// An intake of unknown outcome is offered again through the script, which compares the cursor.
    RetriedIntakeCompares,
    /// A step stores the result or the dead letter first and removes the message after that.
    ResultBeforeRemoval,
    /// Before it stores anything, a step proves by a form that changes nothing that it may remove.
    RemovalProven,
    /// Before it adds members, an intake proves by a form that changes nothing that it may move the cursor.
    CursorProven,
    /// An intake moves the cursor after it has added the members.
    CursorMovedLast,
    /// The commands of a transaction are sent only once MULTI was confirmed.
    MultiConfirmed,
    /// A removed message is put back once for each nonce, however many copies of that call arrive.
    PutBackOnce,
    /// A leader that had to rewind the cursor ends its term.
    RewindEndsTerm,
    /// An intake that repeats a transaction of unknown outcome moves the cursor to a name of its own.
    DoubtNamesItsOwnCursor,
    /// Such an intake adds the members if the transaction moved the cursor without adding them.
    DoubtLooksForMembers,
    /// Whether the holder of the lease is subscribed is judged only where the caller's own subscription is counted.
    OwnCounted,
    /// A dispatcher whose subscription is not counted writes into its lease that only time ends it.
    UncountedByTime,
    /// A standby whose subscription is not counted subscribes anew, once.
    UncountedSubscribesAnew,
    /// A leader whose own markers do not come back drops its subscription and resigns.
    NotReceivingLeaderResigns,
    /// A standby that sees the cursor move and hears no leader's marker subscribes anew.
    NotReceivingStandbyResubscribes,
    /// Not of the code but of the model: whoever is to go first for a free lease is waited for, even while its commands
    /// do not go to the server that took over.
    MovingOnesGoFirst,
    /// A leader that comes to messages its ring dropped resigns as it does before a break.
    OverrunLikeABreak,
    /// It resigns even if it sees no other dispatcher: one that holds more may be about to subscribe anew.
    OverrunWaitsForOthers,
    /// A draining consumer answers new leaders until it has nothing in hand.
    DrainingAnswers,
    /// What a draining consumer has not begun on is handed back uncounted.
    UnbegunIsUncounted,
    /// What was sent to a draining consumer before its DRAIN was read goes back when the link closes.
    UnreadDrainGivesBack,
    /// Only a place at this consumer answers: a message that it was given or has named in HELD, and has not answered.
    OnlyPlacesAnswer,
    /// An id in HELD takes a place only if Redis holds it pending.
    HeldIsPending,
    /// And only if its leader knows that it was taken in: while it does not, it may take it in once more.
    HeldIsTakenIn,
    /// What a consumer no longer reports goes out again.
    OverdueGoesOut,
    /// The place of what is overdue is given away when no other consumer has a free one.
    OverduePlaceIsGivenAway,
    /// What came over a link that has not been proven is recorded by the script, which looks.
    UnprovenLooks,
    /// And that script raises `recall`: the leader that has the message may have given it, or give it, to somebody
    /// else.
    UnprovenRaisesRecall,
}

/// The rules that hold.
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

/// How often each thing may happen that need not happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Budget {
    /// All of the following faults together.
    pub faults: u8,
    /// A dispatcher is killed; it starts again.
    pub crashes: u8,
    /// A dispatcher's subscription drops; it is made again.
    pub cuts: u8,
    /// The lease runs out under a leader that hangs and does not know it.
    pub pauses: u8,
    /// A request gets no answer: it is sent again, and the first may arrive late or never.
    pub timeouts: u8,
    /// Redis is killed and comes back without what is not on its disk.
    pub tail_losses: u8,
    /// A consumer is killed; it starts again.
    pub consumer_crashes: u8,
    /// A leader takes a consumer for dead that is not, or reads the backlog before a consumer has said what it holds.
    pub silences: u8,
    /// Redis refuses a command from now on, until it is allowed again.
    pub refusals: u8,
    /// New connections lead to the other server; those that stand are not cut.
    pub switches: u8,
    /// A ring drops its oldest message for lack of memory.
    pub overruns: u8,
    /// A consumer says something untrue, or a stranger speaks in the leader's place.
    pub lies: u8,
    /// A handler wants its message buried. Not a fault.
    pub rejections: u8,
    /// A consumer is asked to stop, and stays away when it has drained. Not a fault.
    pub drains: u8,
    /// A dispatcher is asked to stop; it starts again. Not a fault.
    pub stops: u8,
    /// Time passes, so that all written so far is on disk and known to be. Not a fault.
    pub ticks: u8,
}

/// The size of a run.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub dispatchers: usize,
    pub consumers: usize,
    pub messages: u8,
    pub budget: Budget,
    /// What may be refused, where the budget has refusals.
    pub refusals: &'static [Refusal],
    pub servers: Servers,
    /// What may be said that is not true, where the budget has lies.
    pub lies: &'static [Lie],
    /// The most messages at a consumer.
    pub prefetch: u8,
    /// Whether recorded gaps are remembered, which makes more states of one.
    pub gaps: bool,
}
