//! A private Redis, dispatchers `d0`, `d1`, … and consumers `c0`, `c1`, … on free ports of 127.0.0.1.
//!
//! Each node can be started, stopped, killed, paused and started again on its own. Consumers start first, since
//! dispatchers need their addresses. Dropping a [`Cluster`] kills whatever still runs; [`Cluster::stop`] stops it in
//! order.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use super::child::{ChildProcess, Signal};
use super::readiness;
use super::redis::{REPLY_LIMIT, RedisServer};
use super::redis_cluster::RedisCluster;
use super::wait::wait_until;
use crate::base::error::{Error, Result};
use crate::ledger::overview::{GroupView, Snapshot};
use crate::ledger::{Connection, Keys, Lease, Server};

mod backing;
mod launch;
mod node;
mod options;

use self::backing::Backing;
pub use self::node::Node;
pub use self::options::{ClusterOptions, ConsumerProgram};

/// How long a node may take to exit after SIGTERM: a consumer finishes the messages it holds.
pub const STOP_LIMIT: Duration = Duration::from_secs(15);

/// See the module's text.
pub struct Cluster {
    // In drop order: the server last.
    dispatchers: Vec<Option<ChildProcess>>,
    consumers: Vec<Option<ChildProcess>>,
    /// The ports of the consumers.
    ports: Vec<u16>,
    /// The ports of the dispatchers' metrics servers, if [`ClusterOptions::readiness`] is set.
    metrics_ports: Vec<u16>,
    backing: Backing,
    options: ClusterOptions,
}

/// Starting, stopping and listing nodes.
impl Cluster {
    /// Starts everything. When this returns, the consumers listen, but there may not be a leader yet.
    pub fn start(options: ClusterOptions) -> Result<Cluster> {
        let backing = Backing::start(&options)?;
        let mut cluster = Cluster {
            dispatchers: Vec::new(),
            consumers: Vec::new(),
            ports: Vec::new(),
            metrics_ports: Vec::new(),
            backing,
            options,
        };
        for number in 0..cluster.options.consumers {
            let (port, process) = launch::on_free_port(|address| cluster.launch_consumer(number, address))?;
            cluster.ports.push(port);
            cluster.consumers.push(Some(process));
        }
        for number in 0..cluster.options.dispatchers {
            let process = if cluster.options.readiness {
                let launch = |address| {
                    let command = cluster.dispatcher_command(number, Some(address))?;
                    launch::listening(&Node::Dispatcher(number).to_string(), command, address)
                };
                let (port, process) = launch::on_free_port(launch)?;
                cluster.metrics_ports.push(port);
                process
            } else {
                cluster.launch_dispatcher(number)?
            };
            cluster.dispatchers.push(Some(process));
        }
        Ok(cluster)
    }

    /// Starts a node that does not run, on its former ports. A consumer listens when this returns.
    pub fn start_node(&mut self, node: Node) -> Result<()> {
        let process = match node {
            Node::Dispatcher(number) => self.launch_dispatcher(number)?,
            Node::Consumer(number) => {
                launch::on_former_port(self.address(number), |address| self.launch_consumer(number, address))?
            }
        };
        *self.slot(node) = Some(process);
        Ok(())
    }

    /// The process of a node; an error if it was not started or was stopped.
    pub fn process(&mut self, node: Node) -> Result<&mut ChildProcess> {
        self.slot(node).as_mut().ok_or_else(|| Error::Failed(format!("{node} does not run")))
    }

    /// Gives the process of a node to the caller. The cluster then treats the node as stopped.
    pub fn release(&mut self, node: Node) -> Result<ChildProcess> {
        self.slot(node).take().ok_or_else(|| Error::Failed(format!("{node} does not run")))
    }

    /// Kills a node with SIGKILL.
    pub fn kill_node(&mut self, node: Node) -> Result<()> {
        self.process(node)?.kill()?;
        *self.slot(node) = None;
        Ok(())
    }

    /// Stops a node with SIGTERM; an error if it had to be killed or did not exit with code 0.
    pub fn stop_node(&mut self, node: Node, within: Duration) -> Result<()> {
        let process = self.process(node)?;
        let outcome = match process.stop(within) {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(process.failure(format_args!("was stopped and ended with {status}"))),
            Err(error) => Err(error),
        };
        *self.slot(node) = None;
        outcome
    }

    /// Sends a signal to a node: SIGSTOP pauses it, SIGCONT resumes it.
    pub fn signal(&mut self, node: Node, signal: Signal) -> Result<()> {
        self.process(node)?.signal(signal)
    }

