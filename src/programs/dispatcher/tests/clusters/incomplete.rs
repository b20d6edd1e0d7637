//! Nodes that do not know the owners of all slots, as for a moment after a failover.

use super::*;

/// Lets each of two nodes forget which slots the other one has. It soon learns that again.
fn let_forget(nodes: &mut [Connection; 2], slots: &[Vec<String>; 2]) {
    for (node, others) in nodes.iter_mut().zip([&slots[1], &slots[0]]) {
        for slot in others {
            // Refused if it does not know the owner.
            let _ = node.query("testing", Command::of(&["CLUSTER", "DELSLOTS", slot]));
        }
    }
}

/// How often a node was asked for the slots.
fn asked(node: &mut Connection) -> u64 {
    let reply = node.query("testing", Command::of(&["INFO", "commandstats"])).expect("it answers");
    let text = match &reply {
        Value::BulkString(text) => String::from_utf8_lossy(text),
        Value::VerbatimString { text, .. } => text.into(),
        other => panic!("{other:?}"),
    };
    let calls = text.lines().find_map(|line| line.strip_prefix("cmdstat_cluster|slots:calls=")?.split(',').next());
    calls.map_or(0, |calls| calls.parse().expect("a number"))
}

#[test]
fn a_node_that_has_forgotten_owners_interrupts_no_lane() {
    let Some(cluster) = cluster(2, &[("cluster-require-full-coverage", "no")]) else { return };
    let channels = names(8);
    let dispatchers = two_in_sync(&cluster, &channels);
    let subscriptions = || -> Vec<(LaneNumber, u64)> {
        let lanes: Vec<_> = dispatchers.iter().flat_map(|dispatcher| dispatcher.host.lanes().to_vec()).collect();
        lanes.iter().map(|hosted| (hosted.number, hosted.lane.subscriptions())).collect()
    };
    let before = subscriptions();
    // Their own connections, because a new one would ask where to go.
    let mut nodes = [0, 1].map(|number| {
        let node = cluster.nodes().nth(number).expect("there are two");
        Connection::new(node.server(), LIMIT)
    });
    let lanes = dispatchers[0].host.lanes();
    let lanes = lanes.iter().map(|hosted| Keys::new(GROUP).lane(hosted.number).expect("it has a tag").pending);
    let keys: Vec<Vec<u8>> = channels.iter().cloned().chain(lanes.map(String::into_bytes)).collect();
    let owner = |key: &[u8]| cluster.owner(slot_of(key)).expect("it has an owner");
    let slots = [0, 1].map(|number| -> Vec<String> {
        keys.iter().filter(|key| owner(key) == number).map(|key| slot_of(key).to_string()).collect()
    });
    let owners: Vec<usize> = channels.iter().map(|channel| owner(channel)).collect();
    let (mut owed, mut round) = (BTreeSet::new(), 0);
    let all_asked = |nodes: &mut [Connection; 2]| nodes.iter_mut().map(asked).sum::<u64>();
    let goal = all_asked(&mut nodes) + 8;
    let looked = wait_until(LIMIT, "the dispatchers to ask for the slots", || {
        let_forget(&mut nodes, &slots);
        for (channel, owner) in channels.iter().zip(&owners) {
            let channel = String::from_utf8_lossy(channel);
            let payload = format!("{channel}/{round}");
            assert!(number(&mut nodes[*owner], &["SPUBLISH", &channel, &payload]) > 0, "it has a subscriber");
            owed.insert(payload);
        }
        round += 1;
        Ok((all_asked(&mut nodes) >= goal).then_some(()))
    });
    looked.expect("in time");
    assert_eq!(subscriptions(), before, "each listens as before");
    wait_for("the nodes to know all owners again", || cluster.agrees().then_some(()));
    wait_until_stored(&cluster, &owed, 12);
    dispatchers.into_iter().for_each(Dispatcher::stop);
}
