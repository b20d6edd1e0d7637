//! A private Redis, dispatchers `d0`, `d1`, … and consumers `c0`, `c1`, … on free ports of 127.0.0.1.
//!
//! Each member can be started, stopped, killed, paused and started again on its own. Consumers start first, since a
//! dispatcher is told their addresses. Dropping a [`Cluster`] kills whatever still runs; [`Cluster::stop`] ends it in
//! order.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use super::child::{ChildProcess, Signal};
use super::members::{ClusterOptions, Member};
use super::redis::RedisServer;
use super::{GroupView, Lease, Snapshot, ports, readiness, wait_until};
use crate::base::error::{Error, Result};
use crate::ledger::Keys;

/// How long a consumer may take until it listens.
const LISTEN_LIMIT: Duration = Duration::from_secs(10);
/// How long one attempt to connect may take.
const CONNECT_LIMIT: Duration = Duration::from_millis(500);
/// How long a member may take to end after SIGTERM: a consumer finishes what it holds.
pub const STOP_LIMIT: Duration = Duration::from_secs(15);
/// How many ports are tried for a consumer, or for where a dispatcher says whether it is ready.
const PORT_TRIES: usize = 8;

/// See the module's text.
pub struct Cluster {
    // In the order in which they are dropped: the server last.
    dispatchers: Vec<Option<ChildProcess>>,
    consumers: Vec<Option<ChildProcess>>,
    ports: Vec<u16>,
    /// Where dispatchers say whether they are ready, if they are to.
    readiness: Vec<u16>,
    redis: RedisServer,
    options: ClusterOptions,
}

impl Cluster {
    /// Starts everything; the consumers listen then, but nobody may lead yet.
    pub fn start(options: ClusterOptions) -> Result<Cluster> {
        let redis = RedisServer::start(options.redis.clone())?;
        let mut cluster = Cluster {
            dispatchers: Vec::new(),
            consumers: Vec::new(),
            ports: Vec::new(),
            readiness: Vec::new(),
            redis,
            options,
        };
        for number in 0..cluster.options.consumers {
            cluster.consumers.push(None);
            cluster.ports.push(0);
            cluster.find_a_port(number)?;
        }
        for number in 0..cluster.options.dispatchers {
            cluster.dispatchers.push(None);
            if cluster.options.readiness {
                cluster.readiness.push(0);
                cluster.find_a_readiness_port(number)?;
            } else {
                cluster.start_member(Member::Dispatcher(number))?;
            }
        }
        Ok(cluster)
    }

    /// The private server.
    pub fn redis(&mut self) -> &mut RedisServer {
        &mut self.redis
    }

    /// The private server's URL.
    pub fn redis_url(&self) -> String {
        self.redis.url()
    }

    /// The group's keys.
    pub fn keys(&self) -> Keys {
        Keys::new(&self.options.group)
    }

    /// A way to look at the group, on a connection of its own.
    pub fn view(&self) -> GroupView {
        GroupView::new(self.redis.connection(), self.keys())
    }

