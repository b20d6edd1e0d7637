//! The cluster bus: what has to be waited for before a dispatcher subscribes on a node of a Redis Cluster.
//!
//! A message reaches the subscribers of all nodes. The node on which it is published gives it to its own subscribers
//! and sends it to each other node, in order, but not to all at once. So when a group's node changes, a message that
//! dispatchers have received on the old node may still be on its way to the new one; received there as well, it would
//! be stored twice. Nothing in it tells that it is the same.
//!
//! Therefore, before a dispatcher subscribes to what the group listens to, it does this on a connection of its own:
//!
//! 1. It subscribes on the node to a channel of its own, and makes sure that the node has the group's keys.
//! 2. On each other node it waits until no dispatcher of the group is subscribed there, or does the same as this one.
//!    Of two that take different nodes for the right one, the node of one then refuses its question for a key.
//! 3. It publishes a marker on each of them, on its channel. One that is lost, because two nodes have just lost their
//!    connection, is published again.
//! 4. It waits until a marker of each has come. What was published on a node before the marker has come before it.
//!
//! This takes the time of a few commands, on all nodes at once. Messages on sharded channels only go to the other nodes
//! of a shard, and keyspace events to none.
//!
//! Limitations, each logged as `event=bus-not-awaited`: a node that does not answer within about [`ANSWER_WITHIN`] is
//! not waited for, because it may be dead; messages that come later than [`MARKERS_WITHIN`] are not; a dispatcher that
//! stays longer than [`OTHERS_WITHIN`] is not. Not logged: nodes that `CLUSTER SLOTS` does not name, because they have
//! no slots or count as failed, are not known, unless they had slots a minute ago or the URL names them by number.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use redis::{PushKind, Value};

use super::channels::Channels;
use crate::base::error::{Error, Result};
use crate::base::failure::Failure;
use crate::ledger::alive;
use crate::ledger::command::{Command, command};
use crate::ledger::place::ask_all;
use crate::ledger::server::{CONNECT_TIMEOUT, Server};
use crate::ledger::session::{BufferSize, Session};
use crate::ledger::topology::Topology;
use crate::ledger::value::text;
use crate::net::{Address, Wait};

/// How long a node may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);
/// How long other dispatchers may take to leave a node. They ask for the lease often, also while that is refused
/// because the keys are moving, and are told then that the keys have moved.
const OTHERS_WITHIN: Duration = Duration::from_secs(3);
/// How often it is asked whether they have left.
const ASK_EVERY: Duration = Duration::from_millis(5);
/// How long the markers may take, all together.
const MARKERS_WITHIN: Duration = Duration::from_secs(2);
/// After this time a marker that has not come is published again.
const AGAIN_AFTER: Duration = Duration::from_millis(200);
/// The least time for reading a reply that may be there already.
const AT_LEAST: Duration = Duration::from_millis(10);

/// Lists of channels, and markers.
const BUFFER: BufferSize = BufferSize { least_bytes: 4 << 10, most_bytes: 1 << 20 };

const ASKING: &str = "looking for dispatchers on the other nodes";
const WAITING: &str = "waiting for the cluster bus";

/// Sessions to other nodes, by the nodes' ids.
type Others = BTreeMap<String, Session>;

/// What is known before a subscription. See the module's text.
struct Bus<'a> {
    server: &'a Server,
    channels: &'a Channels,
    /// The nodes that may have sent something.
    nodes: Vec<Address>,
    /// The id of the node where the subscription will be.
    node: String,
    /// The generation of the session there.
    generation: u64,
}

/// Waits for the bus, if the server is a Redis Cluster. Returns the id of the node where the subscription must be.
pub(super) fn await_bus(server: &Server, channels: &Channels) -> Result<Option<String>> {
    let interests = &channels.interests;
    if !server.is_cluster() || interests.is_none() || interests.are_only_key_events() {
        return Ok(None);
    }
    let mut session = Session::open(server, CONNECT_TIMEOUT, BUFFER, |greeting| {
        command(greeting, &["HELLO", "3"]);
        1
    })?;
    let (node, generation) = (node_of(&mut session, server)?, session.generation());
    let nodes = server.nodes(interests.is_sharded(), ANSWER_WITHIN)?;
    let bus = Bus { server, channels, nodes, node, generation };
    bus.settle(&mut session)?;
    Ok(Some(bus.node))
}

