//! The nodes of a Redis Cluster and their slots, as one node tells them, and the slot of a key. Pure.
//!
//! Read from `CLUSTER SLOTS`, which all versions have. What a node tells may be out of date: another node may tell
//! something else at the same time, and only the refusal of a command (`MOVED`) is certain.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use redis::Value;

use super::value::text;
use crate::net::Address;

/// How many slots a cluster has.
pub const SLOTS: u16 = 16_384;

/// The slot of a key, a sharded channel, or a group's name: of the part between the first `{` and the next `}`, if
/// there is something between them, else of the whole.
pub fn slot_of(key: &[u8]) -> u16 {
    crc16(tag_of(key).unwrap_or(key)) % SLOTS
}

/// That part. All keys that begin with a text that has one are in one slot.
pub fn tag_of(key: &[u8]) -> Option<&[u8]> {
    let rest = &key[key.iter().position(|byte| *byte == b'{')? + 1..];
    let close = rest.iter().position(|byte| *byte == b'}').filter(|length| *length > 0)?;
    Some(&rest[..close])
}

/// CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    const POLYNOMIAL: u16 = 0x1021;
    bytes.iter().fold(0, |sum, byte| {
        (0..8).fold(sum ^ (u16::from(*byte) << 8), |sum, _| {
            let shifted = sum << 1;
            if sum >> 15 == 1 { shifted ^ POLYNOMIAL } else { shifted }
        })
    })
}

/// A primary that owns slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Primary {
    /// The node's id, which it keeps when its address changes.
    pub id: String,
    /// Where clients reach it.
    pub address: Address,
    /// Its slots, in order; no two ranges touch each other.
    pub slots: Vec<RangeInclusive<u16>>,
}

impl Primary {
    /// Whether it owns a slot.
    pub fn owns(&self, slot: u16) -> bool {
        self.slots.iter().any(|range| range.contains(&slot))
    }
}

/// See the module's text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    /// The primaries that own slots, by id.
    pub primaries: Vec<Primary>,
    /// Their replicas, as far as they are told.
    pub replicas: Vec<Replica>,
}

/// A replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// Where clients reach it.
    pub address: Address,
    /// The id of its primary.
    pub primary: String,
}

impl Topology {
    /// Reads the answer to `CLUSTER SLOTS` of the node at `asked`. Ranges and nodes that can't be read are left out:
    /// a slot without an owner is one without a node that could be named.
    pub fn of_slots(reply: &Value, asked: &Address) -> Option<Topology> {
        let Value::Array(ranges) = reply else { return None };
        let mut owners: BTreeMap<String, (Address, Vec<RangeInclusive<u16>>)> = BTreeMap::new();
        let mut replicas: Vec<Replica> = Vec::new();
        for range in ranges {
            let Value::Array(parts) = range else { return None };
            let [Value::Int(first), Value::Int(last), nodes @ ..] = &parts[..] else { return None };
            let range = u16::try_from(*first).ok()?..=u16::try_from(*last).ok()?;
            let mut nodes = nodes.iter().map(|node| node_of(node, asked));
            let Some(Some((id, address))) = nodes.next() else { continue };
            owners.entry(id.clone()).or_insert((address, Vec::new())).1.push(range);
            for (_, address) in nodes.flatten() {
                if !replicas.iter().any(|replica| replica.address == address) {
                    replicas.push(Replica { address, primary: id.clone() });
                }
            }
        }
        let primary = |(id, (address, slots))| Primary { id, address, slots: joined(slots) };
        Some(Topology { primaries: owners.into_iter().map(primary).collect(), replicas })
    }

