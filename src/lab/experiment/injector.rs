//! Injects the faults of a plan, ends them, and measures how long it takes until results resume.
//!
//! One fault at a time. The next one waits until the last has ended and the cluster is healthy again: every node runs,
//! every consumer is connected, and every dispatcher is in sync. So at any time there is a running dispatcher that
//! received every message, and every message that a subscriber received must be processed.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use redis::Value;

use super::plan::{Fault, PlannedFault, Target};
use super::recovery::Recovery;
use crate::base::error::{Error, Result};
use crate::lab::child::{ChildProcess, Signal};
use crate::lab::cluster::{Cluster, Node};
use crate::ledger::overview::{GroupView, Snapshot};
use crate::ledger::subscription::CLIENT_NAME_PREFIX;
use crate::ledger::{Command, Lease, slot_of};

/// How long a process may take to exit after SIGTERM: a consumer finishes the messages it holds.
const STOP_LIMIT: Duration = Duration::from_secs(15);
/// If results have not resumed after this long, the fault counts as not recovered from.
const RECOVERY_LIMIT: Duration = Duration::from_secs(30);

/// A fault that was injected, and how long it took to recover from it.
#[derive(Clone, Debug)]
pub struct InjectedFault {
    /// When it was injected, as the time since publishing began.
    pub at: Duration,
    /// The kind of fault.
    pub fault: Fault,
    /// What it hit: a node, or Redis.
    pub target: String,
    /// Whether the target was the leader.
    pub hit_leader: bool,
    /// How long it lasted.
    pub outage: Duration,
    /// The time until results resumed; `None` if that was not seen.
    pub recovery: Option<Duration>,
    /// The leader at that time.
    pub leader_then: String,
}

/// Something to show on the console.
pub(super) enum Event {
    /// A fault was injected.
    Injected(String),
    /// Results resumed.
    Recovered(String),
    /// The node that was hit runs again.
    Restored(String),
}

/// See the module's text.
pub(super) struct Injector {
    planned: VecDeque<PlannedFault>,
    begin: Instant,
    outage: Option<Outage>,
    recovery: Option<Recovery>,
    injected: Vec<InjectedFault>,
}

/// A node that does not run, or is paused.
struct Outage {
    until: Instant,
    down: Down,
    /// The process, if it was sent SIGTERM and may not have exited yet.
    ending: Option<ChildProcess>,
    fault: Fault,
}

/// What is down.
enum Down {
    Node(Node),
    /// A node of the Redis Cluster.
    Redis(usize),
}

/// What a fault hit.
struct Hit {
    target: String,
    is_leader: bool,
    message: String,
}

impl Injector {
    pub(super) fn new(planned: Vec<PlannedFault>, begin: Instant) -> Injector {
        Injector { planned: planned.into(), begin, outage: None, recovery: None, injected: Vec::new() }
    }

    /// Whether a recovery is being timed, so that the group should be polled often.
    pub(super) fn is_timing(&self) -> bool {
        self.recovery.is_some()
    }

    /// The faults injected.
    pub(super) fn injected(self) -> Vec<InjectedFault> {
        self.injected
    }

    /// Does what is due at this time: notes a recovery, ends an outage, injects the next fault. With `over` no fault is
    /// injected any more, and an outage ends at once.
    pub(super) fn step(
        &mut self,
        cluster: &mut Cluster,
        view: &mut GroupView,
        snapshot: &Snapshot,
        over: bool,
    ) -> Result<Vec<Event>> {
        let mut events = Vec::new();
        let now = Instant::now();
        if let Some(took) = self.recovery.as_mut().and_then(|recovery| recovery.observe(now, snapshot)) {
            self.recovery = None;
            events.extend(self.recovered(took, snapshot));
        }
        if let Some(outage) = self.outage.take_if(|outage| over || now >= outage.until) {
            events.push(self.end_outage(outage, cluster, snapshot)?);
        }
        let elapsed = now.duration_since(self.begin);
        let given_up = |last: &InjectedFault| elapsed >= last.at + last.outage + RECOVERY_LIMIT;
        if over || self.injected.last().is_some_and(given_up) {
            self.recovery = None;
        }
        let due = self.planned.front().is_some_and(|planned| elapsed >= planned.at);
        if due && !over && self.outage.is_none() && self.recovery.is_none() && is_healthy(cluster, snapshot) {
            let planned = self.planned.pop_front().expect("the front is due");
            events.extend(self.inject(&planned, cluster, view, snapshot)?);
        }
        Ok(events)
    }

