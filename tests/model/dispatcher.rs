//! The steps of a dispatcher: listener, election, and takeover. The later steps are in [`crate::intake`] and
//! [`crate::courier`].

use std::time::Duration;

use oncecast::lane::precedence::{self, Right};

use crate::intake::has_yielded;
use crate::redis::{Lease, Recall};
use crate::ring::{OF_LEADER, Resolution, Seen, Standing};
use crate::rules::{Rule, Rules};
use crate::servers::Servers;
use crate::world::{Check, Dispatcher, Issuer, Phase, Term, World};

/// Only the order of the waits matters here, and it is the same for every TTL.
const LEASE_TTL: Duration = Duration::from_secs(2);

impl World {
    pub fn dispatcher(&mut self, d: u8) -> &mut Dispatcher {
        &mut self.dispatchers[d as usize]
    }

    /// A new process, or a new subscription of a running one: the join marker is published in the same step.
    pub fn subscribe(&mut self, d: u8, server: u8, rules: Rules) {
        self.last_marker += 1;
        let marker = self.last_marker;
        let commands = self.front;
        let dispatcher = self.dispatcher(d);
        if !dispatcher.alive {
            *dispatcher = Dispatcher { alive: true, id: marker, commands, ..Dispatcher::default() };
        }
        dispatcher.subscribed = true;
        dispatcher.listens = server;
        dispatcher.retried &= dispatcher.commands != server;
        dispatcher.ring.begin_segment(rules);
        let id = dispatcher.id;
        self.broadcast(Seen::Join(marker, id), server);
    }

    /// The subscription drops; what was sent and not read is lost.
    pub fn cut(&mut self, d: u8) {
        let dispatcher = self.dispatcher(d);
        dispatcher.subscribed = false;
        dispatcher.inbox.clear();
        dispatcher.returned.clear();
        dispatcher.news = false;
        dispatcher.ring.end_segment();
        self.hearers.iter_mut().for_each(|hearers| *hearers &= !(1 << d));
    }

    pub fn crash(&mut self, d: u8) {
        *self.dispatcher(d) = Dispatcher::default();
        let old = self.old.iter_mut().map(|old| &mut old.lease);
        for lease in [&mut self.redis.lease, &mut self.disk.lease].into_iter().chain(old).flatten() {
            lease.dead |= lease.dispatcher == d;
        }
        self.witnesses.iter_mut().chain(&mut self.hearers).for_each(|known_to| *known_to &= !(1 << d));
        self.orphan(|issuer| matches!(issuer, Issuer::Ingest(of) | Issuer::Redistributor(of) if of == d));
        for consumer in self.consumers.iter_mut().filter(|consumer| consumer.ruler == Some(d)) {
            consumer.ruler = None;
        }
    }

    /// The listener reads the next item.
    pub fn read(&mut self, d: u8, rules: Rules) {
        let (cursor, on_disk) = (self.redis.cursor, self.disk.cursor);
        let dispatcher = self.dispatcher(d);
        let seen = dispatcher.inbox.remove(0);
        dispatcher.ring.append(seen);
        let is_in_sync =
            |cursor| dispatcher.ring.resolve(cursor).is_some_and(|found| found.standing == Standing::InSync);
        let in_sync = is_in_sync(cursor) && (is_in_sync(on_disk) || !rules.has(Rule::OwedOnceSettled));
        let live = dispatcher.ring.live_segment().is_some();
        if let Seen::Message(message) = seen {
            self.witnesses[message as usize] |= u8::from(in_sync) << d;
            self.hearers[message as usize] |= u8::from(live) << d;
        }
    }

    /// A standby reads the cursor.
    pub fn poll(&mut self, d: u8, rules: Rules) {
        let (cursor, tick) = (self.redis.cursor, self.tick);
        let ring = &mut self.dispatcher(d).ring;
        if let Some(Resolution { place, standing: Standing::InSync, .. }) = ring.resolve(cursor) {
            ring.note_cursor(place, tick, rules);
        }
    }