    /// This one, but where `kept` is true of a slot, with the owner that the slot had before, and with the replicas of
    /// that.
    pub fn keeping(&self, kept: &[bool], before: &Topology) -> Topology {
        let mut owners: BTreeMap<&str, (&Primary, Vec<RangeInclusive<u16>>)> = BTreeMap::new();
        let mut kept_owners: BTreeSet<&str> = BTreeSet::new();
        let owner_of = self.owners().into_iter().zip(before.owners()).zip(kept);
        for (slot, ((told, before), kept)) in (0..SLOTS).zip(owner_of) {
            let Some(owner) = (if *kept { before } else { told }) else { continue };
            if *kept {
                kept_owners.insert(&owner.id);
            }
            owners.entry(&owner.id).or_insert((owner, Vec::new())).1.push(slot..=slot);
        }
        let primary = |(owner, slots): (&Primary, Vec<_>)| {
            // Its address may have changed.
            let told = self.primaries.iter().find(|told| told.id == owner.id);
            Primary { slots: joined(slots), ..told.unwrap_or(owner).clone() }
        };
        let primaries: Vec<Primary> = owners.into_values().map(primary).collect();
        let is_primary = |replica: &&Replica| primaries.iter().any(|owner| owner.address == replica.address);
        let as_before = before.replicas.iter().filter(|replica| kept_owners.contains(&replica.primary[..]));
        let mut replicas: Vec<Replica> = Vec::new();
        for replica in as_before.chain(&self.replicas).filter(|replica| !is_primary(replica)) {
            if !replicas.iter().any(|listed| listed.address == replica.address) {
                replicas.push(replica.clone());
            }
        }
        Topology { primaries, replicas }
    }

    /// The owner of each slot.
    pub fn owners(&self) -> Vec<Option<&Primary>> {
        let mut owners = vec![None; usize::from(SLOTS)];
        for primary in &self.primaries {
            for slot in primary.slots.iter().cloned().flatten() {
                owners[usize::from(slot)] = Some(primary);
            }
        }
        owners
    }

    /// The primary that owns a slot.
    pub fn owner(&self, slot: u16) -> Option<&Primary> {
        self.primaries.iter().find(|primary| primary.owns(slot))
    }

    /// The addresses of all nodes that are told, primaries first.
    pub fn nodes(&self) -> impl Iterator<Item = &Address> {
        let replicas = self.replicas.iter().map(|replica| &replica.address);
        self.primaries.iter().map(|primary| &primary.address).chain(replicas)
    }

    /// The addresses of the nodes that have the keys of a slot: its owner, and the replicas of that.
    pub fn shard(&self, slot: u16) -> impl Iterator<Item = &Address> {
        let owner = self.owner(slot);
        let is_its = move |replica: &&Replica| owner.is_some_and(|owner| owner.id == replica.primary);
        let replicas = self.replicas.iter().filter(is_its).map(|replica| &replica.address);
        owner.map(|owner| &owner.address).into_iter().chain(replicas)
    }

    /// How many slots have an owner.
    pub fn covered(&self) -> usize {
        let slots = self.primaries.iter().flat_map(|primary| &primary.slots);
        slots.map(|range| usize::from(*range.end()) + 1 - usize::from(*range.start())).sum()
    }
}

/// Ranges in order, with neighbours made one.
fn joined(mut ranges: Vec<RangeInclusive<u16>>) -> Vec<RangeInclusive<u16>> {
    ranges.retain(|range| !range.is_empty() && *range.end() < SLOTS);
    ranges.sort_by_key(|range| *range.start());
    let mut joined: Vec<RangeInclusive<u16>> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if *range.start() <= *last.end() + 1 => *last = *last.start()..=*last.end().max(range.end()),
            _ => joined.push(range),
        }
    }
    joined
}

