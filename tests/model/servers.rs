//! Two servers: a dispatcher's commands and its subscription may reach different ones.
//!
//! After a failover new connections lead to the other server, which receives what is published, and only that server
//! accepts writes. An existing subscription is not closed and receives nothing more ([`Servers::Failover`]). If nodes
//! or proxies forward published messages, a subscription may be on either server, but `PUBSUB NUMSUB` counts only those
//! of the server that is asked ([`Servers::Forwarding`]). Both servers always hold the same keys: what a failover loses
//! is another fault.

use stateright::Model;

use crate::actions::{Action, Protocol};
use crate::promises::*;
use crate::redis::Lease;
use crate::rest::can_loop;
use crate::ring::{RingPlace, Standing};
use crate::rules::{Bounds, Budget, Rule, Rules};
use crate::world::{Phase, World};
use crate::{NO_FAULTS, assert_broken, assert_kept, bounds, find_broken, long};

/// Whether there is a second server, and what it does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Servers {
    #[default]
    One,
    /// A second server takes over: new connections and published messages go there, and the old one refuses writes.
    Failover,
    /// The servers forward published messages. Commands go to one of them, subscriptions may be on either.
    Forwarding,
    /// A replica takes over with what it has; the old primary lives on for those that still reach it.
    Split,
    /// All keys of the group move to another node, which has another run id. The old one refuses commands.
    Moved,
}

impl World {
    /// Whether a dispatcher, if it is subscribed, receives what is published through this server.
    pub fn hears(&self, d: u8, server: u8) -> bool {
        self.servers == Servers::Forwarding || self.dispatchers[d as usize].listens == server
    }

    /// Whether a leader's markers come back to it.
    pub fn hears_itself(&self, d: u8) -> bool {
        self.hears(d, self.dispatchers[d as usize].commands)
    }

    /// Whether this dispatcher's subscription is counted on the server that its commands reach.
    pub fn is_counted(&self, d: u8) -> bool {
        self.is_counted_on(d, self.dispatchers[d as usize].commands)
    }

    fn is_counted_on(&self, d: u8, server: u8) -> bool {
        let dispatcher = &self.dispatchers[d as usize];
        dispatcher.subscribed && dispatcher.listens == server
    }

