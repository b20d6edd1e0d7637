//! Carries the strikes of a plan out, heals them, and measures how long it took until results flowed again.
//!
//! One at a time: the next strike waits until the outage of the last is over and the cluster is whole again, which means
//! that every member runs, every consumer is linked, and every dispatcher is in sync. So there is at any time a dispatcher
//! that heard every message and lives, and every message that anybody received is owed.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use redis::Value;

use super::plan::{Fault, Strike, Target};
use super::recovery::Recovery;
use crate::base::error::{Error, Result};
use crate::lab::{ChildProcess, Cluster, GroupView, Lease, Member, Signal, Snapshot};
use crate::ledger::Command;
use crate::ledger::subscription::CLIENT_NAME_PREFIX;

/// How long a process may take to end after SIGTERM: a consumer finishes what it has in hand.
const STOP_LIMIT: Duration = Duration::from_secs(15);
/// When results have not flowed again after this long, the strike counts as not recovered from.
const RECOVERY_LIMIT: Duration = Duration::from_secs(30);

/// A strike that was carried out, and what came of it.
#[derive(Clone, Debug)]
pub struct Struck {
    /// When, after publishing began.
    pub at: Duration,
    /// What was done.
    pub fault: Fault,
    /// To whom: a member, or Redis.
    pub whom: String,
    /// Whether that was the leader.
    pub led: bool,
    /// How long it lasted.
    pub outage: Duration,
    /// The time until results flowed again; `None` if that was not seen.
    pub took: Option<Duration>,
    /// Who led then.
    pub leader: String,
}

/// Something worth a line on the screen.
pub(super) enum Event {
    /// A strike.
    Struck(String),
    /// Results flow again.
    Flows(String),
    /// What was struck is back.
    Healed(String),
}

/// See the module's text.
pub(super) struct Strikes {
    planned: VecDeque<Strike>,
    begin: Instant,
    outage: Option<Outage>,
    recovery: Option<Recovery>,
    struck: Vec<Struck>,
}

struct Outage {
    until: Instant,
    member: Member,
    /// The process, if it was told to end and may not have ended yet.
    ending: Option<ChildProcess>,
    fault: Fault,
}

impl Strikes {
    pub(super) fn new(planned: Vec<Strike>, begin: Instant) -> Strikes {
        Strikes { planned: planned.into(), begin, outage: None, recovery: None, struck: Vec::new() }
    }

    /// Whether a take-over is being measured, so that short looks pay.
    pub(super) fn is_measuring(&self) -> bool {
        self.recovery.is_some()
    }

    /// What was done so far.
    pub(super) fn struck(self) -> Vec<Struck> {
        self.struck
    }

    /// Does what is due, and looks whether results flow again. With `over` nothing new is begun and all is healed.
    pub(super) fn follow(
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
            events.extend(self.flows_again(took, snapshot));
        }
        if let Some(outage) = self.outage.take_if(|outage| over || now >= outage.until) {
            events.push(self.heal(outage, cluster, snapshot)?);
        }
        let given_up = |struck: &Struck| now.duration_since(self.begin) >= struck.at + struck.outage + RECOVERY_LIMIT;
        if over || self.struck.last().is_some_and(given_up) {
            self.recovery = None;
        }
        let due = self.planned.front().is_some_and(|strike| now.duration_since(self.begin) >= strike.at);
        if due && !over && self.outage.is_none() && self.recovery.is_none() && is_whole(cluster, snapshot) {
            let strike = self.planned.pop_front().expect("it is due");
            events.extend(self.strike(&strike, cluster, view, snapshot)?);
        }
        Ok(events)
    }

    fn strike(
        &mut self,
        strike: &Strike,
        cluster: &mut Cluster,
        view: &mut GroupView,
        snapshot: &Snapshot,
    ) -> Result<Option<Event>> {
        let now = Instant::now();
        let Some((leader, lease)) = cluster.leader(snapshot).zip(snapshot.lease.clone()) else { return Ok(None) };
        let anybody = Recovery::of_another(snapshot, now);
        let (whom, led, recovery, said) = if strike.fault.strikes_a_member() {
            let Some(member) = choose(strike, leader, &cluster.running()) else { return Ok(None) };
            let led = member == leader;
            let ending = hit(strike.fault, member, cluster)?;
            self.outage = Some(Outage { until: now + strike.outage, member, ending, fault: strike.fault });
            let recovery = if led { Recovery::of_leader(lease, now) } else { anybody };
            let role = if led { " leads:" } else { "" };
            let said = match strike.fault {
                Fault::Pause => format!("{member}{role} stopped by SIGSTOP, for {}", shown(strike.outage)),
                Fault::Terminate => format!("{member}{role} asked to end, by SIGTERM"),
                _ => format!("{member}{role} killed with SIGKILL"),
            };
            (member.to_string(), led, recovery, said)
        } else if strike.fault == Fault::Cut {
            let Some(id) = cut(view, strike, &lease)? else { return Ok(None) };
            let led = id == lease.holder;
            let name = Lease { holder: id, ..lease.clone() }.name().to_owned();
            let role = if led { ", which leads" } else { "" };
            let said = format!("redis closes the subscription of {name}{role}");
            (name, led, if led { Recovery::of_leader(lease, now) } else { anybody }, said)
        } else {
            let ms = strike.outage.as_millis().to_string();
            view.connection().query("stalling redis", Command::of(&["CLIENT", "PAUSE", &ms, "WRITE"]))?;
            let said = format!("redis writes nothing for {}", shown(strike.outage));
            ("redis".to_owned(), false, anybody, said)
        };
        self.recovery = Some(recovery);
        self.struck.push(Struck {
            at: now.duration_since(self.begin),
            fault: strike.fault,
            whom,
            led,
            outage: if strike.fault == Fault::Cut { Duration::ZERO } else { strike.outage },
            took: None,
            leader: String::new(),
        });
        Ok(Some(Event::Struck(said)))
    }

    fn flows_again(&mut self, took: Duration, snapshot: &Snapshot) -> Option<Event> {
        let struck = self.struck.last_mut()?;
        struck.took = Some(took);
        struck.leader = snapshot.lease.as_ref().map_or("nobody", |lease| lease.name()).to_owned();
        let (ms, leader) = (took.as_millis(), &struck.leader);
        let said = match (struck.led, *leader == struck.whom) {
            (true, false) => format!("{leader} has taken over: its first result came {ms} ms after that"),
            (true, true) => format!("{leader} leads on: the next result came {ms} ms after that"),
            (false, _) => format!("results flow on: the next came {ms} ms after that"),
        };
        Some(Event::Flows(said))
    }

    fn heal(&mut self, outage: Outage, cluster: &mut Cluster, snapshot: &Snapshot) -> Result<Event> {
        let Outage { member, ending, fault, .. } = outage;
        if fault == Fault::Pause {
            cluster.signal(member, Signal::SIGCONT)?;
            if let Some(recovery) = &mut self.recovery {
                recovery.goes_on(snapshot.processed);
            }
            return Ok(Event::Healed(format!("{member} goes on")));
        }
        if let Some(mut process) = ending {
            let status = process.wait(STOP_LIMIT)?;
            if !status.success() {
                return Err(process.failure(format_args!("was asked to end and ended with {status}")));
            }
        }
        cluster.start_member(member)?;
        Ok(Event::Healed(format!("{member} is started again")))
    }
}

