//! Rest: whatever has happened, the programs reach a state in which none of them has anything left to do.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use stateright::Model;

use crate::actions::Protocol;
use crate::rules::{Bounds, Rules};
use crate::world::World;
use crate::{LEADERS, TAIL_LOSS, bounds};

/// Without further faults the programs come to rest: no state leads back to itself.
#[test]
fn the_programs_come_to_rest() {
    for bounds in [bounds(0, 1, LEADERS), bounds(1, 1, LEADERS), bounds(0, 1, TAIL_LOSS)] {
        assert!(!can_loop(bounds, Rules::ALL));
    }
}

/// Whether the programs can loop without ever coming to rest.
pub fn can_loop(bounds: Bounds, rules: Rules) -> bool {
    let protocol = Protocol { bounds, rules, watched: false, after: &[] };
    let first = protocol.at_rest();
    let mut known = HashSet::from([hash(&first)]);
    let mut waiting = vec![first];
    let mut resting = HashSet::new();
    while let Some(world) = waiting.pop() {
        let next = protocol.next_states(&world).into_iter().filter(|next| known.insert(hash(next)));
        waiting.extend(next);
        if let Some(cycle) = follow_to_rest(&protocol, world, &mut resting) {
            println!("{rules:?}: the programs loop: {cycle:#?}");
            return true;
        }
    }
    println!("{} states, each leads to rest", known.len());
    false
}

/// Follows everything that the programs can do from here. `resting` are states that were followed before. Returns a
/// state that leads back to itself.
fn follow_to_rest(protocol: &Protocol, world: World, resting: &mut HashSet<u64>) -> Option<World> {
    let first = hash(&world);
    if resting.contains(&first) {
        return None;
    }
    let mut on_path = HashSet::from([first]);
    let mut path = vec![(first, protocol.progress_from(&world))];
    while let Some((at, ahead)) = path.last_mut() {
        let Some(next) = ahead.pop() else {
            on_path.remove(at);
            resting.insert(*at);
            path.pop();
            continue;
        };
        let name = hash(&next);
        if on_path.contains(&name) {
            return Some(next);
        }
        if !resting.contains(&name) {
            on_path.insert(name);
            path.push((name, protocol.progress_from(&next)));
        }
    }
    None
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
