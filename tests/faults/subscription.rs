//! Rows about subscriptions: of a standby, of all, and of a reader that does not keep up.

use std::collections::BTreeSet;

use oncecast::lab::{Cluster, ClusterOptions, GroupView, Lease, Node, RedisOptions, Signal};

use crate::dispatchers::Watched;
use crate::mode::{Mode, in_both_modes, in_tls_mode};
use crate::run::{Run, assert_l0};
use crate::support::load::{Load, Sent};
use crate::support::{
    DEADLINE, assert_status_shows_gap, client_of, cluster_of, publish, publish_payloads, recorded_ids, run, stream,
    subscribers, subscription_of, wait_for_intake, wait_until, wait_until_in_sync,
};

/// Redis, and consumers if the mode has any; the test starts the dispatchers.
fn no_dispatchers(mode: Mode, redis: RedisOptions) -> Cluster {
    let options = ClusterOptions { redis, ..mode.options(0, 2, "") };
    Cluster::start(options).expect("Redis and the consumers start")
}

fn lease_after(view: &mut GroupView, before: Option<&Lease>) -> Lease {
    wait_until("a new lease", || {
        let lease = view.snapshot().ok()?.lease?;
        before.is_none_or(|before| lease.epoch > before.epoch).then_some(lease)
    })
}

/// Row 9: a standby whose subscription was cut is not ready until it can follow the cursor again, and if the leader
/// dies before that, another standby leads.
fn row_09_standby_subscription_killed(mode: Mode) {
    const DISPATCHERS: usize = 3;
    // A dispatcher that is not in sync lets others lead first for this long, which is longer than the test.
    let args = mode.args("--lease-ttl-ms 600000");
    let mut this = Run::in_mode(mode, "row_09");
    let mut cluster = no_dispatchers(mode, mode.redis());
    let (mut view, connection) = (cluster.view(), &mut client_of(&mut cluster));
    let mut dispatchers: Vec<Watched> =
        (0..DISPATCHERS).map(|number| Watched::start(&mut cluster, &format!("d{number}"), &args)).collect();
    let mut lease = lease_after(&mut view, None);
    let load = Load::start(&cluster.redis().url(), "m", 1_000);
    for _ in 0..this.scale(2, 15) {
        wait_until_in_sync(connection, DISPATCHERS as u64);
        dispatchers.iter().for_each(Watched::wait_until_ready);
        load.wait_for_more(this.random.u64(100..500));
        this.random.shuffle(&mut dispatchers);
        let leader = dispatchers.iter().position(|dispatcher| dispatcher.name() == lease.name());
        let mut leader = dispatchers.swap_remove(leader.expect("one of them leads"));
        let (victim, other) = (&dispatchers[0], &dispatchers[1]);

        // The leader is paused, so the cursor does not move and the victim can't get in sync meanwhile.
        leader.process.signal(Signal::SIGSTOP).unwrap();
        let seen = victim.process.stderr().count();
        let id = subscription_of(connection, victim.process.pid());
        assert_eq!(run::<usize>(connection, &["CLIENT", "KILL", "ID", &id]), 1);
        let again = victim.process.stderr().wait_for_after(seen, "event=subscribed", DEADLINE);
        again.expect("it subscribes again");
        let why =
            wait_until("the victim not to be ready", || victim.ready().err().filter(|why| why.contains("not in sync")));
        assert!(why.starts_with("503 "), "{why}");
        assert_eq!((victim.figure("oncecast_in_sync"), other.figure("oncecast_in_sync")), (Some(0), Some(1)));
        load.wait_for_more(this.random.u64(100..500));
        leader.process.kill().unwrap();
        let next = lease_after(&mut view, Some(&lease));
        assert_eq!(next.name(), other.name(), "the one in sync leads, not {}", victim.name());
        // It recovers by itself through the new leader's cursor.
        victim.wait_until_ready();
        lease = next;
        dispatchers.push(Watched::start(&mut cluster, leader.name(), &args));
    }
    let sent = load.stop();
    assert_l0(connection, &sent);
    assert_eq!(stream(connection, "messages:gaps"), [], "a dispatcher was in sync all the time");
}

