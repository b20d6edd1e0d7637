//! The examples are complete consumers, and the smallest stays the smallest.

use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Command;

use oncecast::lab::folder::PrivateFolder;
use oncecast::lab::{ChildProcess, ports};

use crate::support::{
    DEADLINE, bare_cluster, client_of, dispatcher, publish_payloads, run, stream, wait_until, wait_until_done,
    wait_until_in_sync,
};

/// Builds an example with the profile of the test. `cargo test` builds it, but `cargo test --test integration` does
/// not.
pub fn built_example(name: &str) -> PathBuf {
    let this = std::env::current_exe().expect("a test knows where it is");
    let folder = this.parent().and_then(|deps| deps.parent()).expect("target/<profile>/deps");
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(other) => other,
    };
    let build = ["build", "--quiet", "--locked", "--example", name, "--profile", profile];
    let built = Command::new(env!("CARGO")).args(build).status().expect("cargo runs");
    assert!(built.success());
    folder.join("examples").join(name)
}

#[test]
fn the_smallest_consumer_records_the_outcome_of_its_closure() {
    let mut cluster = bare_cluster();
    let connection = &mut client_of(&mut cluster);
    // Before the port is chosen: building may take so long that another test takes the port.
    let mut command = Command::new(built_example("smallest"));
    let listen = format!("127.0.0.1:{}", ports::free_port().expect("a free port"));
    command.env("ONCECAST_REDIS_URL", cluster.redis().url()).env("ONCECAST_LISTEN", &listen);
    // The library does not notify systemd.
    let folder = PrivateFolder::create("example").expect("a folder");
    let notified = folder.path().join("notify");
    let systemd = UnixDatagram::bind(&notified).expect("a new socket");
    systemd.set_nonblocking(true).expect("our own socket");
    command.env("NOTIFY_SOCKET", &notified).env("WATCHDOG_USEC", "3000000").env_remove("WATCHDOG_PID");
    let mut smallest = ChildProcess::spawn("smallest", command).expect("it starts");
    let _dispatcher = dispatcher(&cluster, "d0", &[listen], "");
    wait_until_in_sync(connection, 1);
    smallest.wait_for_line("event=listening", DEADLINE).expect("it listens");
    publish_payloads(connection, ["hello", "world"]);
    wait_until_done(connection, 2);
    let mut shouted: Vec<String> =
        stream(connection, "messages:processed").into_iter().filter_map(|mut entry| entry.remove("shouted")).collect();
    shouted.sort();
    assert_eq!(shouted, ["HELLO", "WORLD"]);
    assert_eq!(smallest.stop(DEADLINE).expect("it ends on SIGTERM").code(), Some(0));
    let said = systemd.recv(&mut [0; 4096]);
    assert_eq!(said.expect_err("nothing was said").kind(), ErrorKind::WouldBlock);
    let logged = smallest.stderr().tail(100);
    for event in ["event=listening", "event=stopped"] {
        assert!(logged.contains(event), "{event} is not logged:\n{logged}");
    }
}

#[test]
fn the_example_for_expired_keys_records_each_session_that_ended() {
    let mut cluster = bare_cluster();
    let connection = &mut client_of(&mut cluster);
    let () = run(connection, &["CONFIG", "SET", "notify-keyspace-events", "Ex"]);
    // Before the port is chosen: building may take so long that another test takes the port.
    let mut command = Command::new(built_example("expired"));
    let listen = format!("127.0.0.1:{}", ports::free_port().expect("a free port"));
    command.env("ONCECAST_REDIS_URL", cluster.redis().url()).env("ONCECAST_LISTEN", &listen);
    let mut expired = ChildProcess::spawn("expired", command).expect("it starts");
    let dispatcher = dispatcher(&cluster, "d0", &[listen], "--keyevent expired");
    dispatcher.wait_for_line("event=taken-over", DEADLINE).expect("it leads");
    for key in ["session:a", "session:b", "other"] {
        let () = run(connection, &["SET", key, "value", "PX", "50"]);
    }
    wait_until("the keys to expire", || {
        (run::<u64>(connection, &["EXISTS", "session:a", "session:b", "other"]) == 0).then_some(())
    });
    wait_until_done(connection, 2);
    let mut ended: Vec<String> =
        stream(connection, "messages:processed").into_iter().filter_map(|mut entry| entry.remove("ended")).collect();
    ended.sort();
    assert_eq!(ended, ["a", "b"], "a key that is no session has no result");
    assert_eq!(stream(connection, "messages:dead"), []);
    assert_eq!(expired.stop(DEADLINE).expect("it ends on SIGTERM").code(), Some(0));
}

#[test]
fn it_has_less_than_twenty_lines_and_the_readme_shows_a_part_of_it() {
    let example = include_str!("../../../examples/smallest.rs");
    assert!(example.lines().count() < 20);
    let (_, rest) = include_str!("../../../README.md").split_once("```rust,ignore\n").expect("it shows Rust");
    let (shown, _) = rest.split_once("```").expect("the block ends");
    let indented: String = shown.lines().map(|line| format!("    {line}\n")).collect();
    assert!(example.contains(&indented), "README.md shows another consumer");
}
