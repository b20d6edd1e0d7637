//! Failovers and moves: another server takes over with what it has, or with everything.
//!
//! *A failover* ([`Servers::Split`]): a replica becomes the primary. It has a prefix of the history, and another run
//! id. The old primary may live on and execute the steps of those that still reach it; nothing of that survives. A
//! dispatcher, with its commands and its subscription, and each consumer find the new primary one by one, at any time.
//! [`Action::LoseTail`] is a failover after which no one reaches the old primary. *A move* ([`Servers::Moved`]): all
//! keys of a lane move to another node, as when a slot moves. The old node refuses commands, and its subscription
//! breaks.
//!
//! In a split no one can wait for a dispatcher that is still at the old primary. So what only that one holds may be
//! skipped, and must then lie in a recorded gap. Gaps are keys: those that were recorded at the old primary are lost.
//!
//! A step of a process that is still connected to the old primary is carried out with the two servers exchanged
//! ([`World::change_sides`]).
//!
//! Limitations: one failover or one move in a run. The replica's lag is whatever was not copied, and less than the
//! three seconds for which rings keep what was stored; in the model nothing is dropped meanwhile. A late request at the
//! old primary, whose sender has moved on, is not executed.

use crate::actions::{Action, Protocol};
use crate::promises::*;
use crate::redis::{Answer, Redis, Script, key};
use crate::rest::can_loop;
use crate::ring::{Marker, OF_LEADER};
use crate::rules::{Bounds, Budget, Rule, Rules};
use crate::servers::Servers;
use crate::world::{Issuer, Request, World};
use crate::{NO_FAULTS, assert_broken, assert_broken_after, assert_kept, assert_kept_after, bounds, long};

impl Protocol {
    /// What replicas and publishers may do.
    pub fn inputs_of_failovers(&self, world: &World, actions: &mut Vec<Action>) {
        let lags = world.budget.copies > 0 && world.budget.failovers > 0 && world.disk != world.redis;
        actions.extend(lags.then_some(Action::Copy));
        let publishes = world.old.is_some() && world.published < self.bounds.messages;
        let publishes = publishes && !self.rules.has(Rule::NonePublishedAtOld);
        actions.extend(publishes.then_some(Action::PublishAtOld));
    }

    /// How the programs find the server that took over, and how a lease at the old one ends.
    pub fn moves(&self, world: &World, at_old: Option<&World>, actions: &mut Vec<Action>) {
        if !world.servers.leaves_the_old() {
            return;
        }
        let behind = (0..).zip(&world.consumers).filter(|(_, consumer)| consumer.alive && consumer.old);
        actions.extend(behind.map(|(c, _)| Action::MoveConsumer(c)));
        let lease = at_old.and_then(|at_old| at_old.redis.lease);
        let abandoned = lease.is_some_and(|lease| world.lease_of(lease.dispatcher) != Some(lease));
        actions.extend(abandoned.then_some(Action::ExpireAtOld));
    }
}

impl Servers {
    /// Whether consumers and subscriptions have to move to the other server.
    fn leaves_the_old(self) -> bool {
        matches!(self, Servers::Split | Servers::Moved)
    }
}

impl World {
    /// The replica has received everything.
    pub fn copy(&mut self) {
        self.disk = self.redis.clone();
    }

    /// The replica becomes the primary. Everyone is still connected to the old one.
    pub fn fail_over(&mut self, rules: Rules) {
        self.disk.recall.current &= !rules.has(Rule::RecallNamesTheTerm);
        let lost = std::mem::replace(&mut self.redis, self.disk.clone());
        self.old = Some(Box::new(lost));
        self.front = 1 - self.front;
        self.leave_behind();
        let last_marker = self.last_marker;
        let terms = self.dispatchers.iter_mut().filter_map(|dispatcher| dispatcher.term.as_mut());
        terms.for_each(|term| term.last_marker = Some(last_marker));
    }

    /// All keys move to the other node. What is on its way to the old one is refused.
    pub fn move_keys(&mut self, rules: Rules) {
        if self.servers != Servers::Moved {
            return;
        }
        self.redis.recall.current &= !rules.has(Rule::RecallNamesTheTerm);
        if !rules.has(Rule::KeysMoveTogether) {
            self.redis.cursor = self.disk.cursor;
        }
        self.requests.retain(|request| request.issuer != Issuer::Gone);
        self.leave_behind();
    }

    fn leave_behind(&mut self) {
        self.requests.iter_mut().for_each(|request| request.old = true);
        self.consumers.iter_mut().for_each(|consumer| consumer.old = true);
    }

