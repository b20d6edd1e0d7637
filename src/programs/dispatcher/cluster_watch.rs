//! Follows a Redis Cluster: reads who owns which slots, and plans the group's lanes anew when that changes.
//!
//! One thread, `cluster`. A new lane gets the group's settings and is recorded in the group's set of lanes before it
//! is started, so that a pause holds for it, and every dispatcher and tool knows it. While no node tells who owns the
//! slots, the lanes stay as they are: each finds its node by itself.
//!
//! A node that does not answer holds up no lane but its own. Of its lanes is believed what was seen last; one that was
//! never seen counts as having messages left. While the node of lane 0 does not answer, only lanes that were led
//! before are started: those are recorded.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, select};

use super::changes::{Changes, PASS_ON_PAUSE};
use super::hosted::Host;
use super::plan::{Plan, plan, unheard};
use crate::base::backoff::Backoff;
use crate::base::error::{Error, Result};
use crate::base::text::Quoted;
use crate::base::trouble::Troubles;
use crate::lane;
use crate::ledger::{Interests, Keys, LaneNumber, Ledger, Planned, Server, Topology, lane_name, slot_of};

/// How often the slots' owners are read. A lane whose slot has moved finds its new node at once.
const EVERY: Duration = Duration::from_secs(1);
/// How often they are read after a lane has heard that one has moved, which the node that is asked may hear later; and
/// how many times.
const SOON: Duration = Duration::from_millis(100);
const SOON_TIMES: u32 = 10;
/// How long asking may take.
const LIMIT: Duration = Duration::from_secs(2);

/// The handle: stops and joins the thread when dropped.
pub(super) struct ClusterWatch {
    plans: Receiver<Plan>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct Watching {
    host: Arc<Host>,
    server: Server,
    keys: Keys,
    interests: Arc<Interests>,
    ledgers: BTreeMap<LaneNumber, Ledger>,
    /// The lanes that are recorded, as last seen.
    recorded: BTreeSet<LaneNumber>,
    /// The recorded lanes that have their settings.
    ready: BTreeSet<LaneNumber>,
    /// The lanes that don't listen and had no message left when last seen.
    done: BTreeSet<LaneNumber>,
    changes: Changes,
    /// The lanes that listen.
    placed: BTreeSet<LaneNumber>,
    /// When the last plan was made all of whose lanes are recorded.
    planned: Option<Instant>,
    plans: Sender<Plan>,
    troubles: Troubles,
}

impl ClusterWatch {
    /// Starts watching the cluster of the group whose lane 0 has these settings.
    pub(super) fn start(settings: &lane::Settings, host: &Arc<Host>) -> Result<ClusterWatch> {
        let (plans, received) = bounded(1);
        let (stop, stopped) = bounded::<()>(0);
        let watching = Watching {
            host: host.clone(),
            server: settings.redis.clone(),
            keys: settings.keys.clone(),
            interests: settings.interests.clone(),
            ledgers: BTreeMap::new(),
            recorded: BTreeSet::from([0]),
            ready: BTreeSet::from([0]),
            done: BTreeSet::new(),
            changes: Changes::default(),
            placed: BTreeSet::new(),
            planned: None,
            plans,
            troubles: Troubles::default(),
        };
        let thread = thread::Builder::new().name("cluster".to_owned()).spawn(move || watching.run(&stopped));
        let thread = thread.map_err(Error::io("starting the thread cluster"))?;
        Ok(ClusterWatch { plans: received, stop: Some(stop), thread: Some(thread) })
    }

