//! Settings of the Redis server that endanger the guarantees are logged once, with the value to set. A server that does
//! not allow its settings to be read causes no warning.

use std::num::NonZeroU64;
use std::process::Command;

use oncecast::lab::{ChildProcess, RedisOptions, RedisServer, ports};
use oncecast::ledger::Interests;
use oncecast::ledger::server_check::{Warning, check};

use crate::support::{DEADLINE, programs, redis_server, run_on, wait_until};

fn server_with(config: &[(&str, &str)]) -> RedisServer {
    let config = config.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    RedisServer::start(RedisOptions { config, ..RedisOptions::default() }).expect("a private Redis starts")
}

fn badly_configured() -> RedisServer {
    server_with(&[
        ("client-output-buffer-limit", "pubsub 32mb 8mb 60"),
        ("maxmemory", "100mb"),
        ("maxmemory-policy", "allkeys-lru"),
    ])
}

/// The name of a server's URL if no setting was named.
const URL: &str = "the Redis URL";

fn found_at(server: &RedisServer) -> Vec<Warning> {
    let mut found = check(&mut server.connection(), None).expect("the server answers");
    // Private servers persist nothing, which is noted.
    found.retain(|warning| !warning.is_note());
    found
}

fn consumer_of(server: &RedisServer, args: &[&str]) -> ChildProcess {
    let mut command: Command = programs().command("oncecast-consumer").expect("the program is built");
    let listen = format!("127.0.0.1:{}", ports::free_port().expect("a free port"));
    command.args(["--redis-url", &server.url(), "--listen", &listen]).args(args);
    ChildProcess::spawn("oncecast-consumer", command).expect("the consumer starts")
}

#[test]
fn safe_settings_cause_no_warning() {
    assert_eq!(found_at(&redis_server()), []);
}

#[test]
fn dangerous_settings_are_found() {
    let found = found_at(&badly_configured());
    let eviction = Warning::Eviction { policy: "allkeys-lru".to_owned(), maxmemory: NonZeroU64::new(100 << 20) };
    let limits = "33554432 8388608 60".to_owned();
    assert_eq!(found, [eviction, Warning::PubSubBuffer { limits, bytes: 32 << 20 }]);
}

#[test]
fn a_replica_is_found_even_if_it_accepts_writes() {
    let primary = redis_server();
    let address = format!("127.0.0.1:{}", primary.port());
    let replica = server_with(&[("replicaof", &address.replace(':', " "))]);
    wait_until("the replica to follow", || {
        let info: String = run_on(&replica, &["INFO", "replication"]);
        info.contains("master_link_status:up").then_some(())
    });
    assert_eq!(found_at(&replica), [Warning::Replica { primary: address.clone(), writable: false, setting: URL }]);
    let () = run_on(&replica, &["CONFIG", "SET", "replica-read-only", "no"]);
    assert_eq!(found_at(&replica), [Warning::Replica { primary: address, writable: true, setting: URL }]);
    let () = run_on(&replica, &["REPLICAOF", "NO", "ONE"]);
    assert_eq!(found_at(&replica), [], "it is a primary now");
    assert_eq!(found_at(&primary), []);
}

#[test]
fn a_server_that_hides_its_settings_causes_no_warning() {
    let not_told = |command| Warning::NotTold { command };
    let bad = [("maxmemory-policy", "allkeys-lru"), ("rename-command", "CONFIG \"\"")];
    let renamed = check(&mut server_with(&bad).connection(), None).expect("the server answers");
    assert_eq!(renamed, [not_told("CONFIG GET")], "CONFIG has another name");
    assert!(not_told("CONFIG GET").is_note());
    let server = badly_configured();
    let () = run_on(&server, &["ACL", "SETUSER", "app", "on", ">secret", "~*", "&*", "+@all", "-config", "-info"]);
    let url = server.url().replace("redis://", "redis://app:secret@");
    let app = oncecast::ledger::Server::parse(&url).expect("a URL");
    let mut connection = oncecast::ledger::Connection::new(app, DEADLINE);
    assert_eq!(check(&mut connection, None).expect("it refuses, but it answers"), ["CONFIG GET", "INFO"].map(not_told));
}