    /// Stops dispatchers, consumers and Redis in order with SIGTERM; the first failure is the error.
    ///
    /// No process is left afterwards, even on error.
    pub fn stop(mut self, within: Duration) -> Result<()> {
        let stopped = self.running().into_iter().map(|node| self.stop_node(node, within));
        // Collected first: after an error the other nodes must still get their SIGTERM.
        let stopped: Vec<Result<()>> = stopped.collect();
        stopped.into_iter().collect::<Result<()>>().and(self.backing.stop())
    }

    /// Returns an error, with the end of the process's log, if a process that should run has ended.
    pub fn must_run(&mut self) -> Result<()> {
        let nodes = self.dispatchers.iter_mut().chain(&mut self.consumers).flatten();
        nodes.chain(self.backing.processes()).try_for_each(ChildProcess::must_run)
    }

    /// The nodes that were started and neither stopped nor killed: dispatchers first.
    pub fn running(&self) -> Vec<Node> {
        let started = |processes: &[Option<ChildProcess>], node: fn(usize) -> Node| {
            let numbers = (0..processes.len()).filter(|number| processes[*number].is_some());
            numbers.map(node).collect::<Vec<_>>()
        };
        [started(&self.dispatchers, Node::Dispatcher), started(&self.consumers, Node::Consumer)].concat()
    }

    /// The names and process ids of all nodes that run, and of Redis.
    pub fn processes(&mut self) -> Vec<(String, u32)> {
        let named = |process: &ChildProcess| (process.name().to_owned(), process.pid());
        let nodes: Vec<_> = self.dispatchers.iter().chain(&self.consumers).flatten().map(named).collect();
        nodes.into_iter().chain(self.backing.processes().map(|process| named(process))).collect()
    }

    fn slot(&mut self, node: Node) -> &mut Option<ChildProcess> {
        match node {
            Node::Dispatcher(number) => &mut self.dispatchers[number],
            Node::Consumer(number) => &mut self.consumers[number],
        }
    }
}

/// Addresses and command lines.
impl Cluster {
    /// The private server. Panics if there is none.
    pub fn redis(&mut self) -> &mut RedisServer {
        match &mut self.backing {
            Backing::Single(server) => server,
            _ => panic!("the group is not on a private server"),
        }
    }

    /// The private Redis Cluster; an error if there is one server.
    pub fn redis_cluster(&mut self) -> Result<&mut RedisCluster> {
        self.backing.cluster()
    }

    /// Whether the group is on a Redis Cluster.
    pub fn is_on_redis_cluster(&self) -> bool {
        self.options.redis_cluster.is_some()
    }

    /// The URL that the programs use.
    pub fn redis_url(&self) -> String {
        self.backing.url()
    }

    /// What holds the group's keys, as our programs reach it.
    pub fn server(&self) -> Server {
        self.backing.server()
    }

    /// A new connection to it.
    pub fn connection(&self) -> Connection {
        Connection::new(self.server(), REPLY_LIMIT)
    }

    /// The server's version and where it is, in words.
    pub fn server_description(&self) -> Result<String> {
        self.backing.description()
    }

    /// The server's version.
    pub fn server_version(&self) -> Result<String> {
        self.backing.version()
    }

    /// Stops the server or the Redis Cluster.
    pub fn stop_server(&mut self) -> Result<()> {
        self.backing.stop()
    }

    /// The group's keys.
    pub fn keys(&self) -> Keys {
        Keys::new(&self.options.group)
    }

    /// The stream that dispatchers with `--deliver stream` add to, unless they are told another.
    pub fn stream(&self) -> String {
        format!("{}:messages", self.options.group)
    }

    /// The number of consumers, whether they run or not.
    pub fn consumers(&self) -> usize {
        self.consumers.len()
    }

