//! What a shadow's lane listens to, by the present owners of the slots.
//!
//! A shadow follows one lane. In a Redis Cluster the lane of a node listens to those of the group's sharded channels
//! that are on this node, and to its keyspace events. When a slot moves, dispatchers plan the lanes anew, and so does a
//! shadow: by the same plan, from all the interests that it was given. A channel that moves to another lane is left
//! out, and one that comes to this lane is listened to.
//!
//! One thread, `cluster`, asks for the owners once a second. Nodes may name different ones for a moment, so a change
//! counts when it was seen twice in a row. While no node answers, everything stays as it is.

use std::collections::BTreeSet;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, never};

use crate::base::error::{Error, Result};
use crate::lane::shadow::ShadowSettings;
use crate::ledger::{Interests, LaneNumber};
use crate::programs::dispatcher::plan::plan;

/// How often the owners are asked for.
const EVERY: Duration = Duration::from_secs(1);
/// How long asking may take.
const LIMIT: Duration = Duration::from_secs(2);

/// The interests of one lane, of a group with these.
#[derive(Clone)]
pub(super) struct LaneInterests {
    /// The settings of the lane's shadow, with all the interests of the group.
    pub(super) settings: ShadowSettings,
    /// The group's name.
    pub(super) group: String,
    /// The lane.
    pub(super) lane: LaneNumber,
}

impl LaneInterests {
    /// What the lane listens to now; `None` if no node says who owns the slots.
    pub(super) fn now(&self) -> Option<Interests> {
        let topology = self.settings.redis.topology(LIMIT)?.ok()?;
        let interests = &self.settings.interests;
        let mut plan = plan(&topology, &self.group, interests, &BTreeSet::new())?;
        Some(plan.remove(&self.lane).unwrap_or_else(|| interests.none()))
    }
}

/// The handle: stops and joins the thread when dropped.
pub(super) struct Following {
    changes: Receiver<Interests>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Following {
    /// Looks for changes of what was `first`, unless only one lane is possible.
    pub(super) fn start(of: &LaneInterests, first: &Interests) -> Result<Following> {
        if !of.settings.redis.is_cluster() || !of.settings.interests.are_of_nodes() {
            return Ok(Following { changes: never(), stop: None, thread: None });
        }
        let (sender, changes) = bounded(1);
        let (stop, stopped) = bounded::<()>(0);
        let (of, first) = (of.clone(), first.clone());
        let thread = thread::Builder::new().name("cluster".to_owned()).spawn(move || {
            let (mut last, mut seen) = (first.clone(), first);
            while stopped.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                let Some(now) = of.now() else { continue };
                // A full channel holds an older change: this one is sent the next time.
                if now != last && now == seen && sender.try_send(now.clone()).is_ok() {
                    last = now.clone();
                }
                seen = now;
            }
        });
        let thread = thread.map_err(Error::io("starting the thread cluster"))?;
        Ok(Following { changes, stop: Some(stop), thread: Some(thread) })
    }

    /// Where changes come.
    pub(super) fn changes(&self) -> &Receiver<Interests> {
        &self.changes
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("event=panic thread=cluster");
        }
    }
}
