//! Leaving a node of a real Redis Cluster.

use redis::Value;

use super::*;
use crate::base::id::DispatcherId;
use crate::lab::{RedisCluster, RedisClusterOptions, wait_until};
use crate::ledger::subscription::Subscriber;
use crate::ledger::{Command, Connection, Interests, Keys, Server, slot_of};

const LIMIT: Duration = Duration::from_secs(20);
/// How long it is watched that nothing happens: less than a dispatcher waits for the others.
const WHILE: Duration = Duration::from_millis(500);
const GROUP: &str = "{orders}";

/// Where nothing is kept.
struct Nowhere;

impl Sink for Nowhere {
    fn begin_segment(&self) {}

    fn end_segment(&self) {}

    fn append(&self, _: Vec<Seen>) -> usize {
        0
    }
}

/// A dispatcher's listener.
struct Listener {
    server: Server,
    alive: String,
    stats: Arc<ListenerStats>,
    _handle: ListenerHandle,
}

impl Listener {
    fn start(name: &str, cluster: &RedisCluster) -> Listener {
        let (server, keys, id) = (cluster.server(), Arc::new(Keys::new(GROUP)), DispatcherId::generate(name));
        let alive = format!("{}{id}", keys.alive_prefix);
        let stats = Arc::<ListenerStats>::default();
        let channels = Channels {
            server: server.clone(),
            keys,
            interests: Arc::new(Interests::in_channel("orders")),
            subscriber: Subscriber::Dispatcher(id),
        };
        let (sink, troubles) = (Arc::new(Nowhere), Arc::default());
        let listening = Listening { channels, sink, stats: stats.clone(), troubles, notices: None };
        let handle = ListenerHandle::start(listening, name, &LogContext::new("test")).expect("a thread");
        Listener { server, alive, stats, _handle: handle }
    }

    /// Whether it is subscribed on a node.
    fn is_on(&self, node: &mut Connection) -> bool {
        let found = node.query("looking", Command::of(&["PUBSUB", "CHANNELS", &self.alive])).expect("the node answers");
        matches!(found, Value::Array(channels) if !channels.is_empty())
    }

    /// Lets it find out, by a command, that the keys have moved.
    fn learn(&self) {
        let keys = Keys::new(GROUP);
        let mut commands = Connection::new(self.server.for_key(&keys.pending), LIMIT);
        wait_until(LIMIT, "the new node to answer", || {
            Ok(commands.query("looking", Command::of(&["GET", &keys.epoch])).ok())
        })
        .expect("it answers");
    }
}

/// Commands go to the new node at once, where this dispatcher's subscription is not counted. That is no reason to
/// subscribe there while another dispatcher is still on the old node: both would receive each message, at places that
/// can't be compared.
#[test]
fn a_node_is_left_in_order_although_the_next_one_does_not_count_the_subscription() {
    let options = RedisClusterOptions { replicas: false, ..RedisClusterOptions::default() };
    let mut cluster = RedisCluster::start(options).expect("a cluster starts");
    let slot = slot_of(GROUP.as_bytes());
    let from = cluster.owner(slot).expect("an owner");
    let to = (from + 1) % 3;
    let (first, second) = (Listener::start("first", &cluster), Listener::start("second", &cluster));
    let (old, new) = (&mut cluster.node(from).connection(), &mut cluster.node(to).connection());
    for listener in [&first, &second] {
        wait_until(LIMIT, "a subscription", || Ok(listener.is_on(old).then_some(()))).expect("it subscribes");
        listener.learn();
    }

    cluster.move_slot(slot, to).expect("the slot moves");
    first.learn();
    first.stats.renew_subscription(first.stats.subscriptions.load(Ordering::Relaxed));
    wait_until(LIMIT, "the first to leave", || Ok((!first.is_on(old)).then_some(()))).expect("it leaves");
    let left = Instant::now();
    while left.elapsed() < WHILE {
        assert!(second.is_on(old), "nothing has told it that the keys have moved");
        assert!(!first.is_on(new), "it waits for the second");
        thread::sleep(Duration::from_millis(5));
    }
    second.learn();
    for listener in [&first, &second] {
        wait_until(LIMIT, "a subscription", || Ok(listener.is_on(new).then_some(()))).expect("it subscribes");
    }
}
