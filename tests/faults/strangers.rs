//! Rows about strangers: whoever reaches a port, and is nobody of the group.

use std::io::Read;
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use oncecast::local::{ChildProcess, ports};

use crate::dispatchers::Watched;
use crate::run::{Run, assert_l0};
use crate::support::load::Load;
use crate::support::{
    DEADLINE, bare_cluster, client_of, programs, run as run_command, state, wait_until, wait_until_in_sync,
};

/// So few files that the consumer works and strangers can use them up: its own are some 15.
const FILES: u32 = 32;

/// A consumer with few files, and its address.
fn consumer(redis_url: &str) -> (ChildProcess, String) {
    let address = format!("127.0.0.1:{}", ports::free_port().expect("a free port"));
    let program = programs().command("oncecast-consumer").expect("the program is built");
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -n {FILES} && exec \"$0\" \"$@\"")]).arg(program.get_program());
    command.args(["--redis-url", redis_url, "--listen", &address]);
    let consumer = ChildProcess::spawn("few-files", command).expect("it starts");
    consumer.wait_for_line("event=listening", DEADLINE).expect("it listens");
    (consumer, address)
}

fn dispatcher(url: &str, name: &str, address: &str) -> Watched {
    let command = programs().command("oncecast-dispatcher").expect("the program is built");
    Watched::spawn(command, name, url, &[address.to_owned()], "127.0.0.1", "--lease-ttl-ms 1000")
}

/// Row 39: strangers open so many connections to a consumer that it has no files left, and say nothing.
#[test]
fn row_39_strangers_use_up_the_files() {
    let mut this = Run::of("row_39_strangers_use_up_the_files");
    let mut cluster = bare_cluster();
    let connection = &mut client_of(&mut cluster);
    let url = cluster.redis().url();
    let (mut consumer, address) = consumer(&url);
    let mut leader = dispatcher(&url, "d0", &address);
    wait_until_in_sync(connection, 1);
    let load = Load::start(&url, "m", 300);
    load.wait_for_more(100);
    for round in 1..=this.scale(2, 10) {
        // Some come while there are no files, and are let in as others make room.
        let crowd: Vec<_> = (0..this.random.u64(40..80))
            .map(|_| TcpStream::connect(&address).expect("the system takes connections"))
            .collect();
        consumer.wait_for_line("event=files-short", DEADLINE).expect("the files are used up");
        load.wait_for_more(100);
        // A new leader gets in while they are there.
        let next = dispatcher(&url, &format!("d{round}"), &address);
        wait_until_in_sync(connection, 2);
        let before: String = run_command(connection, &["GET", "messages:leader"]);
        leader.process.kill().expect("it is ours");
        leader = next;
        wait_until("another to lead", || {
            let now: Option<String> = run_command(connection, &["GET", "messages:leader"]);
            now.filter(|now| *now != before)
        });
        let recorded = state(connection).1;
        wait_until("the new leader's messages to be done", || (state(connection).1 > recorded + 100).then_some(()));
        // Those that are still there are ended for their silence.
        let ended = crowd.into_iter().map(|mut stream| {
            stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout above zero");
            stream
                .read(&mut [0])
                .map_or_else(|error| error.kind() == std::io::ErrorKind::ConnectionReset, |count| count == 0)
        });
        assert!(ended.into_iter().all(|ended| ended), "none stays open");
        load.wait_for_more(100);
    }
    let sent = load.stop();
    assert_l0(connection, &sent);
    consumer.must_run().expect("it lives");
    let refused = consumer.stderr().all().iter().filter(|line| line.contains("event=files-short")).count();
    this.say(format_args!("{refused} lines about files"));
    leader.process.must_run().expect("it lives");
}
