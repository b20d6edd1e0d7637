//! Which lanes a group has on which nodes, and the sharded channel of each. Pure.

use std::collections::BTreeSet;

use crate::ledger::{Keys, LaneNumber, Topology, slot_of};
use crate::net::Address;

/// The highest number of a lane and of a channel that is tried.
const MOST: LaneNumber = 4_096;

/// A lane, its channel, and the node of both.
#[derive(Clone, Debug)]
pub(super) struct Lane {
    pub(super) keys: Keys,
    pub(super) channel: String,
    pub(super) node: Address,
}

/// So many lanes of a group, each on a node of its own. The dispatchers plan the same: lane 0 is on the group's own
/// node, and each other lane has the lowest number on its node. `None` if the cluster has fewer nodes.
pub(super) fn lanes(topology: &Topology, group: &str, count: usize) -> Option<Vec<Lane>> {
    let base = Keys::new(group);
    let (mut lanes, mut used) = (Vec::new(), BTreeSet::new());
    for number in 0..=MOST {
        if lanes.len() == count {
            break;
        }
        let keys = base.lane(number)?;
        let node = topology.owner(slot_of(keys.group.as_bytes()))?;
        if used.insert(&node.id) {
            let mut names = (0..=MOST).map(|number| format!("messages:{number}"));
            let channel = names.find(|name| node.owns(slot_of(name.as_bytes())))?;
            lanes.push(Lane { keys, channel, node: node.address.clone() });
        }
    }
    (lanes.len() == count).then_some(lanes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Primary, SLOTS};

    #[test]
    fn each_lane_is_on_a_node_of_its_own_with_its_channel() {
        let share = SLOTS.div_ceil(12);
        let primary = |number: u16| Primary {
            id: format!("node-{number}"),
            address: Address::Tcp { host: "h".to_owned(), port: number },
            slots: vec![number * share..=((number + 1) * share).min(SLOTS) - 1],
        };
        let topology = Topology { primaries: (0..12).map(primary).collect(), replicas: Vec::new() };
        for count in 1..=12 {
            let lanes = lanes(&topology, "{messages}", count).expect("there are 12 nodes");
            let nodes: BTreeSet<String> = lanes.iter().map(|lane| lane.node.to_string()).collect();
            assert_eq!((lanes.len(), nodes.len(), &*lanes[0].keys.group), (count, count, "{messages}"));
            for Lane { keys, channel, node } in &lanes {
                for name in [channel, &keys.processed] {
                    let owner = topology.owner(slot_of(name.as_bytes())).expect("all have owners");
                    assert_eq!(owner.address, *node, "{name}");
                }
            }
        }
        assert!(lanes(&topology, "{messages}", 13).is_none());
    }
}