    /// A dispatcher's commands go over a new connection, and so does its subscription.
    pub fn reconnect_dispatcher(&mut self, d: u8, rules: Rules) {
        if !self.servers.leaves_the_old() {
            return;
        }
        self.move_subscription(d, rules);
        let dispatcher = self.dispatcher(d);
        dispatcher.checked = None;
        if let Some(term) = &mut dispatcher.term {
            term.armed = false;
        }
        self.send_anew(rules, |issuer| matches!(issuer, Issuer::Ingest(of) | Issuer::Redistributor(of) if of == d));
    }

    /// A consumer's connection leads to the new server.
    pub fn move_consumer(&mut self, c: u8, rules: Rules) {
        self.consumers[c as usize].old = false;
        self.lose_connection(c, rules);
        self.send_anew(rules, |issuer| issuer == Issuer::Consumer(c));
    }

    fn send_anew(&mut self, rules: Rules, whose: impl Fn(Issuer) -> bool) {
        let (waiting, others) = self.requests.drain(..).partition(|sent: &Request| whose(sent.issuer));
        self.requests = others;
        for request in waiting {
            let script = self.sent_again(&request, rules);
            self.send(request.issuer, script);
        }
    }

    /// A subscription leads to the new server.
    fn move_subscription(&mut self, d: u8, rules: Rules) {
        if rules.has(Rule::MoveEndsSegment) {
            return self.cut(d);
        }
        let front = self.front;
        self.dispatcher(d).listens = front;
    }

    /// Exchanges the two servers, for a step of a process that is connected to the old one.
    pub fn change_sides(&mut self) {
        let old = self.old.as_deref_mut().expect("only while there are two");
        std::mem::swap(&mut self.redis, old);
        self.front = 1 - self.front;
        self.at_old = !self.at_old;
    }

    /// The world as those see it that are connected to the old primary.
    pub fn seen_from_old(&self) -> Option<World> {
        self.old.as_ref()?;
        let mut world = self.clone();
        world.change_sides();
        Some(world)
    }

    /// Whether a process takes this step that is connected to the old primary, or a request is served there.
    pub fn is_step_at_old(&self, action: Action) -> bool {
        if self.old.is_none() {
            return false;
        }
        match action {
            Action::Read(d)
            | Action::Check(d)
            | Action::Acquire(d)
            | Action::TakeOver(d)
            | Action::Take(d)
            | Action::Mark(d)
            | Action::Renew(d)
            | Action::Page(d)
            | Action::NotReceivingLeader(d)
            | Action::Link { dispatcher: d, .. }
            | Action::Redeliver { dispatcher: d, .. }
            | Action::DeadLetter { dispatcher: d, .. } => self.is_stuck(d),
            Action::Arm(c) | Action::Finish { consumer: c, .. } => self.consumers[c as usize].old,
            Action::Serve(index) | Action::TimeOut(index) => self.requests[index].old,
            _ => false,
        }
    }

    /// The old primary no longer matters once no one is connected to it.
    pub fn end_split(&mut self) {
        let front = self.front;
        let mut dispatchers = self.dispatchers.iter().filter(|dispatcher| dispatcher.alive);
        let is_in_use = dispatchers.any(|of| of.commands != front || of.subscribed && of.listens != front)
            || self.consumers.iter().any(|consumer| consumer.alive && consumer.old);
        if self.old.is_some() && !is_in_use {
            self.old = None;
            self.requests.retain(|request| !request.old);
        }
    }

    /// Whether what this process sends goes to the old server.
    pub fn is_on_old(&self, issuer: Issuer) -> bool {
        let front = if self.at_old { 1 - self.front } else { self.front };
        self.servers.leaves_the_old()
            && match issuer {
                Issuer::Gone => self.at_old,
                Issuer::Consumer(c) => self.consumers[c as usize].old,
                Issuer::Ingest(d) | Issuer::Redistributor(d) => self.dispatchers[d as usize].commands != front,
            }
    }

    /// The consumers that are connected to the server of this step, as bits.
    pub fn consumers_here(&self) -> u8 {
        let is_here = |of: bool| self.old.is_none() || of == self.at_old;
        (0..).zip(&self.consumers).fold(0, |here, (c, of)| here | u8::from(is_here(of.old)) << c)
    }

    fn redis_of(&self, c: u8) -> &Redis {
        let other = self.old.as_deref().filter(|_| self.consumers[c as usize].old != self.at_old);
        other.unwrap_or(&self.redis)
    }

    /// Whether a consumer finds a leader's epoch in its own Redis.
    pub fn confirms(&self, d: u8, c: u8) -> bool {
        let is_refused = self.servers == Servers::Moved && self.consumers[c as usize].old;
        let asks = self.servers == Servers::Split;
        let epoch = self.dispatchers[d as usize].term.as_ref().map(|term| term.epoch);
        !is_refused && (!asks || epoch == Some(self.redis_of(c).epoch))
    }

