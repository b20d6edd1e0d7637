//! Follows a Redis Cluster: reads who owns which slots, and plans the group's lanes anew when that changes.
//!
//! One thread, `cluster`. A new lane gets the group's settings and is recorded in the group's set of lanes before it
//! is started, so that a pause holds for it, and every dispatcher and tool knows it. While no node answers, the lanes
//! stay as they are: each finds its node by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::plan::{Plan, plan};
use crate::base::backoff::Backoff;
use crate::base::error::{Error, Result};
use crate::base::text::Quoted;
use crate::base::trouble::Troubles;
use crate::lane;
use crate::ledger::{Interests, Keys, LaneNumber, Ledger, Server};

/// How often the slots' owners are read. A lane whose slot has moved finds its new node at once.
const EVERY: Duration = Duration::from_secs(1);
/// How long asking may take.
const LIMIT: Duration = Duration::from_secs(2);

/// The handle: stops and joins the thread when dropped.
pub(super) struct ClusterWatch {
    plans: Receiver<Plan>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct Watching {
    server: Server,
    keys: Keys,
    interests: Arc<Interests>,
    ledgers: BTreeMap<LaneNumber, Ledger>,
    plans: Sender<Plan>,
    troubles: Troubles,
}

impl ClusterWatch {
    /// Starts watching the cluster of the group whose lane 0 has these settings.
    pub(super) fn start(settings: &lane::Settings) -> Result<ClusterWatch> {
        let (plans, received) = bounded(1);
        let (stop, stopped) = bounded::<()>(0);
        let watching = Watching {
            server: settings.redis.clone(),
            keys: settings.keys.clone(),
            interests: settings.interests.clone(),
            ledgers: BTreeMap::new(),
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
        let mut last = None;
        loop {
            match self.plan() {
                Ok(plan) => {
                    backoff.reset();
                    // One that the main thread has not taken yet is replaced later.
                    if last.as_ref() != Some(&plan) && self.plans.try_send(plan.clone()).is_ok() {
                        last = Some(plan);
                    }
                }
                Err(error) => self.troubles.report("cluster", "cluster-unread", &error, &mut backoff),
            }
            // Nothing is ever sent.
            if stopped.recv_timeout(EVERY) != Err(RecvTimeoutError::Timeout) {
                return;
            }
        }
    }

    fn plan(&mut self) -> Result<Plan> {
        let topology = self.server.topology(LIMIT).unwrap_or_else(|| Ok(crate::ledger::Topology::default()))?;
        let group = self.keys.group.clone();
        let no_owner = || Error::Failed(format!("no node of the Redis Cluster owns the slot of {}", Quoted(&group)));
        let listening = plan(&topology, &group, &self.interests, &BTreeSet::new()).ok_or_else(no_owner)?;
        let known = self.ledger(0)?.lanes()?;
        let new: BTreeSet<LaneNumber> = listening.keys().filter(|lane| !known.contains(lane)).copied().collect();
        if !new.is_empty() {
            let settings = self.ledger(0)?.held_settings()?;
            for lane in &new {
                self.ledger(*lane)?.take_settings(&settings)?;
            }
            self.ledger(0)?.add_lanes(&new)?;
        }
        let mut undone = BTreeSet::new();
        for lane in known {
            if !listening.contains_key(&lane) && self.ledger(lane)?.has_pending()? {
                undone.insert(lane);
            }
        }
        plan(&topology, &group, &self.interests, &undone).ok_or_else(no_owner)
    }

    /// A connection for the keys of a lane, in the slot's node.
    fn ledger(&mut self, lane: LaneNumber) -> Result<&mut Ledger> {
        let keys = self.keys.lane(lane).ok_or_else(|| Error::Failed(format!("there is no lane {lane}")))?;
        let server = &self.server;
        Ok(self.ledgers.entry(lane).or_insert_with(|| Ledger::new(server.clone(), Arc::new(keys), LIMIT)))
    }
}
