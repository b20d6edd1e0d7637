//! The election: competes for the lease, leads while it holds it, and goes back to competing.
//!
//! [`Election::run`] is the main loop of the lane. Its thread owns the lease, and makes the kill switch of a term.
//! Every worker and every dialer holds a clone and may set it. So a term ends when the lease is lost or may have
//! expired by this dispatcher's clock, when a worker or a dialer ends it, or when the lane is asked to stop.
//! `precedence` decides which dispatcher goes first when the lease is free.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, after, select_biased};

use super::dialers::DialRequests;
use super::elected::{Elected, PENDING_LOST, Replicated};
use super::group_settings::KnownSettings;
use super::leading::HANDED_OVER_PAUSE;
use super::precedence::{self, Right};
use super::pulses::ELECTION_ITERATION_WITHIN;
use super::reach::Reach;
use super::shared::Shared;
use super::stats::set;
use super::term::Term;
use crate::base::backoff::Backoff;
use crate::base::error::{Error, Result};
use crate::base::id::Epoch;
use crate::base::pulse::OPEN_WITHIN;
use crate::base::shutdown::ShutdownRequests;
use crate::base::text::Quoted;
use crate::lane::kill_switch::{KillSwitch, Reason};
use crate::lane::lease::{LeaseKeeper, Renewal};
use crate::lane::listener::Released;
use crate::lane::ring::{CURSOR_LOST, Resolution, Standing};
use crate::ledger::{Acquire, Cursor};

/// How often a standby tries for the lease.
const TRY_EVERY: Duration = Duration::from_millis(50);

/// The pause after a term that ended because a worker failed, since it may fail again.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);

/// A term shorter than this counts as short.
const SHORT_TERM: Duration = Duration::from_secs(1);
/// How many short terms in a row are tolerated before there is a pause.
const SHORT_TERMS: u32 = 1;
/// The pauses between short terms.
const SHORT_TERM_PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// The longest interval between two checks that a leader's markers come back.
const HEAR_EVERY: Duration = Duration::from_millis(500);

/// The longest that ending a term takes.
const TERM_END_WITHIN: Duration = Duration::from_secs(30);

/// See the module's text.
pub(super) struct Election {
    shared: Arc<Shared>,
    lease: LeaseKeeper,
    dial: DialRequests,
    released: Receiver<Released>,
    requests: ShutdownRequests,
    backoff: Backoff,
    /// Whether the last request to Redis was answered. If not, the next iteration may have to open a connection first.
    connected: bool,
    /// Since when this dispatcher has seen the lease free, waiting for its turn.
    vacant: Option<Vacancy>,
    reach: Reach,
}

/// A time without a leader, observed by one subscription and without failures in between.
#[derive(Clone, Copy)]
struct Vacancy {
    segment: u64,
    since: Instant,
}

/// The outcome of one attempt to take the lease.
enum LeaseTry {
    Elected(Elected),
    /// Another dispatcher leads.
    Held,
    /// No dispatcher leads, and this one may not take the lease yet.
    Vacant,
}

/// How the time as a standby ends.
enum Standby {
    Elected(Elected),
    Stop,
    /// The listener's thread has ended.
    ListenerEnded,
}

impl Election {
    pub(super) fn new(
        shared: Arc<Shared>,
        dial: DialRequests,
        released: Receiver<Released>,
        requests: ShutdownRequests,
    ) -> Election {
        let ttl = shared.settings.lease_ttl;
        let lease = LeaseKeeper::new(shared.ledger(ttl), shared.id.clone(), ttl);
        let reach = Reach::new(&shared);
        Election {
            shared,
            lease,
            dial,
            released,
            requests,
            backoff: Backoff::for_leadership(),
            connected: false,
            vacant: None,
            reach,
        }
    }

