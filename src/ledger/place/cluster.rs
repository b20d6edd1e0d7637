//! Finds the node of a Redis Cluster that owns a slot.
//!
//! This is no general cluster client: all keys of a lane share a slot, so a connection needs one node. Any node says
//! who owns which slots, and that is asked when a connection is opened, unless it was asked just before. Each node may
//! take [`ANSWER_LIMIT`]; those that do not answer are asked last next time. `MOVED` names the new owner at once. A
//! failed connection, `CLUSTERDOWN` or `READONLY` show that what is known may be wrong: then other nodes are asked
//! first. A slot for which a node names no owner, as some do for a moment after a failover, keeps the one that it had.
//! If it names another owner than the known one, both are asked themselves: the node may not have heard of a failover,
//! and would lead back to the former primary. Threads that look at the same time wait for one answer, and after a
//! failure nobody asks for [`PAUSE`](board::PAUSE), so that a cluster in trouble is not flooded.
//!
//! Limitations: a node that is cut off from the others, or was until just now, still names the old owner, also if it is
//! that one itself. Such an owner refuses writes after `cluster-node-timeout`, and then another node is asked. What a
//! node says of the address of the known owner is believed.

mod board;
mod question;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use self::board::{Answers, Board};
pub(super) use self::question::{Ask, Problem, ask};
use self::question::{Silence, owner_in, with_reason};
use super::guides::ask_all;
use super::known::{Found, Known};
use crate::base::refusal;
use crate::ledger::topology::Topology;
use crate::net::Address;

/// How long a node may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_millis(500);
/// The most nodes whose problems an error names.
const MOST_NAMED: usize = 3;
const REFUSES_LOGIN: &str = "it refuses the login: users must be set on every node";

/// See the module's text.
pub(super) struct Cluster {
    seeds: Vec<Address>,
    ask: Box<Ask>,
    board: Mutex<Board>,
    /// What is known of the place of each slot that is used; `None`: of any node.
    slots: Mutex<BTreeMap<Option<u16>, Arc<Known>>>,
}

impl Cluster {
    /// The cluster of these nodes, of which some may be down. Asks nothing yet.
    pub(super) fn new(seeds: Vec<Address>, ask: Box<Ask>) -> Cluster {
        Cluster { seeds, ask, board: Mutex::default(), slots: Mutex::default() }
    }

    /// What is known of the place of a slot, by all that use the slot.
    pub(super) fn known(&self, slot: Option<u16>) -> Arc<Known> {
        self.slots.lock().entry(slot).or_default().clone()
    }

    /// The node that owns the slot; without a slot, any node that answers.
    pub(super) fn find(&self, slot: Option<u16>, known: &Known, limit: Duration) -> io::Result<Found> {
        let mut board = self.board.lock();
        if !board.is_usable() {
            self.ask_around(&mut board, slot, limit);
        }
        match &board.silence {
            Some(Silence::Login(node)) => {
                return Ok(Found { address: node.clone(), generation: known.generation() });
            }
            Some(silence) => return Err(silence.error()),
            None => {}
        }
        let address = match slot {
            Some(slot) => board.owner(slot).ok_or_else(|| {
                io::Error::other(format!("no node of the Redis Cluster owns slot {slot}: CLUSTER INFO says more"))
            }),
            None => board.answered.clone().ok_or_else(|| io::Error::other("no node of the Redis Cluster answers")),
        };
        if address.is_err() {
            board.suspect = true;
        }
        let address = address?;
        Ok(Found { generation: known.note_found(&address), address })
    }

    /// What the cluster's nodes say, asked now unless that was just done.
    pub(super) fn topology(&self, limit: Duration) -> io::Result<Topology> {
        let mut board = self.board.lock();
        if !board.is_usable() {
            self.ask_around(&mut board, None, limit);
        }
        match &board.silence {
            Some(silence) => Err(silence.error()),
            None => Ok(board.topology.clone()),
        }
    }

    /// All nodes that are known, or those of the shard that has a slot, and in both cases those that nobody names any
    /// more: a node that has just been replaced is not named until all have heard that it is a replica now. Of the
    /// URL's nodes those without a name, which could take long to look up, and would lead to a node that is named.
    pub(super) fn nodes(&self, shard: Option<u16>, limit: Duration) -> io::Result<Vec<Address>> {
        self.topology(limit)?;
        let board = self.board.lock();
        let topology = &board.topology;
        let mut nodes: Vec<Address> = match shard {
            Some(slot) => topology.shard(slot).cloned().collect(),
            None => topology.nodes().cloned().collect(),
        };
        let former = board.former.iter().map(|(node, _)| node).chain(self.seeds.iter().filter(|seed| is_number(seed)));
        for node in former.chain(board.moved.values()) {
            if !nodes.contains(node) && (shard.is_none() || !topology.nodes().any(|named| named == node)) {
                nodes.push(node.clone());
            }
        }
        Ok(nodes)
    }

