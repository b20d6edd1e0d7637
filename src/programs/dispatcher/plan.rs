//! Decides which lanes a group has in a Redis Cluster, and what each listens to. Pure.
//!
//! A lane's keys are in one slot, and its dispatchers subscribe on the node that owns the slot. Messages by `PUBLISH`
//! reach every node, so lane 0, the group itself, listens to plain channels and patterns. Messages on sharded channels,
//! and keyspace events, are sent on one node only. So each node with such interests has one *listening* lane: the one
//! with the lowest number whose slot the node owns. Other lanes that exist only *drain*: they listen to nothing and
//! deliver what is pending. A slot that moves to another node takes its lane along.
//!
//! All dispatchers that know the same owners of the slots make the same plan. While they know different ones,
//! dispatchers of one lane may listen to something different for a moment, as during a rolling change of settings.
//!
//! A node of few slots may own the slot of no lane's name, of which there are 65,536. It has no lane then, and what is
//! sent there is not heard: see [`unheard`].
//!
//! Limitation: in a cluster, a pattern that matches keyspace events and other channels, such as `*`, is listened to by
//! lane 0 only, so the events of the other nodes don't come.

use std::collections::{BTreeMap, BTreeSet};

use crate::ledger::{Interests, LaneNumber, Primary, Topology, lane_name, slot_of};

/// What each lane listens to, by its number; to nothing if it drains.
pub(super) type Plan = BTreeMap<LaneNumber, Interests>;

/// The lanes of `group` that have work. `undone` are the lanes that have pending messages.
///
/// Without a node for the group's own slot nothing is known of the cluster, and there is no plan.
pub(super) fn plan(
    topology: &Topology,
    group: &str,
    interests: &Interests,
    undone: &BTreeSet<LaneNumber>,
) -> Option<Plan> {
    let home = topology.owner(slot_of(group.as_bytes()))?;
    let mut lanes: Plan = undone.iter().chain([&0]).map(|lane| (*lane, interests.none())).collect();
    let mut wanted: BTreeMap<&str, Interests> = BTreeMap::new();
    for primary in &topology.primaries {
        if let Some(these) = interests_at(primary, home, interests) {
            wanted.insert(&primary.id, these);
        }
    }
    for lane in 0..=LaneNumber::MAX {
        if wanted.is_empty() {
            break;
        }
        let Some(name) = lane_name(group, lane) else { break };
        let owner = topology.owner(slot_of(name.as_bytes()));
        if let Some(these) = owner.and_then(|owner| wanted.remove(owner.id.as_str())) {
            lanes.insert(lane, these);
        }
    }
    Some(lanes)
}

/// The nodes on which messages are sent that no lane of the plan hears, and the sharded channels that have no node, for
/// people.
pub(super) fn unheard(topology: &Topology, group: &str, interests: &Interests, plan: &Plan) -> Option<String> {
    let home = topology.owner(slot_of(group.as_bytes()))?;
    let node_of = |lane| topology.owner(slot_of(lane_name(group, lane)?.as_bytes())).map(|node| &node.id);
    let listening = plan.iter().filter(|(_, these)| !these.is_none());
    let heard: BTreeSet<&String> = listening.filter_map(|(lane, _)| node_of(*lane)).collect();
    let without = topology.primaries.iter().filter(|primary| !heard.contains(&primary.id));
    let problem = |primary: &Primary| {
        let these = interests_at(primary, home, interests)?;
        Some(format!(
            "no lane hears the node {}, which sends {}: its slots fit no lane of {group}; give it more slots, or move \
             those of the channels",
            primary.address,
            these.summary(),
        ))
    };
    let nowhere = interests.only(|channel| interests.is_sharded() && topology.owner(slot_of(channel)).is_none());
    let nowhere = nowhere.map(|these| format!("no node of the Redis Cluster owns the slots of {}", these.summary()));
    let problems: Vec<String> = without.filter_map(problem).chain(nowhere).collect();
    (!problems.is_empty()).then(|| problems.join("; "))
}