    /// The main loop: standby, leader, standby, … until the lane is asked to stop.
    pub(super) fn run(mut self) -> Result<()> {
        let (first, most) = SHORT_TERM_PAUSE;
        // One that pauses for longer is taken for hung, and others may continue past a break that only it can fill.
        let longest = precedence::longest_pause(self.shared.settings.lease_ttl);
        let mut backoff = Backoff::new(first, most.min(longest));
        let mut short_terms = 0;
        loop {
            match self.stand_by() {
                Standby::Elected(elected) => {
                    let began = Instant::now();
                    let reason = self.lead(elected)?;
                    short_terms = if began.elapsed() < SHORT_TERM { short_terms + 1 } else { 0 };
                    let pause = match reason {
                        Reason::WorkerFailed => FAILURE_PAUSE.min(longest),
                        Reason::HandedOver => HANDED_OVER_PAUSE.min(longest),
                        _ if short_terms > SHORT_TERMS => backoff.next_wait(),
                        _ => Duration::ZERO,
                    };
                    if short_terms == 0 {
                        backoff.reset();
                    }
                    if reason == Reason::Shutdown || self.requests.receiver().recv_timeout(pause).is_ok() {
                        return Ok(());
                    }
                }
                Standby::Stop => return Ok(()),
                Standby::ListenerEnded => {
                    return Err(Error::Failed("the thread listener ended, which is a bug".to_owned()));
                }
            }
        }
    }

    /// Tries to take the lease until that succeeds, or until the lane is asked to stop.
    fn stand_by(&mut self) -> Standby {
        self.shared.log.set("standby", None);
        set(&self.shared.stats.leading, 0);
        let mut wait = Duration::ZERO;
        loop {
            self.beat(wait);
            select_biased! {
                recv(self.requests.receiver()) -> _ => return Standby::Stop,
                recv(self.released) -> news => if news.is_err() { return Standby::ListenerEnded },
                recv(after(wait)) -> _ => {}
            }
            wait = match self.try_once() {
                Ok(LeaseTry::Elected(elected)) => {
                    self.note_redis_answers();
                    return Standby::Elected(elected);
                }
                Ok(LeaseTry::Held) => {
                    self.note_redis_answers();
                    TRY_EVERY
                }
                // Redis has not been written to, so it may be a replica, which answers reads as well.
                Ok(LeaseTry::Vacant) => TRY_EVERY,
                Err(error) => {
                    self.connected = false;
                    // The dispatchers that go first may be cut off, too, so the wait for them starts anew.
                    self.vacant = None;
                    set(&self.shared.stats.redis_connected, 0);
                    set(&self.shared.stats.in_sync, 0);
                    *self.shared.stats.unelected.lock() = Some(error.to_string());
                    self.shared.troubles.report("election", "redis-trouble", &error, &mut self.backoff);
                    self.backoff.next_wait()
                }
            };
        }
    }

    fn note_redis_answers(&mut self) {
        self.connected = true;
        set(&self.shared.stats.redis_connected, 1);
        *self.shared.stats.unelected.lock() = None;
        if self.backoff.reset() {
            log::info!("event=redis-recovered");
        }
    }

    /// One attempt to take the lease: check it, decide whether this dispatcher may take it, take it.
    fn try_once(&mut self) -> Result<LeaseTry> {
        let floor = Epoch(self.shared.listener.highest_epoch.load(Ordering::Relaxed));
        // Checked first, because whether this dispatcher may take the lease depends on the present cursor.
        let seen = self.check(floor)?;
        let resolution = self.compare_with_ring(&seen);
        self.release_stray(&seen)?;
        let free = !matches!(seen, Acquire::Held { .. });
        let (Some((resolution, segment)), true) = (resolution, free) else {
            self.vacant = None;
            return Ok(if free { LeaseTry::Vacant } else { LeaseTry::Held });
        };
        match self.right_to_lead(resolution.standing, segment)? {
            Some(right) => self.take_lease(floor, right, segment),
            None => Ok(LeaseTry::Vacant),
        }
    }

    /// Reads the lease and the cursor without taking the lease, and notes what they show about the subscription.
    fn check(&mut self, floor: Epoch) -> Result<Acquire> {
        let subscription = self.shared.listener.subscriptions.load(Ordering::Relaxed);
        let segment = self.shared.ring.live_segment();
        let attempt = self.lease.acquire(floor, false)?;
        self.reach.note_foreign(&attempt);
        self.shared.listener.hearing.note_redis_clock(attempt.redis_ms);
        if segment.is_some() && segment == self.shared.ring.live_segment() {
            self.reach.note_counted(attempt.counted, subscription);
        }
        if let Acquire::Held { cursor, .. } = &attempt.answer
            && segment.is_some()
        {
            self.reach.hear_leader(cursor.as_ref(), subscription);
        }
        Ok(attempt.answer)
    }

