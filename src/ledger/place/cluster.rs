//! Finds the node of a Redis Cluster that owns a slot.
//!
//! This is no general cluster client: all keys of a lane share a slot, so a connection needs one node. Any node says
//! who owns which slots, and that is asked when a connection is opened, unless it was asked just before. Each node may
//! take [`ANSWER_LIMIT`]; those that do not answer are asked last next time. `MOVED` names the new owner at once. A
//! failed connection, `CLUSTERDOWN` or `READONLY` show that what is known may be wrong: then other nodes are asked
//! first. Threads that look at the same time wait for one answer, and after a failure nobody asks for [`PAUSE`], so
//! that a cluster in trouble is not flooded.
//!
//! Limitation: a node that is cut off from the others still names the old owner. Such an owner refuses writes after
//! `cluster-node-timeout`, and then another node is asked.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use redis::RedisError;

use super::asker::Asker;
use super::known::{Found, Known};
use crate::base::failure::Failure;
use crate::base::refusal::{self, Refusal};
use crate::ledger::command::command;
use crate::ledger::topology::Topology;
use crate::net::Address;

/// How long a node may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_millis(500);
/// How long an answer is used for further connections.
const FRESH_FOR: Duration = Duration::from_millis(300);
/// The least time between two questions after a failure.
const PAUSE: Duration = Duration::from_millis(100);
/// The most nodes whose problems an error names.
const MOST_NAMED: usize = 3;

/// Asks a node for the topology, within a time limit.
pub(super) type Ask = dyn Fn(&Address, Duration) -> Result<Topology, Problem> + Send + Sync;

/// Why a node gave no topology.
#[derive(Debug)]
pub(super) enum Problem {
    /// It refuses the login. A connection to it will be refused in the same way, with a better error.
    Login,
    /// Something else, in words.
    Other(String),
}

/// See the module's text.
pub(super) struct Cluster {
    seeds: Vec<Address>,
    ask: Box<Ask>,
    board: Mutex<Board>,
    /// What is known of the place of each slot that is used; `None`: of any node.
    slots: Mutex<BTreeMap<Option<u16>, Arc<Known>>>,
}

/// What was learned last.
#[derive(Default)]
struct Board {
    topology: Topology,
    /// Owners that `MOVED` named since then.
    moved: BTreeMap<u16, Address>,
    /// The node that answered last.
    answered: Option<Address>,
    /// When that was.
    read: Option<Instant>,
    /// When a node was asked last.
    asked: Option<Instant>,
    /// Why no node answered, if none did.
    problem: Option<String>,
    /// A node that refuses the login, if one does and none answers.
    refusing: Option<Address>,
    /// Whether there is a sign that the topology is no longer right.
    suspect: bool,
    /// How many nodes were asked in vain: where to begin.
    turns: usize,
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
        if let Some(problem) = &board.problem {
            return match &board.refusing {
                Some(node) => Ok(Found { address: node.clone(), generation: known.generation() }),
                None => Err(io::Error::other(problem.clone())),
            };
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
        match &board.problem {
            Some(problem) => Err(io::Error::other(problem.clone())),
            None => Ok(board.topology.clone()),
        }
    }

