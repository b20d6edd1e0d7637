//! The processes of one run: a private Redis, and those of the kind that is measured.
//!
//! All kinds get the same server with the same settings. Dropping a [`Rig`] kills whatever still runs.

use std::time::Duration;

use super::Stop;
use super::kind::{Kind, Role};
use super::parts::Link;
use super::parts::settings::LoadCommand;
use super::settings::BenchConfig;
use super::setup::Setup;
use crate::base::error::Result;
use crate::base::shutdown::ShutdownRequests;
use crate::lab::{
    ChildProcess, Cluster, ClusterOptions, ConsumerProgram, Member, Programs, RedisOptions, RedisServer, cluster,
    wait_until,
};
use crate::ledger::command::command;

/// How long processes may take until they are ready.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// The results, of all kinds.
pub(super) const RESULTS: &str = "messages:processed";
/// Where the messages go that are published.
const CHANNEL: &str = "messages:published";
/// Our backlog.
const PENDING: &str = "messages:pending";
/// The peer's messages, and its group.
const STREAM: &str = "messages:stream";
const GROUP: &str = "workers";

/// About the most bytes of a worker's batch.
const WORKER_BATCH_BYTES: u64 = 4 << 20;

/// See the module's text.
pub(super) struct Rig {
    setup: Setup,
    programs: Programs,
    processes: Processes,
}

enum Processes {
    Ours(Box<Cluster>),
    Peer {
        // Before the server, so that they are gone first.
        workers: Vec<ChildProcess>,
        redis: Box<RedisServer>,
    },
}

impl Rig {
    /// Starts everything, and waits until all of it is ready.
    pub(super) fn start(setup: Setup, config: &BenchConfig, requests: &ShutdownRequests) -> Result<Rig, Stop> {
        let mut rig = Rig::start_servers(setup, config, requests)?;
        match &mut rig.processes {
            Processes::Ours(cluster) => wait_for_consumers(cluster, requests)?,
            Processes::Peer { .. } => rig.start_consumers(requests)?,
        }
        Ok(rig)
    }

    /// Starts everything but the consumers.
    pub(super) fn start_idle(setup: Setup, config: &BenchConfig, requests: &ShutdownRequests) -> Result<Rig, Stop> {
        let mut rig = Rig::start_servers(setup, config, requests)?;
        if let Processes::Ours(cluster) = &mut rig.processes {
            for number in 0..setup.consumers {
                cluster.stop_member(Member::Consumer(number), cluster::STOP_LIMIT)?;
            }
        }
        Ok(rig)
    }

    /// Starts what does not take messages off; of ours, all.
    fn start_servers(setup: Setup, config: &BenchConfig, requests: &ShutdownRequests) -> Result<Rig, Stop> {
        let programs = Programs::beside_this_one()?;
        let redis = RedisOptions {
            program: config.redis_server.clone(),
            append_only: config.append_only,
            ..RedisOptions::default()
        };
        let processes = match setup.kind {
            Kind::Oncecast => {
                let mut cluster = Box::new(start_cluster(setup, programs.clone(), redis)?);
                // Two that are in sync: the standby costs what it costs in production.
                until(requests, "a leader, and a standby in sync", || {
                    cluster.must_run()?;
                    Ok(cluster.is_ready())
                })?;
                Processes::Ours(cluster)
            }
            Kind::Streams | Kind::Relay => {
                let redis = Box::new(RedisServer::start(redis)?);
                if setup.kind == Kind::Streams {
                    make_group(redis.port())?;
                }
                Processes::Peer { workers: Vec::new(), redis }
            }
        };
        Ok(Rig { setup, programs, processes })
    }

