//! The nodes of a Redis Cluster: the owners of slots and their replicas, those without slots, and those of the URL.
//!
//! Nodes without slots are only named by `CLUSTER NODES`, for which no program needs the right. Without it those of the
//! URL are looked at alone, and a note says so.
//!
//! Limitation: a name in the URL that leads to a node which the cluster names otherwise is resolved, to tell that both
//! are one; if that fails, the node is tried twice.

use std::net::IpAddr;
use std::time::Duration;

use redis::Value;

use super::patient::Patient;
use super::place::{ANSWER_LIMIT, Place, Places};
use crate::base::error::Error;
use crate::base::refusal::Refusal;
use crate::ledger::command::Command;
use crate::ledger::connection::Connection;
use crate::ledger::topology::{SLOTS, Topology};
use crate::ledger::value::text;
use crate::net::{Address, resolve};

const ASKING: &str = "asking for the cluster's slots";
const OTHER_OWNERS: &str = "names other owners of slots than another node: wait until they agree";

/// What a node says, or why it says nothing.
type Said = (Address, Result<Topology, String>);

/// What a node is for the group.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// It owns slots, or is a replica of one that does.
    Used,
    /// It belongs to the cluster, and has no slots.
    Slotless,
    /// Only the URL names it.
    OfTheUrl,
}

/// A node without slots, as `CLUSTER NODES` names it.
struct Slotless {
    address: Address,
    /// Whether the others call it failed.
    has_failed: bool,
}

/// Adds what the nodes say. Returns those that belong to the cluster and answer.
pub(super) fn add(places: &mut Places, patient: &Patient<'_>, said: Vec<Said>) -> Vec<Address> {
    let answers = said.iter().filter_map(|(address, said)| Some((address, said.as_ref().ok()?)));
    let Some((answering, fullest)) = answers.max_by_key(|(_, topology)| topology.covered()) else { return Vec::new() };
    let (answering, fullest) = (answering.clone(), fullest.clone());
    let used: Vec<&Address> = fullest.nodes().collect();
    let mut connection = to(patient, &answering, patient.reply_time());
    let slotless = match slotless(&mut connection, &answering, &used) {
        Some(slotless) => slotless,
        None => {
            places.notes.push(format!(
                "not looked at: nodes without slots that the URL does not name, because the user {} may not call \
                 CLUSTER NODES",
                patient.user()
            ));
            Vec::new()
        }
    };
    places.notes.extend(needs_all_slots(&mut connection));
    let more = slotless.iter().filter(|node| said.iter().all(|(address, _)| *address != node.address));
    let more: Vec<Said> = more.map(|node| (node.address.clone(), ask_slotless(patient, node))).collect();
    let all_known: Vec<&Address> = used.iter().copied().chain(slotless.iter().map(|node| &node.address)).collect();
    let mut others = Vec::new();
    for (address, topology) in said.into_iter().chain(more) {
        let role = match () {
            () if used.contains(&&address) => Role::Used,
            () if all_known.contains(&&address) => Role::Slotless,
            () => Role::OfTheUrl,
        };
        let says = match topology {
            Ok(seen) if seen.primaries == fullest.primaries => {
                Ok(format!("knows the owners of {} slots", seen.covered()))
            }
            Ok(_) => Err(OTHER_OWNERS.to_owned()),
            Err(problem) => Err(problem),
        };
        match &says {
            Ok(_) if role == Role::OfTheUrl && all_known.iter().any(|known| are_one(&address, known)) => {}
            Ok(_) => others.push(address.clone()),
            Err(problem) => report(places, patient, &address, role, problem),
        }
        places.each.push(Place { kind: "node", address: address.to_string(), says });
    }
    let lacking = usize::from(SLOTS) - fullest.covered();
    if lacking > 0 {
        places
            .problems
            .push(format!("{lacking} slots have no owner: redis-cli --cluster fix, or start the node that had them"));
    }
    others
}

/// What is wrong with a node, what that means, and what to do. It is a warning if the node can't be reached and nobody
/// needs it now.
fn report(places: &mut Places, patient: &Patient<'_>, address: &Address, role: Role, problem: &str) {
    let user = patient.user();
    let question = to(patient, address, ANSWER_LIMIT).query(ASKING, Command::of(&["CLUSTER", "SLOTS"]));
    let refusal = question.as_ref().err().map(Error::refusal);
    let (is_reached, remedy) = match (refusal, role) {
        (Some(Some(Refusal::Login)), _) => (true, format!("; set the user {user} there, by ACL SETUSER {user} …")),
        (Some(Some(Refusal::Right)), _) => (true, format!("; type there: ACL SETUSER {user} +cluster|slots")),
        (Some(None | Some(Refusal::NotNow)), Role::OfTheUrl) => {
            (false, "; start it, or take it out of the URL".to_owned())
        }
        (Some(None | Some(Refusal::NotNow)), Role::Slotless) => {
            (false, "; start it, or remove it: redis-cli --cluster del-node".to_owned())
        }
        (Some(Some(_)), Role::OfTheUrl) => (true, "; take it out of the URL".to_owned()),
        // It answers now, or is not of one mind with the others yet.
        (None, Role::Slotless) => (false, String::new()),
        _ => (true, String::new()),
    };
    let text = match role {
        Role::Used => format!("a lane, or the group after a failover, may need node {address}: {problem}{remedy}"),
        Role::Slotless => format!("node {address} has no slots, and once it has, is needed: {problem}{remedy}"),
        Role::OfTheUrl => format!("the URL names node {address}: {problem}{remedy}"),
    };
    let list = if is_reached || role == Role::Used { &mut places.problems } else { &mut places.warnings };
    list.push(text);
}

