//! The test rig of one run with several lanes: a private Redis Cluster, and a group with a lane on each of some nodes.
//!
//! Dropping a [`LaneRig`] kills whatever still runs.

use std::process::Command;
use std::time::{Duration, Instant};

use super::layout::{self, Lane};
use crate::base::error::{Error, Result};
use crate::base::shutdown::ShutdownRequests;
use crate::lab::bench::contender::Role;
use crate::lab::bench::context::Abort;
use crate::lab::bench::processes::Summary;
use crate::lab::bench::rig::until;
use crate::lab::bench::run::{Measurement, cpu_times, each, summary_of, wait_while};
use crate::lab::bench::settings::BenchConfig;
use crate::lab::bench::verify;
use crate::lab::child::ChildProcess;
use crate::lab::cluster::{Cluster, ClusterOptions, Node, STOP_LIMIT};
use crate::lab::programs::Programs;
use crate::lab::redis::RedisOptions;
use crate::lab::redis_cluster::{RedisCluster, RedisClusterOptions};
use crate::ledger::overview::GroupView;
use crate::net::Address;

/// How many dispatchers hear each message, of which one leads a lane.
pub(super) const DISPATCHERS: usize = 2;
pub(super) const CONSUMERS: usize = 2;

const GROUP: &str = "{messages}";
/// The default of Redis. A shorter time would mean more traffic on the bus.
const NODE_TIMEOUT_MS: u64 = 15_000;

/// See the module's text.
pub(super) struct LaneRig {
    // In drop order.
    group: Cluster,
    redis: RedisCluster,
    lanes: Vec<Lane>,
    programs: Programs,
    /// How many messages each lane has had.
    sent: u64,
}

impl LaneRig {
    /// Starts a cluster of `nodes` primaries and a group with `count` lanes, and waits until all of it is ready.
    pub(super) fn start(
        (nodes, count): (usize, usize),
        config: &BenchConfig,
        requests: &ShutdownRequests,
    ) -> Result<LaneRig, Abort> {
        let programs = Programs::beside_this_one()?;
        let node = RedisOptions {
            program: config.redis_server.clone(),
            append_only: config.append_only,
            ..RedisOptions::default()
        };
        let options = RedisClusterOptions { primaries: nodes, replicas: false, node_timeout_ms: NODE_TIMEOUT_MS, node };
        let redis = RedisCluster::start(options)?;
        let lanes = layout::lanes(&redis.topology()?, GROUP, count)
            .ok_or_else(|| Error::Failed(format!("{nodes} nodes have no {count} lanes")))?;
        let channels: Vec<&str> = lanes.iter().map(|lane| lane.channel.as_str()).collect();
        let group = Cluster::start(ClusterOptions {
            redis_url: Some(redis.url()),
            group: GROUP.to_owned(),
            dispatchers: DISPATCHERS,
            consumers: CONSUMERS,
            readiness: true,
            dispatcher_args: vec!["--sharded-channel".to_owned(), channels.join(",")],
            ..ClusterOptions::new(programs.clone())
        })?;
        let mut rig = LaneRig { group, redis, lanes, programs, sent: 0 };
        rig.wait_until_ready(requests)?;
        Ok(rig)
    }

    /// Waits until each lane has a leader that is connected to all consumers, and a standby in sync. Both dispatchers
    /// together cost the same whichever of them leads, so it is not waited until they lead equally many.
    fn wait_until_ready(&mut self, requests: &ShutdownRequests) -> Result<(), Abort> {
        let view = |lane: &Lane| GroupView::new(self.group.connection(), lane.keys.clone());
        let mut views: Vec<GroupView> = self.lanes.iter().map(view).collect();
        until(requests, "a leader, a standby and all consumers in each lane", || {
            self.must_run()?;
            for view in &mut views {
                let snapshot = view.snapshot()?;
                let has = |number| snapshot.consumers.contains(&Node::Consumer(number).to_string());
                if snapshot.lease.is_none() || !(0..CONSUMERS).all(has) {
                    return Ok(false);
                }
            }
            Ok(self.group.is_ready())
        })
    }

    /// Sends so many messages through each lane, with more arguments for the loads. Returns the cost, after checking
    /// that each message has one result.
    pub(super) fn run(
        &mut self,
        messages: u64,
        arguments: &[String],
        payload: usize,
        requests: &ShutdownRequests,
    ) -> Result<Measurement, Abort> {
        let processes = self.processes();
        let before = cpu_times(&processes)?;
        let begin = Instant::now();
        let mut loads = Vec::new();
        for lane in &self.lanes {
            let mut command = self.load(lane, messages, payload)?;
            command.args(arguments);
            loads.push(ChildProcess::spawn("load", command)?);
        }
        for load in &mut loads {
            wait_while(|| self.must_run(), load, requests)?;
        }
        let elapsed = begin.elapsed();
        let after = cpu_times(&processes)?;
        let summaries = loads.iter().map(summary_of).collect::<Result<Vec<Summary>, Abort>>()?;
        self.sent += messages;
        for (lane, summary) in self.lanes.iter().zip(&summaries) {
            let errors = verify::results(port(&lane.node)?, &lane.keys.processed, self.sent, payload)?;
            errors.must_be_none(&lane.keys.group, self.sent, summary.recorded).map_err(Abort::Violation)?;
        }
        let sum = |of: fn(&Summary) -> u64| summaries.iter().map(of).sum::<u64>();
        let messages = sum(|summary| summary.sent);
        Ok(Measurement {
            messages,
            elapsed,
            per_s_while_sending: messages as f64 / elapsed.max(Duration::from_micros(1)).as_secs_f64(),
            cpu_us: each(&before, &after, sum(|summary| summary.cpu_us), messages),
        })
    }

    fn load(&self, lane: &Lane, messages: u64, payload: usize) -> Result<Command> {
        let mut command = self.programs.command("oncecast")?;
        command.args(["bench-load", "--command", "spublish", "--key", &lane.channel]);
        command.args(["--port", &port(&lane.node)?.to_string(), "--payload", &payload.to_string()]);
        command.args(["--progress", &format!("XLEN {}", lane.keys.processed)]);
        command.args(["--first", &self.sent.to_string(), "--count", &messages.to_string()]);
        Ok(command)
    }

    /// The roles and process ids of all processes except the loads.
    pub(super) fn processes(&mut self) -> Vec<(Role, u32)> {
        let nodes = self.redis.processes().map(|node| (Role::Redis, node.pid()));
        let group = self.group.processes().into_iter().map(|(name, pid)| (Role::of(&name), pid));
        nodes.chain(group).collect()
    }

    /// Returns an error, with the end of the process's log, if a process has ended.
    pub(super) fn must_run(&mut self) -> Result<()> {
        self.group.must_run()?;
        self.redis.processes().try_for_each(ChildProcess::must_run)
    }

    /// Stops everything in order.
    pub(super) fn stop(self) -> Result<()> {
        let LaneRig { group, mut redis, .. } = self;
        group.stop(STOP_LIMIT)?;
        redis.stop()
    }
}

fn port(address: &Address) -> Result<u16> {
    match address {
        Address::Tcp { port, .. } => Ok(*port),
        Address::Unix(_) => Err(Error::Failed(format!("{address} has no port"))),
    }
}
