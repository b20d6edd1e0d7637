//! Rows about a Redis Cluster: the group's slot moves under load, its node is lost or replaced, nodes come and go.

use std::time::Duration;

use crate::mode::{Mode, in_both_modes};
use crate::scene::Scene;

/// The slot moves to each of the other primaries, under load.
fn row_48_slot_moves(mode: Mode) {
    let mut scene = Scene::start(mode, "row_48_slot_moves");
    for _ in 0..scene.run.scale(3, 12) {
        let (slot, owner) = (scene.slot(), scene.owner());
        let others: Vec<usize> =
            scene.redis().primaries().expect("primaries").into_iter().filter(|other| *other != owner).collect();
        let to = others[scene.run.random.usize(..others.len())];
        scene.redis().move_slot(slot, to).expect("the slot moves");
        scene.wait_for_more();
    }
    scene.end();
}

/// The same when the other nodes' messages reach the next owner late.
fn row_48_slot_moves_over_a_slow_bus(mode: Mode) {
    let mut scene = Scene::start(mode, "row_48_slot_moves_over_a_slow_bus");
    let (slot, owner) = (scene.slot(), scene.owner());
    let to = scene.redis().primaries().expect("primaries").into_iter().find(|other| *other != owner).expect("another");
    let _buses = [owner, to].map(|node| scene.slow_down_the_bus_to(node));
    for to in [to, owner] {
        scene.redis().move_slot(slot, to).expect("the slot moves");
        scene.wait_for_more();
    }
    scene.end();
}

/// The move takes seconds: some keys are at the new node, others still at the old one, and no step can be taken.
fn row_48_slot_moves_slowly(mode: Mode) {
    let mut scene = Scene::start(mode, "row_48_slot_moves_slowly");
    let (slot, from) = (scene.slot(), scene.owner());
    let to = scene.redis().primaries().expect("primaries").into_iter().find(|other| *other != from).expect("another");
    scene.redis().begin_move(slot, from, to).expect("the move begins");
    // While it lasts, the keys that do not exist are refused, too.
    for _ in 0..3 {
        scene.redis().move_keys(slot, from, to, 2).expect("keys move");
        std::thread::sleep(Duration::from_millis(scene.run.random.u64(300..1_000)));
    }
    while scene.redis().move_keys(slot, from, to, 10).expect("keys move") > 0 {}
    scene.redis().finish_move(slot, from, to).expect("the move ends");
    scene.wait_for_more();
    scene.end();
}

/// A node is added and gets the slot, and is removed again.
fn row_48_node_added_and_removed(mode: Mode) {
    let mut scene = Scene::start(mode, "row_48_node_added_and_removed");
    let (slot, before) = (scene.slot(), scene.owner());
    let new = scene.redis().add_node().expect("a node is added");
    scene.redis().move_slot(slot, new).expect("the slot moves there");
    scene.wait_for_more();
    scene.redis().move_slot(slot, before).expect("the slot moves back");
    scene.redis().remove_node(new).expect("the node is removed");
    scene.wait_for_more();
    scene.end();
}

/// The node is killed, its replica takes its place, and it comes back as a replica.
fn row_49_node_killed(mode: Mode) {
    let mut scene = Scene::start(mode, "row_49_node_killed");
    for _ in 0..scene.run.scale(2, 6) {
        let owner = scene.owner();
        scene.kill_owner(owner);
        scene.wait_for_more();
        scene.redis().start_again(owner).expect("it starts again");
        scene.redis().wait_until_agreed().expect("the nodes agree");
        scene.wait_for_more();
    }
    scene.end();
}

/// The node hangs, its replica takes its place, and then it goes on.
fn row_49_node_paused(mode: Mode) {
    let mut scene = Scene::start(mode, "row_49_node_paused");
    let owner = scene.owner();
    scene.pause_owner(owner);
    scene.wait_for_more();
    scene.redis().resume(owner).expect("resumed");
    scene.redis().wait_until_agreed().expect("the nodes agree");
    scene.wait_for_more();
    scene.end();
}

/// A replica takes the place of a node that works.
fn row_49_failover_by_hand(mode: Mode) {
    let mut scene = Scene::start(mode, "row_49_failover_by_hand");
    for _ in 0..scene.run.scale(3, 12) {
        let owner = scene.owner();
        let replica = scene.redis().replica_of(owner).expect("a replica");
        scene.redis().fail_over(replica).expect("it takes over");
        scene.wait_for_more();
    }
    scene.end();
}

/// The same when the other nodes' messages reach both nodes late.
fn row_49_failover_by_hand_over_a_slow_bus(mode: Mode) {
    let mut scene = Scene::start(mode, "row_49_failover_by_hand_over_a_slow_bus");
    let owner = scene.owner();
    let replica = scene.redis().replica_of(owner).expect("a replica");
    let _buses = [owner, replica].map(|node| scene.slow_down_the_bus_to(node));
    for to in [replica, owner] {
        scene.redis().fail_over(to).expect("it takes over");
        scene.wait_for_more();
    }
    scene.end();
}

/// Node and replica are lost: the cluster is down until the node is back.
fn row_49_cluster_down(mode: Mode) {
    let mut scene = Scene::start(mode, "row_49_cluster_down");
    let owner = scene.owner();
    let replica = scene.redis().replica_of(owner).expect("a replica");
    scene.redis().kill(replica).expect("killed");
    scene.kill_owner(owner);
    std::thread::sleep(Duration::from_millis(scene.run.random.u64(2_000..4_000)));
    scene.redis().start_again(owner).expect("it starts again");
    scene.wait_for_more();
    scene.redis().start_again(replica).expect("it starts again");
    scene.redis().wait_until_agreed().expect("the nodes agree");
    scene.end();
}

in_both_modes! {
    row_48_slot_moves,
    row_48_slot_moves_over_a_slow_bus,
    row_48_slot_moves_slowly,
    row_48_node_added_and_removed,
    row_49_node_killed,
    row_49_node_paused,
    row_49_failover_by_hand,
    row_49_failover_by_hand_over_a_slow_bus,
    row_49_cluster_down,
}
