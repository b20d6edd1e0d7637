//! Commands to Redis from an ordinary client, for what the tests read and write directly.

use std::collections::HashMap;

use oncecast::lab::{Cluster, RedisServer};
use redis::FromRedisValue;

use super::processes::local_ports;
use super::waiting::DEADLINE;

/// The channel that users publish on.
pub const CHANNEL: &str = "messages:published";

/// A connection of the client library, with a deadline for each reply.
pub fn client(url: &str) -> redis::Connection {
    let client = redis::Client::open(url).expect("a valid URL");
    let connection = client.get_connection_with_timeout(DEADLINE).expect("Redis takes connections");
    connection.set_read_timeout(Some(DEADLINE)).expect("a timeout above zero");
    connection.set_write_timeout(Some(DEADLINE)).expect("a timeout above zero");
    connection
}

/// A connection to a cluster's server.
pub fn client_of(cluster: &mut Cluster) -> redis::Connection {
    client(&cluster.redis().url())
}

/// Runs a command given as words; its reply must be of the type asked for.
pub fn run<T: redis::FromRedisValue>(connection: &mut redis::Connection, words: &[&str]) -> T {
    let mut command = redis::cmd(words[0]);
    words[1..].iter().for_each(|word| {
        command.arg(*word);
    });
    command.query(connection).unwrap_or_else(|error| panic!("{words:?}: {error}"))
}

/// Runs one command on a connection of its own.
pub fn run_on<T: FromRedisValue>(server: &RedisServer, words: &[&str]) -> T {
    run(&mut client(&server.url()), words)
}

/// Makes this the newest epoch of the group `messages`, as an elected dispatcher does. Consumers accept no other.
pub fn elect(server: &RedisServer, epoch: u64) {
    run_on::<()>(server, &["SET", "messages:epoch", &epoch.to_string()]);
}

/// Makes a message of the group `messages` pending.
pub fn pend(server: &RedisServer, id: u64, payload: &str) {
    let member = format!("{id:016x}:{payload}");
    run_on::<i64>(server, &["ZADD", "messages:pending", &id.to_string(), &member]);
}

/// Publishes `{"message_id":"<prefix><n>"}` for each `n` of `numbers` in one pipeline. Returns the lowest number of
/// receivers.
pub fn publish(connection: &mut redis::Connection, prefix: &str, numbers: std::ops::Range<u64>) -> u64 {
    let payloads = numbers.map(|n| format!("{{\"message_id\":\"{prefix}{n}\"}}"));
    publish_payloads(connection, payloads)
}

/// Publishes payloads in one pipeline. Returns the lowest number of receivers.
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

/// How many connections are subscribed to the channel.
pub fn subscribers(connection: &mut redis::Connection) -> u64 {
    let found: HashMap<String, u64> = run(connection, &["PUBSUB", "NUMSUB", CHANNEL]);
    found[CHANNEL]
}

/// The client id of a dispatcher's subscription, by its process.
pub fn subscription_of(connection: &mut redis::Connection, pid: u32) -> String {
    let own = local_ports(pid);
    let list: String = run(connection, &["CLIENT", "LIST", "TYPE", "PUBSUB"]);
    let field = |line: &str, name: &str| {
        line.split(' ').find_map(|word| word.strip_prefix(name)).expect("each line has it").to_owned()
    };
    let is_own = |line: &&str| {
        let port = field(line, "addr=").rsplit(':').next().and_then(|port| port.parse().ok());
        port.is_some_and(|port: u16| own.contains(&port))
    };
    let ids: Vec<String> = list.lines().filter(is_own).map(|line| field(line, "id=")).collect();
    assert_eq!(ids.len(), 1, "a dispatcher has one subscription: {list}");
    ids.into_iter().next().expect("one")
}
