//! Consumers, as a library or a program, and what they have recorded.

use crossbeam_channel::bounded;
use oncecast::base::id::MessageId;
use oncecast::lab::{ChildProcess, RedisServer};
use oncecast::wire::Frame;
use oncecast::{Consumer, ConsumerBuilder, Delivery, Outcome};

use crate::support::{DEADLINE, programs, run_on, wait_until};

pub fn process(id: u64, body: &str) -> Frame<'_> {
    Frame::Process { id: MessageId(id), delivery: 1, body: body.as_bytes() }
}

/// A consumer of this server, on any port.
pub fn consumer_of(redis: &RedisServer) -> ConsumerBuilder {
    Consumer::builder().redis_url(redis.url()).listen("127.0.0.1:0")
}

/// How many messages are pending.
pub fn pending(redis: &RedisServer) -> u64 {
    run_on(redis, &["ZCARD", "messages:pending"])
}

/// The entries of the result stream, each as `name=value` in order.
pub fn entries(redis: &RedisServer) -> Vec<Vec<String>> {
    let entries: Vec<(String, Vec<String>)> = run_on(redis, &["XRANGE", "messages:processed", "-", "+"]);
    let fields = |fields: &[String]| fields.chunks(2).map(|pair| format!("{}={}", pair[0], pair[1])).collect();
    entries.iter().map(|(_, values)| fields(values)).collect()
}

/// The program `oncecast-consumer` with these arguments.
pub fn program(arguments: &[&str]) -> ChildProcess {
    let mut command = programs().command("oncecast-consumer").expect("it is built");
    command.args(arguments);
    ChildProcess::spawn("oncecast-consumer", command).expect("it starts")
}

/// Waits until a program ends with this exit code. It must have logged lines with these parts.
pub fn expect_end(mut program: ChildProcess, code: i32, parts: &[&str]) {
    let ended = program.wait(DEADLINE).expect("it ends");
    assert_eq!(ended.code(), Some(code), "{}", program.failure("it ended with another exit code"));
    for part in parts {
        program.wait_for_line(part, DEADLINE).expect("it is logged");
    }
}

/// A handler that waits for a permit for each message and then records the payload.
pub fn gated() -> (crossbeam_channel::Sender<()>, impl oncecast::Handler) {
    let (permits, gate) = bounded(1_000);
    let handler = move |delivery: &Delivery<'_>| {
        gate.recv()?;
        Ok(Outcome::new().field("body", delivery.payload()))
    };
    (permits, handler)
}

/// Waits until connections are refused. A child that another test is starting holds a copy of this process's sockets
/// until it runs its own program, so that may take a moment.
pub fn expect_refused(address: std::net::SocketAddr) {
    wait_until("connections to be refused", || std::net::TcpStream::connect(address).is_err().then_some(()));
}
