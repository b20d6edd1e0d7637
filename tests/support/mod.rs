//! What the integration tests share: a cluster of the programs under test, publishing, reading results, waiting.
//!
//! Everything stops when it is dropped. Waits have a deadline and say what they waited for.

// Each test file uses a part of it.
#![allow(dead_code)]

pub mod running_consumer;
pub mod scripted_dispatcher;

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use oncecast::local::{self, Cluster, ClusterOptions, Programs, RedisOptions, RedisServer};
use redis::FromRedisValue;

/// How long something that must happen may take on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(20);
/// The channel that users publish on.
pub const CHANNEL: &str = "messages:published";

/// The programs under test.
pub fn programs() -> Programs {
    let this = Path::new(env!("CARGO_BIN_EXE_oncecast"));
    Programs::in_folder(this.parent().expect("a program lies in a folder"))
}

/// A private server without a file.
pub fn redis_server() -> RedisServer {
    RedisServer::start(RedisOptions::default()).expect("a private Redis starts")
}

/// A private server that has written out what it has acknowledged, so that killing it loses nothing.
pub fn lasting_redis_server() -> RedisServer {
    // Written before the reply, though not synced: it is the process that dies here, not the machine.
    let config = vec![("appendfsync".to_owned(), "no".to_owned())];
    let options = RedisOptions { append_only: true, config, ..RedisOptions::default() };
    RedisServer::start(options).expect("a private Redis starts")
}

/// A cluster whose leader is connected to all consumers.
pub fn cluster(dispatchers: usize, consumers: usize) -> Cluster {
    cluster_of(ClusterOptions { dispatchers, consumers, ..ClusterOptions::new(programs()) })
}

/// A cluster with options of one's own, whose leader is connected to all consumers.
pub fn cluster_of(options: ClusterOptions) -> Cluster {
    let mut cluster = Cluster::start(options).expect("the cluster starts");
    cluster.wait_for_leader(DEADLINE).expect("a dispatcher leads");
    cluster.wait_for_consumers(DEADLINE).expect("the consumers are connected");
    cluster
}

/// A connection of the client library's own, with a deadline for each reply.
pub fn client(url: &str) -> redis::Connection {
    let client = redis::Client::open(url).expect("a valid URL");
    let connection = client.get_connection_with_timeout(DEADLINE).expect("Redis takes connections");
    connection.set_read_timeout(Some(DEADLINE)).expect("a timeout above zero");
    connection.set_write_timeout(Some(DEADLINE)).expect("a timeout above zero");
    connection
}

/// Runs one command on a connection of its own.
pub fn run<T: FromRedisValue>(server: &RedisServer, words: &[&str]) -> T {
    let mut command = redis::cmd(words[0]);
    for word in &words[1..] {
        command.arg(word);
    }
    command.query(&mut client(&server.url())).expect("Redis answers")
}

/// Makes a message of the group `messages` pending.
pub fn pend(server: &RedisServer, id: u64, payload: &str) {
    let member = format!("{id:016x}:{payload}");
    run::<i64>(server, &["ZADD", "messages:pending", &id.to_string(), &member]);
}

/// Publishes `{"message_id":"<prefix><n>"}` for each `n` of `numbers`, in one go; gives the fewest receivers one had.
pub fn publish(connection: &mut redis::Connection, prefix: &str, numbers: std::ops::Range<u64>) -> u64 {
    let payloads = numbers.map(|n| format!("{{\"message_id\":\"{prefix}{n}\"}}"));
    publish_payloads(connection, payloads)
}

/// Publishes payloads in one go; gives the fewest receivers one had.
pub fn publish_payloads<P: AsRef<[u8]>>(
    connection: &mut redis::Connection,
    payloads: impl IntoIterator<Item = P>,
) -> u64 {
    let mut pipeline = redis::pipe();
    for payload in payloads {
        pipeline.publish(CHANNEL, payload.as_ref());
    }
    let receivers: Vec<u64> = pipeline.query(connection).expect("PUBLISH is answered");
    receivers.into_iter().min().unwrap_or(0)
}

/// The entries of a stream in order, each as its fields.
pub fn stream(connection: &mut redis::Connection, key: &str) -> Vec<HashMap<String, String>> {
    let range = redis::cmd("XRANGE").arg(key).arg("-").arg("+").query(connection);
    let entries: Vec<(String, HashMap<String, String>)> = range.expect("the stream can be read");
    entries.into_iter().map(|(_, fields)| fields).collect()
}

/// How often each value of a field occurs in a stream's entries; entries without the field are left out.
pub fn occurrences(entries: &[HashMap<String, String>], field: &str) -> HashMap<String, usize> {
    let mut found = HashMap::new();
    for value in entries.iter().filter_map(|entry| entry.get(field)) {
        *found.entry(value.clone()).or_insert(0) += 1;
    }
    found
}

/// Looks at `condition` until it gives a value; panics after [`DEADLINE`] saying what did not happen.
pub fn wait_until<T>(what: impl fmt::Display, mut condition: impl FnMut() -> Option<T>) -> T {
    match local::wait_until(DEADLINE, what, || Ok(condition())) {
        Ok(value) => value,
        Err(error) => panic!("{error}"),
    }
}
