//! The election: competes for the lease, leads while it holds it, and goes back to competing.
//!
//! [`Election::run`] is the main loop of the lane. Its thread owns the lease and the kill switch of the term: a
//! term ends when Redis or our own clock says that the lease is gone, when a worker ends it, or when the program is
//! asked to stop. `precedence` decides who goes first when the lease is free.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, after, select_biased};

use super::dialer::DialRequests;
use super::elected::{Elected, PENDING_LOST};
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

/// The pause after a term that a failure of our own ended: what failed once may fail again.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);

/// A term that was shorter than this was of no use.
const SHORT_TERM: Duration = Duration::from_secs(1);
/// How many short terms in a row are tolerated before there is a pause.
const SHORT_TERMS: u32 = 1;
/// The pauses between short terms.
const SHORT_TERM_PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// How often a leader checks that its markers come back, at least.
const HEAR_EVERY: Duration = Duration::from_millis(500);

/// How long the end of a term takes at most.
const TERM_END_WITHIN: Duration = Duration::from_secs(30);

/// See the module's text.
pub(super) struct Election {
    shared: Arc<Shared>,
    lease: LeaseKeeper,
    dial: DialRequests,
    released: Receiver<Released>,
    requests: ShutdownRequests,
    backoff: Backoff,
    /// Whether Redis answered last: else the next iteration may have to open a connection first.
    connected: bool,
    /// Since when the lease has been free while we may not take it.
    vacant: Option<Vacancy>,
    reach: Reach,
}

/// A time without a leader, all of it seen by one subscription and without trouble in between.
#[derive(Clone, Copy)]
struct Vacancy {
    segment: u64,
    since: Instant,
}

/// What one try for the lease brings.
enum Look {
    Elected(Elected),
    /// A dispatcher leads.
    Held,
    /// No dispatcher leads, and another one goes first.
    Vacant,
}

/// What a standby comes to.
enum Standby {
    Elected(Elected),
    Stop,
    /// The listener has ended.
    Deaf,
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