    /// Looks at an error reply on a connection that was opened at this generation. Returns whether another node must be
    /// looked for.
    pub(super) fn judge(&self, slot: Option<u16>, known: &Known, generation: u64, text: &str) -> bool {
        match refusal::code(text) {
            Some("MOVED") => {
                // What an outdated connection leads to is known.
                let owner = moved_slot(text).filter(|moved| Some(*moved) == slot && known.generation() == generation);
                let address = owner.and_then(|_| owner_in(text, known.last().as_ref()));
                match owner.zip(address) {
                    Some((slot, owner)) => {
                        known.note_found(&owner);
                        self.note_moved(slot, owner);
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
        // The new owner knows best, the next time that somebody asks.
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
        let (mut problems, mut refusing, mut asked) = (Vec::new(), None, 0);
        let nodes = board.nodes(&self.seeds, slot);
        let count = nodes.len();
        for node in nodes {
            let left = deadline.saturating_duration_since(Instant::now());
            if asked > 0 && left.is_zero() {
                break;
            }
            asked += 1;
            match (self.ask)(&node, ANSWER_LIMIT.min(left)) {
                Ok(topology) => {
                    let turns = if board.suspect { board.turns + asked } else { 0 };
                    let (answered, now) = (Some(node), Some(Instant::now()));
                    *board = Board { topology, answered, read: now, asked: now, turns, ..Board::default() };
                    return;
                }
                Err(Problem::Login) => refusing = refusing.or(Some(node)),
                Err(Problem::Other(problem)) => problems.push(format!("{node}: {problem}")),
            }
        }
        board.turns += asked;
        board.asked = Some(Instant::now());
        board.suspect = true;
        let more = count.saturating_sub(problems.len().min(MOST_NAMED));
        problems.truncate(MOST_NAMED);
        let more = if more > 0 { format!("; and {more} more") } else { String::new() };
        board.problem = Some(format!("no node of the Redis Cluster answers: {}{more}", problems.join("; ")));
        board.refusing = refusing;
    }
}

impl Board {
    /// Whether it may be used without asking again.
    fn is_usable(&self) -> bool {
        let since = |time: Option<Instant>, limit| time.is_some_and(|time: Instant| time.elapsed() < limit);
        if self.suspect { since(self.asked, PAUSE) } else { since(self.read, FRESH_FOR) }
    }

    fn owner(&self, slot: u16) -> Option<Address> {
        let told = || self.topology.owner(slot).map(|primary| primary.address.clone());
        self.moved.get(&slot).cloned().or_else(told)
    }

    /// All nodes, in the order in which they are to be asked.
    fn nodes(&self, seeds: &[Address], slot: Option<u16>) -> Vec<Address> {
        let mut nodes: Vec<Address> = Vec::new();
        for node in self.topology.nodes().chain(self.answered.as_ref()).chain(seeds) {
            if !nodes.contains(node) {
                nodes.push(node.clone());
            }
        }
        let count = nodes.len().max(1);
        nodes.rotate_left(self.turns % count);
        let owner = slot.and_then(|slot| self.owner(slot));
        // Sorting keeps the order among equals.
        match self.suspect {
            true => nodes.sort_by_key(|node| Some(node) == owner.as_ref()),
            false => nodes.sort_by_key(|node| Some(node) != self.answered.as_ref()),
        }
        nodes
    }
}

/// The slot of `MOVED <slot> <address>`.
fn moved_slot(text: &str) -> Option<u16> {
    let mut words = text.split(' ').skip_while(|word| word.trim_start_matches('-') != "MOVED");
    words.nth(1)?.parse().ok()
}

/// The owner that `MOVED` names. Without a host it is on the host of the node that was asked.
fn owner_in(text: &str, asked: Option<&Address>) -> Option<Address> {
    let (host, port) = refusal::moved_to(text)?.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port > 0)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let host = match (host, asked) {
        ("", Some(Address::Tcp { host, .. })) => host.clone(),
        // No host name is known of the owner.
        ("" | "?", _) => return None,
        (host, _) => host.to_owned(),
    };
    Some(Address::Tcp { host, port })
}

/// Asks a node for the topology.
pub(super) fn ask(asker: &mut Asker, limit: Duration) -> Result<Topology, Problem> {
    let mut asking = Vec::new();
    command(&mut asking, &["CLUSTER", "SLOTS"]);
    let replies = asker.ask(&asking, 1, limit).map_err(|error| match error.downcast::<RedisError>() {
        Ok(refused) => problem_of(Failure::new(refused)),
        Err(error) => Problem::Other(error.to_string()),
    })?;
    let reply = &replies[0];
    let Err(error) = reply.clone().extract_error() else {
        let unreadable = || Problem::Other("its answer to CLUSTER SLOTS can't be read".to_owned());
        return Topology::of_slots(reply, asker.address()).ok_or_else(unreadable);
    };
    Err(problem_of(Failure::new(error)))
}

/// What an error reply means.
fn problem_of(refused: Failure) -> Problem {
    let text = refused.reply_text().unwrap_or_else(|| refused.to_string());
    match Refusal::of(&text) {
        Refusal::Login => Problem::Login,
        Refusal::Right => Problem::Other(format!("its user lacks the right +cluster|slots ({text})")),
        _ if text.contains("cluster support disabled") => {
            Problem::Other("it is no node of a Redis Cluster: its URL begins with redis://".to_owned())
        }
        _ => Problem::Other(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::topology::Primary;

    const LIMIT: Duration = Duration::from_secs(2);

    fn node(port: u16) -> Address {
        Address::Tcp { host: "n".to_owned(), port }
    }

    fn owned_by(port: u16) -> Topology {
        let one = Primary { id: format!("id-{port}"), address: node(port), slots: vec![0..=16_383] };
        Topology { primaries: vec![one], replicas: vec![node(9)] }
    }

    /// What each node says, by its port, and which were asked.
    #[derive(Default)]
    struct World {
        says: Mutex<BTreeMap<u16, u16>>,
        asked: Mutex<Vec<u16>>,
    }

    fn cluster(world: &Arc<World>, seeds: &[u16]) -> Cluster {
        let world = world.clone();
        let ask = move |at: &Address, _| {
            let Address::Tcp { port, .. } = at else { unreachable!("nodes have ports") };
            world.asked.lock().push(*port);
            let owner = world.says.lock().get(port).copied();
            owner.map(owned_by).ok_or_else(|| Problem::Other("it is down".to_owned()))
        };
        Cluster::new(seeds.iter().copied().map(node).collect(), Box::new(ask))
    }

    fn port(found: io::Result<Found>) -> Result<u16, String> {
        match found.map(|found| found.address) {
            Ok(Address::Tcp { port, .. }) => Ok(port),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn dead_seeds_are_passed_over_and_the_owner_is_found() {
        let world = Arc::new(World::default());
        world.says.lock().insert(3, 5);
        let cluster = cluster(&world, &[1, 2, 3]);
        let known = cluster.known(Some(7));
        assert_eq!(port(cluster.find(Some(7), &known, LIMIT)), Ok(5));
        assert_eq!(port(cluster.find(Some(7), &known, LIMIT)), Ok(5));
        assert_eq!(port(cluster.find(None, &cluster.known(None), LIMIT)), Ok(3));
        assert_eq!(*world.asked.lock(), [1, 2, 3], "an answer is used for a while");
        assert_eq!(known.generation(), 0);
    }

    #[test]
    fn a_moved_slot_is_followed_at_once_and_the_generation_rises_once() {
        let world = Arc::new(World::default());
        world.says.lock().insert(1, 5);
        let cluster = cluster(&world, &[1]);
        let (known, other) = (cluster.known(Some(7)), cluster.known(Some(8)));
        for (slot, known) in [(7, &known), (8, &other)] {
            assert_eq!(port(cluster.find(Some(slot), known, LIMIT)), Ok(5));
        }
        assert!(cluster.judge(Some(7), &known, 0, "MOVED 7 :6"));
        assert!(cluster.judge(Some(7), &known, 0, "MOVED 7 n:5"), "an outdated connection");
        cluster.board.lock().suspect = false;
        assert_eq!(port(cluster.find(Some(7), &known, LIMIT)), Ok(6));
        assert_eq!(port(cluster.find(Some(8), &other, LIMIT)), Ok(5));
        assert_eq!((known.generation(), other.generation()), (1, 0));
        assert_eq!(*world.asked.lock(), [1]);
    }

    #[test]
    fn what_a_refusal_means_is_known() {
        let world = Arc::new(World::default());
        let cluster = cluster(&world, &[1]);
        let known = cluster.known(Some(7));
        for (text, wrong, suspect) in [
            ("ASK 7 n:5", false, false),
            ("TRYAGAIN Multiple keys request during rehashing of slot", false, false),
            ("MOVED 8 n:5", true, true),
            ("MOVED 7 ?:5", true, true),
            ("CLUSTERDOWN The cluster is down", true, true),
            ("READONLY You can't write against a read only replica.", true, true),
            ("LOADING Redis is loading the dataset in memory", false, false),
        ] {
            cluster.board.lock().suspect = false;
            assert_eq!(cluster.judge(Some(7), &known, known.generation(), text), wrong, "{text}");
            assert_eq!(cluster.board.lock().suspect, suspect, "{text}");
        }
        assert_eq!(known.generation(), 1, "READONLY ends the generation");
        assert_eq!(owner_in("MOVED 7 [::1]:5", None), Some(Address::Tcp { host: "::1".to_owned(), port: 5 }));
    }

    #[test]
    fn after_a_sign_of_trouble_others_than_the_owner_are_asked_and_not_too_often() {
        let world = Arc::new(World::default());
        world.says.lock().extend([(5, 5), (9, 9)]);
        let cluster = cluster(&world, &[5]);
        let known = cluster.known(Some(7));
        assert_eq!(port(cluster.find(Some(7), &known, LIMIT)), Ok(5));
        cluster.suspect();
        assert_eq!(port(cluster.find(Some(7), &known, LIMIT)), Ok(5), "it was asked just before");
        cluster.board.lock().asked = None;
        assert_eq!(port(cluster.find(Some(7), &known, LIMIT)), Ok(9));
        assert_eq!((*world.asked.lock()).as_slice(), [5, 9]);
        assert_eq!(known.generation(), 1);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let world = Arc::new(World::default());
        let cluster = cluster(&world, &[1, 2, 3, 4, 5]);
        let known = cluster.known(Some(7));
        let error = port(cluster.find(Some(7), &known, LIMIT)).expect_err("no node answers");
        assert!(error.contains("n:1: it is down; n:2: it is down; n:3: it is down; and 2 more"), "{error}");
        let asked = world.asked.lock().len();
        port(cluster.find(Some(7), &known, LIMIT)).expect_err("still none");
        assert_eq!(world.asked.lock().len(), asked, "no storm");
    }
}