    /// The other dispatchers that are subscribed, as far as this one can see.
    pub fn others(&self, d: u8) -> impl Iterator<Item = u8> + '_ {
        let server = self.dispatchers[d as usize].commands;
        let others = (0..).zip(&self.dispatchers).filter(move |(e, _)| *e != d && self.is_counted_on(*e, server));
        others.map(|(_, other)| other.id)
    }

    /// Whether this dispatcher finds the lease free.
    pub fn is_free(&self, d: u8, rules: Rules) -> bool {
        let Some(Lease { dispatcher: holder, dead, by_time, .. }) = self.redis.lease else { return true };
        if by_time || rules.has(Rule::OwnCounted) && !self.is_counted(d) {
            return false;
        }
        dead || !self.is_counted_on(holder, self.dispatchers[d as usize].commands)
    }

    /// Whether the holder of the lease leads, receives what is published, and has not changed servers since.
    pub fn lease_is_sound(&self) -> bool {
        let Some(lease) = self.redis.lease.filter(|lease| self.lease_of(lease.dispatcher) == Some(*lease)) else {
            return false;
        };
        let holder = &self.dispatchers[lease.dispatcher as usize];
        let stays = holder.term.as_ref().is_some_and(|term| !term.moved);
        stays && !self.is_stuck(lease.dispatcher) && holder.subscribed && self.hears(lease.dispatcher, self.front)
    }

    /// Whether its commands are refused, because they still go to the old server.
    pub fn is_stuck(&self, d: u8) -> bool {
        self.dispatchers[d as usize].commands != self.front
    }

    /// The command connection is replaced.
    pub fn move_commands(&mut self, d: u8, rules: Rules) {
        let front = self.front;
        let dispatcher = &mut self.dispatchers[d as usize];
        dispatcher.commands = front;
        dispatcher.retried &= dispatcher.listens != front;
        if let Some(term) = &mut dispatcher.term {
            term.moved = true;
        }
        self.reconnect_dispatcher(d, rules);
    }

    fn stands_by(&self, d: u8) -> bool {
        let dispatcher = &self.dispatchers[d as usize];
        let idle = dispatcher.term.is_none() && dispatcher.checked.is_none();
        idle && dispatcher.subscribed && dispatcher.ring.live_segment().is_some()
    }

    /// Whether a standby sees that it is not counted, and has not subscribed again because of it.
    pub fn is_to_subscribe_anew(&self, d: u8, rules: Rules) -> bool {
        let retried = self.dispatchers[d as usize].retried;
        rules.has(Rule::UncountedSubscribesAnew) && self.stands_by(d) && !self.is_counted(d) && !retried
    }

    pub fn subscribe_anew(&mut self, d: u8) {
        self.dispatchers[d as usize].retried = true;
        self.cut(d);
    }

    pub fn leader_is_not_receiving(&self, d: u8, rules: Rules) -> bool {
        let dispatcher = &self.dispatchers[d as usize];
        let leads = dispatcher.term.is_some() && dispatcher.subscribed;
        rules.has(Rule::NotReceivingLeaderResigns) && leads && !self.hears_itself(d)
    }

    /// Whether a standby has read everything that it was sent, and the cursor has moved past it.
    pub fn standby_is_not_receiving(&self, d: u8, rules: Rules) -> bool {
        if !rules.has(Rule::NotReceivingStandbyResubscribes) || !self.stands_by(d) {
            return false;
        }
        let Some(lease) = self.redis.lease.filter(|lease| self.lease_of(lease.dispatcher) == Some(*lease)) else {
            return false;
        };
        let leader = &self.dispatchers[lease.dispatcher as usize];
        let takes_in = leader.term.as_ref().is_some_and(|term| matches!(term.phase, Phase::Running { .. }));
        let dispatcher = &self.dispatchers[d as usize];
        let found = dispatcher.ring.resolve(self.redis.cursor);
        let passed = dispatcher.inbox.is_empty() && found.is_some_and(|found| found.standing == Standing::Beyond);
        takes_in && passed && !self.is_stuck(lease.dispatcher) && !self.hears(d, leader.commands)
    }

    /// A leader records that messages before this place of its ring may have been missed.
    pub fn record_gap(&mut self, d: u8, place: RingPlace) {
        let Some(gaps) = self.redis.gaps else { return };
        let dispatcher = &self.dispatchers[d as usize];
        let is_ahead = |message: &u8| {
            let in_ring = dispatcher.ring.find(*message).is_some_and(|at| at >= place.sequence());
            in_ring || dispatcher.inbox.contains(&crate::ring::Seen::Message(*message))
        };
        let missed = (0..self.published).filter(|message| !is_ahead(message) && self.redis.taken & 1 << message == 0);
        self.redis.gaps = Some(missed.fold(gaps, |gaps, message| gaps | 1 << message));
    }
}

const SWITCH: Budget = Budget { faults: 1, switches: 1, ..NO_FAULTS };

fn two(servers: Servers, messages: u8, budget: Budget) -> Bounds {
    Bounds { servers, gaps: true, ..bounds(0, messages, budget) }
}

#[test]
fn a_failover_that_closes_no_connection_is_noticed() {
    assert_kept("a failover, two messages", two(Servers::Failover, 2, SWITCH));
    if long() {
        let budget = Budget { faults: 2, crashes: 1, cuts: 1, pauses: 1, timeouts: 1, ..SWITCH };
        assert_kept("a failover and any other fault", two(Servers::Failover, 1, budget));
    }
}