/// Row 10: what was published until the first one is back is unknown and recorded as a gap. The rest is processed once.
fn row_10_all_subscriptions_killed(mode: Mode) {
    let mut this = Run::in_mode(mode, "row_10");
    let mut cluster = cluster_of(mode.options(2, 3, "--lease-ttl-ms 600"));
    let connection = &mut client_of(&mut cluster);
    wait_until_in_sync(connection, 2);
    let load = Load::start(&cluster.redis().url(), "m", 2_000);
    for round in 1..=this.scale(3, 20) as usize {
        load.wait_for_more(this.random.u64(50..1_500));
        let held = load.hold();
        assert_eq!(run::<usize>(connection, &["CLIENT", "KILL", "TYPE", "pubsub"]), 2);
        drop(held);
        wait_until("the gap to be recorded", || (stream(connection, "messages:gaps").len() >= round).then_some(()));
        wait_until_in_sync(connection, 2);
    }
    load.wait_for_more(500);
    let sent = load.stop();
    let by_one = sent.receivers.iter().filter(|receivers| **receivers == 1).count();
    println!("row 10: {} received by no dispatcher, {by_one} by one", sent.unheard.len());
    assert_l0(connection, &sent);
    for gap in stream(connection, "messages:gaps") {
        assert_eq!(gap["reason"], "subscription-break", "{gap:?}");
    }
    assert_status_shows_gap(&cluster, "subscription-break", "unknown");
    let gaps = this.scale(3, 20) as usize;
    wait_until(format!("{gaps} gaps to be logged"), || {
        let logged = [0, 1].map(|number| {
            let process = cluster.process(Node::Dispatcher(number)).unwrap();
            process.stderr().all().iter().filter(|line| line.contains("event=gap")).count()
        });
        (logged.iter().sum::<usize>() >= gaps).then_some(())
    });
}

/// Redis disconnects a subscriber that has this much to read.
fn small_output_buffer() -> RedisOptions {
    let limit = ("client-output-buffer-limit".to_owned(), "pubsub 1mb 0 0".to_owned());
    RedisOptions { config: vec![limit], ..RedisOptions::default() }
}

/// Large enough to fill the system's buffers.
fn payloads(numbers: std::ops::Range<u64>) -> impl Iterator<Item = String> {
    let pad = "x".repeat(20_000);
    numbers.map(move |n| format!("{{\"message_id\":\"m{n}\",\"pad\":\"{pad}\"}}"))
}

/// Row 11: the only reader is paused and disconnected. What Redis dropped is lost, counted and logged.
fn row_11_output_buffer_overrun_of_the_only_reader(mode: Mode) {
    let mut this = Run::in_mode(mode, "row_11_output_buffer_overrun_of_the_only_reader");
    let mut cluster = no_dispatchers(mode, small_output_buffer());
    let connection = &mut client_of(&mut cluster);
    let mut reader = Watched::start(&mut cluster, "d0", &mode.args("--lease-ttl-ms 600"));
    wait_until_in_sync(connection, 1);
    let before = this.random.u64(1..200);
    publish(connection, "m", 0..before);
    wait_for_intake(connection);
    reader.process.signal(Signal::SIGSTOP).unwrap();
    let mut during = before..before;
    while subscribers(connection) > 0 {
        assert!(during.end < 50_000, "Redis never disconnects the reader");
        publish_payloads(connection, payloads(during.end..during.end + 4));
        during.end += 4;
    }
    reader.process.signal(Signal::SIGCONT).unwrap();
    wait_until("the gap to be recorded", || (!stream(connection, "messages:gaps").is_empty()).then_some(()));
    wait_until_in_sync(connection, 1);
    let after = during.end..during.end + 200;
    publish(connection, "m", after.clone());

    let name = |n| format!("m{n}");
    let owed = (0..before).chain(after.clone()).map(name).collect();
    let sent = Sent { owed, uncertain: during.clone().map(name).collect(), ..Sent::default() };
    assert_l0(connection, &sent);
    // What was lost is one part at the end, where the gap is recorded.
    let recorded: BTreeSet<String> = recorded_ids(connection).into_iter().collect();
    let kept = during.clone().take_while(|n| recorded.contains(&name(*n))).count() as u64;
    let later = (during.start + kept..during.end).filter(|n| recorded.contains(&name(*n))).count();
    println!("row 11: of {} messages {kept} were still read", during.end - during.start);
    assert_eq!(later, 0, "a hole that no gap tells, after {kept} messages");
    assert!(kept < during.end - during.start, "Redis threw nothing away, so this showed nothing");
    let gaps = stream(connection, "messages:gaps");
    assert!(gaps.len() == 1 && gaps[0]["reason"] == "subscription-break", "{gaps:?}");
    assert_eq!(reader.figure("oncecast_gaps_total"), Some(1));
    reader.process.wait_for_line("event=gap", DEADLINE).expect("it is logged");
}

