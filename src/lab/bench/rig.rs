//! The test rig of one run: a private Redis and the processes of one contender.
//!
//! All contenders get the same server with the same settings. Dropping a [`Rig`] kills whatever still runs.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::contender::{Contender, Role};
use super::context::Abort;
use super::settings::BenchConfig;
use super::setup::Setup;
use crate::base::error::{Error, Result};
use crate::base::shutdown::ShutdownRequests;
use crate::lab::child::ChildProcess;
use crate::lab::cluster::{Cluster, ClusterOptions, ConsumerProgram, Node, STOP_LIMIT};
use crate::lab::programs::Programs;
use crate::lab::redis::{RedisOptions, RedisServer};
use crate::lab::wait::wait_until;
use crate::ledger;

/// How long processes may take to become ready.
pub(super) const READY_LIMIT: Duration = Duration::from_secs(30);
/// The stream of results, for all contenders but the bridge.
const RESULTS: &str = "messages:processed";
/// The channel on which messages are published.
const CHANNEL: &str = "messages:published";
/// Oncecast's pending messages.
const PENDING: &str = "messages:pending";
/// Counts the messages in the sorted set; a bundle is 16. Without spaces, since these separate words.
const COUNT_PENDING: &str = "return(redis.call('ZCARD',KEYS[1])+15*redis.call('ZCOUNT',KEYS[1],'-inf','(0'))";
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
    /// The folder in which BullMQ is installed.
    bullmq: PathBuf,
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
            config: vec![("io-threads".to_owned(), config.io_threads.to_string())],
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
                let mut options = redis.clone();
                // Otherwise a replica waits for others for five seconds, and a short run would be over.
                if setup.contender.has_replica() {
                    options.config.push(("repl-diskless-sync-delay".to_owned(), "0".to_owned()));
                }
                let mut cluster = Box::new(start_cluster(setup, programs.clone(), options)?);
                if setup.contender.has_replica() {
                    let address = format!("127.0.0.1 {}", cluster.redis().port());
                    let mut options = redis;
                    options.config.push(("replicaof".to_owned(), address));
                    let started = replica.insert(RedisServer::start(options)?);
                    until(requests, "the replica to be in sync", || Ok(started.is_in_sync()))?;
                }
                // In sync, so that the standby costs what it costs in production.
                until(requests, "a leader and standbys in sync", || {
                    cluster.must_run()?;
                    Ok(cluster.is_ready())
                })?;
                Processes::Oncecast(cluster)
            }
            Contender::Streams | Contender::Tidy | Contender::Bullmq | Contender::Relay => {
                let redis = Box::new(RedisServer::start(redis)?);
                if setup.contender.is_stream() {
                    create_group(&redis)?;
                }
                Processes::Peer { workers: Vec::new(), redis }
            }
        };
        Ok(Rig { setup, programs, processes, replica, bullmq: config.bullmq_folder.clone() })
    }

    /// Starts the consumers and waits until they can receive messages.
    pub(super) fn start_consumers(&mut self, requests: &ShutdownRequests) -> Result<(), Abort> {
        let started = match self.setup.contender {
            Contender::Relay => vec![self.relay()?],
            Contender::Streams | Contender::Tidy | Contender::Bullmq => {
                (0..self.setup.consumers).map(|number| self.worker(number)).collect::<Result<_>>()?
            }
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
        match self.setup.contender {
            Contender::Bullmq => self.load_until("results"),
            _ => self.load_until(&format!("XLEN {}", self.results())),
        }
    }

    /// A command that starts the load while no consumer runs. It ends when all messages wait for one.
    pub(super) fn fill(&mut self) -> Result<Command> {
        match self.setup.contender {
            Contender::Bridge => self.load(),
            Contender::Bullmq => self.load_until("waiting"),
            Contender::Streams | Contender::Tidy | Contender::Relay => self.load_until(&format!("XLEN {STREAM}")),
            _ => self.load_until(&format!("EVAL {COUNT_PENDING} 1 {PENDING}")),
        }
    }

    fn load_until(&mut self, progress: &str) -> Result<Command> {
        let (name, key) = match self.setup.contender {
            Contender::Bullmq => {
                let mut command = self.bullmq("load")?;
                command.args(["--progress", progress, "--payload", &self.setup.payload.to_string()]);
                return Ok(command);
            }
            Contender::Streams | Contender::Tidy => ("xadd", STREAM),
            _ => ("publish", CHANNEL),
        };
        let payload = self.setup.payload.to_string();
        let scheduling = self.setup.scheduling.name();
        let load = &[
            "--command",
            name,
            "--key",
            key,
            "--progress",
            progress,
            "--payload",
            &payload,
            "--scheduling",
            scheduling,
        ];
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
                let replica =
                    self.replica.iter_mut().filter_map(|replica| Some((Role::Redis, replica.process()?.pid())));
                cluster.processes().into_iter().map(|(name, pid)| (Role::of(&name), pid)).chain(replica).collect()
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
        if self.setup.contender == Contender::Bullmq {
            let mut command = self.bullmq("worker")?;
            command.args(["--name", &name]);
            return ChildProcess::spawn(&name, command);
        }
        let batch = (WORKER_BATCH_BYTES / self.setup.payload as u64).clamp(1, self.setup.worker_batch).to_string();
        let mut command = self.part("bench-worker", &["--stream", STREAM, "--stream-group", GROUP])?;
        command.args(["--results", RESULTS, "--name", &name, "--worker-batch", &batch]);
        command.args(["--scheduling", self.setup.scheduling.name()]);
        if self.setup.contender == Contender::Tidy {
            command.arg("--tidy");
        }
        ChildProcess::spawn(&name, command)
    }

    /// A command that runs a process of BullMQ: `worker` or `load`.
    fn bullmq(&mut self, role: &str) -> Result<Command> {
        const PROGRAM: &str = include_str!("processes/bullmq.mjs");
        if !self.bullmq.join("node_modules/bullmq").is_dir() {
            let folder = self.bullmq.display();
            return Err(Error::Failed(format!(
                "the kind bullmq needs Node, and the packages bullmq and ioredis in {folder} (--bullmq-folder): npm \
                 install --prefix {folder} bullmq ioredis"
            )));
        }
        let words = ["node", "--input-type=module", "--eval", PROGRAM, "--", "--role", role].map(OsString::from);
        let mut command = self.programs.any_command(&words)?;
        let port = self.redis().port().to_string();
        command.args(["--port", &port, "--results", RESULTS]).current_dir(&self.bullmq);
        Ok(command)
    }

    fn relay(&mut self) -> Result<ChildProcess> {
        let mut command = self.part("bench-relay", &["--key", CHANNEL, "--results", RESULTS, "--name", "r0"])?;
        command.args(["--scheduling", self.setup.scheduling.name()]);
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
    for arguments in [&mut options.dispatcher_args, &mut options.consumer_args] {
        arguments.extend(["--scheduling", setup.scheduling.name()].map(str::to_owned));
    }
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
pub(super) fn until(
    requests: &ShutdownRequests,
    what: &str,
    mut condition: impl FnMut() -> Result<bool>,
) -> Result<(), Abort> {
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
