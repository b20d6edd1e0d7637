//! Row 33: keys of a group that vanish while it works.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use oncecast::lab::{self, Cluster, ClusterOptions, Lease, Node, RedisOptions};

use crate::mode::{Mode, in_both_modes};
use crate::run::{Run, assert_l0};
use crate::support::load::{Load, Sent, number};
use crate::support::{
    DEADLINE, client_of, cluster_of, id_of, options, publish, publish_payloads, recorded_ids, run, state, stream,
    wait_for_intake, wait_until, wait_until_in_sync,
};

pub const DISPATCHERS: [Node; 2] = [Node::Dispatcher(0), Node::Dispatcher(1)];

/// Two days: how far clocks, and epochs ahead of them, may deviate.
pub const AHEAD_MS: u64 = 2 * 24 * 3_600_000;

/// Messages that reached a dispatcher, and so are owed.
pub fn ids(prefix: &str, numbers: Range<u64>) -> Vec<String> {
    numbers.map(|n| format!("{prefix}{n}")).collect()
}

/// The ends of the dispatchers' logs.
pub fn logs(cluster: &mut Cluster) -> String {
    let logs = DISPATCHERS.map(|member| {
        let process = cluster.process(member).unwrap();
        format!("\n{member}:{}", process.stderr().tail(20))
    });
    logs.concat()
}

pub fn epoch(connection: &mut redis::Connection) -> Option<String> {
    run(connection, &["GET", "messages:epoch"])
}

pub fn reasons(connection: &mut redis::Connection) -> BTreeSet<String> {
    stream(connection, "messages:gaps").into_iter().filter_map(|mut gap| gap.remove("reason")).collect()
}

/// Two dispatchers and no consumer, with messages that wait for one.
pub fn waiting(this: &mut Run) -> (Cluster, redis::Connection, u64) {
    let mut cluster = cluster_of(options(2, 1, "--lease-ttl-ms 1000", ""));
    let mut connection = client_of(&mut cluster);
    wait_until_in_sync(&mut connection, 2);
    cluster.kill_node(Node::Consumer(0)).unwrap();
    let messages = this.random.u64(100..1_000);
    publish(&mut connection, "waiting", 0..messages);
    wait_for_intake(&mut connection);
    assert_eq!(state(&mut connection).0 as u64, messages);
    (cluster, connection, messages)
}

/// Publishes some more, lets the consumer come back, and fails unless all of these are done. Each of those that waited
/// may be done.
pub fn assert_goes_on(cluster: &mut Cluster, connection: &mut redis::Connection, waiting: u64) {
    publish(connection, "later", 0..300);
    cluster.start_node(Node::Consumer(0)).unwrap();
    let uncertain = ids("waiting", 0..waiting).into_iter().collect();
    let sent = Sent { owed: ids("later", 0..300), uncertain, ..Sent::default() };
    assert_l0(connection, &sent);
    // And with consumers and all.
    publish(connection, "last", 0..300);
    let sent = Sent { owed: [sent.owed, ids("last", 0..300)].concat(), ..sent };
    assert_l0(connection, &sent);
    cluster.must_run().unwrap();
}

fn pending_set_vanishes(row: &'static str, vanish: &[&str]) {
    let mut this = Run::of(row);
    let (mut cluster, mut connection, messages) = waiting(&mut this);
    let connection = &mut connection;
    let () = run(connection, vanish);
    wait_until("the loss to be recorded", || reasons(connection).contains("pending-lost").then_some(()));
    assert_goes_on(&mut cluster, connection, messages);
}

#[test]
fn row_33_pending_set_deleted() {
    pending_set_vanishes("row_33_pending_set_deleted", &["DEL", "messages:pending"]);
}

#[test]
fn row_33_pending_set_renamed() {
    pending_set_vanishes("row_33_pending_set_renamed", &["RENAME", "messages:pending", "aside"]);
}

/// Row 33: the set is deleted while consumers work on its messages. Only messages published until then may be lost.
#[test]
fn row_33_pending_set_deleted_under_load() {
    let mut this = Run::of("row_33_pending_set_deleted_under_load");
    let mut cluster = cluster_of(options(2, 2, "--lease-ttl-ms 1000", ""));
    let connection = &mut client_of(&mut cluster);
    let load = Load::start(&cluster.redis().url(), "m", 2_000);
    let mut forgiven = Vec::new();
    for _ in 0..this.scale(4, 30) {
        wait_until_in_sync(connection, 2);
        load.wait_for_more(100);
        let begin = load.first_unpublished();
        // These are done before, so they must not be lost.
        wait_for_intake(connection);
        wait_until("what was published before to be done", || {
            let oldest: Vec<String> = run(connection, &["ZRANGE", "messages:pending", "0", "0"]);
            let oldest = oldest.first().and_then(|member| Some(number(member.split('"').nth(3)?)));
            oldest.is_none_or(|oldest| oldest >= begin).then_some(())
        });
        load.wait_for_more(this.random.u64(1..300));
        let () = run(connection, &["DEL", "messages:pending"]);
        wait_until_in_sync(connection, 2);
        forgiven.push(begin..load.first_unpublished());
    }
    load.wait_for_more(300);
    let mut sent = load.stop();
    forgiven.iter().for_each(|numbers| sent.forgive(numbers));
    this.say(format_args!("{} owed, {} in question", sent.owed.len(), sent.uncertain.len()));
    assert_l0(connection, &sent);
    cluster.must_run().unwrap();
}