    /// The main loop: standby, leader, standby, … until asked to stop.
    pub(super) fn run(mut self) -> Result<()> {
        let (first, most) = SHORT_TERM_PAUSE;
        let mut backoff = Backoff::new(first, most);
        let mut short_terms = 0;
        loop {
            match self.stand_by() {
                Standby::Elected(elected) => {
                    let began = Instant::now();
                    let reason = self.lead(elected)?;
                    short_terms = if began.elapsed() < SHORT_TERM { short_terms + 1 } else { 0 };
                    let pause = match reason {
                        Reason::WorkerFailed => FAILURE_PAUSE,
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
                Standby::Deaf => return Err(Error::Failed("the thread listener ended, which is a bug".to_owned())),
            }
        }
    }

    /// Tries for the lease until it is ours.
    fn stand_by(&mut self) -> Standby {
        self.shared.log.set("standby", None);
        set(&self.shared.stats.leading, 0);
        let mut wait = Duration::ZERO;
        loop {
            self.beat(wait);
            select_biased! {
                recv(self.requests.receiver()) -> _ => return Standby::Stop,
                recv(self.released) -> news => if news.is_err() { return Standby::Deaf },
                recv(after(wait)) -> _ => {}
            }
            wait = match self.try_once() {
                Ok(Look::Elected(elected)) => {
                    self.note_redis_answers();
                    return Standby::Elected(elected);
                }
                Ok(Look::Held) => {
                    self.note_redis_answers();
                    TRY_EVERY
                }
                // Whether the lease could be taken is not known yet: a replica answers, too.
                Ok(Look::Vacant) => TRY_EVERY,
                Err(error) => {
                    self.connected = false;
                    // Those who are waited for are cut off, too.
                    self.vacant = None;
                    set(&self.shared.stats.redis_connected, 0);
                    set(&self.shared.stats.in_sync, 0);
                    self.shared.troubles.report("election", "redis-trouble", &error, &mut self.backoff);
                    self.backoff.next_wait()
                }
            };
        }
    }

    fn note_redis_answers(&mut self) {
        self.connected = true;
        set(&self.shared.stats.redis_connected, 1);
        if self.backoff.reset() {
            log::info!("event=redis-recovered");
        }
    }

    /// One try for the lease: check, see who may take it, take it.
    fn try_once(&mut self) -> Result<Look> {
        let floor = Epoch(self.shared.listener.highest_epoch.load(Ordering::Relaxed));
        // Checked first: whether we may take the lease depends on the present cursor.
        let seen = self.check(floor)?;
        let resolution = self.compare_with_ring(&seen);
        self.release_stray(&seen)?;
        let free = !matches!(seen, Acquire::Held { .. });
        let (Some((resolution, segment)), true) = (resolution, free) else {
            self.vacant = None;
            return Ok(if free { Look::Vacant } else { Look::Held });
        };
        match self.right_to_lead(resolution.standing, segment)? {
            Some(right) => self.take_lease(floor, right, segment),
            None => Ok(Look::Vacant),
        }
    }

    /// Checks the lease and the cursor, takes nothing, and notes what that shows of our subscription.
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

    /// Finds the cursor in the ring, and notes whether this dispatcher is in sync. Nothing without a live segment.
    fn compare_with_ring(&self, seen: &Acquire) -> Option<(Resolution, u64)> {
        let (Acquire::Held { cursor, .. } | Acquire::Vacant { cursor } | Acquire::Acquired { cursor, .. }) = seen;
        let segment = self.shared.ring.live_segment();
        let resolution = self.shared.ring.resolve(cursor.as_ref());
        let in_sync = resolution.filter(|resolution| resolution.standing == Standing::InSync);
        set(&self.shared.stats.in_sync, in_sync.is_some().into());
        if let (Some(resolution), Some(cursor)) = (in_sync, cursor) {
            self.shared.ring.note_cursor(resolution.place, Instant::now());
            self.shared.note_id(cursor.last_id);
        }
        resolution.zip(segment)
    }

    /// Releases a lease that we hold without knowing: the reply that gave it was lost.
    fn release_stray(&mut self, seen: &Acquire) -> Result<()> {
        if let Acquire::Held { lease, .. } = seen
            && lease.holder == self.shared.id.as_str()
            && self.lease.release_stray(lease)?
        {
            log::info!("event=lease-released stray=true");
        }
        Ok(())
    }

    /// With which right this dispatcher may take the free lease now, if with any.
    fn right_to_lead(&mut self, standing: Standing, segment: u64) -> Result<Option<Right>> {
        let vacant = self.vacant.filter(|vacant| vacant.segment == segment);
        let vacant = *self.vacant.insert(vacant.unwrap_or(Vacancy { segment, since: Instant::now() }));
        let vacant_for = vacant.since.elapsed();
        let eldest = self.is_eldest(standing)?;
        Ok(precedence::right(standing, eldest, vacant_for, self.shared.settings.lease_ttl))
    }

    /// Takes the lease, unless another dispatcher was faster.
    fn take_lease(&mut self, floor: Epoch, right: Right, segment: u64) -> Result<Look> {
        let attempt = self.lease.acquire(floor, true)?;
        self.reach.note_foreign(&attempt);
        let is_cursor = |(key, _): &(String, String)| *key == self.shared.settings.keys.cursor;
        let cursor_lost = attempt.foreign.iter().any(is_cursor);
        let Acquire::Acquired { lease, cursor, newest, before } = attempt.answer else { return Ok(Look::Held) };
        self.vacant = None;
        let last_id = self.shared.last_id_before(cursor.as_ref().map(|cursor| cursor.last_id).or(newest));
        // A dispatcher that writes a cursor has written an epoch before.
        let lost = match (cursor_lost, &cursor, before) {
            (true, ..) => Some(CURSOR_LOST),
            (false, Some(_), None) => Some(PENDING_LOST),
            _ => None,
        };
        let witness = self.shared.witness.lock().take();
        let witness = witness.filter(|(led, _)| before == Some(*led)).map(|(_, id)| id);
        Ok(Look::Elected(Elected { epoch: lease.epoch, cursor, lost, witness, last_id, right, segment }))
    }

    /// Whether all other dispatchers are younger; one in sync need not know.
    fn is_eldest(&mut self, standing: Standing) -> Result<bool> {
        Ok(standing != Standing::InSync && self.shared.ring.is_eldest(&self.lease.other_dispatchers()?))
    }

    /// Leads for one term. Gives the reason of its end.
    fn lead(&mut self, elected: Elected) -> Result<Reason> {
        let epoch = elected.epoch;
        self.shared.log.set("leader", Some(epoch));
        let stats = &self.shared.stats;
        set(&stats.epoch, epoch.0);
        // It has to show that it can store messages.
        self.shared.pulses.intake.owe();
        set(&stats.leading, 1);
        self.shared.note_change();
        stats.terms.fetch_add(1, Ordering::Relaxed);
        let cursor = elected.cursor.as_ref().map_or("none".to_owned(), Cursor::to_string);
        log::info!("event=elected cursor={}", Quoted(cursor));
        let kill = KillSwitch::until(self.lease.expires());
        let (ended, ends) = crossbeam_channel::bounded(1);
        let term = match Term::start(&self.shared, elected, &self.dial, kill.clone(), ended) {
            Ok(term) => term,
            Err(error) => {
                self.give_back();
                return Err(error);
            }
        };
        let subscription = self.shared.listener.subscriptions.load(Ordering::Relaxed);
        let reason = self.hold(epoch, &kill, &ends);
        kill.set(reason);
        if reason == Reason::Deaf {
            self.reach.renew_subscription(subscription, "our own markers do not come back");
        }
        self.shared.listener.hearing.begin_anew();
        // The workers finish what they are at, and at a clean end store what has arrived.
        self.shared.pulses.election.beat(TERM_END_WITHIN);
        let outcome = term.stop();
        self.shared.pulses.intake.rest();
        // Its links are closed, however the courier ended.
        self.shared.stats.linked.lock().clear();
        // What was in sync before the term may be so no longer: a break may have ended it. The next check shows.
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
    fn hold(&mut self, epoch: Epoch, kill: &KillSwitch, ends: &Receiver<()>) -> Reason {
        let mut backoff = Backoff::for_redis();
        loop {
            if let Some(reason) = kill.reason() {
                return reason;
            }
            if self.reach.is_deaf_leader(epoch) {
                return Reason::Deaf;
            }
            let wait = self.lease.renew_in().min(HEAR_EVERY);
            self.beat(wait);
            select_biased! {
                recv(self.requests.receiver()) -> _ => return Reason::Shutdown,
                recv(ends) -> _ => return kill.reason().unwrap_or(Reason::WorkerFailed),
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
                    if backoff.reset() {
                        log::info!("event=redis-recovered");
                    }
                }
                Ok(Renewal::Lost) => return Reason::LeaseLost,
                Err(error) => {
                    self.connected = false;
                    set(&self.shared.stats.redis_connected, 0);
                    if backoff.should_say() {
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
            // It runs out by itself.
            Err(error) => log::warn!("event=release-failed error={}", Quoted(&error)),
        }
    }
}
