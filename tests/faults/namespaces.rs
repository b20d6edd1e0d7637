//! A small network of Linux namespaces: a hub with a bridge, and hosts behind links that can be broken.
//!
//! It is invisible on the machine's own network. The thread that makes a [`Network`] enters the hub, and so do all
//! threads and processes that it starts from then on. The hub has a 127.0.0.1 of its own; hosts reach it at [`HUB`].
//! The same thread must drop the network, which returns it to its own namespace and removes the others.

use std::fs::File;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sched::{CloneFlags, setns};

use crate::support::programs;

/// The hub's address, from a range reserved for tests.
pub const HUB: &str = "198.18.0.1";
/// The bits per second of a degraded link.
const SLOW_RATE: &str = "4mbit";
/// The share of packets that such a link loses.
const LOSS: f64 = 0.02;

/// See the module's text.
pub struct Network {
    hub: String,
    hosts: Vec<Host>,
    /// The thread's own namespace.
    home: File,
}

/// A place behind a link.
pub struct Host {
    namespace: String,
    hub: String,
    number: usize,
}

impl Network {
    /// Makes a network with so many hosts and enters its hub. `None`, with the reason on the terminal, if that is not
    /// allowed or a program for it is missing.
    pub fn enter(hosts: usize) -> Option<Network> {
        match Network::build(hosts) {
            Ok(network) => Some(network),
            Err(reason) => {
                // Written past the harness's capture: a skipped test must be visible.
                use std::io::Write;
                let _ = writeln!(std::io::stderr(), "SKIPPED, no network namespaces here: {reason}");
                None
            }
        }
    }

    fn build(hosts: usize) -> Result<Network, String> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let name = format!("oc{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let home = File::open("/proc/thread-self/ns/net").map_err(|error| error.to_string())?;
        // From here on an early return drops the network.
        let mut network = Network { hub: format!("{name}-hub"), hosts: Vec::new(), home };
        let hub = network.hub.clone();
        call("ip", &["netns", "add", &hub])?;
        call("ip", &["-n", &hub, "link", "set", "lo", "up"])?;
        call("ip", &["-n", &hub, "link", "add", "bridge", "type", "bridge"])?;
        call("ip", &["-n", &hub, "address", "add", &format!("{HUB}/24"), "dev", "bridge"])?;
        call("ip", &["-n", &hub, "link", "set", "bridge", "up"])?;
        for number in 0..hosts {
            let host = Host { namespace: format!("{name}-{number}"), hub: hub.clone(), number };
            let namespace = host.namespace.clone();
            network.hosts.push(host);
            let (port, address) = (format!("port{number}"), format!("{}/24", network.hosts[number].address()));
            call("ip", &["netns", "add", &namespace])?;
            call("ip", &["-n", &namespace, "link", "set", "lo", "up"])?;
            let pair = ["-n", &hub, "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &namespace];
            call("ip", &pair)?;
            call("ip", &["-n", &hub, "link", "set", &port, "master", "bridge", "up"])?;
            call("ip", &["-n", &namespace, "address", "add", &address, "dev", "eth0"])?;
            call("ip", &["-n", &namespace, "link", "set", "eth0", "up"])?;
            network.hosts[number].try_iptables("-A INPUT -p tcp --dport 1 -j DROP")?;
        }
        let hub = File::open(format!("/run/netns/{hub}")).map_err(|error| error.to_string())?;
        setns(&hub, CloneFlags::CLONE_NEWNET).map_err(|error| format!("setns: {error}"))?;
        Ok(network)
    }

    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Err(error) = setns(&self.home, CloneFlags::CLONE_NEWNET) {
            eprintln!("this thread stays in {}: {error}", self.hub);
        }
        let names = self.hosts.iter().map(|host| &host.namespace).chain([&self.hub]);
        for name in names {
            // Some may not exist.
            let _ = call("ip", &["netns", "delete", name]);
        }
    }
}

impl Host {
    pub fn address(&self) -> String {
        format!("198.18.0.{}", 10 + self.number)
    }

    /// A command that runs one of the programs under test there.
    pub fn command(&self, program: &str) -> Command {
        let program = programs().command(program).expect("the program is built");
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace]).arg(program.get_program());
        for (variable, _) in program.get_envs().filter(|(_, value)| value.is_none()) {
            command.env_remove(variable);
        }
        command
    }

    /// Drops packets there. Each rule is a chain and a match, as for iptables.
    pub fn drop_packets(&self, rules: &[String]) {
        rules.iter().for_each(|rule| self.iptables(&format!("-A {rule} -j DROP")));
    }

    /// Lets all packets pass again.
    pub fn heal(&self) {
        self.iptables("-F");
    }

    /// Takes the link down, at the hub's end.
    pub fn pull_the_plug(&self) {
        self.set_link("down");
    }

    /// Takes the link up again.
    pub fn plug_in(&self) {
        self.set_link("up");
    }

    /// Makes the link slow and lossy, both ways; says how.
    pub fn worsen(&self) -> &'static str {
        let ends = [(&self.hub, format!("port{}", self.number)), (&self.namespace, "eth0".to_owned())];
        let netem = |(namespace, device): &(&String, String)| {
            let loss = format!("{}%", LOSS * 100.0);
            let how = ["netem", "delay", "20ms", "5ms", "loss", &loss, "rate", SLOW_RATE];
            call("tc", &[&["-n", namespace, "qdisc", "add", "dev", device, "root"], &how[..]].concat())
        };
        if ends.iter().all(|end| netem(end).is_ok()) {
            return "tc netem";
        }
        // Some kernels lack netem: then a token bucket limits the rate, and the firewall drops packets.
        for (namespace, device) in &ends {
            let how = ["tbf", "rate", SLOW_RATE, "burst", "16kb", "latency", "100ms"];
            call("tc", &[&["-n", namespace, "qdisc", "replace", "dev", device, "root"], &how[..]].concat())
                .unwrap_or_else(|error| panic!("{error}"));
        }
        for chain in ["INPUT", "OUTPUT"] {
            self.iptables(&format!("-A {chain} -m statistic --mode random --probability {LOSS} -j DROP"));
        }
        "tc tbf and iptables"
    }

    fn set_link(&self, state: &str) {
        let port = format!("port{}", self.number);
        call("ip", &["-n", &self.hub, "link", "set", &port, state]).unwrap_or_else(|error| panic!("{error}"));
    }

    fn iptables(&self, words: &str) {
        self.try_iptables(words).unwrap_or_else(|error| panic!("{error}"));
    }

    fn try_iptables(&self, words: &str) -> Result<(), String> {
        let words = words.split(' ');
        call("ip", &["netns", "exec", &self.namespace, "iptables", "-w"].into_iter().chain(words).collect::<Vec<_>>())
    }
}

fn call(program: &str, words: &[&str]) -> Result<(), String> {
    let shown = || format!("{program} {}", words.join(" "));
    match Command::new(program).args(words).output() {
        Ok(Output { status, .. }) if status.success() => Ok(()),
        Ok(Output { stderr, .. }) => Err(format!("{}: {}", shown(), String::from_utf8_lossy(&stderr).trim())),
        Err(error) => Err(format!("{}: {error}", shown())),
    }
}