/// A node's id and address: `[host, port, id]`, since 7.0 followed by a map of more.
fn node_of(node: &Value, asked: &Address) -> Option<(String, Address)> {
    let Value::Array(parts) = node else { return None };
    let [host, Value::Int(port), id, rest @ ..] = &parts[..] else { return None };
    let more = || rest.first().and_then(ip_in);
    let host = match host {
        // It does not know its address, or is told to name none: it is where it was asked.
        Value::Nil => host_of(asked)?,
        host => match text(host)? {
            "" => more().or_else(|| host_of(asked))?,
            // It is told to give host names, and has none of this node.
            "?" => more()?,
            host => host.to_owned(),
        },
    };
    let port = u16::try_from(*port).ok().filter(|port| *port > 0)?;
    Some((text(id)?.to_owned(), Address::Tcp { host, port }))
}

/// The address in the map behind a node's id, which is an array of names and values in RESP2.
fn ip_in(more: &Value) -> Option<String> {
    let ip = match more {
        Value::Map(pairs) => pairs.iter().find(|(name, _)| text(name) == Some("ip")).map(|(_, ip)| ip),
        Value::Array(words) => words.chunks_exact(2).find(|pair| text(&pair[0]) == Some("ip")).map(|pair| &pair[1]),
        _ => None,
    };
    ip.and_then(text).filter(|ip| !ip.is_empty()).map(str::to_owned)
}