    /// Where plans come.
    pub(super) fn plans(&self) -> Receiver<Plan> {
        self.plans.clone()
    }
}

impl Drop for ClusterWatch {
    fn drop(&mut self) {
        self.stop = None;
        // The thread may wait for room.
        self.plans.try_iter().for_each(drop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("event=panic thread=cluster");
        }
    }
}

impl Watching {
    /// The main loop of the thread.
    fn run(mut self, stopped: &Receiver<()>) {
        let mut backoff = Backoff::for_redis();
        let (mut last, mut soon) = (None, 0_u32);
        let host = self.host.clone();
        loop {
            let began = Instant::now();
            let mut problem = None;
            match self.plan(&mut problem) {
                // One that the main thread has not taken yet is replaced later.
                Ok(plan) if last.as_ref() != Some(&plan) && self.plans.try_send(plan.clone()).is_ok() => {
                    last = Some(plan);
                }
                Ok(_) => {}
                Err(error) => problem = Some(error),
            }
            match problem {
                None => drop(backoff.reset()),
                Some(error) => self.troubles.report("cluster", "cluster-unread", &error, &mut backoff),
            }
            let wait = if soon > 0 { SOON } else { EVERY };
            soon = soon.saturating_sub(1);
            select! {
                // Nothing is ever sent.
                recv(stopped) -> _ => return,
                recv(host.moves()) -> _ => {
                    soon = SOON_TIMES;
                    // A lane may say so again and again. Nothing is ever sent.
                    let rest = SOON.saturating_sub(began.elapsed());
                    if stopped.recv_timeout(rest) == Err(RecvTimeoutError::Disconnected) {
                        return;
                    }
                }
                default(wait) => {}
            }
        }
    }

    /// The lanes that are to run. What is missing for a better plan is noted as the problem.
    fn plan(&mut self, problem: &mut Option<Error>) -> Result<Plan> {
        let now = Instant::now();
        let topology = self.server.topology(LIMIT).unwrap_or_else(|| Ok(Topology::default()))?;
        let group = self.keys.group.clone();
        let no_owner = || Error::Failed(format!("no node of the Redis Cluster owns the slot of {}", Quoted(&group)));
        let listening = plan(&topology, &group, &self.interests, &BTreeSet::new()).ok_or_else(no_owner)?;
        // First, because a node that does not answer holds up what follows.
        let mut held = listening.clone();
        self.changes.hold_back(&mut held, &topology, &group, now);
        self.place(&topology, &held);
        let unready = self.prepare(&listening, problem);
        if listening.keys().all(|lane| self.recorded.contains(lane)) {
            self.planned = Some(now);
        }
        let undone = self.undone(&topology, &listening, problem);
        let mut plan = plan(&topology, &group, &self.interests, &undone).ok_or_else(no_owner)?;
        let why_not = unready.iter().map(|(lane, why)| {
            format!("lane {lane} can't be started, so nobody hears {}: {why}", listening[lane].summary())
        });
        let problems: Vec<String> =
            unheard(&topology, &group, &self.interests, &listening).into_iter().chain(why_not).collect();
        self.host.note_unheard((!problems.is_empty()).then(|| problems.join("; ")));
        plan.extend(held);
        plan.retain(|lane, _| !unready.contains_key(lane));
        Ok(plan)
    }

    /// Tells the lanes on which nodes they may listen. Before that a lane whose keys have moved does not listen on the
    /// new node, where another lane of the former plan may still do so.
    fn place(&mut self, topology: &Topology, plan: &Plan) {
        let listening: BTreeSet<LaneNumber> =
            plan.iter().filter(|(_, these)| !these.is_none()).map(|(lane, _)| *lane).collect();
        // In the order of falling numbers: of lanes with one slot the lowest listens.
        let all: BTreeSet<&LaneNumber> = self.placed.union(&listening).collect();
        for lane in all.into_iter().rev() {
            let Some(slot) = lane_name(&self.keys.group, *lane).map(|name| slot_of(name.as_bytes())) else { continue };
            let planned = match topology.owner(slot) {
                Some(owner) if listening.contains(lane) => Planned::On(owner.id.clone()),
                _ => Planned::Nowhere,
            };
            self.server.for_slot(slot).note_planned(planned);
        }
        self.placed = listening;
    }

