//! Rows about Redis itself: it loses its data set, stalls, forgets scripts, or is full.

use std::thread::{self};
use std::time::Duration;

use oncecast::lab::{Cluster, ClusterOptions, Lease, Node, RedisOptions};

use crate::dispatchers::Watched;
use crate::mode::{Mode, in_both_modes, in_mixed_mode, in_tls_mode};
use crate::run::{Run, assert_l0};
use crate::stream_workers::StreamWorkers;
use crate::support::load::{Load, Sent};
use crate::support::{
    DEADLINE, client_of, cluster_of, publish, redis_server, run, state, stream, wait_for_intake, wait_until,
    wait_until_in_sync,
};
use crate::watch::Watch;

pub const DISPATCHERS: [Node; 2] = [Node::Dispatcher(0), Node::Dispatcher(1)];

pub fn with_redis(redis: RedisOptions, options: ClusterOptions) -> ClusterOptions {
    // TLS belongs to the mode.
    let redis = RedisOptions { tls: options.redis.tls.clone(), ..redis };
    ClusterOptions { redis, ..options }
}

pub fn configured(append_only: bool, config: &[(&str, &str)]) -> RedisOptions {
    let config = config.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    RedisOptions { append_only, config, ..RedisOptions::default() }
}

pub fn witness(cluster: &mut Cluster) -> Watch {
    Watch::start(&format!("127.0.0.1:{}", cluster.redis().port()))
}

/// Waits for a lease with a later epoch.
pub fn next_lease(cluster: &mut Cluster, before: &Lease) -> Lease {
    let next = cluster.wait_for(DEADLINE, "a lease of a later epoch", |_, snapshot| {
        snapshot.lease.clone().filter(|next| next.epoch > before.epoch)
    });
    next.unwrap()
}

/// Row 14: the epoch counter is lost with the data set. It must continue above all epochs given out, even if they are
/// ahead of the clock, since consumers refuse a lower one.
fn row_14_data_set_wiped(mode: Mode) {
    let mut this = Run::in_mode(mode, "row_14");
    let mut cluster = cluster_of(mode.options(2, 3, "--lease-ttl-ms 1000"));
    let connection = &mut client_of(&mut cluster);
    wait_until_in_sync(connection, 2);
    let witness = witness(&mut cluster);
    let (_, mut lease) = cluster.wait_for_leader(DEADLINE).unwrap();
    let load = Load::start(&cluster.redis().url(), "m", 2_000);
    load.wait_for_more(200);
    let ahead = lease.epoch.0 + 3_600_000;
    let () = run(connection, &["SET", "messages:epoch", &ahead.to_string()]);
    let mut wiped_before = 0;
    for _ in 0..this.scale(3, 20) {
        lease = next_lease(&mut cluster, &lease);
        assert!(lease.epoch.0 > ahead, "{lease:?}");
        wait_until_in_sync(connection, 2);
        load.wait_for_more(this.random.u64(50..1_000));
        let held = load.hold();
        let () = run(connection, &[*this.random.choice(&["FLUSHALL", "FLUSHDB"]).unwrap()]);
        wiped_before = *held;
    }
    next_lease(&mut cluster, &lease);
    load.wait_for_more(1_000);
    let mut sent = load.stop();
    sent.forgive(&(0..wiped_before));
    assert!(sent.unheard.is_empty());
    assert_l0(connection, &sent);
    witness.finish(connection);
    let epoch: u64 = run(connection, &["GET", "messages:epoch"]);
    println!("row 14: {} owed after the last wipe, epoch {}", sent.owed.len(), epoch - ahead);
}

