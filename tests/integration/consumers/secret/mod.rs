//! The link secret between real programs: who does not know it gets nowhere, whatever was recorded before.

mod dispatchers;
mod rotation;
mod strangers;
mod wire_tap;

use std::net::SocketAddr;

use oncecast::lab::{ChildProcess, RedisServer};

use crate::support::secret::SecretFile;
use crate::support::{DEADLINE, programs};

const SECRET: &str = "the secret of these tests";

/// `--link-secret-file` with this file.
fn with(file: &SecretFile) -> String {
    format!("--link-secret-file {}", file.path().display())
}

/// The consumer program on any port of loopback, and its address.
fn consumer(redis: &RedisServer, args: &str) -> (ChildProcess, SocketAddr) {
    let program = consumer_at(redis, &format!("--listen 127.0.0.1:0 {args}"));
    let line = program.wait_for_line("event=listening address=", DEADLINE).expect("it listens");
    let address = line.split("address=").nth(1).and_then(|rest| rest.split_whitespace().next());
    (program, address.and_then(|address| address.parse().ok()).expect("an address"))
}

/// The consumer program where the arguments say.
fn consumer_at(redis: &RedisServer, args: &str) -> ChildProcess {
    let mut command = programs().command("oncecast-consumer").expect("it is built");
    command.args(["--redis-url", &redis.url()]).args(args.split_whitespace());
    let program = ChildProcess::spawn("oncecast-consumer", command).expect("it starts");
    program.wait_for_line("event=listening", DEADLINE).expect("it listens");
    program
}

fn dispatcher(redis: &RedisServer, name: &str, consumers: &[String], args: &str) -> ChildProcess {
    let mut command = programs().command("oncecast-dispatcher").expect("it is built");
    command.args(["--redis-url", &redis.url(), "--dispatcher-id", name, "--consumers", &consumers.join(",")]);
    command.args(args.split_whitespace());
    ChildProcess::spawn(name, command).expect("it starts")
}

/// A metric without labels.
fn metric(address: &str, name: &str) -> Option<u64> {
    let (_, text) = crate::support::http::get(address.parse().expect("an address"), "/metrics")?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    value.split('.').next()?.trim().parse().ok()
}
