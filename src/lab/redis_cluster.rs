//! A private Redis Cluster: primaries, each with a replica, on free ports of 127.0.0.1.
//!
//! It needs no `redis-cli` and works with every version: `formation` writes each node's file of the cluster, as a node
//! keeps it, so that all know each other when they start. Each node is a [`RedisServer`] with its own folder, and can
//! be killed, paused and started again by itself. `moves` moves slots, makes a replica the primary, and adds and
//! removes nodes. Node 0 to 2 are primaries at first, 3 to 5 their replicas; a failover changes that.

use std::time::Duration;

use super::child::{ChildProcess, Signal};
use super::redis::{PORT_TRIES, RedisOptions, RedisServer, field, lines_of, too_many_ports_taken};
use super::wait::wait_until;
use crate::base::error::{Error, Result};
use crate::ledger::{Command, Connection, SLOTS, Server, Topology};
use crate::net::Address;

mod formation;
mod moves;

/// How long the nodes may take to agree.
const AGREE_LIMIT: Duration = Duration::from_secs(30);
/// How long a node may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// What a Redis Cluster consists of.
#[derive(Clone, Debug)]
pub struct RedisClusterOptions {
    /// The number of primaries.
    pub primaries: usize,
    /// Whether each has a replica.
    pub replicas: bool,
    /// After how long without an answer a node counts as lost.
    pub node_timeout_ms: u64,
    /// The settings of each node.
    pub node: RedisOptions,
}

impl Default for RedisClusterOptions {
    fn default() -> RedisClusterOptions {
        RedisClusterOptions { primaries: 3, replicas: true, node_timeout_ms: 1_500, node: RedisOptions::default() }
    }
}

impl RedisClusterOptions {
    /// The settings of a node as a server.
    fn of_a_node(&self) -> RedisOptions {
        let own = [
            ("cluster-node-timeout", self.node_timeout_ms.to_string()),
            // A replica that has lost its primary for long may still replace it.
            ("cluster-replica-validity-factor", "0".to_owned()),
            // Replicas stay with their primary.
            ("cluster-migration-barrier", "999".to_owned()),
            ("repl-diskless-sync", "yes".to_owned()),
            ("repl-diskless-sync-delay", "0".to_owned()),
        ];
        let tls = ["tls-cluster", "tls-replication"].into_iter().filter(|_| self.node.tls.is_some());
        let own = own.into_iter().chain(tls.map(|name| (name, "yes".to_owned())));
        let own = own.map(|(name, value)| (name.to_owned(), value));
        RedisOptions { cluster: true, config: own.chain(self.node.config.clone()).collect(), ..self.node.clone() }
    }
}

/// See the module's text.
pub struct RedisCluster {
    nodes: Vec<RedisServer>,
    options: RedisClusterOptions,
    /// The nodes that are down, paused or removed, which nobody waits for.
    away: Vec<bool>,
}

impl RedisCluster {
    /// Starts the nodes, and waits until they agree and all replicas are in sync.
    ///
    /// That takes 2 s: for so long a primary that has just started calls the cluster down, whatever it knows.
    pub fn start(options: RedisClusterOptions) -> Result<RedisCluster> {
        let primaries = options.primaries;
        let count = if options.replicas { 2 * primaries } else { primaries };
        for _ in 0..PORT_TRIES {
            let nodes = (0..count).map(|_| RedisServer::prepare(options.of_a_node())).collect::<Result<Vec<_>>>()?;
            let mut cluster = RedisCluster { nodes, options: options.clone(), away: vec![false; count] };
            formation::write_files(&cluster.nodes, primaries)?;
            if RedisServer::launch_all(&mut cluster.nodes)? {
                cluster.wait_until_agreed()?;
                return Ok(cluster);
            }
        }
        Err(too_many_ports_taken())
    }

    fn start_node(&mut self) -> Result<()> {
        self.nodes.push(RedisServer::start(self.options.of_a_node())?);
        self.away.push(false);
        Ok(())
    }

