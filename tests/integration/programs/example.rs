//! The smallest example is a complete consumer, and stays the smallest.

use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Command;

use oncecast::lab::folder::PrivateFolder;
use oncecast::lab::{ChildProcess, ports};

use crate::support::{
    DEADLINE, bare_cluster, client_of, dispatcher, publish_payloads, stream, wait_until_done, wait_until_in_sync,
};

/// Builds the example with the profile of the test. `cargo test` builds it, but `cargo test --test integration` does
/// not.
fn built_example() -> PathBuf {
    let this = std::env::current_exe().expect("a test knows where it is");
    let folder = this.parent().and_then(|deps| deps.parent()).expect("target/<profile>/deps");
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(other) => other,
    };
    let build = ["build", "--quiet", "--locked", "--example", "smallest", "--profile", profile];
    let built = Command::new(env!("CARGO")).args(build).status().expect("cargo runs");
    assert!(built.success());
    folder.join("examples/smallest")
}

#[test]
fn the_smallest_consumer_records_the_outcome_of_its_closure() {
    let mut cluster = bare_cluster();
    let connection = &mut client_of(&mut cluster);
    let listen = format!("127.0.0.1:{}", ports::free_port().expect("a free port"));
    let mut command = Command::new(built_example());
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
fn it_has_at_most_twenty_lines_and_equals_the_one_in_the_readme() {
    let example = include_str!("../../../examples/smallest.rs");
    assert!(example.lines().count() < 20);
    let code = example.split_once('\n').map_or("", |(_, code)| code);
    assert!(include_str!("../../../README.md").contains(code), "README.md shows another example");
}