    /// The address of a consumer.
    pub fn address(&self, consumer: usize) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.ports[consumer]).into()
    }

    /// The address of a dispatcher's metrics and status page; `None` without [`ClusterOptions::readiness`].
    pub fn metrics_address(&self, dispatcher: usize) -> Option<SocketAddr> {
        self.metrics_ports.get(dispatcher).map(|port| (Ipv4Addr::LOCALHOST, *port).into())
    }

    /// A command that runs one of our programs on this group.
    pub fn command(&self, program: &str) -> Result<Command> {
        let mut command = self.options.programs.command(program)?;
        command.args(self.group_args());
        Ok(command)
    }

    fn group_args(&self) -> Vec<String> {
        [self.backing.arguments(), vec!["--group".to_owned(), self.options.group.clone()]].concat()
    }

    fn set_log_level(&self, command: &mut Command) {
        if let Some(level) = self.options.log_level {
            command.env("ONCECAST_LOG_LEVEL", level.as_str().to_ascii_lowercase());
        }
    }

    fn dispatcher_command(&self, number: usize, metrics: Option<SocketAddr>) -> Result<Command> {
        let consumers: Vec<String> = self.ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let mut command = self.command("oncecast-dispatcher")?;
        if !consumers.is_empty() {
            command.args(["--consumers", &consumers.join(",")]);
        }
        command.args(["--dispatcher-id", &Node::Dispatcher(number).to_string()]);
        if let Some(address) = metrics {
            command.args(["--metrics-addr", &address.to_string()]);
        }
        command.args(&self.options.dispatcher_args);
        self.set_log_level(&mut command);
        Ok(command)
    }

    fn launch_dispatcher(&self, number: usize) -> Result<ChildProcess> {
        let command = self.dispatcher_command(number, self.metrics_address(number))?;
        ChildProcess::spawn(&Node::Dispatcher(number).to_string(), command)
    }

    fn launch_consumer(&self, number: usize, address: SocketAddr) -> Result<ChildProcess> {
        let name = Node::Consumer(number).to_string();
        let ClusterOptions { programs, consumer_args, handler_args, .. } = &self.options;
        let mut command = match &self.options.consumer_program {
            ConsumerProgram::Ours { name: program, arguments } => {
                let mut command = programs.command(program)?;
                command.args(arguments).args(self.group_args());
                command.args(["--listen", &address.to_string(), "--consumer-id", &name]);
                command.args(consumer_args).args(handler_args);
                command
            }
            ConsumerProgram::Commands(commands) => {
                let mut command = programs.any_command(&commands[number % commands.len()])?;
                command.env("ONCECAST_REDIS_URL", self.backing.url()).env("ONCECAST_GROUP", &self.options.group);
                command.env("ONCECAST_LISTEN", address.to_string()).env("ONCECAST_CONSUMER_ID", &name);
                command
            }
        };
        self.set_log_level(&mut command);
        launch::listening(&name, command, address)
    }
}

/// The group's state.
impl Cluster {
    /// A reader of the group's state, with a connection of its own.
    pub fn view(&self) -> GroupView {
        GroupView::new(self.connection(), self.keys())
    }

    /// The node that leads, if it is one of the running dispatchers.
    pub fn leader(&mut self, snapshot: &Snapshot) -> Option<Node> {
        let name = snapshot.lease.as_ref()?.name().to_owned();
        let running = |number: &usize| self.dispatchers[*number].is_some();
        (0..self.dispatchers.len()).filter(running).map(Node::Dispatcher).find(|node| node.to_string() == name)
    }

    /// Whether every node runs, and every dispatcher leads or could take over at once.
    ///
    /// Needs [`ClusterOptions::readiness`]; without it all dispatchers count as ready.
    pub fn is_ready(&self) -> bool {
        let all_run = self.dispatchers.iter().chain(&self.consumers).all(Option::is_some);
        all_run && self.metrics_ports.iter().all(|port| readiness::is_ready(*port))
    }

    /// Waits until there is a leader.
    pub fn wait_for_leader(&mut self, within: Duration) -> Result<(Node, Lease)> {
        self.wait_for(within, "a dispatcher to lead", |cluster, snapshot| {
            cluster.leader(snapshot).zip(snapshot.lease.clone())
        })
    }

    /// Waits until the leader is connected to all consumers that run.
    ///
    /// Just after a change of leader the list in Redis may still be the former leader's.
    pub fn wait_for_consumers(&mut self, within: Duration) -> Result<()> {
        self.wait_for(within, "the leader to be connected to all consumers", |cluster, snapshot| {
            let mut running = (0..cluster.consumers.len()).filter(|number| cluster.consumers[*number].is_some());
            let listed = |number| snapshot.consumers.contains(&Node::Consumer(number).to_string());
            running.all(listed).then_some(())
        })
    }

    /// Waits until nothing is pending and at least `processed` results are recorded.
    pub fn wait_for_results(&mut self, processed: u64, within: Duration) -> Result<Snapshot> {
        let what = format!("{processed} results and nothing pending");
        self.wait_for(within, &what, |_, snapshot| {
            (snapshot.pending == 0 && snapshot.processed >= processed).then(|| snapshot.clone())
        })
    }

    /// Waits until `condition` returns a value for the group's state. Fails at once if a process that should run has
    /// ended.
    pub fn wait_for<T>(
        &mut self,
        within: Duration,
        what: &str,
        mut condition: impl FnMut(&mut Cluster, &Snapshot) -> Option<T>,
    ) -> Result<T> {
        let mut view = self.view();
        let mut last = None;
        let outcome = wait_until(within, what, || {
            self.must_run()?;
            // Redis may be unavailable for a while; the deadline limits how long.
            let Ok(snapshot) = view.snapshot() else { return Ok(None) };
            let value = condition(self, &snapshot);
            last = Some(snapshot);
            Ok(value)
        });
        outcome.map_err(|error| match last {
            Some(last) => Error::Failed(format!("{error}; last seen: {last:?}")),
            None => error,
        })
    }
}