    /// What each node says, those that others name and those of the URL, each within `limit`.
    pub(super) fn ask_each(&self, limit: Duration) -> Vec<(Address, Result<Topology, String>)> {
        // What is known is asked anew by the first question, if it is not fresh.
        let known = self.topology(limit).unwrap_or_default();
        let mut nodes: Vec<Address> = Vec::new();
        for node in known.nodes().chain(&self.seeds) {
            if !nodes.contains(node) {
                nodes.push(node.clone());
            }
        }
        ask_all(nodes, |node| {
            (self.ask)(node, limit).map_err(|problem| match problem {
                Problem::Login => REFUSES_LOGIN.to_owned(),
                Problem::Refused { problem, reply } => format!("{problem} ({reply})"),
                Problem::Other(problem) => problem,
            })
        })
    }

    /// Looks at an error reply on a connection that was opened at this generation. Returns whether another node must be
    /// looked for.
    pub(super) fn judge(&self, slot: Option<u16>, known: &Known, generation: u64, text: &str) -> bool {
        match refusal::code(text) {
            Some("MOVED") => {
                // What an outdated connection leads to is known.
                let owner =
                    refusal::moved_slot(text).filter(|moved| Some(*moved) == slot && known.generation() == generation);
                let address = owner.and_then(|_| owner_in(text, known.last().as_ref()));
                match owner.zip(address) {
                    Some((slot, owner)) => {
                        // First the board: a lookup that is under way would otherwise move everything back.
                        self.note_moved(slot, owner.clone());
                        known.note_found(&owner);
                    }
                    None => self.suspect(),
                }
                true
            }
            Some("READONLY" | "MASTERDOWN") => {
                self.suspect();
                known.end_generation(generation);
                true
            }
            Some("CLUSTERDOWN") => {
                self.suspect();
                true
            }
            _ => false,
        }
    }

    /// `MOVED` named the slot's new owner.
    fn note_moved(&self, slot: u16, owner: Address) {
        let mut board = self.board.lock();
        // The new owner knows best. It is asked next, unless there is a sign of trouble.
        board.answered = Some(owner.clone());
        board.moved.insert(slot, owner);
    }

    /// What is known may be wrong.
    pub(super) fn suspect(&self) {
        self.board.lock().suspect = true;
    }

    /// The nodes of the URL, for logs.
    pub(super) fn shown(&self) -> String {
        let seeds: Vec<String> = self.seeds.iter().map(Address::to_string).collect();
        seeds.join(",")
    }

    /// Asks one node after the other until one answers.
    fn ask_around(&self, board: &mut Board, slot: Option<u16>, limit: Duration) {
        let deadline = Instant::now() + limit;
        let (mut problems, mut refused, mut asked) = (Vec::new(), Vec::new(), 0);
        let nodes = board.nodes(&self.seeds, slot);
        let count = nodes.len();
        for node in &nodes {
            let left = deadline.saturating_duration_since(Instant::now());
            if asked > 0 && left.is_zero() {
                break;
            }
            asked += 1;
            match (self.ask)(node, ANSWER_LIMIT.min(left)) {
                Ok(told) => {
                    let mut witnesses = board.witnesses(node, &told);
                    // Those that were asked before it have not answered.
                    witnesses.retain(|witness| !nodes[..asked].contains(witness));
                    let mut answers = self.hear(witnesses);
                    answers.insert(node.clone(), told);
                    return board.note(node.clone(), &answers, asked, Instant::now());
                }
                Err(Problem::Login) => {
                    problems.push(format!("{node}: {REFUSES_LOGIN}"));
                    refused.push(Silence::Login(node.clone()));
                }
                Err(Problem::Refused { problem, reply }) => {
                    problems.push(format!("{node}: {problem}"));
                    refused.push(Silence::Refused(with_reason(&reply, &format!("node {node}: {problem}"))));
                }
                Err(Problem::Other(problem)) => problems.push(format!("{node}: {problem}")),
            }
        }
        board.turns += asked;
        board.asked = Some(Instant::now());
        board.suspect = true;
        let more = count.saturating_sub(problems.len().min(MOST_NAMED));
        problems.truncate(MOST_NAMED);
        let more = if more > 0 { format!("; and {more} more") } else { String::new() };
        let problem = format!("no node of the Redis Cluster answers: {}{more}", problems.join("; "));
        // If not all refuse, others may answer later.
        let refuse = refused.len() == count;
        board.silence = refused.into_iter().next().filter(|_| refuse).or(Some(Silence::NoAnswer(problem)));
    }

    /// What these nodes answer, within a time of their own, since all threads that wait share it.
    fn hear(&self, witnesses: Vec<Address>) -> Answers {
        let answers = ask_all(witnesses, |witness| (self.ask)(witness, ANSWER_LIMIT).map_err(|_| String::new()));
        answers.into_iter().filter_map(|(witness, told)| Some((witness, told.ok()?))).collect()
    }
}

/// Whether an address has no name that must be looked up.
fn is_number(address: &Address) -> bool {
    matches!(address, Address::Tcp { host, .. } if host.parse::<IpAddr>().is_ok())
}
