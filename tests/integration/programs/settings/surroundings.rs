//! A Redis that is down, locked or full of foreign keys stops no program, is reported in the log, and loses no message.

use std::collections::BTreeSet;
use std::time::Duration;

use oncecast::lab::{ChildProcess, Cluster, Node, RedisOptions, RedisServer, ports};

use crate::support::{
    DEADLINE, assert_each_once, client, client_of, cluster, pending, programs, publish, run, scheduling, subscribers,
    wait_for_intake, wait_until_done, wait_until_in_sync,
};

/// The members' logs must each get a line with all of these parts.
fn wait_for_lines(cluster: &mut Cluster, members: &[Node], event: &str, parts: &[&str]) {
    for member in members {
        let line = cluster.process(*member).unwrap().wait_for_line(event, DEADLINE).unwrap();
        for part in parts {
            assert!(line.contains(part), "{member}: no {part} in: {line}");
        }
    }
}

#[test]
fn programs_start_without_redis_log_it_and_recover() {
    let mut cluster = cluster(2, 2);
    let members = cluster.running();
    for member in &members {
        cluster.kill_node(*member).unwrap();
    }
    cluster.redis().stop().unwrap();
    for member in &members {
        cluster.start_node(*member).unwrap();
    }
    wait_for_lines(&mut cluster, &members, "event=redis-trouble", &["--redis-url", "ONCECAST_REDIS_URL"]);
    for member in &members {
        cluster.process(*member).unwrap().must_run().unwrap();
    }
    cluster.redis().start_again().unwrap();
    cluster.wait_for_leader(DEADLINE).unwrap();
    cluster.wait_for_consumers(DEADLINE).unwrap();
    let connection = &mut client_of(&mut cluster);
    wait_until_in_sync(connection, 2);
    publish(connection, "m", 0..500);
    wait_until_done(connection, 500);
    assert_each_once(connection, &(0..500).map(|n| format!("m{n}")).collect::<Vec<_>>());
}

#[test]
fn threads_are_scheduled_as_the_setting_says() {
    const NORMAL: u32 = 0;
    const BATCH: u32 = 3;
    let server = RedisServer::start(RedisOptions::default()).unwrap();
    let address = format!("127.0.0.1:{}", ports::free_port().unwrap());
    for (setting, policy) in [("batch", BATCH), ("normal", NORMAL)] {
        let start = |program: &str, args: &[&str], event: &str| {
            let mut command = programs().command(program).unwrap();
            command.args(["--redis-url", &server.url(), "--scheduling", setting]).args(args);
            let process = ChildProcess::spawn(program, command).unwrap();
            process.wait_for_line(event, DEADLINE).unwrap();
            process
        };
        let mut processes = [
            start("oncecast-consumer", &["--listen", &address], "event=listening"),
            start("oncecast-dispatcher", &["--consumers", &address], "event=elected"),
            start("oncecast-publisher", &["--rate", "10"], "event=publisher-started"),
        ];
        for process in &mut processes {
            assert_eq!(scheduling(process.pid()), BTreeSet::from([policy]), "{} {setting}", process.name());
            process.must_run().unwrap();
        }
    }
}

#[test]
fn programs_log_a_wrong_password_and_keep_trying() {
    let redis = RedisOptions { password: Some("right".to_owned()), ..RedisOptions::default() };
    let server = RedisServer::start(redis).unwrap();
    let address = format!("127.0.0.1:{}", ports::free_port().unwrap());
    for url in [format!("redis://127.0.0.1:{}", server.port()), format!("redis://:wrong@127.0.0.1:{}", server.port())] {
        let start = |program: &str, args: &[&str]| {
            let mut command = programs().command(program).unwrap();
            command.args(["--redis-url", &url]).args(args);
            ChildProcess::spawn(program, command).unwrap()
        };
        let mut consumer = start("oncecast-consumer", &["--listen", &address]);
        let mut dispatcher = start("oncecast-dispatcher", &["--consumers", &address]);
        for process in [&mut consumer, &mut dispatcher] {
            let line = process.wait_for_line("level=warn", DEADLINE).unwrap();
            assert!(line.contains("--redis-url") && line.contains("password"), "{}: {line}", process.name());
            let events = ["event=redis-trouble"];
            assert!(events.iter().any(|event| line.contains(event)), "{line}");
            process.must_run().unwrap();
            assert!(process.stop(DEADLINE).unwrap().success(), "and it ends in order");
            let log = process.stderr().all().join("\n");
            assert!(!log.contains("panicked at") && !log.contains("wrong@"), "{log}");
        }
    }
    assert_eq!(subscribers(&mut client(&server.url())), 0);
}

#[test]
fn a_result_key_of_the_wrong_type_is_named_and_loses_nothing() {
    let mut cluster = cluster(2, 2);
    let connection = &mut client_of(&mut cluster);
    wait_until_in_sync(connection, 2);
    let () = run(connection, &["SET", "messages:processed", "something else"]);
    publish(connection, "m", 0..200);
    let consumers = [Node::Consumer(0), Node::Consumer(1)];
    wait_for_lines(&mut cluster, &consumers, "event=redis-trouble", &["messages:processed", "stream"]);
    wait_for_intake(connection);
    assert_eq!(pending(connection), 200, "nothing is removed that is not recorded");
    let () = run(connection, &["DEL", "messages:processed"]);
    wait_until_done(connection, 200);
    assert_each_once(connection, &(0..200).map(|n| format!("m{n}")).collect::<Vec<_>>());
}

#[test]
fn a_pending_key_of_the_wrong_type_is_named_and_loses_nothing() {
    let mut cluster = cluster(2, 2);
    let connection = &mut client_of(&mut cluster);
    wait_until_in_sync(connection, 2);
    let (leader, lease) = cluster.wait_for_leader(DEADLINE).unwrap();
    let () = run(connection, &["SET", "messages:pending", "something else"]);
    publish(connection, "m", 0..200);
    wait_for_lines(&mut cluster, &[leader], "event=redis-trouble", &["messages:pending", "zset"]);
    let () = run(connection, &["DEL", "messages:pending"]);
    wait_until_done(connection, 200);
    assert_each_once(connection, &(0..200).map(|n| format!("m{n}")).collect::<Vec<_>>());
    assert_eq!(cluster.wait_for_leader(DEADLINE).unwrap().1, lease, "no reason to change the leader");
}

#[test]
fn programs_stop_cleanly_during_an_outage() {
    let mut cluster = cluster(2, 2);
    cluster.redis().kill().unwrap();
    let members = cluster.running();
    for member in members {
        // Catches a program that on stopping waits for Redis.
        cluster.stop_node(member, Duration::from_secs(9)).unwrap_or_else(|error| panic!("{error}"));
    }
}