/// Row 33: Redis is configured to evict keys. It evicts those that are used least, and the set takes most of the
/// memory.
#[test]
fn row_33_pending_set_evicted() {
    /// Keys that must not be evicted, so that only the set is lost.
    const KEPT: [&str; 4] = ["messages:epoch", "messages:leader", "messages:cursor", "messages:recall"];
    /// The most uses that Redis counts.
    const MOST_USES: usize = 255;
    let mut this = Run::of("row_33_pending_set_evicted");
    // Each use counts, none is forgotten soon, and all keys are compared.
    let config = [
        ("maxmemory-policy", "allkeys-lfu"),
        ("lfu-log-factor", "0"),
        ("lfu-decay-time", "1000"),
        ("maxmemory-samples", "64"),
    ];
    let config = config.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let redis = RedisOptions { config, ..RedisOptions::default() };
    let mut cluster = cluster_of(ClusterOptions { redis, ..options(2, 1, "--lease-ttl-ms 1000", "") });
    let connection = &mut client_of(&mut cluster);
    wait_until_in_sync(connection, 2);
    cluster.kill_node(Node::Consumer(0)).unwrap();
    let messages = this.random.u64(2_000..3_000);
    let pad = "x".repeat(2_000);
    let payloads = (0..messages).map(|n| format!("{{\"message_id\":\"waiting{n}\",\"pad\":\"{pad}\"}}"));
    publish_payloads(connection, payloads);
    wait_for_intake(connection);
    for key in KEPT {
        (0..MOST_USES).for_each(|_| run(connection, &["GET", key]));
    }
    let info: String = run(connection, &["INFO", "memory"]);
    let used = info.lines().find_map(|line| line.strip_prefix("used_memory:")?.trim().parse::<u64>().ok());
    let limit = used.expect("it says so") - messages * 1_000;
    let () = run(connection, &["CONFIG", "SET", "maxmemory", &limit.to_string()]);
    wait_until("the set to be evicted", || {
        // A command that takes memory has Redis look.
        let _: redis::RedisResult<()> = redis::cmd("SET").arg("any").arg("x").query(connection);
        (state(connection).0 == 0).then_some(())
    });
    let () = run(connection, &["CONFIG", "SET", "maxmemory", "0"]);
    wait_until("the loss to be recorded", || {
        let reasons = reasons(connection);
        ["pending-lost", "cursor-lost"].iter().any(|reason| reasons.contains(*reason)).then_some(())
    });
    // Valkey 9.1 was seen to remove all keys.
    if !reasons(connection).contains("pending-lost") {
        return this.say("SKIPPED in part: the server has evicted the cursor, too");
    }
    assert_goes_on(&mut cluster, connection, messages);
}

/// Row 33: without the cursor it is unknown how far the channel was stored, so earlier messages may be stored again.
/// Everything is processed, and later messages once.
fn row_33_cursor_vanishes(mode: Mode) {
    let mut this = Run::in_mode(mode, "row_33_cursor_vanishes");
    let mut cluster = cluster_of(mode.options(2, 2, "--lease-ttl-ms 1000"));
    let connection = &mut client_of(&mut cluster);
    wait_until_in_sync(connection, 2);
    let load = Load::start(&cluster.redis().url(), "m", 1_000);
    let mut gaps_recorded = 0;
    for _ in 0..this.scale(3, 20) {
        load.wait_for_more(this.random.u64(50..500));
        let (gaps, epoch) = (stream(connection, "messages:gaps").len(), epoch(connection));
        let vanish: &[&str] = &["RENAME", "messages:cursor", "aside"];
        let () = run(connection, if this.random.bool() { vanish } else { &["DEL", "messages:cursor"] });
        wait_until("the cursor to be there again", || {
            run::<bool>(connection, &["EXISTS", "messages:cursor"]).then_some(())
        });
        wait_until_in_sync(connection, 2);
        // A leader that did not read the cursor meanwhile knows its position and continues.
        let recorded = lab::wait_until(DEADLINE, "the loss to be recorded, or the same leader to continue", || {
            let grown = stream(connection, "messages:gaps").len() > gaps;
            Ok((grown || self::epoch(connection) == epoch).then_some(grown))
        });
        match recorded {
            Ok(grown) => gaps_recorded += usize::from(grown),
            Err(error) => {
                panic!("{error}; gaps {:?}{}", stream(connection, "messages:gaps"), logs(&mut cluster));
            }
        }
    }
    let before = 0..load.first_unpublished();
    load.wait_for_more(500);
    let sent = load.stop();
    assert!(sent.uncertain.is_empty() && sent.unheard.is_empty(), "both were subscribed all the time");
    let again = forget_repeated(mode, connection, &before);
    this.say(format_args!("{again} of {} messages were stored again; {gaps_recorded} losses recorded", before.end));
    assert_l0(connection, &sent);
    assert!(gaps_recorded > 0 || again == 0, "the loss is recorded if messages are stored again");
    assert!(reasons(connection).iter().all(|reason| reason == "cursor-lost"), "{:?}", reasons(connection));
    cluster.must_run().unwrap();
}

