//! The consumers that README.md shows as shell commands, run as they stand there. Those in Python and Node are run by
//! the checks of the packages, the one in Rust by `example`.

use oncecast::lab::{ChildProcess, Cluster, ports};

use super::http::{EXAMPLE, Server};
use crate::support::{
    DEADLINE, bare_cluster, client_of, dispatcher, publish_payloads, state, stream, wait_until_done, wait_until_in_sync,
};

/// The URL of the reader's own server.
const URL: &str = "http://127.0.0.1:8080/job";

/// The arguments with which README.md starts a consumer that has this handler.
fn shown(handler: &str) -> Vec<&'static str> {
    let start = format!("oncecast-consumer --handler {handler} ");
    let mut lines = include_str!("../../../README.md").lines().filter(|line| line.starts_with(&start));
    let line = lines.next().unwrap_or_else(|| panic!("README.md shows no consumer with the handler {handler}"));
    line.split_whitespace().skip(1).collect()
}

/// Starts a consumer with these arguments and a dispatcher, has a message processed, and checks its result.
fn assert_works(mut cluster: Cluster, args: &[&str]) {
    let connection = &mut client_of(&mut cluster);
    let listen = format!("127.0.0.1:{}", ports::free_port().expect("a free port"));
    let mut command = cluster.command("oncecast-consumer").expect("the program is built");
    command.args(args).env("ONCECAST_LISTEN", &listen).current_dir(env!("CARGO_MANIFEST_DIR"));
    let mut consumer = ChildProcess::spawn("consumer", command).expect("it starts");
    consumer.wait_for_line("event=listening", DEADLINE).expect("it listens");
    let _dispatcher = dispatcher(&cluster, "d0", &[listen], "");
    wait_until_in_sync(connection, 1);
    publish_payloads(connection, [r#"{"message_id":"a"}"#]);
    wait_until_done(connection, 1);
    assert_eq!(state(connection), (0, 1, 0), "pending, results, dead letters");
    assert_eq!(stream(connection, "messages:processed")[0]["message_id"], "a");
    assert_eq!(consumer.stop(DEADLINE).expect("it ends on SIGTERM").code(), Some(0));
}

#[test]
fn its_consumer_for_an_http_server_works() {
    let server = Server::running("python3", EXAMPLE);
    let mut args = shown("http");
    let url = args.iter_mut().find(|arg| **arg == URL).expect("its URL");
    let own = server.url();
    *url = &own;
    assert_works(bare_cluster(), &args);
}

#[test]
fn its_consumer_for_a_program_works() {
    let args = shown("exec");
    assert_eq!(args[2..], ["--", "python3", "examples/worker.py"]);
    assert_works(bare_cluster(), &args);
}