    /// Makes a node known to one that runs, and so to all.
    fn meet(&mut self, number: usize) -> Result<()> {
        let port = self.nodes[number].main_port().to_string();
        let other = self.running().find(|other| *other != number).expect("another node runs");
        self.tell(other, &["CLUSTER", "MEET", "127.0.0.1", &port])
    }

    /// Waits until each running node knows so many nodes.
    fn wait_until_known(&mut self, count: usize) -> Result<()> {
        wait_until(AGREE_LIMIT, format!("{count} nodes to know each other"), || {
            let known = |number: usize| {
                let info = lines_of(&mut self.nodes[number].connection(), &["CLUSTER", "INFO"])?;
                Ok(field(&info, "cluster_known_nodes") == Some(count.to_string().as_str()))
            };
            all(self.running(), known)
        })
    }

    /// Waits until all running nodes are content and see the same owners of all slots, and all running replicas are in
    /// sync.
    pub fn wait_until_agreed(&mut self) -> Result<()> {
        wait_until(AGREE_LIMIT, "the nodes of the Redis Cluster to agree", || Ok(self.agrees().then_some(())))
    }

    /// Whether all running nodes are content, see the same owners of all slots, and the replicas are in sync.
    pub fn agrees(&self) -> bool {
        let first = self.running().next().and_then(|first| self.topology_of(first).ok());
        let Some(wanted) = first.filter(|wanted| wanted.covered() == usize::from(SLOTS)) else { return false };
        self.running().all(|number| {
            let said = lines_of(&mut self.nodes[number].connection(), &["CLUSTER", "INFO"]);
            let content = said.is_ok_and(|info| field(&info, "cluster_state") == Some("ok"));
            content
                && self.nodes[number].is_in_sync()
                && self.topology_of(number).is_ok_and(|found| found.primaries == wanted.primaries)
        })
    }

    /// What one node tells of all.
    fn topology_of(&self, number: usize) -> Result<Topology> {
        let node = &self.nodes[number];
        let address = Address::Tcp { host: "127.0.0.1".to_owned(), port: node.port() };
        let mut connection = Connection::new(node.server(), ANSWER_LIMIT);
        let reply = connection.query("reading the cluster's slots", Command::of(&["CLUSTER", "SLOTS"]))?;
        Topology::of_slots(&reply, &address)
            .ok_or_else(|| Error::Failed(format!("CLUSTER SLOTS of node {number} can't be read: {reply:?}")))
    }

    /// The node that owns a slot, as a running node tells.
    pub fn owner(&self, slot: u16) -> Result<usize> {
        let mut found = None;
        for number in self.running() {
            let topology = self.topology_of(number)?;
            found = found.or(topology.owner(slot).and_then(|primary| self.number_of(&primary.address)));
        }
        found.ok_or_else(|| Error::Failed(format!("slot {slot} has no owner")))
    }

    /// The nodes that are primaries with slots, as a running node tells.
    pub fn primaries(&self) -> Result<Vec<usize>> {
        let topology = self.topology()?;
        Ok(topology.primaries.iter().filter_map(|primary| self.number_of(&primary.address)).collect())
    }

    /// The nodes' slots, as a running node tells.
    pub fn topology(&self) -> Result<Topology> {
        let node = self.running().next().ok_or_else(|| Error::Failed("no node runs".to_owned()))?;
        self.topology_of(node)
    }

    /// The node at an address.
    pub fn number_of(&self, address: &Address) -> Option<usize> {
        let has = |node: &RedisServer, port| port == node.port() || Some(port) == node.tls_port();
        let at = |node: &RedisServer| matches!(address, Address::Tcp { port, .. } if has(node, *port));
        self.nodes.iter().position(at)
    }

