//! What is to happen to a cluster and when: a list of strikes, drawn from a seed. Pure.

use std::fmt;
use std::time::Duration;

/// What is done to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL; it is started again after the outage.
    Kill,
    /// SIGSTOP, and SIGCONT after the outage.
    Pause,
    /// SIGTERM; it is started again after the outage.
    Terminate,
    /// Redis closes the connection of a dispatcher's subscription. No process is touched.
    Cut,
    /// Redis carries out nothing that writes for the time of the outage.
    Stall,
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 5] = [Fault::Kill, Fault::Pause, Fault::Terminate, Fault::Cut, Fault::Stall];

    /// The word for it in settings and reports.
    pub fn name(self) -> &'static str {
        match self {
            Fault::Kill => "kill",
            Fault::Pause => "pause",
            Fault::Terminate => "terminate",
            Fault::Cut => "cut",
            Fault::Stall => "stall",
        }
    }

    /// Whether it is done to a member of the cluster, rather than in Redis.
    pub fn strikes_a_member(self) -> bool {
        matches!(self, Fault::Kill | Fault::Pause | Fault::Terminate)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Who may be struck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Any dispatcher or consumer.
    Any,
    /// The dispatcher that leads at that time.
    Leader,
    /// Any dispatcher.
    Dispatcher,
    /// Any consumer.
    Consumer,
}

impl Target {
    /// All of them.
    pub const ALL: [Target; 4] = [Target::Any, Target::Leader, Target::Dispatcher, Target::Consumer];

    /// The word for it in settings and reports.
    pub fn name(self) -> &'static str {
        match self {
            Target::Any => "any",
            Target::Leader => "leader",
            Target::Dispatcher => "dispatcher",
            Target::Consumer => "consumer",
        }
    }
}

/// One strike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strike {
    /// When, after publishing began. Later if the cluster is not whole again by then.
    pub at: Duration,
    /// What.
    pub fault: Fault,
    /// Whom.
    pub target: Target,
    /// How long it lasts.
    pub outage: Duration,
    /// Chooses among several that may be struck.
    pub pick: u64,
}

/// How strikes are drawn.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed; the same one draws the same strikes.
    pub seed: u64,
    /// The time from one strike to the next.
    pub every: Duration,
    /// How long there are strikes.
    pub duration: Duration,
    /// What may happen.
    pub faults: Vec<Fault>,
    /// Whom it may happen to.
    pub target: Target,
    /// The shortest outage.
    pub least_outage: Duration,
    /// The longest outage. At most half of `every` in any case, so that one is over before the next begins.
    pub outage: Duration,
}

impl Plan {
    /// Draws the strikes: the first after `every`, none in the last half of `every`.
    pub fn strikes(&self) -> Vec<Strike> {
        let mut random = fastrand::Rng::with_seed(self.seed);
        let longest = self.outage.min(self.every / 2);
        let shortest = self.least_outage.min(longest);
        let times = (1..).map(|number| self.every * number).take_while(|at| *at + self.every / 2 <= self.duration);
        times
            .map(|at| Strike {
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
    fn a_seed_draws_the_same_strikes_again() {
        assert_eq!(plan(7).strikes(), plan(7).strikes());
        assert_ne!(plan(7).strikes(), plan(8).strikes());
    }

    #[test]
    fn each_outage_is_over_before_the_next_strike() {
        for seed in 0..100 {
            let strikes = plan(seed).strikes();
            assert_eq!(strikes.len(), 7);
            assert!(strikes.iter().all(|strike| strike.outage <= Duration::from_secs(6)));
            let quick = Plan { every: Duration::from_secs(1), ..plan(seed) }.strikes();
            assert!(quick.windows(2).all(|two| two[0].at + two[0].outage <= two[1].at));
        }
    }
}
