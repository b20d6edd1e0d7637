//! The test rig of one run: a private Redis and the processes of one contender.
//!
//! All contenders get the same server with the same settings. Dropping a [`Rig`] kills whatever still runs.

use std::process::Command;
use std::time::Duration;

use super::contender::{Contender, Role};
use super::context::Abort;
use super::processes::settings::LoadCommand;
use super::settings::BenchConfig;
use super::setup::Setup;
use crate::base::error::Result;
use crate::base::shutdown::ShutdownRequests;
use crate::lab::child::ChildProcess;
use crate::lab::cluster::{Cluster, ClusterOptions, ConsumerProgram, Node, STOP_LIMIT};
use crate::lab::programs::Programs;
use crate::lab::redis::{RedisOptions, RedisServer};
use crate::lab::wait::wait_until;
use crate::ledger;

/// How long processes may take to become ready.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// The stream of results, for all contenders but the bridge.
const RESULTS: &str = "messages:processed";
/// The channel on which messages are published.
const CHANNEL: &str = "messages:published";
/// Oncecast's pending messages.
const PENDING: &str = "messages:pending";
/// The stream to which the bridge adds messages.
const BRIDGED: &str = "messages:messages";
/// The stream of messages for the Streams group, and the group's name.
const STREAM: &str = "messages:stream";
const GROUP: &str = "workers";

/// Roughly the most bytes in a worker's batch.
const WORKER_BATCH_BYTES: u64 = 4 << 20;

/// See the module's text.
pub(super) struct Rig {
    setup: Setup,
    programs: Programs,
    processes: Processes,
    /// The server's replica, for contenders that have one.
    replica: Option<RedisServer>,
}

enum Processes {
    Oncecast(Box<Cluster>),
    Peer {
        // Before the server, so that they are dropped first.
        workers: Vec<ChildProcess>,
        redis: Box<RedisServer>,
    },
}

impl Rig {
    /// Starts everything and waits until it is ready.
    pub(super) fn start(setup: Setup, config: &BenchConfig, requests: &ShutdownRequests) -> Result<Rig, Abort> {
        let mut rig = Rig::start_servers(setup, config, requests)?;
        match &mut rig.processes {
            Processes::Oncecast(cluster) => wait_for_consumers(cluster, requests)?,
            Processes::Peer { .. } => rig.start_consumers(requests)?,
        }
        Ok(rig)
    }

    /// Starts everything except the consumers.
    pub(super) fn start_without_consumers(
        setup: Setup,
        config: &BenchConfig,
        requests: &ShutdownRequests,
    ) -> Result<Rig, Abort> {
        let mut rig = Rig::start_servers(setup, config, requests)?;
        if let Processes::Oncecast(cluster) = &mut rig.processes {
            for number in 0..cluster.consumers() {
                cluster.stop_node(Node::Consumer(number), STOP_LIMIT)?;
            }
        }
        Ok(rig)
    }

    /// Starts Redis. For Oncecast starts the whole cluster, since dispatchers are only ready with their consumers.
    fn start_servers(setup: Setup, config: &BenchConfig, requests: &ShutdownRequests) -> Result<Rig, Abort> {
        let programs = Programs::beside_this_one()?;
        let redis = RedisOptions {
            program: config.redis_server.clone(),
            append_only: config.append_only,
            ..RedisOptions::default()
        };
        let mut replica = None;
        let processes = match setup.contender {
            Contender::Oncecast
            | Contender::Patterns
            | Contender::Ordered
            | Contender::Replicated
            | Contender::Confirmed
            | Contender::Bridge => {
                let mut cluster = Box::new(start_cluster(setup, programs.clone(), redis.clone())?);
                if setup.contender.has_replica() {
                    let address = format!("127.0.0.1 {}", cluster.redis().port());
                    let config = vec![("replicaof".to_owned(), address)];
                    replica = Some(RedisServer::start(RedisOptions { config, ..redis })?);
                }
                // In sync, so that the standby costs what it costs in production.
                until(requests, "a leader and standbys in sync", || {
                    cluster.must_run()?;
                    Ok(cluster.is_ready())
                })?;
                Processes::Oncecast(cluster)
            }
            Contender::Streams | Contender::Relay => {
                let redis = Box::new(RedisServer::start(redis)?);
                if setup.contender == Contender::Streams {
                    create_group(&redis)?;
                }
                Processes::Peer { workers: Vec::new(), redis }
            }
        };
        Ok(Rig { setup, programs, processes, replica })
    }