/// Row 11: a paused leader is disconnected, but a standby has read everything: nothing is lost and no gap recorded.
fn row_11_output_buffer_overrun_of_the_leader(mode: Mode) {
    let mut this = Run::in_mode(mode, "row_11_output_buffer_overrun_of_the_leader");
    let mut cluster = no_dispatchers(mode, small_output_buffer());
    let (mut view, connection) = (cluster.view(), &mut client_of(&mut cluster));
    // The lease lasts long: the standby leads because Redis closed the leader's subscription.
    let args = mode.args("--lease-ttl-ms 600000 --ring-bytes 268435456");
    let mut dispatchers = ["d0", "d1"].map(|name| Watched::start(&mut cluster, name, &args));
    wait_until_in_sync(connection, 2);
    let lease = lease_after(&mut view, None);
    if dispatchers[0].name() != lease.name() {
        dispatchers.swap(0, 1);
    }
    let [leader, standby] = &mut dispatchers;
    let before = this.random.u64(1..200);
    publish(connection, "m", 0..before);
    leader.process.signal(Signal::SIGSTOP).unwrap();
    let mut end = before;
    while subscribers(connection) > 1 {
        assert!(end < 50_000, "Redis never disconnects the reader");
        publish_payloads(connection, payloads(end..end + 4));
        end += 4;
        // The other one must be disconnected.
        wait_until("the standby to have read it", || {
            (standby.figure("oncecast_messages_published_total")? >= end).then_some(())
        });
    }
    let next = lease_after(&mut view, Some(&lease));
    assert_eq!(next.name(), standby.name());
    leader.process.signal(Signal::SIGCONT).unwrap();
    wait_until_in_sync(connection, 2);
    leader.wait_until_ready();
    publish(connection, "m", end..end + 200);
    let sent = Sent { owed: (0..end + 200).map(|n| format!("m{n}")).collect(), ..Sent::default() };
    assert_l0(connection, &sent);
    assert_eq!(stream(connection, "messages:gaps"), [], "the other read over it");
}

/// A group that listens to the keyspace events of its own database writes keys for each event that it stores. None of
/// these writes becomes a message, on any channel of this kind.
#[test]
fn keyspace_events_of_a_group_s_own_keys_cause_no_loop() {
    for (channel, change) in [
        ("__keyevent@0__:set", ["SET", "foreign", "1"]),
        ("__keyevent@0__:zadd", ["SADD", "foreign", "1"]),
        ("__keyspace@0__:foreign", ["SET", "foreign", "2"]),
    ] {
        let config = vec![("notify-keyspace-events".to_owned(), "KEA".to_owned())];
        let mut cluster = no_dispatchers(Mode::Consumers, RedisOptions { config, ..RedisOptions::default() });
        let connection = &mut client_of(&mut cluster);
        let args = format!("--channel {channel}");
        let mut dispatchers: Vec<Watched> =
            (0..2).map(|number| Watched::start(&mut cluster, &format!("d{number}"), &args)).collect();
        wait_until("both to listen", || {
            let counts: (String, u64) = run(connection, &["PUBSUB", "NUMSUB", channel]);
            (counts.1 == 2).then_some(())
        });
        dispatchers.iter().for_each(Watched::wait_until_ready);
        let change = if channel.ends_with(":zadd") { ["ZADD", "foreign", "1 x"].to_vec() } else { change.to_vec() };
        let words: Vec<&str> = change.iter().flat_map(|word| word.split(' ')).collect();
        let () = run(connection, &words);
        let results = |connection: &mut redis::Connection| run::<u64>(connection, &["XLEN", "messages:processed"]);
        wait_until("its result", || (results(connection) >= 1).then_some(()));
        // The writes of its intake, its result and another term have caused their events once the next event is done.
        dispatchers.remove(0).process.stop(DEADLINE).expect("it ends");
        wait_until("the other to be ready", || dispatchers[0].ready().ok());
        let () = run(connection, &words);
        // A repeated ZADD with the same score changes nothing and causes no event.
        let more = u64::from(!channel.ends_with(":zadd"));
        wait_until("the second result", || (results(connection) > more).then_some(()));
        let seen = |connection: &mut redis::Connection| {
            let cursor: String = run(connection, &["GET", "messages:cursor"]);
            (results(connection), cursor.rsplit(' ').next().map(str::to_owned))
        };
        let (count, last_id) = seen(connection);
        // The cursor advances with the leader's markers, its last id only with messages.
        let markers = |connection: &mut redis::Connection| run::<String>(connection, &["GET", "messages:cursor"]);
        let before = markers(connection);
        wait_until("another marker", || (markers(connection) != before).then_some(()));
        assert_eq!(seen(connection), (count, last_id), "{channel}");
        assert_eq!(count, 1 + more, "{channel}: one result of each foreign event");
    }
}

in_both_modes! {
    row_09_standby_subscription_killed,
    row_10_all_subscriptions_killed,
    row_11_output_buffer_overrun_of_the_only_reader,
    row_11_output_buffer_overrun_of_the_leader,
}

in_tls_mode! {
    row_09_standby_subscription_killed,
}