    /// Finds the cursor in the ring, and notes whether this dispatcher is in sync. `None` without a live segment.
    fn compare_with_ring(&self, seen: &Acquire) -> Option<(Resolution, u64)> {
        let (Acquire::Held { cursor, .. } | Acquire::Vacant { cursor } | Acquire::Acquired { cursor, .. }) = seen;
        let segment = self.shared.ring.live_segment();
        let resolution = self.shared.resolve(cursor.as_ref());
        let follows = resolution.and_then(|resolution| resolution.follows);
        set(&self.shared.stats.in_sync, follows.is_some().into());
        if let (Some(place), Some(cursor)) = (follows, cursor) {
            self.shared.ring.note_cursor(place, Instant::now());
            self.shared.note_id(cursor.last_id);
        }
        resolution.zip(segment)
    }

    /// Releases a lease that names this dispatcher although it does not lead: the reply to taking it was lost.
    fn release_stray(&mut self, seen: &Acquire) -> Result<()> {
        if let Acquire::Held { lease, .. } = seen
            && lease.holder == self.shared.id.as_str()
            && self.lease.release_stray(lease)?
        {
            log::info!("event=lease-released stray=true");
        }
        Ok(())
    }

    /// The right with which this dispatcher may take the free lease now; `None` if it may not.
    fn right_to_lead(&mut self, standing: Standing, segment: u64) -> Result<Option<Right>> {
        let vacant = self.vacant.filter(|vacant| vacant.segment == segment);
        let vacant = *self.vacant.insert(vacant.unwrap_or(Vacancy { segment, since: Instant::now() }));
        // A dispatcher that leads other lanes lets those go first that lead fewer, if there are others.
        let (vacant, ttl) = (vacant.since.elapsed(), self.shared.settings.lease_ttl);
        let vacant_for = match self.shared.leading.vacant_for(vacant, ttl) {
            Some(vacant_for) => vacant_for,
            None if self.lease.other_dispatchers()?.is_empty() => vacant,
            None => return Ok(None),
        };
        let eldest = self.is_eldest(standing)?;
        Ok(precedence::right(standing, eldest, vacant_for, ttl))
    }

    /// Takes the lease, unless another dispatcher was faster.
    fn take_lease(&mut self, floor: Epoch, right: Right, segment: u64) -> Result<LeaseTry> {
        // What is replayed from here on is not in the backlog of the term, or it is in both. Settings that change from
        // here on are read again.
        self.shared.replays.start_over();
        self.shared.settings_news.start_over();
        let attempt = self.lease.acquire(floor, true)?;
        self.reach.note_foreign(&attempt);
        let is_cursor = |(key, _): &(String, String)| *key == self.shared.settings.keys.cursor;
        let cursor_lost = attempt.foreign.iter().any(is_cursor);
        let Acquire::Acquired { lease, cursor, newest, before, settings, servers } = attempt.answer else {
            return Ok(LeaseTry::Held);
        };
        let settings = Box::new(KnownSettings::now(settings));
        self.vacant = None;
        let last_id = self.shared.last_id_before(cursor.as_ref().map(|cursor| cursor.last_id).or(newest));
        // A cursor without an epoch means that Redis lost keys, unless the lane is new.
        let lost = match (cursor_lost, &cursor, before) {
            (true, ..) => Some(CURSOR_LOST),
            (false, Some(cursor), None) if !cursor.is_unheard() => Some(PENDING_LOST),
            _ => None,
        };
        let undelivered = self.shared.undelivered.lock().take();
        let undelivered = undelivered.filter(|(led, _)| before == Some(*led)).map(|(_, id)| id);
        let epoch = lease.epoch;
        let replicated = Replicated::default();
        Ok(LeaseTry::Elected(Elected {
            epoch,
            lost,
            undelivered,
            cursor,
            last_id,
            replicated,
            settings,
            right,
            segment,
            servers,
        }))
    }

    /// Whether all other dispatchers are younger. Not checked in sync, where it makes no difference.
    fn is_eldest(&mut self, standing: Standing) -> Result<bool> {
        Ok(standing != Standing::InSync && self.shared.ring.is_eldest(&self.lease.other_dispatchers()?))
    }