    /// Injects a fault, unless there is nothing that it could hit.
    fn inject(
        &mut self,
        planned: &PlannedFault,
        cluster: &mut Cluster,
        view: &mut GroupView,
        snapshot: &Snapshot,
    ) -> Result<Option<Event>> {
        let now = Instant::now();
        let Some((leader, lease)) = cluster.leader(snapshot).zip(snapshot.lease.clone()) else { return Ok(None) };
        let hit = match planned.fault {
            Fault::Kill | Fault::Pause | Fault::Terminate => self.hit_node(planned, leader, cluster, now)?,
            Fault::Cut => cut(view, planned, &lease)?,
            Fault::Stall => Some(stall(view, planned.outage)?),
            Fault::Failover | Fault::Migrate | Fault::Node => self.hit_slot(planned, cluster, now)?,
        };
        let Some(Hit { target, is_leader, message }) = hit else { return Ok(None) };
        let recovery = if is_leader { Recovery::of_leader(lease, now) } else { Recovery::of_other(snapshot, now) };
        self.recovery = Some(recovery);
        self.injected.push(InjectedFault {
            at: now.duration_since(self.begin),
            fault: planned.fault,
            target,
            hit_leader: is_leader,
            outage: if planned.fault.lasts() { planned.outage } else { Duration::ZERO },
            recovery: None,
            leader_then: String::new(),
        });
        Ok(Some(Event::Injected(message)))
    }

    /// Kills, pauses or terminates a node.
    fn hit_node(
        &mut self,
        planned: &PlannedFault,
        leader: Node,
        cluster: &mut Cluster,
        now: Instant,
    ) -> Result<Option<Hit>> {
        let Some(node) = choose(planned, leader, &cluster.running()) else { return Ok(None) };
        let mut ending = None;
        let action = match planned.fault {
            Fault::Pause => {
                cluster.signal(node, Signal::SIGSTOP)?;
                format!("paused with SIGSTOP for {}", seconds(planned.outage))
            }
            Fault::Terminate => {
                ending.insert(cluster.release(node)?).signal(Signal::SIGTERM)?;
                "told to exit with SIGTERM".to_owned()
            }
            _ => {
                cluster.kill_node(node)?;
                "killed with SIGKILL".to_owned()
            }
        };
        self.outage =
            Some(Outage { until: now + planned.outage, down: Down::Node(node), ending, fault: planned.fault });
        let is_leader = node == leader;
        let message = format!("{}{node} {action}", if is_leader { "leader " } else { "" });
        Ok(Some(Hit { target: node.to_string(), is_leader, message }))
    }

    /// Does something to the node of the Redis Cluster that has the group's keys. None of these waits until the nodes
    /// agree again: the next fault does.
    fn hit_slot(&mut self, planned: &PlannedFault, cluster: &mut Cluster, now: Instant) -> Result<Option<Hit>> {
        let slot = slot_of(cluster.keys().leader.as_bytes());
        let redis = cluster.redis_cluster()?;
        let owner = redis.owner(slot)?;
        let done = match planned.fault {
            Fault::Failover => {
                let replica = redis.replica_of(owner)?;
                redis.begin_failover(replica)?;
                format!("its replica, node {replica}, is told to take its place")
            }
            Fault::Migrate => {
                let others: Vec<usize> = redis.primaries()?.into_iter().filter(|other| *other != owner).collect();
                let Some(to) = others.get((planned.pick % others.len().max(1) as u64) as usize) else {
                    return Ok(None);
                };
                redis.move_slot_at_once(slot, owner, *to)?;
                format!("slot {slot} has moved to node {to}")
            }
            _ => {
                redis.kill(owner)?;
                let down = Down::Redis(owner);
                self.outage = Some(Outage { until: now + planned.outage, down, ending: None, fault: planned.fault });
                "killed with SIGKILL".to_owned()
            }
        };
        let target = format!("redis node {owner}");
        let message = format!("{target}, which has the group's keys: {done}");
        Ok(Some(Hit { target, is_leader: false, message }))
    }

    fn recovered(&mut self, took: Duration, snapshot: &Snapshot) -> Option<Event> {
        let last = self.injected.last_mut()?;
        last.recovery = Some(took);
        last.leader_then = snapshot.lease.as_ref().map_or("none", |lease| lease.name()).to_owned();
        let (ms, leader) = (took.as_millis(), &last.leader_then);
        let message = match (last.hit_leader, *leader == last.target) {
            (true, false) => format!("{leader} took over; its first result came {ms} ms after the fault"),
            (true, true) => format!("{leader} still leads; the next result came {ms} ms after the fault"),
            (false, _) => format!("results continue; the next came {ms} ms after the fault"),
        };
        Some(Event::Recovered(message))
    }

    fn end_outage(&mut self, outage: Outage, cluster: &mut Cluster, snapshot: &Snapshot) -> Result<Event> {
        let Outage { down, ending, fault, .. } = outage;
        let node = match down {
            Down::Node(node) => node,
            Down::Redis(number) => {
                cluster.redis_cluster()?.start_again(number)?;
                return Ok(Event::Restored(format!("redis node {number} restarted")));
            }
        };
        if fault == Fault::Pause {
            cluster.signal(node, Signal::SIGCONT)?;
            if let Some(recovery) = &mut self.recovery {
                recovery.resumed(snapshot.processed);
            }
            return Ok(Event::Restored(format!("{node} resumed")));
        }
        if let Some(mut process) = ending {
            let status = process.wait(STOP_LIMIT)?;
            if !status.success() {
                return Err(process.failure(format_args!("was told to exit and ended with {status}")));
            }
        }
        cluster.start_node(node)?;
        Ok(Event::Restored(format!("{node} restarted")))
    }
}

