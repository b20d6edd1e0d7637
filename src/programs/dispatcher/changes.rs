//! When another lane becomes the listening lane of a node, nobody listens there for a moment. Pure.
//!
//! Dispatchers notice such a change a little earlier or later, and a message that is heard in two lanes is processed in
//! both. What is published in that moment is not owed, as when a sharded channel's slot moves. A lane whose own slot
//! moves does not listen on the new node before the lanes are planned anew (`Planned`).
//!
//! Limitation: a dispatcher that starts just then does not know which lane listened there before, and begins at once.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::plan::Plan;
use crate::ledger::{LaneNumber, Topology, lane_name, slot_of};

/// For how long nobody listens on a node whose listening lane changes: longer than from the first dispatcher that
/// notices to the last one whose former lane there has ended. Each looks once a second.
pub(super) const PASS_ON_PAUSE: Duration = Duration::from_millis(2_500);

/// Which lanes listen on which nodes, over time.
#[derive(Default)]
pub(super) struct Changes {
    /// The listening lane of each node, by the node's id.
    listening: BTreeMap<String, LaneNumber>,
    /// Lanes that don't listen yet, and until when.
    waiting: BTreeMap<LaneNumber, Instant>,
}

impl Changes {
    /// Lets lanes wait that have just become the listening lanes of nodes in place of others. Lane 0 waits with all
    /// that it listens to, also plain channels, which no other lane has heard: a lane has one subscription.
    pub(super) fn hold_back(&mut self, plan: &mut Plan, topology: &Topology, group: &str, now: Instant) {
        let node_of = |lane| topology.owner(slot_of(lane_name(group, lane)?.as_bytes())).map(|node| node.id.clone());
        let listening = plan.iter().filter(|(_, these)| !these.is_none());
        let listening: BTreeMap<String, LaneNumber> =
            listening.filter_map(|(lane, _)| Some((node_of(*lane)?, *lane))).collect();
        for (node, lane) in &listening {
            let was_others = self.listening.get(node).is_some_and(|before| before != lane);
            if was_others {
                self.waiting.insert(*lane, now + PASS_ON_PAUSE);
            }
        }
        self.listening = listening;
        self.waiting.retain(|_, until| *until > now);
        let waiting = plan.iter_mut().filter(|(lane, _)| self.waiting.contains_key(lane));
        waiting.for_each(|(_, these)| *these = these.none());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::ledger::{Interests, Primary, SLOTS};
    use crate::net::Address;
    use crate::programs::dispatcher::plan::plan;

    const GROUP: &str = "{orders}";

    /// Two nodes; the second has these slots.
    fn topology(second: &BTreeSet<u16>) -> Topology {
        let node = |number: u16, slots: Vec<u16>| {
            let address = Address::Tcp { host: "h".to_owned(), port: number };
            let slots = slots.into_iter().map(|slot| slot..=slot).collect();
            Primary { id: format!("node-{number}"), address, slots }
        };
        let first = (0..SLOTS).filter(|slot| !second.contains(slot)).collect();
        Topology { primaries: vec![node(0, first), node(1, second.iter().copied().collect())], replicas: Vec::new() }
    }

    fn slot_of_lane(lane: LaneNumber) -> u16 {
        slot_of(lane_name(GROUP, lane).expect("it has a tag").as_bytes())
    }

    fn held_back(changes: &mut Changes, topology: &Topology, interests: &Interests, now: Instant) -> (Plan, Plan) {
        let planned = plan(topology, GROUP, interests, &BTreeSet::new()).expect("all slots have owners");
        let mut held = planned.clone();
        changes.hold_back(&mut held, topology, GROUP, now);
        (planned, held)
    }

    #[test]
    fn a_lane_that_follows_another_on_a_node_waits() {
        let (channel, now) = (b"on-the-second".to_vec(), Instant::now());
        let interests = Interests::of_sharded(vec![channel.clone()]).expect("a good one");
        let mut changes = Changes::default();
        // Lane 2 listens on the second node; then its slot moves away, and lane 3 follows.
        let before = topology(&BTreeSet::from([slot_of(&channel), slot_of_lane(2), slot_of_lane(3)]));
        let (planned, held) = held_back(&mut changes, &before, &interests, now);
        assert_eq!((planned.contains_key(&2), &held), (true, &planned), "nobody listened there before");
        let after = topology(&BTreeSet::from([slot_of(&channel), slot_of_lane(3)]));
        let (planned, held) = held_back(&mut changes, &after, &interests, now);
        assert_eq!((&planned[&3], held[&3].is_none()), (&interests, true));
        let (planned, held) = held_back(&mut changes, &after, &interests, now + PASS_ON_PAUSE);
        assert_eq!(held, planned);
    }

    #[test]
    fn a_lane_that_gets_a_channel_from_another_node_does_not_wait() {
        let names = [&b"one"[..], b"other"].map(<[u8]>::to_vec);
        let (now, mut changes) = (Instant::now(), Changes::default());
        let interests = Interests::of_sharded(names.to_vec()).expect("good ones");
        let mut slots = BTreeSet::from([slot_of(&names[0]), slot_of_lane(2)]);
        held_back(&mut changes, &topology(&slots), &interests, now);
        slots.insert(slot_of(&names[1]));
        let (planned, held) = held_back(&mut changes, &topology(&slots), &interests, now);
        assert_eq!((planned[&2].channels().count(), &held), (2, &planned));
    }

    #[test]
    fn lane_0_waits_with_all_that_it_listens_to() {
        let channels = [&b"orders"[..], b"__keyevent@0__:expired"].map(<[u8]>::to_vec);
        let interests = Interests::of(channels.to_vec(), Vec::new()).expect("good ones");
        let (now, mut changes) = (Instant::now(), Changes::default());
        held_back(&mut changes, &topology(&BTreeSet::from([slot_of_lane(2)])), &interests, now);
        // The group's own slot moves to the second node, where lane 2 listened.
        let after = topology(&BTreeSet::from([slot_of_lane(0), slot_of_lane(2)]));
        let (planned, held) = held_back(&mut changes, &after, &interests, now);
        assert_eq!((&planned[&0], held[&0].is_none()), (&interests, true));
        let (planned, held) = held_back(&mut changes, &after, &interests, now + PASS_ON_PAUSE);
        assert_eq!((&held, &held[&0]), (&planned, &interests));
    }
}
