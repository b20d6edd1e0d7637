//! Dispatchers that are started one by one and serve metrics.

use std::net::SocketAddr;
use std::process::Command;

use oncecast::lab::{ChildProcess, Cluster, ports};

use crate::support::http::get;
use crate::support::{logs, programs, wait_until};

/// A dispatcher that serves metrics; killed on drop.
pub struct Watched {
    pub process: ChildProcess,
    metrics: SocketAddr,
}

impl Watched {
    /// Starts one with the cluster's consumers and more arguments.
    pub fn start(cluster: &mut Cluster, name: &str, args: &str) -> Watched {
        let addresses: Vec<String> =
            (0..cluster.consumers()).map(|number| cluster.address(number).to_string()).collect();
        let command = programs().command("oncecast-dispatcher").expect("the program is built");
        Watched::spawn_with(command, name, &cluster.redis().arguments(), &addresses, "127.0.0.1", args)
    }

    /// Starts one by a command that runs the program. `host` is where it serves metrics.
    pub fn spawn(command: Command, name: &str, url: &str, addresses: &[String], host: &str, args: &str) -> Watched {
        Watched::spawn_with(command, name, &["--redis-url", url].map(str::to_owned), addresses, host, args)
    }

    /// The same, with the arguments that name Redis.
    pub fn spawn_with(
        mut command: Command,
        name: &str,
        redis: &[String],
        addresses: &[String],
        host: &str,
        args: &str,
    ) -> Watched {
        let port = ports::free_port().expect("a free port");
        let metrics: SocketAddr = format!("{host}:{port}").parse().expect("an address");
        command.args(redis).args(["--dispatcher-id", name]);
        if !addresses.is_empty() {
            command.args(["--consumers", &addresses.join(",")]);
        }
        command.args(["--metrics-addr", &metrics.to_string()]).args(args.split_whitespace());
        Watched { process: ChildProcess::spawn(name, command).expect("the dispatcher starts"), metrics }
    }

    pub fn name(&self) -> &str {
        self.process.name()
    }

    /// A counter or gauge, by its name in `/metrics`; `None` if it does not answer.
    pub fn figure(&self, name: &str) -> Option<u64> {
        let text = self.metrics()?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Some(line.unwrap_or_else(|| panic!("no figure {name} in {text}")).trim().parse().expect("a number"))
    }

    fn metrics(&self) -> Option<String> {
        get(self.metrics, "/metrics").map(|(_, text)| text)
    }

    /// The messages in flight at all consumers together.
    pub fn in_flight(&self) -> Option<u64> {
        let text = self.metrics()?;
        let by_consumer = text.lines().filter_map(|line| line.strip_prefix("oncecast_in_flight{")?.split_once("} "));
        Some(by_consumer.map(|(_, number)| number.trim().parse::<u64>().expect("a number")).sum())
    }

    /// Whether it is ready; if not, the reason.
    pub fn ready(&self) -> Result<(), String> {
        match get(self.metrics, "/readyz") {
            Some((200, _)) => Ok(()),
            Some((code, answer)) => Err(format!("{code} {answer}")),
            None => Err("no answer".to_owned()),
        }
    }

    /// Waits until it is ready.
    pub fn wait_until_ready(&self) {
        wait_until(format!("{} to be ready", self.name()), || self.ready().ok());
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if std::thread::panicking() {
            logs::show(&self.process);
        }
    }
}
