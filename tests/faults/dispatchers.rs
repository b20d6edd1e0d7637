//! Dispatchers that are started one by one and can be asked for their figures.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use oncecast::lab::{ChildProcess, Cluster, ports};

use crate::support::{DEADLINE, programs, wait_until};

/// A dispatcher that serves metrics; killed on drop.
pub struct Watched {
    pub process: ChildProcess,
    metrics: SocketAddr,
}

impl Watched {
    /// Starts one that is told the cluster's consumers, with more arguments.
    pub fn start(cluster: &mut Cluster, name: &str, consumers: usize, args: &str) -> Watched {
        let addresses: Vec<String> = (0..consumers).map(|number| cluster.address(number).to_string()).collect();
        let url = cluster.redis().url();
        let command = programs().command("oncecast-dispatcher").expect("the program is built");
        Watched::spawn(command, name, &url, &addresses, "127.0.0.1", args)
    }

    /// Starts one by a command that runs the program, with everything as given; `host` is where it serves metrics.
    pub fn spawn(mut command: Command, name: &str, url: &str, addresses: &[String], host: &str, args: &str) -> Watched {
        let port = ports::free_port().expect("a free port");
        let metrics: SocketAddr = format!("{host}:{port}").parse().expect("an address");
        command.args(["--redis-url", url, "--dispatcher-id", name, "--consumers", &addresses.join(",")]);
        command.args(["--metrics-addr", &metrics.to_string()]).args(args.split_whitespace());
        Watched { process: ChildProcess::spawn(name, command).expect("the dispatcher starts"), metrics }
    }

    pub fn name(&self) -> &str {
        self.process.name()
    }

    /// A counter or gauge, by its name in `/metrics`; `None` if it does not answer.
    pub fn figure(&self, name: &str) -> Option<u64> {
        let text = self.get("/metrics")?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Some(line.unwrap_or_else(|| panic!("no figure {name} in {text}")).trim().parse().expect("a number"))
    }

    /// Messages that it has at all consumers together.
    pub fn in_flight(&self) -> Option<u64> {
        let text = self.get("/metrics")?;
        let by_consumer = text.lines().filter_map(|line| line.strip_prefix("oncecast_in_flight{")?.split_once("} "));
        Some(by_consumer.map(|(_, number)| number.trim().parse::<u64>().expect("a number")).sum())
    }

    /// Whether it could take over at once or leads; if not, why not.
    pub fn ready(&self) -> Result<(), String> {
        match self.get("/readyz") {
            Some(answer) if answer.starts_with("HTTP/1.1 200") => Ok(()),
            Some(answer) => Err(answer),
            None => Err("no answer".to_owned()),
        }
    }

    /// Waits until it is ready.
    pub fn wait_until_ready(&self) {
        wait_until(format!("{} to be ready", self.name()), || self.ready().ok());
    }

    fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect_timeout(&self.metrics, DEADLINE / 10).ok()?;
        stream.set_read_timeout(Some(DEADLINE / 10)).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}'s log:{}", self.name(), self.process.stderr().tail(40));
        }
    }
}