#[test]
fn a_dispatcher_says_which_keyspace_events_redis_does_not_publish() {
    let server = server_with(&[("notify-keyspace-events", "Kg")]);
    let () = run_on(&server, &["ACL", "SETUSER", "app", "on", ">secret", "~*", "&*", "+@all", "-config"]);
    let start = |url: &str| {
        let mut command = programs().command("oncecast-dispatcher").expect("the program is built");
        command.args(["--redis-url", url, "--consumers", "127.0.0.1:1", "--keyevent", "expired"]);
        ChildProcess::spawn("d0", command).expect("the dispatcher starts")
    };
    let dispatcher = start(&server.url());
    let line = dispatcher.wait_for_line("notify-keyspace-events is", DEADLINE).expect("it says so");
    let flags: String = run_on::<Vec<String>>(&server, &["CONFIG", "GET", "notify-keyspace-events"]).remove(1);
    assert!(
        line.contains("event=redis-setting") && line.contains(&format!("CONFIG SET notify-keyspace-events {flags}Ex")),
        "{line}"
    );
    drop(dispatcher);
    let url = server.url().replace("redis://", "redis://app:secret@");
    let line = start(&url).wait_for_line("Redis refuses CONFIG GET", DEADLINE).expect("it says so");
    assert!(line.contains("not checked: ") && line.contains("notify-keyspace-events"), "{line}");
    let () = run_on(&server, &["CONFIG", "SET", "notify-keyspace-events", &format!("{flags}Ex")]);
    let expired = Interests::in_channel("__keyevent@0__:expired");
    let found = check(&mut server.connection(), Some(&expired)).expect("the server answers");
    assert!(!found.iter().any(|warning| matches!(warning, Warning::KeyspaceEvents { .. })), "{found:?}");
}

#[test]
fn an_unreachable_server_is_an_error() {
    let mut server = badly_configured();
    let mut connection = server.connection();
    server.stop().expect("it ends");
    check(&mut connection, None).expect_err("no server answers");
}

#[test]
fn a_consumer_logs_each_danger_once_and_checks_again_after_a_restart() {
    const POLICY: &str = "maxmemory-policy is allkeys-lru";
    const BUFFER: &str = "client-output-buffer-limit pubsub is 33554432 8388608 60";
    let mut server = badly_configured();
    // Until Redis starts again and reads its configuration.
    let () = run_on(&server, &["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    let mut consumer = consumer_of(&server, &[]);
    let line = consumer.wait_for_line(BUFFER, DEADLINE).expect("it is logged");
    assert!(line.contains("level=warn") && line.contains("event=redis-setting warning="), "{line}");
    server.stop().expect("it ends");
    consumer.wait_for_line("event=redis-trouble", DEADLINE).expect("it notices");
    server.start_again().expect("it starts");
    consumer.wait_for_line(POLICY, DEADLINE).expect("it looks again");
    assert!(consumer.stop(DEADLINE).expect("it ends").success());
    let log = consumer.stderr().all();
    for danger in [POLICY, BUFFER] {
        assert_eq!(log.iter().filter(|line| line.contains(danger)).count(), 1, "{danger}: {log:?}");
    }
}

#[test]
fn a_consumer_that_may_not_read_settings_works_without_a_warning() {
    let server = badly_configured();
    let () = run_on(&server, &["ACL", "SETUSER", "default", "-config", "-info"]);
    let mut consumer = consumer_of(&server, &["--log-level", "debug"]);
    let line = consumer.wait_for_line("event=redis-settings-unknown", DEADLINE).expect("at debug it says so");
    assert!(line.contains("level=debug"), "{line}");
    assert!(consumer.stop(DEADLINE).expect("it ends").success());
    let log = consumer.stderr().all();
    assert!(!log.iter().any(|line| line.contains("level=warn")), "{log:?}");
}
