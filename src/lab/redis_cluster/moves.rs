//! Changes of a Redis Cluster: slots that move, replicas that become primaries, nodes that come and go.

use std::time::{Duration, Instant};

use redis::Value;

use super::{AGREE_LIMIT, RedisCluster, all};
use crate::base::error::{Error, Result};
use crate::base::text::Quoted;
use crate::lab::redis::{field, lines_of};
use crate::lab::wait::wait_until;
use crate::ledger::Command;

/// How long moving one key may take, in milliseconds.
const MIGRATE_TIMEOUT_MS: &str = "5000";
/// How long a replica tries to take its primary's place when it is told to, and a little more.
const TELL_AGAIN_AFTER: Duration = Duration::from_secs(6);

impl RedisCluster {
    /// Moves a slot to a node, key by key, as `redis-cli --cluster reshard` does.
    pub fn move_slot(&mut self, slot: u16, to: usize) -> Result<()> {
        let from = self.owner(slot)?;
        if from == to {
            return Ok(());
        }
        self.move_slot_at_once(slot, from, to)?;
        self.wait_until_agreed()
    }

    /// The same without waiting until all nodes know it.
    pub fn move_slot_at_once(&mut self, slot: u16, from: usize, to: usize) -> Result<()> {
        self.begin_move(slot, from, to)?;
        while self.move_keys(slot, from, to, 10)? > 0 {}
        self.finish_move(slot, from, to)
    }

    /// Opens a slot's move: from now on the old owner answers `ASK` for keys it does not have.
    pub fn begin_move(&mut self, slot: u16, from: usize, to: usize) -> Result<()> {
        let slot = slot.to_string();
        let (source, target) = (self.id(from)?, self.id(to)?);
        self.tell(to, &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &source])?;
        self.tell(from, &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &target])
    }

    /// Moves at most `most` keys of the slot, and returns how many.
    pub fn move_keys(&mut self, slot: u16, from: usize, to: usize, most: usize) -> Result<usize> {
        let mut source = self.nodes[from].connection();
        let list = Command::of(&["CLUSTER", "GETKEYSINSLOT", &slot.to_string(), &most.to_string()]);
        let Value::Array(keys) = source.query("listing a slot's keys", list)? else { return Ok(0) };
        let keys = keys.into_iter().filter_map(|key| match key {
            Value::BulkString(key) => Some(key),
            _ => None,
        });
        let keys: Vec<Vec<u8>> = keys.collect();
        if keys.is_empty() {
            return Ok(0);
        }
        let login = self.options.node.password.clone();
        let port = self.nodes[to].port().to_string();
        let command = Command::new(7 + if login.is_some() { 2 } else { 0 } + keys.len());
        let words = ["MIGRATE", "127.0.0.1", &port, "", "0", MIGRATE_TIMEOUT_MS];
        let command = words.into_iter().fold(command, |command, word| command.arg(word));
        let command = login.iter().fold(command, |command, password| command.arg("AUTH").arg(password));
        let command = keys.iter().fold(command.arg("KEYS"), |command, key| command.arg(key));
        source.query("moving keys", command)?;
        Ok(keys.len())
    }

    /// Ends a slot's move: the new owner has it from now on, and the other nodes will hear of it.
    pub fn finish_move(&mut self, slot: u16, from: usize, to: usize) -> Result<()> {
        let target = self.id(to)?;
        let slot = slot.to_string();
        // The new owner first: were it the old one, a moment without an owner could follow.
        self.tell(to, &["CLUSTER", "SETSLOT", &slot, "NODE", &target])?;
        // Refused if it has become a replica, as a primary does that has lost its last slot.
        if let Err(error) = self.tell(from, &["CLUSTER", "SETSLOT", &slot, "NODE", &target]) {
            log::debug!("event=setslot-refused reason={}", Quoted(&error));
        }
        Ok(())
    }

    /// Makes a replica the primary in place of a primary that runs, without loss (`CLUSTER FAILOVER`).
    pub fn fail_over(&mut self, replica: usize) -> Result<()> {
        let mut told: Option<Instant> = None;
        wait_until(AGREE_LIMIT, format!("node {replica} to become a primary"), || {
            // A node gives up after some seconds, for instance if the others were too busy to vote in time.
            if told.is_none_or(|told| told.elapsed() > TELL_AGAIN_AFTER) {
                self.begin_failover(replica)?;
                told = Some(Instant::now());
            }
            self.is_primary(replica).map(|is_primary| is_primary.then_some(()))
        })?;
        self.wait_until_agreed()
    }

    /// The same without waiting for it.
    pub fn begin_failover(&mut self, replica: usize) -> Result<()> {
        self.tell(replica, &["CLUSTER", "FAILOVER"])
    }

    /// Waits until a node is a primary.
    pub fn wait_until_primary(&mut self, number: usize) -> Result<()> {
        wait_until(AGREE_LIMIT, format!("node {number} to become a primary"), || {
            self.is_primary(number).map(|is_primary| is_primary.then_some(()))
        })
    }

    fn is_primary(&self, number: usize) -> Result<bool> {
        let replication = lines_of(&mut self.nodes[number].connection(), &["INFO", "replication"])?;
        Ok(field(&replication, "role") == Some("master"))
    }

    /// The other nodes reach this node's bus at another port from now on. Waits until all know it.
    pub fn announce_bus_port(&mut self, number: usize, port: u16) -> Result<()> {
        self.tell(number, &["CONFIG", "SET", "cluster-announce-bus-port", &port.to_string()])?;
        let named = format!("@{port}");
        wait_until(AGREE_LIMIT, format!("the nodes to know the new bus port of node {number}"), || {
            let knows = |other: usize| {
                let nodes = lines_of(&mut self.nodes[other].connection(), &["CLUSTER", "NODES"])?;
                Ok(nodes.lines().filter(|line| line.contains(&named)).any(|line| line.contains(" connected")))
            };
            all(self.running().filter(|other| *other != number), knows)
        })
    }

    /// Adds a primary without slots, and returns its number.
    pub fn add_node(&mut self) -> Result<usize> {
        self.start_node()?;
        let number = self.nodes.len() - 1;
        self.meet(number)?;
        let known = self.running().count();
        self.wait_until_known(known)?;
        self.wait_until_agreed()?;
        Ok(number)
    }

    /// Removes a node that has neither slots nor replicas, and stops it.
    pub fn remove_node(&mut self, number: usize) -> Result<()> {
        let id = self.id(number)?;
        self.away[number] = true;
        let others: Vec<usize> = self.running().collect();
        if others.is_empty() {
            return Err(Error::Failed("the last node can't be removed".to_owned()));
        }
        for other in others {
            self.tell(other, &["CLUSTER", "FORGET", &id])?;
        }
        // Killed, because a node that rewrites its file refuses to stop.
        self.nodes[number].kill()?;
        self.wait_until_agreed()
    }
}
