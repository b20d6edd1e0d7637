//! Row 51: messages that are stored in bundles, while everything happens that takes bundles apart.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use oncecast::lab::{Cluster, Node, Signal};
use oncecast::{Consumer, Delivery, HandlerError, Outcome};

use crate::pair::{Pair, tool};
use crate::run::{Run, assert_l0};
use crate::support::load::Load;
use crate::support::{
    DEADLINE, RunningConsumer, bare_cluster, client_of, cluster_of, id_in_payload, options, publish,
    run as run_command, wait_for_another_leader, wait_for_intake, wait_until, wait_until_in_sync,
};

/// In bursts of so many messages that they are bundled.
const PER_SECOND: u64 = 20_000;

/// How many bundles are pending.
fn bundles(connection: &mut redis::Connection) -> u64 {
    run_command(connection, &["ZCOUNT", "messages:pending", "-inf", "(0"])
}

/// Pauses the group, publishes messages until some of them are stored in bundles, and lets it go on once `then` has
/// come. Returns their ids.
fn store_bundles(cluster: &Cluster, connection: &mut redis::Connection, then: impl FnOnce()) -> Vec<String> {
    const BURST: u64 = 2_000;
    set_paused(cluster, true);
    let mut published = 0;
    wait_until("messages to be stored in bundles", || {
        publish(connection, "bundled", published..published + BURST);
        published += BURST;
        wait_for_intake(connection);
        (bundles(connection) > 0).then_some(())
    });
    then();
    set_paused(cluster, false);
    (0..published).map(|n| format!("bundled{n}")).collect()
}

/// A consumer at this address. `judge` decides by the id and the number of the delivery.
fn consumer(
    url: &str,
    (name, listen): (&str, &str),
    judge: impl Fn(&str, u16) -> Result<(), HandlerError> + Send + Sync + 'static,
) -> RunningConsumer {
    let handler = move |delivery: &Delivery<'_>| {
        let id = id_in_payload(std::str::from_utf8(delivery.payload())?).ok_or("no id")?;
        judge(&id, delivery.number())?;
        Ok(Outcome::new().field("message_id", id))
    };
    let builder = Consumer::builder().redis_url(url).listen(listen).consumer_id(name);
    RunningConsumer::start(builder.concurrency(2).prefetch(256).handler(handler))
}

/// Pauses the group or lets it go on.
fn set_paused(cluster: &Cluster, is_paused: bool) {
    let action = if is_paused { "pause" } else { "resume" };
    let status = tool(&cluster.redis_url(), &[action]).stdout(Stdio::null()).status();
    assert!(status.expect("it runs").success(), "{action}");
}