fn to(patient: &Patient<'_>, address: &Address, limit: Duration) -> Connection {
    Connection::new(patient.server.at(address.clone()), limit)
}

/// Asks a node without slots, unless the others call it failed.
fn ask_slotless(patient: &Patient<'_>, node: &Slotless) -> Result<Topology, String> {
    if node.has_failed {
        return Err("the other nodes call it failed".to_owned());
    }
    let reply = to(patient, &node.address, ANSWER_LIMIT).query(ASKING, Command::of(&["CLUSTER", "SLOTS"]));
    match reply {
        Ok(reply) => Topology::of_slots(&reply, &node.address)
            .ok_or_else(|| "its answer to CLUSTER SLOTS can't be read".to_owned()),
        Err(Error::Redis { cause, .. }) => Err(cause.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

/// The cluster's nodes that are not among the `used` ones; `None` if the user may not ask.
fn slotless(connection: &mut Connection, asked: &Address, used: &[&Address]) -> Option<Vec<Slotless>> {
    let reply = connection.query("asking for the cluster's nodes", Command::of(&["CLUSTER", "NODES"])).ok()?;
    let lines = match &reply {
        Value::VerbatimString { text, .. } => text.as_str(),
        reply => text(reply)?,
    };
    Some(lines.lines().filter_map(|line| slotless_in(line, asked, used)).collect())
}

/// The note on a cluster that refuses all keys if some slots have no owner; `None` if it does not, or does not say.
fn needs_all_slots(connection: &mut Connection) -> Option<String> {
    const SETTING: &str = "cluster-require-full-coverage";
    let reply = connection.query("reading a setting of the cluster", Command::of(&["CONFIG", "GET", SETTING])).ok()?;
    let Value::Array(pair) = &reply else { return None };
    (text(pair.get(1)?)? == "yes").then(|| {
        format!(
            "{SETTING} is yes: some seconds after a node is lost with all its replicas, every node refuses every key \
             (CLUSTERDOWN), so groups and lanes on other nodes stop, too. With no they go on: CONFIG SET {SETTING} no \
             and CONFIG REWRITE, on each node"
        )
    })
}

/// From `<id> <ip>:<port>@<bus>[,<name>…] <flags> …`.
fn slotless_in(line: &str, asked: &Address, used: &[&Address]) -> Option<Slotless> {
    let mut words = line.split(' ').skip(1);
    let (place, flags) = (words.next()?, words.next()?);
    let has = |flag: &str| flags.split(',').any(|word| word == flag);
    if has("noaddr") || has("handshake") {
        return None;
    }
    let (address, rest) = place.split_once('@').unwrap_or((place, ""));
    let (ip, port) = address.rsplit_once(':')?;
    let port: u16 = port.parse().ok().filter(|port| *port > 0)?;
    let name = rest.split(',').nth(1).filter(|name| !name.is_empty());
    let ip = match (ip, asked) {
        // It does not know its own address: it is the one that was asked.
        ("", Address::Tcp { host, .. }) => host.as_str(),
        (ip, _) => ip,
    };
    let at = |host: &str| Address::Tcp { host: host.to_owned(), port };
    if used.contains(&&at(ip)) || name.is_some_and(|name| used.contains(&&at(name))) {
        return None;
    }
    // If the others are called by name, a certificate may have the name alone.
    let is_name = |used: &&Address| matches!(used, Address::Tcp { host, .. } if host.parse::<IpAddr>().is_err());
    let host = name.filter(|_| used.iter().any(is_name)).unwrap_or(ip);
    (!host.is_empty()).then(|| Slotless { address: at(host), has_failed: has("fail") })
}

/// Whether an address of the URL leads to this node of the cluster.
fn are_one(of_the_url: &Address, node: &Address) -> bool {
    let found = |address: &Address| resolve(&address.to_string()).unwrap_or_default();
    let node = found(node);
    found(of_the_url).iter().any(|found| node.contains(found))
}