    /// Starts the consumers, and waits until they can be given messages.
    pub(super) fn start_consumers(&mut self, requests: &ShutdownRequests) -> Result<(), Stop> {
        let started = match self.setup.kind {
            Kind::Relay => vec![self.relay()?],
            Kind::Streams => (0..self.setup.consumers).map(|number| self.worker(number)).collect::<Result<_>>()?,
            Kind::Oncecast => Vec::new(),
        };
        match &mut self.processes {
            Processes::Ours(cluster) => {
                for number in 0..self.setup.consumers {
                    cluster.start_member(Member::Consumer(number))?;
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

    /// What it was started as.
    pub(super) fn setup(&self) -> Setup {
        self.setup
    }

    /// The server.
    pub(super) fn redis(&mut self) -> &mut RedisServer {
        match &mut self.processes {
            Processes::Ours(cluster) => cluster.redis(),
            Processes::Peer { redis, .. } => redis,
        }
    }

    /// The command that starts the load, which counts results.
    pub(super) fn load(&mut self) -> Result<std::process::Command> {
        self.load_until(&format!("XLEN {RESULTS}"))
    }

    /// The command that starts the load while nobody takes messages: it counts those that wait.
    pub(super) fn fill(&mut self) -> Result<std::process::Command> {
        match self.setup.kind {
            Kind::Oncecast => self.load_until(&format!("ZCARD {PENDING}")),
            Kind::Streams | Kind::Relay => self.load_until(&format!("XLEN {STREAM}")),
        }
    }

    fn load_until(&mut self, progress: &str) -> Result<std::process::Command> {
        let (sent, key) = match self.setup.kind {
            Kind::Oncecast | Kind::Relay => (LoadCommand::Publish, CHANNEL),
            Kind::Streams => (LoadCommand::Xadd, STREAM),
        };
        let name = match sent {
            LoadCommand::Publish => "publish",
            LoadCommand::Xadd => "xadd",
        };
        let payload = self.setup.payload.to_string();
        self.part("bench-load", &["--command", name, "--key", key, "--progress", progress, "--payload", &payload])
    }

    /// The command that starts the process that measures latency.
    pub(super) fn reader(&mut self, count: u64, skip: u64) -> Result<std::process::Command> {
        let (count, skip) = (count.to_string(), skip.to_string());
        self.part("bench-reader", &["--results", RESULTS, "--result-count", &count, "--skip", &skip])
    }

    /// Every process with what it does, but those that [`Rig::load`] and [`Rig::reader`] start.
    pub(super) fn processes(&mut self) -> Vec<(Role, u32)> {
        match &mut self.processes {
            Processes::Ours(cluster) => {
                let role = |name: &str| match name.as_bytes().first() {
                    Some(b'd') => Role::Dispatchers,
                    Some(b'c') => Role::Consumers,
                    _ => Role::Redis,
                };
                cluster.processes().into_iter().map(|(name, pid)| (role(&name), pid)).collect()
            }
            Processes::Peer { workers, redis } => {
                let workers = workers.iter().map(|worker| (Role::Consumers, worker.pid()));
                workers.chain(redis.process().map(|redis| (Role::Redis, redis.pid()))).collect()
            }
        }
    }

    /// An error if a process has ended, with the end of its log.
    pub(super) fn must_run(&mut self) -> Result<()> {
        match &mut self.processes {
            Processes::Ours(cluster) => cluster.must_run(),
            Processes::Peer { workers, redis } => {
                workers.iter_mut().chain(redis.process()).try_for_each(ChildProcess::must_run)
            }
        }
    }

    /// Ends everything. Ours must end in order; the peers have nothing to put in order.
    pub(super) fn stop(self) -> Result<()> {
        match self.processes {
            Processes::Ours(cluster) => cluster.stop(cluster::STOP_LIMIT),
            Processes::Peer { workers, mut redis } => {
                drop(workers);
                redis.stop()
            }
        }
    }

    fn worker(&mut self, number: usize) -> Result<ChildProcess> {
        let name = format!("w{number}");
        let batch = (WORKER_BATCH_BYTES / self.setup.payload as u64).clamp(1, self.setup.worker_batch).to_string();
        let own = [
            "--stream",
            STREAM,
            "--stream-group",
            GROUP,
            "--results",
            RESULTS,
            "--name",
            &name,
            "--worker-batch",
            &batch,
        ];
        let command = self.part("bench-worker", &own)?;
        ChildProcess::spawn(&name, command)
    }

    fn relay(&mut self) -> Result<ChildProcess> {
        let command = self.part("bench-relay", &["--channel", CHANNEL, "--results", RESULTS, "--name", "r0"])?;
        ChildProcess::spawn("relay", command)
    }

    /// A command that runs one of the processes that are none of our programs.
    fn part(&mut self, name: &str, arguments: &[&str]) -> Result<std::process::Command> {
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
    if let Some((takes, concurrency)) = setup.handler {
        options.consumer_program = ConsumerProgram {
            name: "oncecast".to_owned(),
            arguments: ["bench-consumer", "--handler-takes-ms", &takes.as_millis().to_string()]
                .map(str::to_owned)
                .to_vec(),
        };
        // As a slow handler wants it: little more in hand than is worked on.
        let prefetch = (4 * concurrency).to_string();
        options
            .consumer_args
            .extend(["--concurrency", &concurrency.to_string(), "--prefetch", &prefetch].map(str::to_owned));
    }
    Cluster::start(options)
}

fn wait_for_consumers(cluster: &mut Cluster, requests: &ShutdownRequests) -> Result<(), Stop> {
    let mut view = cluster.view();
    until(requests, "the leader to be connected to all consumers", || {
        cluster.must_run()?;
        let connected = view.snapshot()?.consumers;
        let is_listed = |number| connected.contains(&Member::Consumer(number).to_string());
        Ok(cluster.is_ready() && (0..cluster.consumers()).all(is_listed))
    })
}

fn make_group(port: u16) -> Result<()> {
    let mut link = Link::connect(port)?;
    let mut out = Vec::new();
    command(&mut out, &["XGROUP", "CREATE", STREAM, GROUP, "0", "MKSTREAM"]);
    link.send(&out)?;
    link.pass(1)
}

/// Waits until something is so, or until we are asked to stop.
fn until(requests: &ShutdownRequests, what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<(), Stop> {
    let mut asked = false;
    wait_until(READY_LIMIT, what, || {
        asked = requests.receiver().try_recv().is_ok();
        Ok((asked || is_so()?).then_some(()))
    })?;
    if asked { Err(Stop::Asked) } else { Ok(()) }
}

/// The version of the server that runs will have.
pub(super) fn redis_version(config: &BenchConfig) -> Result<String> {
    RedisServer::start(RedisOptions { program: config.redis_server.clone(), ..RedisOptions::default() })?.version()
}