/// Row 15: the leader steps down by its own clock, and commands that it sent before are refused once another leads.
fn row_15_redis_stalls_longer_than_the_lease(mode: Mode) {
    let mut this = Run::in_mode(mode, "row_15");
    // Redis before 7 has no such setting and needs none.
    let old = redis_server().version().unwrap().starts_with("redis 6");
    let redis = if old { configured(false, &[]) } else { configured(false, &[("enable-debug-command", "yes")]) };
    let mut cluster = cluster_of(with_redis(redis, mode.options(2, 3, "--lease-ttl-ms 500")));
    let connection = &mut client_of(&mut cluster);
    wait_until_in_sync(connection, 2);
    let witness = witness(&mut cluster);
    let load = Load::start(&cluster.redis().url(), "m", 1_500);
    let mut ways = ["pause", "sleep"].repeat(this.scale(1, 5) as usize);
    this.random.shuffle(&mut ways);
    for way in ways {
        load.wait_for_more(this.random.u64(100..600));
        // On a busy machine so short a lease may have been lost meanwhile.
        let (_, lease) = cluster.wait_for_leader(DEADLINE).unwrap();
        let seen = DISPATCHERS.map(|member| cluster.process(member).unwrap().stderr().count());
        // Shorter than the silence after which a listener closes its connection.
        let stall_ms = this.random.u64(1_000..1_800);
        if way == "pause" {
            let () = run(connection, &["CLIENT", "PAUSE", &stall_ms.to_string(), "ALL"]);
        } else {
            let () = run(connection, &["DEBUG", "SLEEP", &format!("{:.3}", stall_ms as f64 / 1e3)]);
        }
        let leader = DISPATCHERS.iter().position(|member| member.to_string() == lease.name()).expect("one leads");
        let log = cluster.process(DISPATCHERS[leader]).unwrap().stderr().clone();
        let ended = log.wait_for_after(seen[leader], "event=term-ended", DEADLINE).expect("the term ends");
        let reasons = ["lease-expired", "lease-lost", "fenced"];
        assert!(reasons.iter().any(|reason| ended.contains(&format!("reason={reason}"))), "{ended}");
        next_lease(&mut cluster, &lease);
    }
    load.wait_for_more(300);
    let sent = load.stop();
    assert!(sent.unheard.is_empty() && sent.uncertain.is_empty(), "both were subscribed all the time");
    assert_l0(connection, &sent);
    let witness = witness.finish(connection);
    println!("row 15: {} writes by {} later epochs, none by two at once", witness.writes, witness.epochs.len());
    assert!(witness.writes > 0 && !witness.epochs.is_empty());
    assert_eq!(stream(connection, "messages:gaps"), []);
}

/// Row 16: Redis forgets its scripts repeatedly. Each caller loads the script again, with no visible effect.
fn row_16_scripts_gone(mode: Mode) {
    let mut this = Run::in_mode(mode, "row_16");
    let mut cluster = cluster_of(mode.options(2, 3, "--lease-ttl-ms 6000"));
    let connection = &mut client_of(&mut cluster);
    wait_until_in_sync(connection, 2);
    let (_, lease) = cluster.wait_for_leader(DEADLINE).unwrap();
    let members = cluster.running();
    let seen: Vec<u64> = members.iter().map(|member| cluster.process(*member).unwrap().stderr().count()).collect();
    let workers = StreamWorkers::start(mode, &cluster.redis_url());
    let load = Load::start(&cluster.redis().url(), "m", 3_000);
    for _ in 0..this.scale(1_000, 20_000) {
        let () = run(connection, &["SCRIPT", "FLUSH", *this.random.choice(&["SYNC", "ASYNC"]).unwrap()]);
        // The pace of the fault: between the calls of the programs, and sometimes within one.
        thread::sleep(Duration::from_micros(this.random.u64(0..4_000)));
    }
    load.wait_for_more(300);
    let sent = load.stop();
    assert!(sent.unheard.is_empty() && sent.uncertain.is_empty());
    workers.finish(connection);
    assert_l0(connection, &sent);
    assert_eq!(cluster.wait_for_leader(DEADLINE).unwrap().1, lease, "the same leader in the same epoch");
    for (member, seen) in members.into_iter().zip(seen) {
        let log = cluster.process(member).unwrap().stderr();
        for part in ["redis-trouble", "renewal-failed", "NoScript", "term-ended"] {
            let noticed = log.wait_for_after(seen, part, Duration::ZERO);
            assert!(noticed.is_err(), "{member}: {}", noticed.unwrap_or_default());
        }
    }
}