    /// A running replica of a node.
    pub fn replica_of(&self, primary: usize) -> Result<usize> {
        let port = self.nodes[primary].main_port().to_string();
        for number in self.running().filter(|number| *number != primary) {
            let replication = lines_of(&mut self.nodes[number].connection(), &["INFO", "replication"])?;
            if field(&replication, "master_port") == Some(&port) {
                return Ok(number);
            }
        }
        Err(Error::Failed(format!("no running node is a replica of node {primary}")))
    }

    /// The nodes that run, as far as this value has not stopped them.
    pub fn running(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.nodes.len()).filter(|number| !self.away[*number])
    }

    /// A node.
    pub fn node(&mut self, number: usize) -> &mut RedisServer {
        &mut self.nodes[number]
    }

    /// All nodes, those that were stopped included.
    pub fn nodes(&self) -> impl Iterator<Item = &RedisServer> {
        self.nodes.iter()
    }

    /// How many nodes there are, those that were stopped included.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there are none, which never is.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The processes of all nodes that run.
    pub fn processes(&mut self) -> impl Iterator<Item = &mut ChildProcess> {
        let running = self.nodes.iter_mut().zip(&self.away).filter(|(_, away)| !**away);
        running.filter_map(|(node, _)| node.process())
    }

    /// Kills a node with SIGKILL.
    pub fn kill(&mut self, number: usize) -> Result<()> {
        self.away[number] = true;
        self.nodes[number].kill()
    }

    /// Pauses a node with SIGSTOP.
    pub fn pause(&mut self, number: usize) -> Result<()> {
        self.away[number] = true;
        self.signal(number, Signal::SIGSTOP)
    }

    /// Resumes a paused node.
    pub fn resume(&mut self, number: usize) -> Result<()> {
        self.away[number] = false;
        self.signal(number, Signal::SIGCONT)
    }

    /// Starts a killed node again.
    pub fn start_again(&mut self, number: usize) -> Result<()> {
        self.nodes[number].start_again()?;
        self.away[number] = false;
        Ok(())
    }

    fn signal(&mut self, number: usize, signal: Signal) -> Result<()> {
        self.nodes[number].process().map_or(Ok(()), |process| process.signal(signal))
    }

    /// Stops all nodes in order.
    pub fn stop(&mut self) -> Result<()> {
        self.nodes.iter_mut().try_for_each(RedisServer::stop)
    }

    /// Its URL, which names all nodes.
    pub fn url(&self) -> String {
        let login = self.options.node.password.as_ref().map_or(String::new(), |password| format!(":{password}@"));
        let nodes: Vec<String> = self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.main_port())).collect();
        let scheme = if self.options.node.tls.is_some() { "rediss+cluster" } else { "redis+cluster" };
        format!("{scheme}://{login}{}", nodes.join(","))
    }

    /// A program's arguments for it: the URL, and the files for TLS, if it has TLS.
    pub fn arguments(&self) -> Vec<String> {
        [vec!["--redis-url".to_owned(), self.url()], self.nodes[0].tls_files().0].concat()
    }

    /// The cluster as our programs reach it.
    pub fn server(&self) -> Server {
        Server::with_files(&self.url(), self.nodes[0].tls_files().1).expect("the URL has no mistake")
    }

    /// The version of its nodes.
    pub fn version(&self) -> Result<String> {
        let node = self.running().next().ok_or_else(|| Error::Failed("no node runs".to_owned()))?;
        self.nodes[node].version()
    }

    /// Runs a command on one node.
    fn tell(&self, number: usize, words: &[&str]) -> Result<()> {
        self.nodes[number].connection().query("forming a Redis Cluster", Command::of(words)).map(drop)
    }

    fn id(&self, number: usize) -> Result<String> {
        lines_of(&mut self.nodes[number].connection(), &["CLUSTER", "MYID"])
    }
}

/// Whether the condition holds for all; `None`: not yet.
fn all(numbers: impl Iterator<Item = usize>, holds: impl Fn(usize) -> Result<bool>) -> Result<Option<()>> {
    for number in numbers {
        if !holds(number)? {
            return Ok(None);
        }
    }
    Ok(Some(()))
}

#[cfg(test)]
mod tests;