    /// A consumer refuses an epoch that is lower than what it has seen. If it is the newest of its Redis, the leader
    /// learns that and goes beyond it. `false`: it learns nothing.
    pub fn learn_epoch(&mut self, d: u8, c: u8, rules: Rules) -> bool {
        let epoch = self.dispatchers[d as usize].term.as_ref().map(|term| term.epoch);
        let is_newest = self.servers == Servers::Split && epoch == Some(self.redis_of(c).epoch);
        let learns = is_newest && rules.has(Rule::SeenEpochTold);
        if learns {
            self.end_term(d);
        }
        learns
    }

    /// Whether markers may be published in another order than that of their epochs.
    pub fn orders_by_epoch(&self) -> bool {
        self.servers == Servers::Split && (self.front != 0) != self.at_old
    }

    /// The name of a leader's next marker. Markers are ordered by epochs, so after a failover a leader of an older
    /// epoch puts its marker before those of newer ones.
    pub fn next_marker(&mut self, d: u8) -> Marker {
        self.last_marker += 1;
        let term = self.dispatchers[d as usize].term.as_ref();
        let Some(last) = term.and_then(|term| term.last_marker) else { return self.last_marker };
        let above = self.marker_names().into_iter().filter(|name| **name & !OF_LEADER > last);
        above.for_each(|name| *name += 1);
        self.term(d, |term| term.last_marker = Some(last + 1));
        last + 1
    }

    /// Whether an intake counts: its answer says that a replica has it.
    pub fn is_copied(&mut self, request: &Request, answer: Answer, rules: Rules) -> bool {
        let next = match request.script {
            Script::Intake { next, .. } | Script::IntakeExec { next, .. } => next,
            _ => return true,
        };
        let repeated = matches!(answer, Answer::Moved(Some(cursor)) if key(cursor) == next);
        if self.acknowledged.is_none() || request.issuer == Issuer::Gone || answer != Answer::Done && !repeated {
            return true;
        }
        if !rules.has(Rule::ReplicaHasIt) {
            return true;
        }
        // The replica has left the old primary.
        if self.at_old {
            return false;
        }
        let waits = !repeated || rules.has(Rule::RepeatedWaitsToo);
        if waits && self.budget.failovers > 0 {
            self.copy();
        }
        true
    }

    /// Too few replicas have it: it is offered again.
    pub fn repeat(&mut self, request: Request, rules: Rules) {
        let script = self.sent_again(&request, rules);
        self.send(request.issuer, script);
    }
}

const FAILOVER: Budget = Budget { faults: 1, failovers: 1, ..NO_FAULTS };
const MOVE: Budget = Budget { faults: 1, switches: 1, ..NO_FAULTS };

fn split(consumers: usize, messages: u8, budget: Budget) -> Bounds {
    Bounds { servers: Servers::Split, gaps: true, ..bounds(consumers, messages, budget) }
}

fn waiting(consumers: usize, messages: u8, budget: Budget) -> Bounds {
    Bounds { waits: true, ..split(consumers, messages, budget) }
}

fn moved(consumers: usize, messages: u8, budget: Budget) -> Bounds {
    Bounds { servers: Servers::Moved, gaps: true, ..bounds(consumers, messages, budget) }
}

/// A consumer holds a message that the replica does not have.
const HELD: &[Action] = &[
    Action::Publish,
    Action::Read(0),
    Action::Read(1),
    Action::Take(0),
    Action::Serve(0),
    Action::Deliver { dispatcher: 0, consumer: 0, id: 1, message: 0 },
    Action::FailOver,
];

/// At the new primary dispatcher 1 has filled that message in.
const STORED_AT_BOTH: &[Action] = &[
    Action::MoveCommands(1),
    Action::Subscribe(1),
    Action::Read(1),
    Action::Check(1),
    Action::Acquire(1),
    Action::Read(1),
    Action::TakeOver(1),
    Action::Take(1),
    Action::Serve(0),
];

/// At the new primary dispatcher 1 has filled a message in and has continued past the break. Then dispatcher 0, whose
/// lease at the old primary has expired, acquires it there again. So its epoch is higher than that at the new primary.
const ELECTED_AT_OLD: &[Action] = &[
    Action::Publish,
    Action::Read(0),
    Action::Read(1),
    Action::FailOver,
    Action::MoveCommands(1),
    Action::Subscribe(1),
    Action::Read(1),
    Action::Check(1),
    Action::Acquire(1),
    Action::Read(1),
    Action::TakeOver(1),
    Action::Take(1),
    Action::Serve(0),
    Action::Take(1),
    Action::Check(1),
    Action::Acquire(1),
    Action::Read(1),
    Action::TakeOver(1),
    Action::PauseAtOld,
    Action::Renew(0),
    Action::Check(0),
    Action::Acquire(0),
    Action::Read(0),
];