/// Row 17: a full Redis refuses the intake. That is reported, pending messages are still recorded, and a dead leader is
/// still replaced. Intake resumes by itself once there is room.
fn row_17_memory_full(mode: Mode) {
    let mut this = Run::in_mode(mode, "row_17");
    let mut cluster = Cluster::start(mode.options(0, 2, "")).unwrap();
    let connection = &mut client_of(&mut cluster);
    let args = mode.args("--lease-ttl-ms 1000");
    let mut dispatchers: Vec<Watched> = ["d0", "d1"].map(|name| Watched::start(&mut cluster, name, &args)).into();
    let consumers: Vec<Node> = (0..mode.consumers(2)).map(Node::Consumer).collect();
    let mut end = 0;
    for _ in 0..this.scale(2, 10) {
        wait_until_in_sync(connection, 2);
        // These are stored, and wait for a consumer if there are any.
        consumers.iter().for_each(|consumer| cluster.kill_node(*consumer).unwrap());
        let (begin, pending) = (end, end + this.random.u64(1..2_000));
        publish(connection, "m", begin..pending);
        wait_for_intake(connection);
        let () = run(connection, &["CONFIG", "SET", "maxmemory", "1"]);
        let seen: Vec<u64> = dispatchers.iter().map(|dispatcher| dispatcher.process.stderr().count()).collect();
        let before: Vec<u64> = dispatchers.iter().map(|dispatcher| heard(dispatcher).unwrap()).collect();
        let cursor: String = run(connection, &["GET", "messages:cursor"]);
        end = pending + this.random.u64(1..2_000);
        publish(connection, "m", pending..end);

        let mut leader = leader_of(&mut cluster, &dispatchers);
        let wait_for_warning = |dispatcher: &Watched, seen| {
            let line = dispatcher.process.stderr().wait_for_after(seen, "event=redis-trouble worker=ingest", DEADLINE);
            assert!(line.as_ref().is_ok_and(|line| line.contains("maxmemory")), "{line:?}");
        };
        wait_for_warning(&dispatchers[leader], seen[leader]);
        let taken = taken_in(&dispatchers[leader]);
        wait_until("the metrics to show the waiting messages", || {
            (heard(&dispatchers[leader])? >= before[leader] + end - pending).then_some(())
        });
        assert_eq!(taken_in(&dispatchers[leader]), taken);
        if this.random.bool() {
            let name = dispatchers[leader].name().to_owned();
            dispatchers[leader].process.kill().unwrap();
            let other = 1 - leader;
            wait_until("the other to lead nevertheless", || {
                (dispatchers[other].figure("oncecast_leader")? == 1).then_some(())
            });
            wait_for_warning(&dispatchers[other], seen[other]);
            dispatchers[leader] = Watched::start(&mut cluster, &name, &args);
            leader = other;
        }
        consumers.iter().for_each(|consumer| cluster.start_node(*consumer).unwrap());
        wait_until("what is pending to be recorded nevertheless", || {
            (state(connection) == (0, pending as usize, 0)).then_some(())
        });
        assert_eq!(run::<String>(connection, &["GET", "messages:cursor"]), cursor, "nothing more was stored");
        let seen = dispatchers[leader].process.stderr().count();
        let () = run(connection, &["CONFIG", "SET", "maxmemory", "0"]);
        let recovered = dispatchers[leader].process.stderr().wait_for_after(seen, "redis-recovered", DEADLINE);
        recovered.expect("it logs the recovery");
    }
    let sent = Sent { owed: (0..end).map(|n| format!("m{n}")).collect(), ..Sent::default() };
    assert_l0(connection, &sent);
    assert_eq!(stream(connection, "messages:gaps"), []);
}

pub fn taken_in(dispatcher: &Watched) -> Option<u64> {
    dispatcher.figure("oncecast_messages_taken_in_total")
}

pub fn heard(dispatcher: &Watched) -> Option<u64> {
    dispatcher.figure("oncecast_messages_published_total")
}

/// The dispatcher that leads.
pub fn leader_of(cluster: &mut Cluster, dispatchers: &[Watched]) -> usize {
    let found = cluster.wait_for(DEADLINE, "one of them to lead", |_, snapshot| {
        let lease = snapshot.lease.clone()?;
        dispatchers.iter().position(|dispatcher| dispatcher.name() == lease.name())
    });
    found.unwrap()
}

in_both_modes! {
    row_14_data_set_wiped,
    row_15_redis_stalls_longer_than_the_lease,
    row_16_scripts_gone,
    row_17_memory_full,
}

in_mixed_mode! {
    row_15_redis_stalls_longer_than_the_lease,
}

in_tls_mode! {
    row_15_redis_stalls_longer_than_the_lease,
}