/// Waits until all is done, and removes all but the first record of each message with these numbers. Returns how many.
pub fn forget_repeated(mode: Mode, connection: &mut redis::Connection, numbers: &Range<u64>) -> usize {
    wait_for_intake(connection);
    wait_until("nothing to be pending", || (state(connection).0 == 0).then_some(()));
    let range = redis::cmd("XRANGE").arg(mode.records()).arg("-").arg("+").query(connection);
    let records: Vec<(String, HashMap<String, String>)> = range.expect("the stream can be read");
    let mut seen = BTreeSet::new();
    let repeated = records.iter().filter(|(_, record)| {
        let id = id_of(record).expect("each has an id");
        numbers.contains(&number(&id)) && !seen.insert(id)
    });
    repeated.map(|(entry, _)| run::<usize>(connection, &["XDEL", mode.records(), entry])).sum()
}

/// Row 33: the stream of `--deliver stream` is deleted or renamed under load, with what it holds. Later messages are
/// entries of a new one, and a dispatcher has nothing to repair.
#[test]
fn row_33_stream_vanishes() {
    let mut this = Run::of("row_33_stream_vanishes");
    let mut cluster = cluster_of(Mode::Stream.options(2, 0, "--lease-ttl-ms 1000"));
    let (connection, key) = (&mut client_of(&mut cluster), Mode::Stream.records());
    wait_until_in_sync(connection, 2);
    let load = Load::start(&cluster.redis().url(), "m", 2_000);
    let mut gone = 0..0;
    for _ in 0..this.scale(4, 30) {
        load.wait_for_more(this.random.u64(50..500));
        let vanish: &[&str] = if this.random.bool() { &["RENAME", key, "aside"] } else { &["DEL", key] };
        let held = load.hold();
        wait_for_intake(connection);
        let () = run(connection, vanish);
        gone.end = *held;
        drop(held);
        load.wait_for_more(this.random.u64(1..100));
        if this.random.bool() {
            let (_, lease) = cluster.wait_for_leader(DEADLINE).unwrap();
            let () = run(connection, &["DEL", "messages:leader"]);
            wait_for_another_term(&mut cluster, &lease);
            wait_until_in_sync(connection, 2);
        }
    }
    load.wait_for_more(300);
    let mut sent = load.stop();
    assert!(sent.uncertain.is_empty() && sent.unheard.is_empty());
    sent.forgive(&gone);
    assert_l0(connection, &sent);
    assert!(recorded_ids(connection).iter().all(|id| !gone.contains(&number(id))), "what is gone is not added again");
    assert_eq!(stream(connection, "messages:gaps"), [], "what workers delete is no gap");
    cluster.must_run().unwrap();
}

fn wait_for_another_term(cluster: &mut Cluster, before: &Lease) {
    let next = cluster.wait_for(DEADLINE, "a lease of a later epoch", |_, snapshot| {
        snapshot.lease.clone().filter(|next| next.epoch > before.epoch)
    });
    next.unwrap();
}

fn row_33_lease_vanishes(mode: Mode) {
    let mut this = Run::in_mode(mode, "row_33_lease_vanishes");
    let mut cluster = cluster_of(mode.options(2, 2, "--lease-ttl-ms 1000"));
    let connection = &mut client_of(&mut cluster);
    wait_until_in_sync(connection, 2);
    let load = Load::start(&cluster.redis().url(), "m", 1_000);
    for _ in 0..this.scale(4, 30) {
        load.wait_for_more(this.random.u64(50..500));
        let (_, lease) = cluster.wait_for_leader(DEADLINE).unwrap();
        let vanish: &[&str] = &["RENAME", "messages:leader", "aside"];
        let () = run(connection, if this.random.bool() { vanish } else { &["DEL", "messages:leader"] });
        wait_for_another_term(&mut cluster, &lease);
        wait_until_in_sync(connection, 2);
    }
    let sent = load.stop();
    assert!(sent.uncertain.is_empty() && sent.unheard.is_empty());
    assert_l0(connection, &sent);
    assert_eq!(stream(connection, "messages:gaps"), [], "a lost lease loses nothing else");
    cluster.must_run().unwrap();
}

in_both_modes! {
    row_33_cursor_vanishes,
    row_33_lease_vanishes,
}