/// One of the running nodes that the fault may hit.
fn choose(planned: &PlannedFault, leader: Node, running: &[Node]) -> Option<Node> {
    let fits = |node: &&Node| match planned.target {
        Target::Any => true,
        Target::Leader => **node == leader,
        Target::Dispatcher => matches!(node, Node::Dispatcher(_)),
        Target::Consumer => matches!(node, Node::Consumer(_)),
    };
    let candidates: Vec<Node> = running.iter().filter(fits).copied().collect();
    let count = u64::try_from(candidates.len()).ok().filter(|count| *count > 0)?;
    candidates.get((planned.pick % count) as usize).copied()
}

/// Makes Redis close a dispatcher's subscription; `None` if the target has none.
fn cut(view: &mut GroupView, planned: &PlannedFault, lease: &Lease) -> Result<Option<Hit>> {
    let list = view.connection().query("listing subscriptions", Command::of(&["CLIENT", "LIST", "TYPE", "PUBSUB"]))?;
    let text = match &list {
        Value::BulkString(text) => String::from_utf8_lossy(text).into_owned(),
        Value::VerbatimString { text, .. } => text.clone(),
        other => return Err(Error::Failed(format!("listing subscriptions: unexpected answer {other:?}"))),
    };
    let word = |line: &str, name: &str| line.split(' ').find_map(|word| word.strip_prefix(name)).map(str::to_owned);
    let fits = |dispatcher: &String| match planned.target {
        Target::Any | Target::Dispatcher => true,
        Target::Leader => *dispatcher == lease.holder,
        Target::Consumer => false,
    };
    let subscriptions = text.lines().filter_map(|line| {
        let dispatcher = word(line, "name=")?.strip_prefix(CLIENT_NAME_PREFIX)?.to_owned();
        Some((word(line, "id=")?, dispatcher))
    });
    let mut found: Vec<(String, String)> = subscriptions.filter(|(_, dispatcher)| fits(dispatcher)).collect();
    if found.is_empty() {
        return Ok(None);
    }
    let (client, dispatcher) = found.swap_remove((planned.pick % found.len() as u64) as usize);
    view.connection().query("closing a subscription", Command::of(&["CLIENT", "KILL", "ID", &client]))?;
    let is_leader = dispatcher == lease.holder;
    let target = Lease { holder: dispatcher, ..lease.clone() }.name().to_owned();
    let message = format!("Redis closed the subscription of {}{target}", if is_leader { "leader " } else { "" });
    Ok(Some(Hit { target, is_leader, message }))
}

/// Makes Redis delay all writes for a while.
fn stall(view: &mut GroupView, outage: Duration) -> Result<Hit> {
    let ms = outage.as_millis().to_string();
    view.connection().query("stalling redis", Command::of(&["CLIENT", "PAUSE", &ms, "WRITE"]))?;
    let message = format!("Redis holds back writes for {}", seconds(outage));
    Ok(Hit { target: "redis".to_owned(), is_leader: false, message })
}

fn is_healthy(cluster: &mut Cluster, snapshot: &Snapshot) -> bool {
    let whole = snapshot.consumers.len() == cluster.consumers() && cluster.leader(snapshot).is_some();
    let nodes_agree = |cluster: &mut Cluster| cluster.redis_cluster().map_or(true, |redis| redis.agrees());
    whole && cluster.is_ready() && nodes_agree(cluster)
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_nodes_that_fit_the_target_are_chosen() {
        let running = [Node::Dispatcher(0), Node::Dispatcher(1), Node::Consumer(0), Node::Consumer(2)];
        let planned = |target, pick| PlannedFault {
            at: Duration::ZERO,
            fault: Fault::Kill,
            target,
            outage: Duration::ZERO,
            pick,
        };
        let chosen = |target, pick| choose(&planned(target, pick), Node::Dispatcher(1), &running);
        for pick in 0..8 {
            assert_eq!(chosen(Target::Leader, pick), Some(Node::Dispatcher(1)));
            assert_eq!(chosen(Target::Any, pick), Some(running[pick as usize % 4]));
            assert_eq!(chosen(Target::Consumer, pick), Some(running[2 + pick as usize % 2]));
            assert_eq!(chosen(Target::Dispatcher, pick), Some(running[pick as usize % 2]));
        }
        assert_eq!(choose(&planned(Target::Consumer, 3), Node::Dispatcher(0), &running[..2]), None);
    }
}
