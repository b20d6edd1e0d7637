//! The plan of an experiment: which fault is injected when, drawn from a seed. Pure.

use std::fmt;
use std::time::Duration;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A process is killed with SIGKILL, and started again after the outage.
    Kill,
    /// A process is paused with SIGSTOP, and resumed with SIGCONT after the outage.
    Pause,
    /// A process is terminated with SIGTERM, and started again after the outage.
    Terminate,
    /// Redis closes the connection of a dispatcher's subscription.
    Cut,
    /// Redis delays all writes for the duration of the outage.
    Stall,
    /// In a Redis Cluster, a replica is made the primary of the group's slot.
    Failover,
    /// In a Redis Cluster, the group's slot moves to another node, key by key.
    Migrate,
    /// In a Redis Cluster, the node with the group's slot is killed, and started again after the outage.
    Node,
}

impl Fault {
    /// All kinds.
    pub const ALL: [Fault; 8] = [
        Fault::Kill,
        Fault::Pause,
        Fault::Terminate,
        Fault::Cut,
        Fault::Stall,
        Fault::Failover,
        Fault::Migrate,
        Fault::Node,
    ];

    /// Whether it needs a Redis Cluster.
    pub fn needs_redis_cluster(self) -> bool {
        matches!(self, Fault::Failover | Fault::Migrate | Fault::Node)
    }

    /// Whether something is down while it lasts.
    pub fn lasts(self) -> bool {
        !matches!(self, Fault::Cut | Fault::Failover | Fault::Migrate)
    }

    /// Its name in settings and reports.
    pub fn name(self) -> &'static str {
        match self {
            Fault::Kill => "kill",
            Fault::Pause => "pause",
            Fault::Terminate => "terminate",
            Fault::Cut => "cut",
            Fault::Stall => "stall",
            Fault::Failover => "failover",
            Fault::Migrate => "migrate",
            Fault::Node => "node",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The nodes that a fault may hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Any dispatcher or consumer.
    Any,
    /// The dispatcher that leads when the fault is injected.
    Leader,
    /// Any dispatcher.
    Dispatcher,
    /// Any consumer.
    Consumer,
}

impl Target {
    /// All targets.
    pub const ALL: [Target; 4] = [Target::Any, Target::Leader, Target::Dispatcher, Target::Consumer];

    /// Its name in settings and reports.
    pub fn name(self) -> &'static str {
        match self {
            Target::Any => "any",
            Target::Leader => "leader",
            Target::Dispatcher => "dispatcher",
            Target::Consumer => "consumer",
        }
    }
}

/// A fault to inject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedFault {
    /// When to inject it, as the time since publishing began; later if the cluster is not yet healthy again.
    pub at: Duration,
    /// The kind of fault.
    pub fault: Fault,
    /// The nodes it may hit.
    pub target: Target,
    /// How long it lasts.
    pub outage: Duration,
    /// Selects one of the nodes that it may hit.
    pub pick: u64,
}

/// The parameters from which faults are drawn.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed; the same one draws the same faults.
    pub seed: u64,
    /// The time from one fault to the next.
    pub every: Duration,
    /// How long faults are injected.
    pub duration: Duration,
    /// The kinds of faults to draw from.
    pub faults: Vec<Fault>,
    /// The nodes they may hit.
    pub target: Target,
    /// The shortest outage.
    pub least_outage: Duration,
    /// The longest outage; limited to half of `every`, so that it ends before the next fault.
    pub outage: Duration,
}

impl Plan {
    /// Draws the faults: the first after `every`, none in the last half of `every`.
    pub fn draw(&self) -> Vec<PlannedFault> {
        let mut random = fastrand::Rng::with_seed(self.seed);
        let longest = self.outage.min(self.every / 2);
        let shortest = self.least_outage.min(longest);
        let times = (1..).map(|number| self.every * number).take_while(|at| *at + self.every / 2 <= self.duration);
        times
            .map(|at| PlannedFault {
                at,
                fault: self.faults[random.usize(..self.faults.len())],
                target: self.target,
                outage: shortest + (longest - shortest).mul_f64(random.f64()),
                pick: random.u64(..),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(seed: u64) -> Plan {
        Plan {
            seed,
            every: Duration::from_secs(15),
            duration: Duration::from_secs(120),
            faults: vec![Fault::Kill, Fault::Pause, Fault::Terminate],
            target: Target::Any,
            least_outage: Duration::from_millis(100),
            outage: Duration::from_secs(6),
        }
    }

    #[test]
    fn a_seed_draws_the_same_faults_again() {
        assert_eq!(plan(7).draw(), plan(7).draw());
        assert_ne!(plan(7).draw(), plan(8).draw());
    }

    #[test]
    fn each_outage_ends_before_the_next_fault() {
        for seed in 0..100 {
            let faults = plan(seed).draw();
            assert_eq!(faults.len(), 7);
            assert!(faults.iter().all(|fault| fault.outage <= Duration::from_secs(6)));
            let quick = Plan { every: Duration::from_secs(1), ..plan(seed) }.draw();
            assert!(quick.windows(2).all(|two| two[0].at + two[0].outage <= two[1].at));
        }
    }
}