    /// Starts the consumers and waits until they can receive messages.
    pub(super) fn start_consumers(&mut self, requests: &ShutdownRequests) -> Result<(), Abort> {
        let started = match self.setup.contender {
            Contender::Relay => vec![self.relay()?],
            Contender::Streams => (0..self.setup.consumers).map(|number| self.worker(number)).collect::<Result<_>>()?,
            _ => Vec::new(),
        };
        match &mut self.processes {
            Processes::Oncecast(cluster) => {
                for number in 0..cluster.consumers() {
                    cluster.start_node(Node::Consumer(number))?;
                }
                wait_for_consumers(cluster, requests)
            }
            Processes::Peer { workers, .. } => {
                *workers = started;
                workers.iter().try_for_each(|worker| worker.stdout().wait_for("ready", READY_LIMIT).map(drop))?;
                Ok(())
            }
        }
    }

    /// What it was started with.
    pub(super) fn setup(&self) -> Setup {
        self.setup
    }

    /// The stream of results.
    pub(super) fn results(&self) -> &'static str {
        if self.setup.contender == Contender::Bridge { BRIDGED } else { RESULTS }
    }

    /// The server.
    pub(super) fn redis(&mut self) -> &mut RedisServer {
        match &mut self.processes {
            Processes::Oncecast(cluster) => cluster.redis(),
            Processes::Peer { redis, .. } => redis,
        }
    }

    /// A command that starts the load. It ends when all messages have results.
    pub(super) fn load(&mut self) -> Result<Command> {
        self.load_until(&format!("XLEN {}", self.results()))
    }

    /// A command that starts the load while no consumer runs. It ends when all messages wait for one.
    pub(super) fn fill(&mut self) -> Result<Command> {
        match self.setup.contender {
            Contender::Bridge => self.load(),
            Contender::Streams | Contender::Relay => self.load_until(&format!("XLEN {STREAM}")),
            _ => self.load_until(&format!("ZCARD {PENDING}")),
        }
    }

    fn load_until(&mut self, progress: &str) -> Result<Command> {
        let (sent, key) = match self.setup.contender {
            Contender::Streams => (LoadCommand::Xadd, STREAM),
            _ => (LoadCommand::Publish, CHANNEL),
        };
        let name = match sent {
            LoadCommand::Publish => "publish",
            LoadCommand::Xadd => "xadd",
        };
        let payload = self.setup.payload.to_string();
        let load = &["--command", name, "--key", key, "--progress", progress, "--payload", &payload];
        let mut command = self.part("bench-load", load)?;
        if let Some(channels) = self.setup.channels {
            command.args(["--channels", &channels.to_string()]);
        }
        Ok(command)
    }

    /// A command that starts the process that measures latency.
    pub(super) fn reader(&mut self, count: u64, skip: u64) -> Result<Command> {
        let (count, skip) = (count.to_string(), skip.to_string());
        self.part("bench-reader", &["--results", self.results(), "--result-count", &count, "--skip", &skip])
    }

    /// The roles and process ids of all processes, except those started with [`Rig::load`] and [`Rig::reader`].
    pub(super) fn processes(&mut self) -> Vec<(Role, u32)> {
        match &mut self.processes {
            Processes::Oncecast(cluster) => {
                let role = |name: &str| match name.as_bytes().first() {
                    Some(b'd') => Role::Dispatchers,
                    Some(b'c') => Role::Consumers,
                    _ => Role::Redis,
                };
                let replica =
                    self.replica.iter_mut().filter_map(|replica| Some((Role::Redis, replica.process()?.pid())));
                cluster.processes().into_iter().map(|(name, pid)| (role(&name), pid)).chain(replica).collect()
            }
            Processes::Peer { workers, redis } => {
                let workers = workers.iter().map(|worker| (Role::Consumers, worker.pid()));
                workers.chain(redis.process().map(|redis| (Role::Redis, redis.pid()))).collect()
            }
        }
    }

    /// Returns an error, with the end of the process's log, if a process has ended.
    pub(super) fn must_run(&mut self) -> Result<()> {
        match &mut self.processes {
            Processes::Oncecast(cluster) => cluster.must_run(),
            Processes::Peer { workers, redis } => {
                workers.iter_mut().chain(redis.process()).try_for_each(ChildProcess::must_run)
            }
        }
    }

    /// Stops everything. The nodes of Oncecast must stop cleanly; the peers have nothing to clean up.
    pub(super) fn stop(self) -> Result<()> {
        match self.processes {
            Processes::Oncecast(cluster) => cluster.stop(STOP_LIMIT),
            Processes::Peer { workers, mut redis } => {
                drop(workers);
                redis.stop()
            }
        }
    }

    fn worker(&mut self, number: usize) -> Result<ChildProcess> {
        let name = format!("w{number}");
        let batch = (WORKER_BATCH_BYTES / self.setup.payload as u64).clamp(1, self.setup.worker_batch).to_string();
        let mut command = self.part("bench-worker", &["--stream", STREAM, "--stream-group", GROUP])?;
        command.args(["--results", RESULTS, "--name", &name, "--worker-batch", &batch]);
        ChildProcess::spawn(&name, command)
    }

    fn relay(&mut self) -> Result<ChildProcess> {
        let command = self.part("bench-relay", &["--key", CHANNEL, "--results", RESULTS, "--name", "r0"])?;
        ChildProcess::spawn("relay", command)
    }

    /// A command that runs one of the [processes of a comparison](super::processes).
    fn part(&mut self, name: &str, arguments: &[&str]) -> Result<Command> {
        let mut command = self.programs.command("oncecast")?;
        command.args([name, "--port", &self.redis().port().to_string()]).args(arguments);
        Ok(command)
    }
}

