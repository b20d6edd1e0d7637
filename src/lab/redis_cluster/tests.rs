use super::*;
use crate::ledger::slot_of;

#[test]
fn a_cluster_is_formed_changed_and_survives_the_loss_of_a_node() {
    let mut cluster = RedisCluster::start(RedisClusterOptions::default()).expect("a Redis Cluster starts");
    let slot = slot_of(b"{orders}:pending");
    let from = cluster.owner(slot).expect("the slot has an owner");
    let to = (0..3).find(|number| *number != from).expect("another primary");
    cluster.node(from).connection().query("writing", Command::of(&["SET", "{orders}:pending", "1"])).expect("written");
    cluster.move_slot(slot, to).expect("the slot moves");
    assert_eq!(cluster.owner(slot).expect("an owner"), to);

    let replica = cluster.replica_of(to).expect("it has a replica");
    cluster.fail_over(replica).expect("the replica takes over");
    assert_eq!(cluster.owner(slot).expect("an owner"), replica);

    cluster.kill(replica).expect("killed");
    cluster.wait_until_primary(to).expect("the other takes over");
    cluster.wait_until_agreed().expect("they agree without it");
    cluster.start_again(replica).expect("it is back");
    cluster.wait_until_agreed().expect("they agree with it");

    let new = cluster.add_node().expect("a node is added");
    cluster.move_slot(slot, new).expect("the slot moves there");
    let mut connection = cluster.node(new).connection();
    let value = connection.query("reading", Command::of(&["GET", "{orders}:pending"])).expect("it is there");
    assert_eq!(value, redis::Value::BulkString(b"1".to_vec()));
    cluster.move_slot(slot, to).expect("the slot moves back");
    cluster.remove_node(new).expect("the node is removed");
}
