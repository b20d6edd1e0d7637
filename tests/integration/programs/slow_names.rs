//! Redis by a name whose lookup is slow.
//!
//! Each test gives a dispatcher an `/etc/resolv.conf` of its own, in a mount namespace, with name servers of the test.
//! That needs root, also for port 53; without, the tests say that they are skipped.

use std::net::UdpSocket;
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use oncecast::lab::ChildProcess;

use super::supervision::Manager;
use crate::support::{DEADLINE, programs, redis_server, skipped};

/// A file for `/etc/resolv.conf`; removed on drop.
struct ResolverSettings(PathBuf);

impl ResolverSettings {
    fn write(name: &str, text: &str) -> ResolverSettings {
        let path = std::env::temp_dir().join(format!("oncecast-{name}-{}", std::process::id()));
        std::fs::write(&path, text).expect("a new file");
        ResolverSettings(path)
    }

    /// A dispatcher with these resolver settings.
    fn dispatcher(&self, redis_url: &str) -> Command {
        let program = programs().command("oncecast-dispatcher").expect("the program is built");
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\""]).arg(&self.0);
        command.arg(program.get_program()).args(["--consumers", "127.0.0.1:1", "--redis-url", redis_url]);
        command
    }
}

impl Drop for ResolverSettings {
    fn drop(&mut self) {
        // A leftover file in the folder for temporary files is harmless.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The socket of a name server, or `None` if the test may not open one.
fn name_server(address: &str) -> Option<UdpSocket> {
    let unshared = Command::new("unshare").args(["--mount", "true"]).status().is_ok_and(|status| status.success());
    let socket = UdpSocket::bind((address, 53)).ok().filter(|_| unshared);
    if socket.is_none() {
        skipped("it needs root");
    }
    socket
}

/// Answers each question for an IPv4 address with 127.0.0.1, and every other one with nothing.
fn answer_with_loopback(server: &UdpSocket) {
    const HEADER_BYTES: usize = 12;
    const A_RECORD: [u8; 2] = [0, 1];
    let mut question = [0; 512];
    while let Ok((length, asker)) = server.recv_from(&mut question) {
        let name_end = question[HEADER_BYTES..length].iter().position(|byte| *byte == 0).expect("a name ends with 0");
        let end = HEADER_BYTES + name_end + 1 + 4;
        let is_for_ipv4 = question[end - 4..end - 2] == A_RECORD;
        let mut answer = question[..end].to_vec();
        // A response without an error; one question; perhaps one answer; no other records.
        answer[2..4].copy_from_slice(&[0x81, 0x80]);
        answer[4..12].copy_from_slice(&[0, 1, 0, is_for_ipv4.into(), 0, 0, 0, 0]);
        if is_for_ipv4 {
            // The question's name, an IPv4 address of the internet, valid for 60 s, of 4 bytes.
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
        }
        server.send_to(&answer, asker).expect("the resolver waits");
    }
}

/// The name server is silent for longer than 15 s, the longest iteration of any loop.
#[test]
fn a_slow_name_lookup_is_not_reported_as_a_hang() {
    let Some(silent) = name_server("127.0.0.57") else { return };
    let settings = ResolverSettings::write("long", "nameserver 127.0.0.57\noptions timeout:18 attempts:1\n");
    let mut manager = Manager::listen("names");
    let mut command = settings.dispatcher("redis://redis.example");
    manager.supervise(&mut command);
    let dispatcher = ChildProcess::spawn("d0", command).expect("it starts");
    dispatcher.wait_for_line("event=redis-trouble", 3 * DEADLINE).expect("the lookup ends");
    let asked = silent.recv(&mut [0; 512]);
    assert!(asked.is_ok(), "the silent name server was asked");
    manager.wait_for("WATCHDOG=1");
    manager.assert_no_hang(&dispatcher);
}

/// The first name server is silent for longer than the 2 s that connecting and greeting may take. The second one
/// answers.
#[test]
fn a_slow_name_lookup_does_not_shorten_the_greeting_timeout() {
    let Some(_silent) = name_server("127.0.0.58") else { return };
    let Some(server) = name_server("127.0.0.59") else { return };
    // Ends with the process.
    thread::spawn(move || answer_with_loopback(&server));
    let text = "nameserver 127.0.0.58\nnameserver 127.0.0.59\noptions timeout:3 attempts:1\n";
    let settings = ResolverSettings::write("slow", text);
    let redis = redis_server();
    let command = settings.dispatcher(&format!("redis://redis.example:{}", redis.port()));
    let dispatcher = ChildProcess::spawn("d0", command).expect("it starts");
    dispatcher.wait_for_line("event=subscribed", DEADLINE).expect("the subscription is greeted");
    dispatcher.wait_for_line("event=elected", DEADLINE).expect("the commands' connections are");
}