/// Handlers fail and reject some messages and are slow with others; consumers stop and come back; leaders are killed
/// and paused; connections to Redis break.
#[test]
fn row_51_bundles_that_are_taken_apart() {
    let mut this = Run::of("row_51_bundles_that_are_taken_apart");
    let mut cluster = bare_cluster();
    let url = cluster.redis().url();
    let connection = &mut client_of(&mut cluster);
    let seen = Arc::new(AtomicUsize::new(0));
    let start = |name: &str, listen: &str| {
        let seen = seen.clone();
        consumer(&url, (name, listen), move |_, number| match (seen.fetch_add(1, Ordering::Relaxed) % 1_000, number) {
            (0, 1) => Err(HandlerError::retry("once")),
            (100, _) => Err(HandlerError::reject("never")),
            (200 | 201, _) => {
                thread::sleep(Duration::from_millis(5));
                Ok(())
            }
            _ => Ok(()),
        })
    };
    let names = ["c0", "c1", "c2"];
    let mut consumers = names.map(|name| Some(start(name, "127.0.0.1:0")));
    let addresses = consumers.each_ref().map(|one| one.as_ref().expect("it runs").address.to_string());
    let mut dispatchers = Pair::start(&cluster, &addresses, "--lease-ttl-ms 500 --retry fixed:50ms");
    wait_until_in_sync(connection, 2);
    let bundled = store_bundles(&cluster, connection, || ());
    let load = Load::start(&url, "m", PER_SECOND);
    for _ in 0..this.scale(10, 60) {
        load.wait_for_more(this.random.u64(500..4_000));
        match this.random.u8(0..4) {
            0 => dispatchers.kill_leader(&cluster, connection),
            1 => {
                wait_until_in_sync(connection, 2);
                let (leader, lease) = (dispatchers.leader(connection), lease(connection));
                dispatchers[leader].signal(Signal::SIGSTOP).expect("it is ours");
                wait_until("another leader", || (self::lease(connection) != lease).then_some(()));
                dispatchers[leader].signal(Signal::SIGCONT).expect("it is ours");
            }
            2 => {
                let number = this.random.usize(0..consumers.len());
                consumers[number].take().expect("it runs").stop();
                consumers[number] = Some(start(names[number], &addresses[number]));
            }
            _ => drop(run_command::<u64>(connection, &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"])),
        }
    }
    finish(&this, connection, load, bundled);
}

/// Fails unless L0 holds for what was stored in bundles at the beginning and for the load.
fn finish(this: &Run, connection: &mut redis::Connection, load: Load, bundled: Vec<String>) {
    let mut sent = load.stop();
    sent.owed.extend(bundled);
    assert_l0(connection, &sent);
    assert_eq!(bundles(connection), 0);
    this.say(format_args!("{} owed", sent.owed.len()));
}

/// The lease's value, empty if there is none.
fn lease(connection: &mut redis::Connection) -> String {
    run_command::<Option<String>>(connection, &["GET", "messages:leader"]).unwrap_or_default()
}

#[test]
fn row_51_bundles_at_killed_consumers() {
    let mut this = Run::of("row_51_bundles_at_killed_consumers");
    let mut cluster = cluster_of(options(2, 3, "--lease-ttl-ms 600000", ""));
    let connection = &mut client_of(&mut cluster);
    wait_until_in_sync(connection, 2);
    let bundled = store_bundles(&cluster, connection, || ());
    let load = Load::start(&cluster.redis().url(), "m", PER_SECOND);
    for _ in 0..this.scale(8, 60) {
        load.wait_for_more(this.random.u64(500..4_000));
        let killed = Node::Consumer(this.random.usize(0..3));
        cluster.kill_node(killed).expect("it is ours");
        if this.random.bool() {
            let (leader, lease) = cluster.wait_for_leader(DEADLINE).expect("a dispatcher leads");
            wait_until_in_sync(connection, 2);
            cluster.kill_node(leader).expect("it is ours");
            wait_for_another_leader(&mut cluster, &lease);
            cluster.start_node(leader).expect("it starts");
        }
        cluster.start_node(killed).expect("it starts");
    }
    finish(&this, connection, load, bundled);
}

/// Bundles wait while no consumer is there. Then consumers come that take bundles apart, and some that can't: their
/// user may not read members. Meanwhile leaders are killed.
#[test]
fn row_51_bundles_for_consumers_that_know_none() {
    let mut this = Run::of("row_51_bundles_for_consumers_that_know_none");
    let mut cluster = bare_cluster();
    let url = cluster.redis().url();
    let connection = &mut client_of(&mut cluster);
    let () = run_command(connection, &["ACL", "SETUSER", "old", "on", ">old", "~*", "&*", "+@all", "-zrangebyscore"]);
    let old_url = url.replace("redis://", "redis://old:old@");
    let free = || format!("127.0.0.1:{}", oncecast::lab::ports::free_port().expect("a free port"));
    let addresses = [free(), free(), free()];
    let mut dispatchers = Pair::start(&cluster, &addresses, "--lease-ttl-ms 600000");
    wait_until_in_sync(connection, 2);
    let mut consumers = Vec::new();
    let bundled = store_bundles(&cluster, connection, || {
        let start = |((name, url), at): ((&str, &String), &String)| consumer(url, (name, at), |_, _| Ok(()));
        consumers.extend([("c0", &old_url), ("c1", &url), ("c2", &old_url)].into_iter().zip(&addresses).map(start));
    });
    let load = Load::start(&url, "m", PER_SECOND);
    for _ in 0..this.scale(2, 10) {
        dispatchers.kill_leader(&cluster, connection);
        load.wait_for_more(this.random.u64(500..4_000));
    }
    finish(&this, connection, load, bundled);
}