/// What the listening lane of a node listens to; `None` if there is nothing on this node. `home` has the group's slot.
fn interests_at(primary: &Primary, home: &Primary, interests: &Interests) -> Option<Interests> {
    if interests.is_sharded() {
        return interests.only(|channel| primary.owns(slot_of(channel)));
    }
    if primary.id == home.id { Some(interests.clone()) } else { interests.of_key_events() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ledger::{Glob, SLOTS};
    use crate::net::Address;

    /// A cluster with an owner for each stretch of slots.
    fn topology(owners: &[u8]) -> Topology {
        let length = usize::from(SLOTS).div_ceil(owners.len());
        let mut primaries: Vec<Primary> = Vec::new();
        for (at, owner) in owners.iter().enumerate() {
            let (first, last) = (at * length, ((at + 1) * length).min(usize::from(SLOTS)) - 1);
            let (id, range) = (format!("node-{owner}"), first as u16..=last as u16);
            match primaries.iter_mut().find(|primary| primary.id == id) {
                Some(primary) => primary.slots.push(range),
                None => {
                    let address = Address::Tcp { host: "h".to_owned(), port: u16::from(*owner) + 1 };
                    primaries.push(Primary { id, address, slots: vec![range] });
                }
            }
        }
        Topology { primaries, replicas: Vec::new() }
    }

    fn sharded(count: usize) -> Interests {
        Interests::of_sharded((0..count).map(|number| format!("channel-{number}").into_bytes()).collect())
            .expect("good")
    }

    fn planned(topology: &Topology, interests: &Interests) -> Plan {
        plan(topology, "{orders}", interests, &BTreeSet::new()).expect("all slots have owners")
    }

    fn node_of(topology: &Topology, lane: LaneNumber) -> &str {
        let name = lane_name("{orders}", lane).expect("it has a tag");
        &topology.owner(slot_of(name.as_bytes())).expect("all slots have owners").id
    }

    /// The lanes that listen.
    fn listening(plan: &Plan) -> BTreeMap<LaneNumber, &Interests> {
        plan.iter().filter(|(_, these)| !these.is_none()).map(|(lane, these)| (*lane, these)).collect()
    }

    #[test]
    fn plain_channels_and_patterns_are_lane_0s() {
        let glob = Glob::parse(b"orders.*").expect("a pattern");
        let interests = Interests::of(vec![b"a".to_vec()], vec![glob]).expect("good ones");
        assert_eq!(planned(&topology(&[0, 1, 2]), &interests), Plan::from([(0, interests)]));
    }

    #[test]
    fn each_node_has_a_lane_for_its_keyspace_events() {
        let channels = [&b"orders"[..], b"__keyevent@0__:expired"].map(<[u8]>::to_vec).to_vec();
        let globs = [&b"__keyspace@*__:a*"[..], b"*"].map(|text| Glob::parse(text).expect("a pattern")).to_vec();
        let interests = Interests::of(channels, globs).expect("good ones");
        let topology = topology(&[0, 1, 2]);
        let plan = planned(&topology, &interests);
        assert_eq!((plan.len(), &plan[&0]), (3, &interests));
        assert_eq!(
            interests.patterns_with_key_events().collect::<Vec<_>>(),
            [b"*"],
            "they hear the events of one node"
        );
        let nodes: BTreeSet<&str> = plan.keys().map(|lane| node_of(&topology, *lane)).collect();
        assert_eq!(nodes.len(), 3);
        for (_, these) in plan.iter().skip(1) {
            assert_eq!(these.channels().collect::<Vec<_>>(), [b"__keyevent@0__:expired"]);
            assert_eq!(these.patterns().collect::<Vec<_>>(), [b"__keyspace@*__:a*"]);
        }
    }

    #[test]
    fn a_group_without_a_tag_has_one_lane() {
        let interests = Interests::of(vec![b"__keyevent@0__:set".to_vec()], Vec::new()).expect("a good one");
        let lanes = plan(&topology(&[0, 1, 2]), "orders", &interests, &BTreeSet::new()).expect("a plan");
        assert_eq!(lanes.len(), 1);
    }

    #[test]
    fn lanes_that_no_longer_listen_drain() {
        let undone = BTreeSet::from([0, 7, 300]);
        let plan = plan(&topology(&[0]), "{orders}", &sharded(5), &undone).expect("a plan");
        assert_eq!(plan.keys().copied().collect::<Vec<_>>(), [0, 7, 300]);
        assert_eq!(listening(&plan), BTreeMap::from([(0, &sharded(5))]));
    }

    #[test]
    fn without_the_groups_node_there_is_no_plan() {
        assert_eq!(plan(&Topology::default(), "{orders}", &sharded(1), &BTreeSet::new()), None);
    }

    /// A cluster of two nodes, of which the second has one slot only.
    fn with_a_node_of(slot: u16) -> Topology {
        let node = |number: u16, slots| {
            let address = Address::Tcp { host: "h".to_owned(), port: number };
            Primary { id: format!("node-{number}"), address, slots }
        };
        let rest = vec![0..=slot - 1, slot + 1..=SLOTS - 1];
        Topology { primaries: vec![node(0, rest), node(1, vec![slot..=slot])], replicas: Vec::new() }
    }

    #[test]
    fn a_node_of_one_slot_has_a_lane_or_is_named() {
        let slots_of = |lanes: std::ops::RangeInclusive<LaneNumber>| -> BTreeSet<u16> {
            lanes.map(|lane| slot_of(lane_name("{orders}", lane).expect("it has a tag").as_bytes())).collect()
        };
        let (low, all) = (slots_of(0..=5_000), slots_of(0..=LaneNumber::MAX));
        assert!(all.len() * 10 > usize::from(SLOTS) * 9, "{}", all.len());
        let events = Interests::of(vec![b"__keyevent@0__:set".to_vec()], Vec::new()).expect("a good one");
        let far = (1..SLOTS - 1).find(|slot| all.contains(slot) && !low.contains(slot)).expect("a slot");
        let topology = with_a_node_of(far);
        let plan = planned(&topology, &events);
        assert_eq!((listening(&plan).len(), unheard(&topology, "{orders}", &events, &plan)), (2, None));
        let none = (1..SLOTS - 1).find(|slot| !all.contains(slot)).expect("a slot");
        let topology = with_a_node_of(none);
        let problem = unheard(&topology, "{orders}", &events, &planned(&topology, &events)).expect("a problem");
        assert!(problem.contains("h:1") && problem.contains("__keyevent@0__:set"), "{problem}");
    }

    #[test]
    fn a_sharded_channel_without_a_node_is_named() {
        let interests = sharded(1);
        let channel = interests.channels().next().expect("one");
        let mut topology = topology(&[0, 1]);
        assert_eq!(unheard(&topology, "{orders}", &interests, &planned(&topology, &interests)), None);
        let at = slot_of(channel);
        for primary in &mut topology.primaries {
            let slots = primary.slots.iter().cloned().flatten().filter(|slot| *slot != at);
            primary.slots = slots.map(|slot| slot..=slot).collect();
        }
        let problem = unheard(&topology, "{orders}", &interests, &planned(&topology, &interests)).expect("a problem");
        assert!(problem.contains("no node") && problem.contains("channel-0"), "{problem}");
    }

    proptest! {
        /// Each channel has exactly one lane, on its node, and each node one lane at most.
        #[test]
        fn each_channel_is_listened_to_once_on_its_node(
            owners in prop::collection::vec(0_u8..6, 1..40),
            channels in 1_usize..30,
        ) {
            let (topology, interests) = (topology(&owners), sharded(channels));
            let plan = planned(&topology, &interests);
            prop_assert!(plan.contains_key(&0), "the group itself");
            let lanes = listening(&plan);
            let nodes: BTreeSet<&str> = lanes.keys().map(|lane| node_of(&topology, *lane)).collect();
            prop_assert_eq!(nodes.len(), lanes.len());
            for channel in interests.channels() {
                let found: Vec<LaneNumber> = lanes
                    .iter()
                    .filter(|(_, these)| these.channels().any(|name| name == channel))
                    .map(|(lane, _)| *lane)
                    .collect();
                prop_assert_eq!(found.len(), 1);
                prop_assert_eq!(node_of(&topology, found[0]), &topology.owner(slot_of(channel)).expect("owned").id);
            }
            prop_assert_eq!(planned(&topology, &interests), plan, "and nothing changes by itself");
        }

        /// A stretch of slots that moves changes the lanes of the two nodes alone.
        #[test]
        fn a_move_changes_only_the_lanes_of_the_two_nodes(
            owners in prop::collection::vec(0_u8..6, 2..40),
            moved in any::<prop::sample::Index>(),
            to in 0_u8..6,
        ) {
            let mut after = owners.clone();
            let at = moved.index(owners.len());
            let from = std::mem::replace(&mut after[at], to);
            let interests = sharded(20);
            let (before, after) = (topology(&owners), topology(&after));
            let (lanes, moved) = (planned(&before, &interests), planned(&after, &interests));
            let involved = [from, to].map(|node| format!("node-{node}"));
            for (lane, these) in listening(&lanes) {
                if !involved.iter().any(|id| id == node_of(&before, lane)) {
                    prop_assert_eq!(moved.get(&lane), Some(these));
                }
            }
        }
    }
}