    /// Leads for one term. Returns why it ended.
    fn lead(&mut self, elected: Elected) -> Result<Reason> {
        let epoch = elected.epoch;
        self.shared.log.set("leader", Some(epoch));
        let stats = &self.shared.stats;
        set(&stats.epoch, epoch.0);
        // Late until ingest's first step, so that a leader is ready only once it has stored what there was to store.
        self.shared.pulses.intake.owe();
        set(&stats.leading, 1);
        let _led = self.shared.leading.begin();
        // One that came too late for the term before is not meant.
        let _ = self.shared.requests_to_hand_over().try_recv();
        self.shared.note_change();
        stats.terms.fetch_add(1, Ordering::Relaxed);
        let cursor = elected.cursor.as_ref().map_or("none".to_owned(), Cursor::to_string);
        log::info!("event=elected cursor={}", Quoted(cursor));
        let kill = KillSwitch::until(self.lease.expires());
        let (ended, ends) = crossbeam_channel::bounded(1);
        let replicated = elected.replicated.clone();
        let term = match Term::start(&self.shared, elected, &self.dial, kill.clone(), ended) {
            Ok(term) => term,
            Err(error) => {
                self.give_back();
                return Err(error);
            }
        };
        let subscription = self.shared.listener.subscriptions.load(Ordering::Relaxed);
        let reason = self.hold(epoch, &kill, &ends, &replicated);
        kill.set(reason);
        if reason == Reason::NotReceiving {
            self.reach.renew_subscription(subscription, "the leader's own markers do not come back");
        }
        self.shared.listener.hearing.start_over();
        // The workers finish their current step. At a clean end ingest stores what has arrived.
        self.shared.pulses.election.beat(TERM_END_WITHIN);
        let outcome = term.stop();
        self.shared.pulses.intake.rest();
        // The links are closed, however the courier ended.
        self.shared.stats.linked.lock().clear();
        // A break may have ended the term, so the dispatcher may no longer be in sync. The next check finds out.
        set(&self.shared.stats.in_sync, 0);
        set(&self.shared.stats.leading, 0);
        self.shared.note_change();
        log::info!("event=term-ended reason={reason}");
        match outcome {
            Ok(()) | Err(Error::Fenced { .. }) => {}
            Err(error) => log::error!("event=worker-failed error={}", Quoted(&error)),
        }
        self.give_back();
        Ok(reason)
    }

    /// Renews the lease until the term has to end.
    fn hold(&mut self, epoch: Epoch, kill: &KillSwitch, ends: &Receiver<()>, replicated: &Replicated) -> Reason {
        let mut backoff = Backoff::for_redis();
        let mut says_what_waits = true;
        loop {
            if self.lease.is_replicated() {
                replicated.note();
            }
            if let Some(reason) = kill.reason() {
                return reason;
            }
            if self.reach.leader_misses_its_markers(epoch) {
                return Reason::NotReceiving;
            }
            let wait = self.lease.renew_in().min(HEAR_EVERY);
            self.beat(wait);
            select_biased! {
                recv(self.requests.receiver()) -> _ => return Reason::Shutdown,
                recv(ends) -> _ => return kill.reason().unwrap_or(Reason::WorkerFailed),
                recv(self.shared.requests_to_hand_over()) -> _ => return Reason::HandedOver,
                recv(after(wait)) -> _ => {}
            }
            if !self.lease.renew_in().is_zero() {
                continue;
            }
            match self.lease.renew() {
                Ok(Renewal::Kept) => {
                    self.connected = true;
                    set(&self.shared.stats.redis_connected, 1);
                    kill.prolong(self.lease.expires());
                    if !self.lease.is_replicated() && std::mem::take(&mut says_what_waits) {
                        log::warn!(
                            "event=backlog-waits problem=\"not enough replicas have what earlier leaders stored, so \
                             that is not delivered yet (--wait-replicas)\""
                        );
                    }
                    if backoff.reset() {
                        log::info!("event=redis-recovered");
                    }
                }
                Ok(Renewal::Lost) => return Reason::LeaseLost,
                Err(error) => {
                    self.connected = false;
                    set(&self.shared.stats.redis_connected, 0);
                    if backoff.should_log() {
                        log::warn!("event=renewal-failed error={}", Quoted(&error));
                    }
                }
            }
        }
    }

    /// The next iteration comes after `wait` and some requests to Redis.
    fn beat(&self, wait: Duration) {
        let asking = if self.connected { ELECTION_ITERATION_WITHIN } else { OPEN_WITHIN };
        self.shared.pulses.election.beat(wait + asking);
    }

    fn give_back(&mut self) {
        match self.lease.release() {
            Ok(true) => log::info!("event=lease-released"),
            Ok(false) => {}
            // The lease will expire.
            Err(error) => log::warn!("event=release-failed error={}", Quoted(&error)),
        }
    }
}
