//! Order by key: of the messages with one key one runs at a time, in the order of publishing, while leaders are killed,
//! messages wait in Redis, and handlers fail.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use oncecast::lab::{ChildProcess, Cluster};
use oncecast::{Consumer, HandlerError};

use crate::support::order::{Runs, assert_in_order, noting, payloads, some_work};
use crate::support::{
    RunningConsumer, assert_each_once, bare_cluster, client_of, dispatcher, programs, publish_payloads, run, state,
    wait_until, wait_until_done, wait_until_in_sync,
};

const ARGS: &str = "--order-key prefix:: --lease-ttl-ms 600000";
const THREADS: usize = 4;

/// A server, consumers in this process, and dispatchers.
struct Group {
    dispatchers: Vec<ChildProcess>,
    consumers: Vec<RunningConsumer>,
    args: String,
    connection: redis::Connection,
    cluster: Cluster,
}

impl Group {
    fn start(args: &str, judge: fn(&str, u16) -> Result<(), HandlerError>) -> Group {
        let mut cluster = bare_cluster();
        let url = cluster.redis().url();
        let consumer = |name: &str| {
            let builder = Consumer::builder().redis_url(url.as_str()).listen("127.0.0.1:0").consumer_id(name);
            RunningConsumer::start(noting(builder.prefetch(100), &url, "test", THREADS, judge))
        };
        let consumers = ["c0", "c1"].map(consumer).into();
        let connection = client_of(&mut cluster);
        let args = format!("{ARGS} {args}");
        let mut group = Group { dispatchers: Vec::new(), consumers, args, connection, cluster };
        ["d0", "d1"].iter().for_each(|name| group.start_dispatcher(name));
        wait_until_in_sync(&mut group.connection, 2);
        group
    }

    fn start_dispatcher(&mut self, name: &str) {
        let addresses: Vec<String> = self.consumers.iter().map(|consumer| consumer.address.to_string()).collect();
        self.dispatchers.push(dispatcher(&self.cluster, name, &addresses, &self.args));
    }

    /// Kills the leader, and starts it again.
    fn kill_leader(&mut self) {
        wait_until_in_sync(&mut self.connection, 2);
        let leader: String = run(&mut self.connection, &["GET", "messages:leader"]);
        let led = self.dispatchers.iter().position(|dispatcher| leader.starts_with(dispatcher.name()));
        let mut dead = self.dispatchers.remove(led.expect("one of the two leads"));
        dead.kill().expect("it is ours");
        self.start_dispatcher(dead.name());
    }

    /// Fails unless all is in order and recorded once.
    fn finish(mut self, all: &[String]) -> Runs {
        wait_until_done(&mut self.connection, all.len());
        assert_each_once(&mut self.connection, all);
        assert_in_order(&mut self.connection, &BTreeSet::new())
    }
}

fn work(_: &str, _: u16) -> Result<(), HandlerError> {
    some_work();
    Ok(())
}

/// Fails about every tenth message at its first deliveries, also whole keys.
fn work_and_fail(payload: &str, delivery: u16) -> Result<(), HandlerError> {
    some_work();
    let fails = payload.bytes().map(u32::from).sum::<u32>() % 10 == 0 && delivery < 3;
    if fails { Err(HandlerError::retry_after(Duration::from_millis(5), "not yet")) } else { Ok(()) }
}

#[test]
fn keys_are_in_order_while_leaders_are_killed_and_handlers_fail() {
    for (keys, messages) in [(1, 400), (20, 3_000), (10_000, 5_000)] {
        let mut group = Group::start("--retry none", work_and_fail);
        let all = payloads(keys, messages, &mut fastrand::Rng::new());
        for (round, chunk) in all.chunks(messages.div_ceil(5)).enumerate() {
            publish_payloads(&mut group.connection, chunk);
            if round % 2 == 1 {
                group.kill_leader();
            }
        }
        let runs = group.finish(&all);
        assert!(runs.again > 0, "{keys} keys: {runs:?}");
    }
}

/// With few bytes in memory most messages wait in Redis, and keys are cut.
#[test]
fn keys_are_in_order_while_most_messages_wait_in_redis() {
    let mut group = Group::start("--ready-bytes 16777216 --ring-bytes 33554432", work);
    let filling = ".".repeat(60_000);
    let mut all = Vec::new();
    for n in 1..=500 {
        let ids = [format!("big:{n}"), format!("hot{}:{n}", n % 2), format!("a{}:{n}", n % 7), format!("n{n}:1")];
        publish_payloads(&mut group.connection, [format!("{} {filling}", ids[0])]);
        publish_payloads(&mut group.connection, &ids[1..]);
        all.extend(ids);
    }
    group.kill_leader();
    group.finish(&all);
}

#[test]
fn a_failing_message_holds_up_its_key_alone() {
    let judge = |payload: &str, _: u16| match payload {
        "bad:1" => Err(HandlerError::retry_after(Duration::from_secs(600), "much later")),
        _ => Ok(()),
    };
    let mut group = Group::start("", judge);
    publish_payloads(&mut group.connection, ["bad:1", "bad:2", "good:1", "bad:3", "good:2", "none"]);
    wait_until("the others to be done", || (state(&mut group.connection) == (3, 3, 0)).then_some(()));
    // More than may be in memory for one key.
    let many: Vec<String> = (4..24_000).map(|n| format!("bad:{n}")).collect();
    for chunk in many.chunks(4_000) {
        publish_payloads(&mut group.connection, chunk);
    }
    let good: Vec<String> = (3..1_000).map(|n| format!("good:{n}")).collect();
    publish_payloads(&mut group.connection, &good);
    wait_until("the other key to be done", || (state(&mut group.connection).1 == 1_000).then_some(()));
    assert_in_order(&mut group.connection, &BTreeSet::new());
}

static IS_BROKEN: AtomicBool = AtomicBool::new(true);

#[test]
fn a_dead_message_releases_its_key_and_waits_for_its_turn_when_it_is_replayed() {
    let judge = |payload: &str, _: u16| match payload {
        "k:1" if IS_BROKEN.load(Ordering::Relaxed) => Err(HandlerError::reject("not today")),
        _ => work(payload, 1),
    };
    let mut group = Group::start("", judge);
    publish_payloads(&mut group.connection, ["k:1", "k:2", "k:3"]);
    wait_until("two to be done", || (state(&mut group.connection) == (0, 2, 1)).then_some(()));
    IS_BROKEN.store(false, Ordering::Relaxed);
    let more: Vec<String> = (4..1_000).map(|n| format!("k:{n}")).collect();
    publish_payloads(&mut group.connection, &more);
    let mut replay = programs().command("oncecast").expect("the program is built");
    replay.args(["dead", "replay", "--all", "--yes", "--redis-url", &group.cluster.redis().url()]);
    assert!(replay.output().expect("it runs").status.success());
    wait_until("all to be done", || (state(&mut group.connection).1 == 999).then_some(()));
    let all: Vec<String> = (1..1_000).map(|n| format!("k:{n}")).collect();
    let runs = group.finish(&all);
    assert_eq!((runs.runs, runs.again), (1_000, 1));
}