/// Who is struck: one of those running that the strike may hit.
fn choose(strike: &Strike, leader: Member, running: &[Member]) -> Option<Member> {
    let fits = |member: &&Member| match strike.target {
        Target::Any => true,
        Target::Leader => **member == leader,
        Target::Dispatcher => matches!(member, Member::Dispatcher(_)),
        Target::Consumer => matches!(member, Member::Consumer(_)),
    };
    let candidates: Vec<Member> = running.iter().filter(fits).copied().collect();
    let count = u64::try_from(candidates.len()).ok().filter(|count| *count > 0)?;
    candidates.get((strike.pick % count) as usize).copied()
}

/// Does it. Gives the process if it will end by itself.
fn hit(fault: Fault, member: Member, cluster: &mut Cluster) -> Result<Option<ChildProcess>> {
    match fault {
        Fault::Terminate => {
            let mut process = cluster.release(member)?;
            process.signal(Signal::SIGTERM)?;
            Ok(Some(process))
        }
        Fault::Pause => cluster.signal(member, Signal::SIGSTOP).map(|()| None),
        Fault::Kill | Fault::Cut | Fault::Stall => cluster.kill_member(member).map(|()| None),
    }
}

/// Has Redis close a dispatcher's subscription. Gives the dispatcher's id; `None` if none may be struck.
fn cut(view: &mut GroupView, strike: &Strike, lease: &Lease) -> Result<Option<String>> {
    let list = view.connection().query("listing subscriptions", Command::of(&["CLIENT", "LIST", "TYPE", "PUBSUB"]))?;
    let text = match &list {
        Value::BulkString(text) => String::from_utf8_lossy(text).into_owned(),
        Value::VerbatimString { text, .. } => text.clone(),
        other => return Err(Error::Failed(format!("listing subscriptions: unexpected answer {other:?}"))),
    };
    let word = |line: &str, name: &str| line.split(' ').find_map(|word| word.strip_prefix(name)).map(str::to_owned);
    let fits = |dispatcher: &String| match strike.target {
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
    let (id, dispatcher) = found.swap_remove((strike.pick % found.len() as u64) as usize);
    view.connection().query("closing a subscription", Command::of(&["CLIENT", "KILL", "ID", &id]))?;
    Ok(Some(dispatcher))
}

fn is_whole(cluster: &mut Cluster, snapshot: &Snapshot) -> bool {
    cluster.is_ready() && snapshot.consumers.len() == cluster.consumers() && cluster.leader(snapshot).is_some()
}

fn shown(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_those_that_may_be_struck_are_chosen() {
        let running = [Member::Dispatcher(0), Member::Dispatcher(1), Member::Consumer(0), Member::Consumer(2)];
        let strike =
            |target, pick| Strike { at: Duration::ZERO, fault: Fault::Kill, target, outage: Duration::ZERO, pick };
        let chosen = |target, pick| choose(&strike(target, pick), Member::Dispatcher(1), &running);
        for pick in 0..8 {
            assert_eq!(chosen(Target::Leader, pick), Some(Member::Dispatcher(1)));
            assert_eq!(chosen(Target::Any, pick), Some(running[pick as usize % 4]));
            assert_eq!(chosen(Target::Consumer, pick), Some(running[2 + pick as usize % 2]));
            assert_eq!(chosen(Target::Dispatcher, pick), Some(running[pick as usize % 2]));
        }
        assert_eq!(choose(&strike(Target::Consumer, 3), Member::Dispatcher(0), &running[..2]), None);
    }
}