    /// The address of a consumer.
    pub fn address(&self, consumer: usize) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.ports[consumer]).into()
    }

    /// Where a dispatcher serves its metrics and its status page.
    ///
    /// Only of a cluster with [`ClusterOptions::readiness`].
    pub fn metrics_address(&self, dispatcher: usize) -> Option<SocketAddr> {
        self.readiness.get(dispatcher).map(|port| (Ipv4Addr::LOCALHOST, *port).into())
    }

    /// A command that runs one of our programs on this group.
    pub fn command(&self, program: &str) -> Result<std::process::Command> {
        self.command_with(program, &[])
    }

    /// The same, with arguments that must come first.
    fn command_with(&self, program: &str, first: &[String]) -> Result<std::process::Command> {
        let mut command = self.options.programs.command(program)?;
        command.args(first);
        command.args(["--redis-url", &self.redis.url(), "--group", &self.options.group]);
        Ok(command)
    }

    /// Starts a member that does not run; a consumer listens on its former port when this returns.
    pub fn start_member(&mut self, member: Member) -> Result<()> {
        match member {
            Member::Dispatcher(number) => {
                let addresses: Vec<String> = self.ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
                let mut command = self.command("oncecast-dispatcher")?;
                command.args(["--consumers", &addresses.join(","), "--dispatcher-id", &member.to_string()]);
                if let Some(port) = self.readiness.get(number) {
                    command.args(["--metrics-addr", &format!("127.0.0.1:{port}")]);
                }
                command.args(&self.options.dispatcher_args);
                self.dispatchers[number] = Some(ChildProcess::spawn(&member.to_string(), command)?);
                Ok(())
            }
            Member::Consumer(number) => self.start_consumer(number),
        }
    }

    /// The process of a member; an error if it has not been started or was stopped.
    pub fn process(&mut self, member: Member) -> Result<&mut ChildProcess> {
        self.slot(member).as_mut().ok_or_else(|| Error::Failed(format!("{member} does not run")))
    }

    /// Gives the process of a member away, which then does not run any more as far as the cluster knows.
    pub fn release(&mut self, member: Member) -> Result<ChildProcess> {
        self.slot(member).take().ok_or_else(|| Error::Failed(format!("{member} does not run")))
    }

    /// Kills a member with SIGKILL.
    pub fn kill_member(&mut self, member: Member) -> Result<()> {
        self.process(member)?.kill()?;
        *self.slot(member) = None;
        Ok(())
    }

    /// Stops a member with SIGTERM; an error if it had to be killed or did not end with exit code 0.
    pub fn stop_member(&mut self, member: Member, within: Duration) -> Result<()> {
        let process = self.process(member)?;
        let ended = process.stop(within);
        let outcome = match ended {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(process.failure(format_args!("was stopped and ended with {status}"))),
            Err(error) => Err(error),
        };
        *self.slot(member) = None;
        outcome
    }

    /// Sends a signal to a member: SIGSTOP and SIGCONT pause it and let it go on.
    pub fn signal(&mut self, member: Member, signal: Signal) -> Result<()> {
        self.process(member)?.signal(signal)
    }

    /// An error if a process that should run has ended, with the end of its log.
    pub fn must_run(&mut self) -> Result<()> {
        let members = self.dispatchers.iter_mut().chain(&mut self.consumers).flatten();
        members.chain(self.redis.process()).try_for_each(ChildProcess::must_run)
    }

    /// The leader's number, if one of the cluster's running dispatchers leads.
    pub fn leader(&mut self, snapshot: &Snapshot) -> Option<Member> {
        let name = snapshot.lease.as_ref()?.name().to_owned();
        let running = |number: &usize| self.dispatchers[*number].is_some();
        (0..self.dispatchers.len()).filter(running).map(Member::Dispatcher).find(|member| member.to_string() == name)
    }

    /// Waits until somebody leads.
    pub fn wait_for_leader(&mut self, within: Duration) -> Result<(Member, Lease)> {
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
            let listed = |number| snapshot.consumers.contains(&Member::Consumer(number).to_string());
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

    /// Waits until `condition` gives a value for the group's state; ends early if a process that should run has ended.
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
            // Redis may be away for a while: that is for the deadline to judge.
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

    /// How many consumers it has, whether they run or not.
    pub fn consumers(&self) -> usize {
        self.consumers.len()
    }

    /// Whether every member runs, and every dispatcher leads or could take over at once.
    ///
    /// Only of a cluster with [`ClusterOptions::readiness`].
    pub fn is_ready(&self) -> bool {
        let all_run = self.dispatchers.iter().chain(&self.consumers).all(Option::is_some);
        all_run && self.readiness.iter().all(|port| readiness::is_ready(*port))
    }

    /// The names and process ids of all that runs.
    pub fn processes(&mut self) -> Vec<(String, u32)> {
        let members = self.dispatchers.iter().chain(&self.consumers).flatten();
        let named = |process: &ChildProcess| (process.name().to_owned(), process.pid());
        let members: Vec<_> = members.map(named).collect();
        members.into_iter().chain(self.redis.process().map(|process| named(process))).collect()
    }

    /// The members that were started and neither stopped nor killed: dispatchers first.
    pub fn running(&self) -> Vec<Member> {
        let started = |processes: &[Option<ChildProcess>], member: fn(usize) -> Member| {
            let numbers = (0..processes.len()).filter(|number| processes[*number].is_some());
            numbers.map(member).collect::<Vec<_>>()
        };
        [started(&self.dispatchers, Member::Dispatcher), started(&self.consumers, Member::Consumer)].concat()
    }

    /// Stops dispatchers, consumers and Redis in order with SIGTERM; the first that does not end well is the error.
    ///
    /// All are gone afterwards, also on error.
    pub fn stop(mut self, within: Duration) -> Result<()> {
        let stopped = self.running().into_iter().map(|member| self.stop_member(member, within));
        // Collected first: an error must not leave the others without their SIGTERM.
        let stopped: Vec<Result<()>> = stopped.collect();
        stopped.into_iter().collect::<Result<()>>().and(self.redis.stop())
    }

    fn slot(&mut self, member: Member) -> &mut Option<ChildProcess> {
        match member {
            Member::Dispatcher(number) => &mut self.dispatchers[number],
            Member::Consumer(number) => &mut self.consumers[number],
        }
    }

    /// Starts a consumer for the first time, on the first free port that nobody else takes meanwhile.
    fn find_a_port(&mut self, number: usize) -> Result<()> {
        let mut tries = 1..=PORT_TRIES;
        loop {
            let last = tries.next().is_none_or(|this| this == PORT_TRIES);
            self.ports[number] = ports::free_port()?;
            match self.launch_consumer(number) {
                Err(error) if !last && is_port_taken(&error) => {}
                outcome => return outcome,
            }
        }
    }

    /// Starts a dispatcher for the first time, with a port to say on whether it is ready that nobody else takes before it.
    fn find_a_readiness_port(&mut self, number: usize) -> Result<()> {
        let mut tries = 1..=PORT_TRIES;
        loop {
            let last = tries.next().is_none_or(|this| this == PORT_TRIES);
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, ports::free_port()?));
            self.readiness[number] = address.port();
            self.start_member(Member::Dispatcher(number))?;
            let process = self.process(Member::Dispatcher(number))?;
            let listens = wait_until(LISTEN_LIMIT, format!("d{number} to listen on {address}"), || {
                process.must_run()?;
                Ok(TcpStream::connect_timeout(&address, CONNECT_LIMIT).ok().map(drop))
            });
            // Another program may have answered in its stead.
            match listens.and_then(|()| process.must_run()) {
                Err(error) if !last && is_port_taken(&error) => {}
                outcome => return outcome,
            }
        }
    }

    /// Starts a consumer again, where dispatchers look for it.
    fn start_consumer(&mut self, number: usize) -> Result<()> {
        let what = format!("port {} of c{number} to be free again", self.ports[number]);
        wait_until(LISTEN_LIMIT, what, || match self.launch_consumer(number) {
            Err(error) if is_port_taken(&error) => Ok(None),
            outcome => outcome.map(Some),
        })
    }

    fn launch_consumer(&mut self, number: usize) -> Result<()> {
        let name = Member::Consumer(number).to_string();
        let address = self.address(number);
        let program = &self.options.consumer_program;
        let mut command = self.command_with(&program.name, &program.arguments)?;
        command.args(["--listen", &address.to_string(), "--consumer-id", &name]);
        command.args(&self.options.consumer_args);
        let mut process = ChildProcess::spawn(&name, command)?;
        wait_until(LISTEN_LIMIT, format!("{name} to listen on {address}"), || {
            process.must_run()?;
            Ok(TcpStream::connect_timeout(&address, CONNECT_LIMIT).ok())
        })?;
        // Another program may have been faster on this port and have answered in its stead.
        process.must_run()?;
        self.consumers[number] = Some(process);
        Ok(())
    }
}

fn is_port_taken(error: &Error) -> bool {
    error.to_string().contains("Address already in use") || error.to_string().contains("os error 98")
}