#[test]
fn subscriptions_that_are_counted_elsewhere_do_no_harm() {
    assert_kept("forwarding", two(Servers::Forwarding, 1, SWITCH));
    if long() {
        // With a second fault the limit below shows.
        assert_kept("forwarding, two messages", two(Servers::Forwarding, 2, SWITCH));
    }
}

#[test]
fn the_programs_come_to_rest_on_two_servers() {
    for servers in [Servers::Failover, Servers::Forwarding] {
        assert!(!can_loop(two(servers, 1, SWITCH), Rules::ALL));
    }
}

/// Either rule alone prevents this: a lease that is acquired where its holder is not counted says so.
#[test]
fn dispatchers_that_are_not_counted_take_the_lease_from_each_other_forever() {
    let rules = Rules::without(Rule::OwnCounted).and_without(Rule::UncountedByTime);
    let bounds = two(Servers::Forwarding, 0, SWITCH);
    find_broken(&[], rules, LEASE_STANDS, bounds);
    const SWITCHED: &[Action] = &[Action::Switch, Action::MoveCommands(0), Action::MoveCommands(1)];
    let protocol = Protocol { bounds, rules, watched: false, after: SWITCHED };
    let mut world = protocol.init_states().remove(0);
    for (leader, other) in [(0, 1), (1, 0), (0, 1), (1, 0)] {
        let replaced = [
            Action::Check(other),
            Action::Acquire(other),
            Action::Renew(leader),
            Action::Read(leader),
            Action::Read(other),
        ];
        for action in replaced {
            let mut possible = Vec::new();
            protocol.progress(&world, &mut possible);
            assert!(possible.contains(&action), "{action:?}");
            world = protocol.next_state(&world, action).expect("it has an effect");
        }
    }
}

#[test]
fn a_lease_of_an_uncounted_holder_that_does_not_say_so_is_taken_from_it() {
    let budget = Budget { faults: 2, pauses: 1, ..SWITCH };
    assert_broken(Rule::UncountedByTime, LEASE_STANDS, two(Servers::Forwarding, 0, budget));
}

#[test]
fn a_leader_that_does_not_notice_that_it_is_not_receiving_records_no_gap() {
    assert_broken(Rule::NotReceivingLeaderResigns, NOT_SILENT, two(Servers::Failover, 1, SWITCH));
}

/// Either rule alone prevents this. A standby that is not receiving and leads first finds out as a leader, so the
/// standby here is late.
#[test]
fn a_standby_that_does_not_notice_that_it_is_not_receiving_stays_so() {
    let rules = Rules::without(Rule::MovingOnesGoFirst).and_without(Rule::UncountedSubscribesAnew);
    let bounds = two(Servers::Failover, 1, SWITCH);
    find_broken(&[], rules.and_without(Rule::NotReceivingStandbyResubscribes), ALL_HEAR, bounds);
}

/// A documented limit: a server counts only its own subscriptions, so the eldest may be taken for absent.
#[test]
fn an_elder_that_is_not_counted_does_not_lead_first() {
    const APART: &[Action] = &[
        Action::Switch,
        Action::MoveCommands(0),
        Action::MoveCommands(1),
        Action::Uncounted(1),
        Action::SubscribeAt(1, 1),
        Action::Read(0),
        Action::Take(0),
        Action::Serve(0),
        Action::Read(1),
        Action::Check(1),
        Action::Acquire(1),
        Action::Read(0),
        Action::Take(0),
        Action::Renew(0),
        Action::Uncounted(0),
        Action::SubscribeAt(0, 0),
        Action::Publish,
        Action::Read(0),
        Action::Read(0),
        Action::Read(1),
        Action::Read(1),
        Action::Read(1),
        Action::TakeOver(1),
        Action::Take(1),
        Action::Crash(1),
    ];
    let budget = Budget { faults: 2, crashes: 1, ..SWITCH };
    find_broken(APART, Rules::ALL, NONE_LOST, two(Servers::Forwarding, 1, budget));
}