const PAUSED: Budget = Budget { faults: 2, pauses: 1, ..FAILOVER };

#[test]
fn nothing_is_twice_or_lost_silently_after_a_failover() {
    assert_kept("a failover", split(0, 1, Budget { copies: 1, ..FAILOVER }));
    if long() {
        assert_kept("a failover, two messages", split(0, 2, FAILOVER));
    }
}

#[test]
fn an_intake_that_a_replica_has_survives() {
    assert_kept("a failover, replicas waited for", waiting(0, 1, Budget { faults: 2, timeouts: 1, ..FAILOVER }));
}

#[test]
fn a_move_loses_nothing() {
    assert_kept("a move, a consumer", moved(1, 1, MOVE));
    if long() {
        assert_kept("a move, two messages", moved(0, 2, MOVE));
    }
}

#[test]
fn the_programs_come_to_rest_after_failovers() {
    assert!(!can_loop(split(0, 1, FAILOVER), Rules::ALL));
}

#[test]
fn the_programs_come_to_rest_after_moves() {
    assert!(!can_loop(moved(0, 1, MOVE), Rules::ALL));
}

#[test]
fn an_intake_that_counts_before_a_replica_has_it_is_lost() {
    assert_broken(Rule::ReplicaHasIt, COUNTED_STAYS, waiting(0, 1, FAILOVER));
}

/// The first attempt gets no answer. The second finds that it was done, and writes nothing. `WAIT` concerns only what
/// its own connection has written, so it has nothing to wait for. The code's attempts each write a cursor of their own.
#[test]
fn a_repeated_intake_that_does_not_wait_for_replicas_is_lost() {
    let budget = Budget { faults: 3, timeouts: 2, ..FAILOVER };
    assert_broken(Rule::RepeatedWaitsToo, COUNTED_STAYS, waiting(0, 1, budget));
}

/// The leader dies before it learns that no replica has confirmed an intake.
#[test]
fn a_backlog_that_no_replica_has_is_lost_after_its_delivery() {
    let budget = Budget { faults: 2, crashes: 1, ..FAILOVER };
    assert_broken(Rule::BacklogIsReplicated, COUNTED_STAYS, waiting(0, 1, budget));
}

#[test]
fn a_subscription_that_moves_within_a_segment_hides_what_it_missed() {
    assert_broken(Rule::MoveEndsSegment, NOT_SILENT, moved(0, 1, MOVE));
    assert_broken(Rule::MoveEndsSegment, NOT_SILENT, split(0, 1, FAILOVER));
}

#[test]
fn keys_that_move_one_by_one_store_a_message_again() {
    assert_broken(Rule::KeysMoveTogether, ONE_RESULT, moved(0, 1, MOVE));
}

#[test]
fn a_consumer_that_does_not_say_which_epoch_it_has_seen_refuses_every_leader() {
    const SEEN: &[Action] =
        &[Action::Link { dispatcher: 0, consumer: 0 }, Action::MoveConsumer(0), Action::MoveCommands(0)];
    let after = [ELECTED_AT_OLD, SEEN].concat().leak();
    assert_kept_after(after, "a consumer has seen an epoch that is lost", split(1, 1, PAUSED));
    assert_broken_after(after, Rule::SeenEpochTold, DRAINED, split(1, 1, PAUSED));
}

/// A documented limit: no dispatcher at the new primary learns of it.
#[test]
fn what_is_published_at_the_old_primary_may_be_lost_without_a_gap() {
    assert_broken(Rule::NonePublishedAtOld, NOT_SILENT, split(0, 1, FAILOVER));
}

/// The markers of a leader that was elected at the old primary are later than the cursor, although they come before it.
#[test]
fn a_leader_elected_at_the_old_primary_stores_nothing_again() {
    let budget = Budget { faults: 3, crashes: 1, ..PAUSED };
    assert_kept_after(ELECTED_AT_OLD, "a leader elected at the old primary", split(0, 1, budget));
    assert_broken_after(ELECTED_AT_OLD, Rule::EarlierMarkersExclude, ONE_RESULT, split(0, 1, budget));
}

/// Two leaders, one at each primary, assign the same id. A result of the one is recorded for the message of the other.
#[test]
fn ids_assigned_at_both_primaries_record_a_message_twice() {
    let after = [HELD, STORED_AT_BOTH].concat().leak();
    assert_kept_after(after, "messages of both primaries", split(1, 1, FAILOVER));
    assert_broken_after(after, Rule::IdsDifferByServer, ONE_RESULT, split(1, 1, FAILOVER));
    if long() {
        assert_kept_after(HELD, "a failover while a consumer holds what is lost", split(1, 1, FAILOVER));
    }
}