    /// Whether a dispatcher that checks the lease now sees that it may acquire it.
    pub fn may_acquire(&self, d: u8, rules: Rules) -> bool {
        let dispatcher = &self.dispatchers[d as usize];
        if !dispatcher.alive || dispatcher.term.is_some() || dispatcher.checked.is_some() || !self.is_free(d, rules) {
            return false;
        }
        let Some((mine, right)) = self.wait(d, rules) else { return false };
        // This right comes only after a wait in which the elders would have led, unless they hang. Here they do not.
        if right == Right::Break {
            return false;
        }
        // It waits longer than a better dispatcher needs: each has read all that it was sent, and none goes first.
        let yields = |(other, e): (&Dispatcher, u8)| {
            let waits = rules.has(Rule::MovingOnesGoFirst) && self.servers != Servers::Split;
            let is_late = self.is_stuck(e) && !waits;
            e == d
                || !other.alive
                || is_late
                || other.inbox.is_empty() && self.wait(e, rules).is_some_and(|(wait, _)| wait >= mine)
        };
        mine.is_zero() || !rules.has(Rule::OthersFirst) || self.dispatchers.iter().zip(0..).all(yields)
    }

    /// How long a dispatcher waits for others when the lease is free, and what it may do then. `None`: it is not
    /// subscribed yet.
    fn wait(&self, d: u8, rules: Rules) -> Option<(Duration, Right)> {
        let standing = self.dispatchers[d as usize].ring.resolve(self.redis.cursor)?.standing;
        let eldest = self.is_eldest(d, rules);
        let wait = precedence::wait(standing, eldest, LEASE_TTL);
        Some((wait, precedence::right(standing, eldest, wait, LEASE_TTL)?))
    }

    /// Whether all others that are subscribed joined after this one.
    pub fn is_eldest(&self, d: u8, rules: Rules) -> bool {
        !rules.has(Rule::EldestPassesBreaks) || self.dispatchers[d as usize].ring.is_eldest(self.others(d))
    }

    /// A standby checks the lease, and sees that it may acquire it.
    pub fn check(&mut self, d: u8) {
        let cursor = self.redis.cursor;
        let dispatcher = self.dispatcher(d);
        let standing = dispatcher.ring.resolve(cursor).map(|found| found.standing);
        let yielded = matches!(standing, Some(Standing::Beyond | Standing::Fresh));
        dispatcher.checked = Some(Check { segment: dispatcher.ring.live_segment(), yielded });
    }

    /// Acquires the lease if it is still free, and publishes the first marker of the epoch.
    pub fn acquire(&mut self, d: u8, rules: Rules) {
        let Some(check) = self.dispatcher(d).checked.take() else { return };
        if !self.is_free(d, rules) {
            return;
        }
        if rules.has(Rule::ReplaysForgottenBefore) {
            self.dispatcher(d).returned.clear();
            self.dispatcher(d).news = false;
        }
        self.seen.usurped |= self.lease_is_sound();
        let by_time = !self.is_counted(d) && rules.has(Rule::UncountedByTime);
        self.last_epoch += 1;
        let epoch = self.last_epoch;
        self.redis.epoch = epoch;
        self.redis.lease = Some(Lease { dispatcher: d, dead: false, epoch, by_time });
        if rules.has(Rule::IntakeWatchesEpoch) {
            self.intake_written();
        }
        let before = self.redis.recall;
        if rules.has(Rule::AcquireRaisesRecall) {
            let newest = self.redis.pending.last().map_or(0, |(id, _)| *id);
            self.redis.raise_recall(newest);
        }
        if rules.has(Rule::RecallNamesTheTerm) {
            self.redis.recall = Recall { epoch, current: true, ..self.redis.recall };
        }
        if self.redis.recall != before {
            self.recall_written(rules);
        }
        let (cursor, paused) = (self.redis.cursor, self.redis.paused);
        self.seen.found_pause |= paused;
        self.last_marker += 1;
        let marker = self.last_marker;
        self.broadcast(Seen::Marker(marker | OF_LEADER), self.dispatchers[d as usize].commands);
        let last_marker = self.orders_by_epoch().then_some(marker);
        let elected_at = self.front;
        let dispatcher = self.dispatcher(d);
        dispatcher.term = Some(Term {
            epoch,
            cursor,
            check,
            phase: Phase::TakingOver(marker | OF_LEADER),
            by_time,
            elected_at,
            last_marker,
            moved: false,
            advanced: false,
            unmarked: false,
            armed: false,
            offer: None,
            paused: paused && rules.has(Rule::SettingsReadWithTheLease),
            backlog: cursor.map(|cursor| cursor.last_id),
            links: 0,
            drains: 0,
            overdue: Vec::new(),
            table: Vec::new(),
        });
    }

