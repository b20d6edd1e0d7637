//! The library's consumer, which records in Redis itself, and the protection of groups that are in use.

use std::process::Command;

use oncecast::lab::{ChildProcess, RedisServer, ports};

use super::{failures, needs_secret, run, skipped};
use crate::programs::example::built_example;
use crate::support::secret::SecretFile;
use crate::support::{DEADLINE, redis_server, run_on, wait_until};

/// The example with the conformance handler, for this group, with a link secret if one is given.
fn example(redis: &RedisServer, group: &str, secret: Option<&SecretFile>) -> (ChildProcess, std::net::SocketAddr) {
    // Before the port is chosen: building may take so long that another test takes the port.
    let mut command = Command::new(built_example("conform"));
    let port = ports::free_port().expect("a free port");
    command.env("ONCECAST_REDIS_URL", redis.url()).env("ONCECAST_LISTEN", format!("127.0.0.1:{port}"));
    command.env("ONCECAST_GROUP", group);
    if let Some(secret) = secret {
        command.env("ONCECAST_LINK_SECRET_FILE", secret.path());
    }
    let child = ChildProcess::spawn("conform", command).expect("it starts");
    child.wait_for_line("event=listening", DEADLINE).expect("it listens");
    (child, ([127, 0, 0, 1], port).into())
}

#[test]
fn the_library_with_a_secret_or_two_fails_nothing() {
    for (number, lines) in [&["a secret of the library's"][..], &["the old secret of two", "the new secret of two"]]
        .into_iter()
        .enumerate()
    {
        let (redis, secret) = (redis_server(), SecretFile::new(&format!("library-{number}"), lines));
        let (consumer, address) = example(&redis, "conform", Some(&secret));
        let settings = format!(
            "--conformance-handler --redis-url {} --pid {} --link-secret-file {}",
            redis.url(),
            consumer.pid(),
            secret.path().display()
        );
        let report = run(address, &settings).expect("it runs");
        assert_eq!(failures(&report), "");
        let skipped = skipped(&report);
        assert!(skipped.contains(&"proof-without-a-secret"), "{skipped:?}");
        assert_eq!(skipped.contains(&"proof-with-each-secret"), lines.len() == 1, "{skipped:?}");
    }
}

#[test]
fn the_library_fails_nothing_and_redis_is_left_as_it_was() {
    let redis = redis_server();
    let (mut consumer, address) = example(&redis, "conform", None);
    // What an interrupted run may have left.
    run_on::<u64>(&redis, &["ZADD", "conform:pending", "7", "0000000000000007:x"]);
    run_on::<String>(&redis, &["SET", "conform:epoch", "7"]);
    run_on::<String>(&redis, &["SET", "another", "key"]);
    let settings = format!("--conformance-handler --redis-url {} --pid {}", redis.url(), consumer.pid());
    let report = run(address, &settings).expect("it runs");
    assert_eq!(failures(&report), "");
    let sends = ["result-while-no-link", "hello", "unconfirmed-result-is-kept", "confirmed-result-is-not-kept"];
    let sends: Vec<_> = sends.into_iter().chain(["recorded-on-a-replaced-connection"]).collect();
    let skipped: Vec<_> = skipped(&report).into_iter().filter(|name| !needs_secret(name)).collect();
    assert_eq!(skipped, sends);
    let ended = consumer.wait(DEADLINE).expect("the last case stops it");
    assert_eq!(ended.code(), Some(0), "{}", consumer.failure("it ended otherwise"));
    assert_eq!(run_on::<Vec<String>>(&redis, &["KEYS", "*"]), ["another"]);
}

#[test]
fn a_group_in_use_is_not_touched() {
    let redis = redis_server();
    let (_consumer, address) = example(&redis, "orders", None);
    let url = redis.url();
    let settings = |more: &str| format!("--redis-url {url} --group orders --only ping-is-answered {more}");
    let refused = |part: &str| {
        let error = run(address, &settings("")).expect_err("the group is in use");
        assert!(error.exit_code() == 1 && error.to_string().contains(part), "{error}");
    };
    run_on::<u64>(&redis, &["ZADD", "orders:pending", "7", "0000000000000007:x"]);
    refused("orders:pending");
    assert_eq!(run_on::<u64>(&redis, &["ZCARD", "orders:pending"]), 1);
    run_on::<u64>(&redis, &["DEL", "orders:pending"]);
    run_on::<String>(&redis, &["SET", "orders:leader", "d0-5f3a9c 1790000000123"]);
    refused("a dispatcher leads the group orders");
    run_on::<u64>(&redis, &["DEL", "orders:leader"]);
    run_on::<String>(&redis, &["SET", "orders:epoch", "5"]);
    let report = run(address, &settings("")).expect("nothing but an epoch is there");
    assert_eq!(failures(&report), "");
    assert_eq!(run_on::<String>(&redis, &["GET", "orders:epoch"]), "5", "it is restored");
    let error = run(address, &format!("--redis-url {url}")).expect_err("another group").to_string();
    assert!(error.contains("ERROR code=7"), "{error}");
}

/// Whether it still leads at the end of the run or has led meanwhile, what it stored stays.
#[test]
fn a_dispatcher_that_takes_over_ends_the_run_and_loses_nothing() {
    for leads_on in [true, false] {
        let redis = redis_server();
        let (_consumer, address) = example(&redis, "conform", None);
        let url = redis.url();
        let running = std::thread::spawn({
            let settings = format!("--redis-url {url}");
            move || run(address, &settings)
        });
        wait_until("the run to begin", || run_on::<bool>(&redis, &["EXISTS", "conform:epoch"]).then_some(()));
        let script = "redis.call('SET', 'conform:epoch', '1790000000123') \
                      redis.call('ZADD', 'conform:pending', 1790000000000123, '00065bff6d66207b:theirs')";
        run_on::<Option<String>>(&redis, &["EVAL", script, "0"]);
        if leads_on {
            run_on::<String>(&redis, &["SET", "conform:leader", "d0-5f3a9c 1790000000123"]);
        }
        let error = running.join().expect("no panic").expect_err("a dispatcher leads").to_string();
        assert!(error.contains("a dispatcher leads the group conform now, or has led it meanwhile"), "{error}");
        assert_eq!(run_on::<String>(&redis, &["GET", "conform:epoch"]), "1790000000123");
        let theirs = run_on::<Option<u64>>(&redis, &["ZSCORE", "conform:pending", "00065bff6d66207b:theirs"]);
        assert_eq!(theirs, Some(1_790_000_000_000_123), "it is still pending");
    }
}
