//! A private Redis Cluster: primaries, each with a replica, on free ports of 127.0.0.1.
//!
//! Formed by commands of our own, so that it needs no `redis-cli` and works with every version. Each node is a
//! [`RedisServer`] with its own folder, and can be killed, paused and started again by itself. `moves` moves slots,
//! makes a replica the primary, and adds and removes nodes. Node 0 to 2 are primaries at first, 3 to 5 their replicas;
//! a failover changes that.

use std::time::Duration;

use super::child::{ChildProcess, Signal};
use super::redis::{RedisOptions, RedisServer, field, lines_of};
use super::wait::wait_until;
use crate::base::error::{Error, Result};
use crate::ledger::{Command, Connection, SLOTS, Server, Topology};
use crate::net::Address;

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

/// See the module's text.
pub struct RedisCluster {
    nodes: Vec<RedisServer>,
    options: RedisClusterOptions,
    /// The nodes that are down, paused or removed, which nobody waits for.
    away: Vec<bool>,
}

impl RedisCluster {
    /// Starts the nodes, and waits until they agree and all replicas are in sync.
    pub fn start(options: RedisClusterOptions) -> Result<RedisCluster> {
        let mut cluster = RedisCluster { nodes: Vec::new(), options, away: Vec::new() };
        let primaries = cluster.options.primaries;
        let count = if cluster.options.replicas { 2 * primaries } else { primaries };
        for _ in 0..count {
            cluster.start_node()?;
        }
        let share = usize::from(SLOTS).div_ceil(primaries);
        for number in 0..primaries {
            let slots = number * share..((number + 1) * share).min(usize::from(SLOTS));
            let words =
                ["CLUSTER", "ADDSLOTS"].map(str::to_owned).into_iter().chain(slots.map(|slot| slot.to_string()));
            let words: Vec<String> = words.collect();
            cluster.tell(number, &words.iter().map(String::as_str).collect::<Vec<_>>())?;
        }
        for number in 1..count {
            cluster.meet(number)?;
        }
        cluster.wait_until_known(count)?;
        for replica in primaries..count {
            let primary = cluster.id(replica - primaries)?;
            cluster.tell(replica, &["CLUSTER", "REPLICATE", &primary])?;
        }
        cluster.wait_until_agreed()?;
        Ok(cluster)
    }

    fn start_node(&mut self) -> Result<()> {
        let timeout = self.options.node_timeout_ms.to_string();
        let own = [
            ("cluster-node-timeout", timeout.as_str()),
            // A replica that has lost its primary for long may still replace it.
            ("cluster-replica-validity-factor", "0"),
            // Replicas stay with their primary.
            ("cluster-migration-barrier", "999"),
            ("repl-diskless-sync", "yes"),
            ("repl-diskless-sync-delay", "0"),
        ];
        let own = own.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let config = own.into_iter().chain(self.options.node.config.clone()).collect();
        self.nodes.push(RedisServer::start(RedisOptions { cluster: true, config, ..self.options.node.clone() })?);
        self.away.push(false);
        Ok(())
    }

    /// Makes a node known to one that runs, and so to all.
    fn meet(&mut self, number: usize) -> Result<()> {
        let port = self.nodes[number].port().to_string();
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
            let connection = &mut self.nodes[number].connection();
            let said = lines_of(connection, &["CLUSTER", "INFO"]);
            let content = said.is_ok_and(|info| field(&info, "cluster_state") == Some("ok"));
            let mut in_sync = || {
                let said = lines_of(connection, &["INFO", "replication"]);
                said.is_ok_and(|info| field(&info, "master_link_status").is_none_or(|status| status == "up"))
            };
            content && in_sync() && self.topology_of(number).is_ok_and(|found| found.primaries == wanted.primaries)
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
        let node = self.running().next().ok_or_else(|| Error::Failed("no node runs".to_owned()))?;
        let topology = self.topology_of(node)?;
        Ok(topology.primaries.iter().filter_map(|primary| self.number_of(&primary.address)).collect())
    }

    fn number_of(&self, address: &Address) -> Option<usize> {
        let at = |node: &RedisServer| matches!(address, Address::Tcp { port, .. } if *port == node.port());
        self.nodes.iter().position(at)
    }

    /// A running replica of a node.
    pub fn replica_of(&self, primary: usize) -> Result<usize> {
        let port = self.nodes[primary].port().to_string();
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
        let nodes: Vec<String> = self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
        format!("redis+cluster://{login}{}", nodes.join(","))
    }

    /// The cluster as our programs reach it.
    pub fn server(&self) -> Server {
        Server::parse(&self.url()).expect("the URL has no mistake")
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