    /// The term is over. Its requests may still arrive. Its links are closed, which the consumers notice.
    pub fn end_term(&mut self, d: u8) {
        if self.redis.lease.is_some() && self.redis.lease == self.lease_of(d) {
            self.redis.lease = None;
        }
        self.dispatcher(d).term = None;
        self.orphan(|issuer| matches!(issuer, Issuer::Ingest(of) | Issuer::Redistributor(of) if of == d));
        for consumer in self.consumers.iter_mut().filter(|consumer| consumer.ruler == Some(d)) {
            consumer.ruler = None;
        }
    }

    /// Ingest finds the place to continue from. `false`: it has to wait.
    pub fn take_over(&mut self, d: u8, rules: Rules) -> bool {
        let dispatcher = self.dispatcher(d);
        let Some(Term { phase: Phase::TakingOver(marker), check, cursor, .. }) = dispatcher.term else {
            return false;
        };
        let live_segment = dispatcher.ring.live_segment();
        let bound = rules.has(Rule::TermEndsWithItsSubscription);
        if !dispatcher.subscribed || bound && live_segment.is_some() && live_segment != check.segment {
            self.end_term(d);
            return true;
        }
        let Some(live_segment) = live_segment else { return false };
        if rules.has(Rule::MarkerBarrier) && !dispatcher.ring.has_seen(marker) {
            if dispatcher.inbox.contains(&Seen::Marker(marker)) || !self.hears_itself(d) {
                return false;
            }
            // The marker was lost with the old subscription: another is published.
            if !self.is_accepted(d) {
                self.end_term(d);
                return true;
            }
            let marker = self.publish_marker(d);
            self.term(d, |term| term.phase = Phase::TakingOver(marker));
            return true;
        }
        let dispatcher = self.dispatcher(d);
        let Some(Resolution { place, standing, .. }) = dispatcher.ring.resolve(cursor) else { return false };
        let has_yielded = dispatcher.term.as_ref().is_some_and(|term| has_yielded(term, rules));
        let passes = matches!(standing, Standing::Beyond | Standing::Fresh);
        if passes && !(has_yielded && self.is_eldest(d, rules)) {
            self.end_term(d);
            return true;
        }
        if standing == Standing::Beyond {
            self.record_gap(d, place);
        }
        if !rules.has(Rule::ReplaysForgottenBefore) {
            self.dispatcher(d).news = false;
            self.dispatcher(d).returned.clear();
        }
        self.term(d, |term| term.phase = Phase::Running { place, live_segment });
        true
    }

    /// The leader publishes a marker: something was stored since the last one.
    pub fn mark(&mut self, d: u8) {
        if !self.is_accepted(d) {
            return self.end_term(d);
        }
        self.publish_marker(d);
        self.term(d, |term| term.unmarked = false);
    }

    /// Changes what a leader knows.
    pub fn term(&mut self, d: u8, change: impl FnOnce(&mut Term)) {
        change(self.dispatcher(d).term.as_mut().expect("only a leader has a term"));
    }

    /// The sequence number from which a dispatcher would continue if it took over now.
    pub fn place_of(&self, d: u8) -> Option<u64> {
        self.dispatchers[d as usize].ring.first_after(self.redis.cursor?)
    }
}