fn start_cluster(setup: Setup, programs: Programs, redis: RedisOptions) -> Result<Cluster> {
    let mut options = ClusterOptions {
        redis,
        dispatchers: setup.dispatchers,
        consumers: setup.consumers,
        readiness: true,
        ..ClusterOptions::new(programs)
    };
    if setup.channels.is_some() {
        options.listen_to_many();
    }
    if setup.contender == Contender::Ordered {
        options.dispatcher_args.extend(["--order-key", "channel"].map(str::to_owned));
    }
    if setup.contender == Contender::Confirmed {
        options.dispatcher_args.extend(["--wait-replicas", "1"].map(str::to_owned));
    }
    if setup.contender == Contender::Bridge {
        options.deliver_to_stream();
    }
    if let Some((takes, concurrency)) = setup.handler {
        options.consumer_program = ConsumerProgram::Ours {
            name: "oncecast".to_owned(),
            arguments: ["bench-consumer", "--handler-takes-ms", &takes.as_millis().to_string()]
                .map(str::to_owned)
                .to_vec(),
        };
        // With a slow handler, a consumer should hold only a few more messages than it is working on.
        let prefetch = (4 * concurrency).to_string();
        options
            .consumer_args
            .extend(["--concurrency", &concurrency.to_string(), "--prefetch", &prefetch].map(str::to_owned));
    }
    Cluster::start(options)
}

fn wait_for_consumers(cluster: &mut Cluster, requests: &ShutdownRequests) -> Result<(), Abort> {
    let mut view = cluster.view();
    until(requests, "the leader to be connected to all consumers", || {
        cluster.must_run()?;
        let connected = view.snapshot()?.consumers;
        let is_listed = |number| connected.contains(&Node::Consumer(number).to_string());
        Ok(cluster.is_ready() && (0..cluster.consumers()).all(is_listed))
    })
}

fn create_group(redis: &RedisServer) -> Result<()> {
    let create = ledger::Command::of(&["XGROUP", "CREATE", STREAM, GROUP, "0", "MKSTREAM"]);
    redis.connection().query("creating the stream's group", create).map(drop)
}

/// Waits until a condition holds, or until asked to stop.
fn until(requests: &ShutdownRequests, what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<(), Abort> {
    let mut asked = false;
    wait_until(READY_LIMIT, what, || {
        asked = requests.receiver().try_recv().is_ok();
        Ok((asked || condition()?).then_some(()))
    })?;
    if asked { Err(Abort::Interrupted) } else { Ok(()) }
}

/// The version of the Redis server.
pub(super) fn redis_version(config: &BenchConfig) -> Result<String> {
    RedisServer::start(RedisOptions { program: config.redis_server.clone(), ..RedisOptions::default() })?.version()
}
