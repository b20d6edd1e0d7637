//! Two dispatchers, one of which leads; consumers for them in the test's process; and the operators' tools.

use std::ops::{Index, IndexMut};
use std::process::{Command, Stdio};

use oncecast::lab::{ChildProcess, Cluster};
use oncecast::{Consumer, Delivery, HandlerError, Outcome};

use crate::support::{
    RunningConsumer, dispatcher, id_in_payload, programs, run as run_command, wait_until, wait_until_in_sync,
};

const NAMES: [&str; 2] = ["d0", "d1"];

/// The two dispatchers; killed on drop.
pub struct Pair {
    processes: [ChildProcess; 2],
    addresses: Vec<String>,
    args: String,
}

impl Pair {
    /// Starts both, with the consumers' addresses and more arguments.
    pub fn start(cluster: &Cluster, addresses: &[String], args: &str) -> Pair {
        let processes = NAMES.map(|name| dispatcher(cluster, name, addresses, args));
        Pair { processes, addresses: addresses.to_vec(), args: args.to_owned() }
    }

    /// The index of the one that leads.
    pub fn leader(&self, connection: &mut redis::Connection) -> usize {
        wait_until("a leader", || {
            let lease: Option<String> = run_command(connection, &["GET", "messages:leader"]);
            let lease = lease?;
            self.processes.iter().position(|process| lease.starts_with(&format!("{}-", process.name())))
        })
    }

    /// Starts one anew.
    pub fn restart(&mut self, cluster: &Cluster, number: usize) {
        self.processes[number] = dispatcher(cluster, NAMES[number], &self.addresses, &self.args);
    }

    /// Kills the leader once both are in sync, and starts it anew.
    pub fn kill_leader(&mut self, cluster: &Cluster, connection: &mut redis::Connection) {
        wait_until_in_sync(connection, 2);
        let leader = self.leader(connection);
        self.processes[leader].kill().expect("it is ours");
        self.restart(cluster, leader);
    }

    /// Both, in any order.
    pub fn iter(&self) -> impl Iterator<Item = &ChildProcess> {
        self.processes.iter()
    }
}

impl Index<usize> for Pair {
    type Output = ChildProcess;

    fn index(&self, number: usize) -> &ChildProcess {
        &self.processes[number]
    }
}

impl IndexMut<usize> for Pair {
    fn index_mut(&mut self, number: usize) -> &mut ChildProcess {
        &mut self.processes[number]
    }
}

/// Two consumers, and their addresses. `judge` decides on a message by its id.
pub fn two_consumers(
    url: &str,
    judge: impl Fn(&str) -> Result<(), HandlerError> + Clone + Send + Sync + 'static,
) -> ([RunningConsumer; 2], [String; 2]) {
    let consumers = ["c0", "c1"].map(|name| {
        let judge = judge.clone();
        let handler = move |delivery: &Delivery<'_>| {
            let id = id_in_payload(std::str::from_utf8(delivery.payload())?).ok_or("no id")?;
            judge(&id)?;
            Ok(Outcome::new().field("message_id", id))
        };
        let builder = Consumer::builder().redis_url(url).listen("127.0.0.1:0").consumer_id(name);
        RunningConsumer::start(builder.concurrency(2).prefetch(64).handler(handler))
    });
    let addresses = consumers.each_ref().map(|consumer| consumer.address.to_string());
    (consumers, addresses)
}

/// A command of `oncecast` that prints JSON.
pub fn tool(url: &str, arguments: &[&str]) -> Command {
    let mut command = programs().command("oncecast").expect("the program is built");
    command.args(arguments).args(["--json", "--redis-url", url]).stderr(Stdio::null());
    command
}