fn host_of(address: &Address) -> Option<String> {
    match address {
        Address::Tcp { host, .. } => Some(host.clone()),
        Address::Unix(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> Address {
        Address::Tcp { host: host.to_owned(), port }
    }

    fn asked() -> Address {
        tcp("seed", 6379)
    }

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn node(host: Value, port: i64, id: &str) -> Value {
        Value::Array(vec![host, Value::Int(port), bulk(id)])
    }

    fn range(first: i64, last: i64, nodes: Vec<Value>) -> Value {
        Value::Array([vec![Value::Int(first), Value::Int(last)], nodes].concat())
    }

    /// As `CLUSTER KEYSLOT` of Redis 7.0 answers.
    #[test]
    fn a_keys_slot_is_that_of_its_tag() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        for (key, slot) in [
            ("", 0),
            ("foo", 12_182),
            ("{foo}:pending", 12_182),
            ("a{foo}b", 12_182),
            ("{foo}{bar}", 12_182),
            ("{{foo}}", slot_of(b"{foo")),
            ("123456789", 12_739),
        ] {
            assert_eq!(slot_of(key.as_bytes()), slot, "{key}");
        }
        for key in ["foo{}{bar}", "{}foo", "foo{bar", "foo}bar{"] {
            assert_eq!(slot_of(key.as_bytes()), crc16(key.as_bytes()) % SLOTS, "{key}");
        }
    }

    #[test]
    fn the_owners_of_the_slots_are_read() {
        let primary = node(bulk("10.0.0.1"), 6379, "one");
        let reply = Value::Array(vec![
            range(5461, 5461, vec![primary.clone()]),
            range(0, 5460, vec![primary, node(bulk("10.0.0.4"), 6379, "four")]),
            range(5463, 16_383, vec![node(bulk("node-2"), 7000, "two"), node(bulk("10.0.0.4"), 6379, "four")]),
        ]);
        let topology = Topology::of_slots(&reply, &asked()).expect("it is readable");
        let one = Primary { id: "one".to_owned(), address: tcp("10.0.0.1", 6379), slots: vec![0..=5461] };
        let two = Primary { id: "two".to_owned(), address: tcp("node-2", 7000), slots: vec![5463..=16_383] };
        assert_eq!(topology.owner(0), Some(&one));
        assert_eq!((topology.owner(5461), topology.owner(5462)), (Some(&one), None));
        assert_eq!((topology.owner(16_383), topology.covered()), (Some(&two), 16_383));
        assert_eq!(topology.primaries, [one, two]);
        let replica = Replica { address: tcp("10.0.0.4", 6379), primary: "one".to_owned() };
        assert_eq!(topology.replicas, [replica]);
        assert_eq!(topology.shard(7).collect::<Vec<_>>(), [&tcp("10.0.0.1", 6379), &tcp("10.0.0.4", 6379)]);
        assert_eq!(topology.shard(16_383).collect::<Vec<_>>(), [&tcp("node-2", 7000)]);
        assert_eq!(topology.shard(5462).count(), 0);
        assert_eq!(topology.nodes().count(), 3);
    }

    fn primary(id: &str, slots: &[RangeInclusive<u16>]) -> Primary {
        Primary { id: id.to_owned(), address: tcp(id, 6379), slots: slots.to_vec() }
    }

    fn replica(address: &str, primary: &str) -> Replica {
        Replica { address: tcp(address, 6379), primary: primary.to_owned() }
    }

    #[test]
    fn slots_that_are_kept_have_the_owner_that_they_had() {
        let before = Topology {
            primaries: vec![primary("a", &[0..=99]), primary("b", &[100..=199]), primary("c", &[200..=16_383])],
            replicas: vec![replica("r", "a"), replica("s", "b"), replica("d", "c")],
        };
        let mut told = Topology {
            primaries: vec![primary("a", &[0..=49]), primary("d", &[150..=159, 200..=16_383])],
            replicas: vec![replica("r", "a"), replica("s", "d"), replica("c", "d")],
        };
        told.primaries[0].address = tcp("moved", 6379);
        let kept: Vec<bool> = (0..SLOTS).map(|slot| told.owner(slot).is_none()).collect();
        let keeping = told.keeping(&kept, &before);
        let mut completed =
            [primary("a", &[0..=99]), primary("b", &[100..=149, 160..=199]), primary("d", &[150..=159, 200..=16_383])];
        completed[0].address = tcp("moved", 6379);
        assert_eq!(keeping.primaries, completed);
        assert_eq!(keeping.replicas, [replica("r", "a"), replica("s", "b"), replica("c", "d")]);
        let none = [false; SLOTS as usize];
        assert_eq!(keeping.keeping(&none, &before), keeping);
        let all = [true; SLOTS as usize];
        assert_eq!(Topology::default().keeping(&all, &before), before);
        assert_eq!(told.keeping(&all, &Topology::default()).covered(), 0, "nothing was known before");
    }

    #[test]
    fn a_node_without_a_host_is_found() {
        let with = |host: Value, more: Value| {
            let node = Value::Array(vec![host, Value::Int(6380), bulk("id"), more]);
            let topology = Topology::of_slots(&Value::Array(vec![range(0, 16_383, vec![node])]), &asked());
            topology.expect("readable").owner(1).map(|primary| primary.address.clone())
        };
        let none = || Value::Array(Vec::new());
        let ip = || Value::Array(vec![bulk("ip"), bulk("10.0.0.9")]);
        let map = || Value::Map(vec![(bulk("hostname"), bulk("h")), (bulk("ip"), bulk("10.0.0.9"))]);
        assert_eq!(with(bulk(""), none()), Some(tcp("seed", 6380)));
        assert_eq!(with(Value::Nil, none()), Some(tcp("seed", 6380)));
        assert_eq!(with(Value::Nil, ip()), Some(tcp("seed", 6380)));
        assert_eq!(with(bulk("?"), ip()), Some(tcp("10.0.0.9", 6380)));
        assert_eq!(with(bulk("?"), map()), Some(tcp("10.0.0.9", 6380)));
        assert_eq!(with(bulk("?"), none()), None);
        assert_eq!(with(bulk("::1"), none()), Some(tcp("::1", 6380)));
    }

    #[test]
    fn what_is_not_an_answer_is_not_read() {
        for reply in [Value::Nil, Value::Array(vec![Value::Int(1)]), Value::Array(vec![range(-1, 5, Vec::new())])] {
            assert_eq!(Topology::of_slots(&reply, &asked()), None, "{reply:?}");
        }
        let empty = Topology::of_slots(&Value::Array(Vec::new()), &asked()).expect("a cluster without slots");
        assert_eq!((empty.covered(), empty.owner(0)), (0, None));
    }
}