impl Bus<'_> {
    fn settle(&self, session: &mut Session) -> Result<()> {
        // In the names of channels, so that no marker of an earlier wait counts.
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let (prefix, id) = (&self.channels.keys.alive_prefix, self.channels.subscriber.id());
        let channel = alive::waiting_channel(prefix, id, NUMBER.fetch_add(1, Ordering::Relaxed));
        self.subscribe(session, &channel)?;
        let left = ask_all(self.nodes.clone(), |node| self.wait_until_left(node).map_err(|error| error.to_string()));
        let (mut others, mut problems) = (Others::new(), Vec::new());
        for (_, outcome) in left {
            match outcome {
                Ok(other) => others.extend(other),
                Err(problem) => problems.push(problem),
            }
        }
        let deadline = Instant::now() + MARKERS_WITHIN;
        while !others.is_empty() && Instant::now() < deadline {
            if self.server.is_outdated(self.generation) {
                return Err(moved_again());
            }
            publish_markers(&mut others, &channel, &mut problems);
            self.take_markers(session, &mut others, deadline.min(Instant::now() + AGAIN_AFTER))?;
        }
        problems.extend(others.keys().map(|node| format!("node {node}: what it sends to the others is late")));
        self.server.note_not_awaited(&problems);
        Ok(())
    }

    /// Subscribes to the channel, and makes sure that the node has the group's keys.
    fn subscribe(&self, session: &mut Session, channel: &str) -> Result<()> {
        let mut commands = Command::of(&["SUBSCRIBE", channel]).into_bytes();
        command(&mut commands, &["EXISTS", &self.channels.keys.leader]);
        let ended = |session: &Session, error| session.error(self.server, WAITING, error);
        session.send(&commands).map_err(|error| ended(session, error))?;
        for is_question in [false, true] {
            let reply = session.incoming.value().map_err(|error| ended(session, error))?;
            if let Err(error) = reply.extract_error() {
                let (error, is_wrong_server) = session.refusal(self.server, WAITING, Failure::new(error));
                // Other refusals of the question, as while keys are moving, say nothing about the node.
                if is_wrong_server || !is_question {
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Waits until no other dispatcher is subscribed on this node or about to be, and returns a session to it. `None`:
    /// there is nobody, or it is the node of the subscription.
    fn wait_until_left(&self, address: &Address) -> Result<Option<(String, Session)>> {
        let node = &self.server.at(address.clone());
        let mut session = match Session::open(node, ANSWER_WITHIN, BUFFER, |_| 0) {
            // What it has sent before it ended needs no time.
            Err(Error::Redis { cause, .. }) if cause.is_connection_refused() => return Ok(None),
            opened => opened?,
        };
        let id = node_of(&mut session, node)?;
        if id == self.node || !self.is_of_the_cluster(&mut session, node, address)? {
            return Ok(None);
        }
        let (prefix, own) = (&self.channels.keys.alive_prefix, self.channels.subscriber.id());
        let deadline = Instant::now() + OTHERS_WITHIN;
        loop {
            let reply = ask(&mut session, node, ASKING, alive::asking(prefix))?;
            let subscribed = alive::ids(prefix, &reply).ok_or_else(|| node.unexpected_reply(ASKING, &reply))?;
            let mut present = subscribed.into_iter().chain(alive::waiting(prefix, &reply));
            // What this process was subscribed to there, it reads no more.
            match present.find(|id| id != own.as_str()) {
                None => return Ok(Some((id, session))),
                Some(_) if self.server.is_outdated(self.generation) => return Err(moved_again()),
                Some(other) if Instant::now() >= deadline => {
                    return Err(Error::Failed(format!("dispatcher {other} stays subscribed on {}", node.shown())));
                }
                Some(_) => thread::sleep(ASK_EVERY),
            }
        }
    }

    /// Whether a node names any of the nodes that are known, beside itself. One that has left the cluster sends nothing
    /// to it.
    fn is_of_the_cluster(&self, session: &mut Session, node: &Server, address: &Address) -> Result<bool> {
        let reply = ask(session, node, ASKING, Command::of(&["CLUSTER", "SLOTS"]))?;
        let told = Topology::of_slots(&reply, address).unwrap_or_default();
        Ok(told.nodes().any(|named| named != address && self.nodes.contains(named)))
    }

    /// Takes markers until all have come or the time is over, and removes their nodes.
    fn take_markers(&self, session: &mut Session, missing: &mut Others, until: Instant) -> Result<()> {
        let ended = |session: &Session, error| session.error(self.server, WAITING, error);
        session.incoming.set_wait(Wait::Until(until)).map_err(|error| ended(session, error))?;
        while !missing.is_empty() {
            match session.incoming.value() {
                Ok(Value::Push { kind: PushKind::Message, data }) => {
                    data.last().and_then(text).map(|node| missing.remove(node));
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::TimedOut => break,
                Err(error) => return Err(ended(session, error)),
            }
        }
        Ok(())
    }
}

fn moved_again() -> Error {
    Error::Failed("the keys have moved again".to_owned())
}

/// Publishes a marker on each node: its id. Keeps those that have taken theirs.
fn publish_markers(others: &mut Others, channel: &str, problems: &mut Vec<String>) {
    // Written to all before the first reply is read; a failure shows then.
    others.iter_mut().for_each(|(id, session)| {
        let _ = session.send(&Command::of(&["PUBLISH", channel, id]).into_bytes());
    });
    let deadline = Instant::now() + ANSWER_WITHIN;
    others.retain(|id, session| {
        let set = session.incoming.set_wait(Wait::Until(deadline.max(Instant::now() + AT_LEAST)));
        let reply = set.and_then(|()| session.incoming.value()).map_err(|error| error.to_string());
        let taken = reply.and_then(|reply| reply.extract_error().map_err(|error| error.to_string()));
        if let Err(problem) = &taken {
            problems.push(format!("node {id}: publishing a marker: {problem}"));
        }
        taken.is_ok()
    });
}

/// The id of the node that a session leads to.
pub(super) fn node_of(session: &mut Session, server: &Server) -> Result<String> {
    const ASKING: &str = "asking for the node's id";
    let reply = ask(session, server, ASKING, Command::of(&["CLUSTER", "MYID"]))?;
    text(&reply).map(str::to_owned).ok_or_else(|| server.unexpected_reply(ASKING, &reply))
}

fn ask(session: &mut Session, server: &Server, step: &'static str, question: Command) -> Result<Value> {
    let reply = session.send(&question.into_bytes()).and_then(|()| session.incoming.value());
    let reply = reply.map_err(|error| session.error(server, step, error))?;
    reply.extract_error().map_err(|error| server.error(step, Failure::new(error)))
}