    /// Records lanes that are new. In a group that has had leaders such a lane begins as one that nobody has listened
    /// to since another one was listened to in its place, so its first leader records a gap.
    ///
    /// That was the case until the last plan, at the latest. Other dispatchers may have noticed earlier that it is
    /// over, by as much as the new lane waits for.
    ///
    /// A group that begins has missed nothing: all its lanes are recorded before lane 0 has a leader. So whether it has
    /// had one is read first.
    fn record(&mut self, listening: &Plan, problem: &mut Option<Error>) -> Result<()> {
        let was_led = self.ledger(0)?.was_led()?;
        let known = self.ledger(0)?.lanes()?;
        let mut new: BTreeSet<LaneNumber> = listening.keys().filter(|lane| !known.contains(lane)).copied().collect();
        if was_led {
            let ago = self.planned.map(|planned| planned.elapsed() + PASS_ON_PAUSE);
            let begin = |lane: &LaneNumber| open(&self.server, &self.keys, *lane)?.begin_unheard(ago);
            let recorded = &self.recorded;
            // One that can't begin is recorded later. One that was recorded is not new: Redis has lost what it knew.
            new.retain(|lane| {
                recorded.contains(lane) || begin(lane).map_err(|error| problem.get_or_insert(error)).is_ok()
            });
        }
        if !new.is_empty() {
            self.ledger(0)?.add_lanes(&new)?;
        }
        self.recorded.extend(known);
        self.recorded.extend(new);
        Ok(())
    }

    /// Records new lanes and gives them the group's settings. Recorded first: who changes the settings from then on
    /// changes theirs, too. Returns the lanes that can't be started yet, with the reason.
    fn prepare(&mut self, listening: &Plan, problem: &mut Option<Error>) -> BTreeMap<LaneNumber, String> {
        let unrecorded = self.record(listening, problem).err();
        let mut unready = BTreeMap::new();
        let unsure: Vec<LaneNumber> = listening.keys().filter(|lane| !self.ready.contains(lane)).copied().collect();
        for lane in unsure {
            match self.make_ready(lane) {
                Ok(true) => drop(self.ready.insert(lane)),
                Ok(false) => {
                    let why = unrecorded.as_ref().or(problem.as_ref()).map(Error::to_string);
                    unready.insert(lane, why.unwrap_or_else(|| "it is not recorded yet".to_owned()));
                }
                Err(error) => {
                    unready.insert(lane, error.to_string());
                    problem.get_or_insert(error);
                }
            }
        }
        if let Some(error) = unrecorded {
            problem.get_or_insert(error);
        }
        unready
    }

    /// A lane that somebody has led is recorded, and has its settings.
    fn make_ready(&mut self, lane: LaneNumber) -> Result<bool> {
        let mut ledger = open(&self.server, &self.keys, lane)?;
        let was_led = ledger.was_led()?;
        if !was_led && self.recorded.contains(&lane) {
            ledger.inherit_settings(self.ledger(0)?)?;
        }
        Ok(was_led || self.recorded.contains(&lane))
    }

    /// The recorded lanes that don't listen and have messages left. A node that does not answer is asked once.
    fn undone(&mut self, topology: &Topology, listening: &Plan, problem: &mut Option<Error>) -> BTreeSet<LaneNumber> {
        let mut silent = BTreeSet::new();
        for lane in self.recorded.clone() {
            if listening.contains_key(&lane) {
                self.done.remove(&lane);
                continue;
            }
            let node = lane_name(&self.keys.group, lane).and_then(|name| topology.owner(slot_of(name.as_bytes())));
            let node = node.map(|node| node.id.as_str());
            if silent.contains(&node) {
                continue;
            }
            match self.ledger(lane).and_then(Ledger::has_pending) {
                Ok(true) => drop(self.done.remove(&lane)),
                Ok(false) => drop(self.done.insert(lane)),
                Err(error) => {
                    silent.insert(node);
                    problem.get_or_insert(error);
                }
            }
        }
        let old = self.recorded.iter().filter(|lane| !listening.contains_key(lane) && !self.done.contains(lane));
        old.copied().collect()
    }

    /// A connection for the keys of a lane, in the slot's node.
    fn ledger(&mut self, lane: LaneNumber) -> Result<&mut Ledger> {
        Ok(match self.ledgers.entry(lane) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => place.insert(open(&self.server, &self.keys, lane)?),
        })
    }
}

fn open(server: &Server, keys: &Keys, lane: LaneNumber) -> Result<Ledger> {
    let keys = keys.lane(lane).ok_or_else(|| Error::Failed(format!("there is no lane {lane}")))?;
    Ok(Ledger::new(server.clone(), Arc::new(keys), LIMIT))
}
