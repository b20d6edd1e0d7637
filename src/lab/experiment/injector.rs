//! Injects the faults of a plan, ends them, and measures how long it takes until results resume.
//!
//! One fault at a time, which hits one lane of the group, or a process that works for all of them. The next one waits
//! until the last has ended and the cluster is healthy again: every node runs, every consumer is connected, and every
//! dispatcher is in sync. So at any time there is a running dispatcher that received every message, and every message
//! that a subscriber received must be processed.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use redis::Value;

use super::plan::{Fault, PlannedFault, Target};
use super::recoveries::Recoveries;
use super::watch::{GroupWatch, Seen};
use crate::base::error::{Error, Result};
use crate::lab::child::{ChildProcess, Signal};
use crate::lab::cluster::{Cluster, Node};
use crate::ledger::overview::GroupView;
use crate::ledger::subscription::CLIENT_NAME_PREFIX;
use crate::ledger::{Command, LaneNumber, Lease, slot_of};

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
    recovery: Option<Recoveries>,
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
    /// When results will have resumed; `None` if nothing is known of that.
    recovery: Option<Recoveries>,
}

/// The lane that a fault is for: one that has a leader.
struct HitLane {
    number: LaneNumber,
    leader: Node,
    lease: Lease,
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
        watch: &mut GroupWatch,
        seen: &Seen,
        over: bool,
    ) -> Result<Vec<Event>> {
        let mut events = Vec::new();
        let now = Instant::now();
        if let Some(took) = self.recovery.as_mut().and_then(|recovery| recovery.observe(now, seen)) {
            let lane = self.recovery.take().map_or(0, |recovery| recovery.lane);
            events.extend(self.recovered(took, lane, seen));
        }
        if let Some(outage) = self.outage.take_if(|outage| over || now >= outage.until) {
            events.push(self.end_outage(outage, cluster, seen)?);
        }
        let elapsed = now.duration_since(self.begin);
        let given_up = |last: &InjectedFault| elapsed >= last.at + last.outage + RECOVERY_LIMIT;
        if over || self.injected.last().is_some_and(given_up) {
            self.recovery = None;
        }
        let due = self.planned.front().is_some_and(|planned| elapsed >= planned.at);
        if due && !over && self.outage.is_none() && self.recovery.is_none() && is_healthy(cluster, seen) {
            let planned = self.planned.pop_front().expect("the front is due");
            events.extend(self.inject(&planned, cluster, watch, seen)?);
        }
        Ok(events)
    }

    /// Injects a fault, unless there is nothing that it could hit.
    fn inject(
        &mut self,
        planned: &PlannedFault,
        cluster: &mut Cluster,
        watch: &mut GroupWatch,
        seen: &Seen,
    ) -> Result<Option<Event>> {
        let now = Instant::now();
        let Some((number, leader, lease)) = seen.pick(planned.pick, cluster) else { return Ok(None) };
        let lane = HitLane { number, leader, lease };
        let hit = match planned.fault {
            Fault::Kill | Fault::Pause | Fault::Terminate => self.hit_node(planned, &lane, cluster, seen)?,
            Fault::Cut => cut(watch.view(number), planned, &lane, seen)?,
            Fault::Stall => Some(stall(watch.view(number), planned.outage, &lane, seen)?),
            Fault::Failover | Fault::Migrate | Fault::Node => self.hit_slot(planned, &lane, cluster, seen)?,
        };
        let Some(Hit { target, is_leader, message, recovery }) = hit else { return Ok(None) };
        self.recovery = recovery;
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
        lane: &HitLane,
        cluster: &mut Cluster,
        seen: &Seen,
    ) -> Result<Option<Hit>> {
        let Some(node) = choose(planned, lane.leader, &cluster.running()) else { return Ok(None) };
        let (now, leases) = (Instant::now(), seen.led_by(node, cluster));
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
        self.goes_down(planned, Down::Node(node), ending, now);
        let (is_leader, lanes) = (!leases.is_empty(), lanes_in_words(seen, leases.keys()));
        let message = format!("{}{node}{lanes} {action}", if is_leader { "leader " } else { "" });
        let recovery = Recoveries::of_leader(leases, now);
        let recovery = recovery.or_else(|| Some(Recoveries::of_all(seen, lane.number, now)));
        Ok(Some(Hit { target: node.to_string(), is_leader, message, recovery }))
    }

    /// Does something to the node of the Redis Cluster that has the lane's keys. None of these waits until the nodes
    /// agree again: the next fault does.
    fn hit_slot(
        &mut self,
        planned: &PlannedFault,
        lane: &HitLane,
        cluster: &mut Cluster,
        seen: &Seen,
    ) -> Result<Option<Hit>> {
        let now = Instant::now();
        let Some(keys) = cluster.keys().lane(lane.number) else { return Ok(None) };
        let slot = slot_of(keys.leader.as_bytes());
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
                self.goes_down(planned, Down::Redis(owner), None, now);
                "killed with SIGKILL".to_owned()
            }
        };
        let target = format!("redis node {owner}");
        let whose =
            if seen.listening > 1 { format!("the keys of lane {}", lane.number) } else { "the group's keys".into() };
        let message = format!("{target}, which has {whose}: {done}");
        let recovery = match planned.fault {
            Fault::Migrate => Recoveries::of_moved(seen, lane.number, now),
            _ => Recoveries::of_one(seen, lane.number, now),
        };
        Ok(Some(Hit { target, is_leader: false, message, recovery: Some(recovery) }))
    }

    /// Something is down from now on, for as long as was planned.
    fn goes_down(&mut self, planned: &PlannedFault, down: Down, ending: Option<ChildProcess>, now: Instant) {
        self.outage = Some(Outage { until: now + planned.outage, down, ending, fault: planned.fault });
    }

    fn recovered(&mut self, took: Duration, lane: LaneNumber, seen: &Seen) -> Option<Event> {
        let last = self.injected.last_mut()?;
        last.recovery = Some(took);
        let lease = seen.lanes.get(&lane).and_then(|seen| seen.lease.as_ref());
        last.leader_then = lease.map_or("none", |lease| lease.name()).to_owned();
        let (ms, leader) = (took.as_millis(), &last.leader_then);
        let message = match (last.hit_leader, *leader == last.target) {
            (true, false) => format!("{leader} took over; its first result came {ms} ms after the fault"),
            (true, true) => format!("{leader} still leads; the next result came {ms} ms after the fault"),
            (false, _) => format!("results continue; the next came {ms} ms after the fault"),
        };
        Some(Event::Recovered(message))
    }

    fn end_outage(&mut self, outage: Outage, cluster: &mut Cluster, seen: &Seen) -> Result<Event> {
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
                recovery.resumed(seen);
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
fn cut(view: &mut GroupView, planned: &PlannedFault, lane: &HitLane, seen: &Seen) -> Result<Option<Hit>> {
    let (lease, now) = (&lane.lease, Instant::now());
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
    let recovery = if is_leader {
        Recoveries::of_leader([(lane.number, lease.clone())].into(), now)
    } else {
        Some(Recoveries::of_one(seen, lane.number, now))
    };
    Ok(Some(Hit { target, is_leader, message, recovery }))
}

/// Makes Redis delay all writes for a while.
fn stall(view: &mut GroupView, outage: Duration, lane: &HitLane, seen: &Seen) -> Result<Hit> {
    let ms = outage.as_millis().to_string();
    view.connection().query("stalling redis", Command::of(&["CLIENT", "PAUSE", &ms, "WRITE"]))?;
    let lanes = lanes_in_words(seen, [lane.number].iter());
    let message = format!("Redis{lanes} holds back writes for {}", seconds(outage));
    let recovery = Some(Recoveries::of_one(seen, lane.number, Instant::now()));
    Ok(Hit { target: "redis".to_owned(), is_leader: false, message, recovery })
}

/// The lanes that something concerns, if the group has several.
fn lanes_in_words<'a>(seen: &Seen, lanes: impl Iterator<Item = &'a LaneNumber>) -> String {
    let numbers: Vec<String> = lanes.map(LaneNumber::to_string).collect();
    match &numbers[..] {
        [] => String::new(),
        _ if seen.listening == 1 => String::new(),
        [one] => format!(" of lane {one}"),
        several => format!(" of lanes {}", several.join(", ")),
    }
}

fn is_healthy(cluster: &mut Cluster, seen: &Seen) -> bool {
    let whole = seen.is_whole(cluster);
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
