//! The log: a blocked standard error does not block the program, lines for systemd's journal have priorities, and every
//! line names its process, role and epoch.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use oncecast::lab::{ChildProcess, Cluster, Lease, Node, ports};

use crate::support::load::Load;
use crate::support::{
    DEADLINE, assert_each_once, bare_cluster, client_of, cluster, options, programs, publish, wait_for_another_leader,
    wait_until, wait_until_done, wait_until_in_sync,
};

/// A program whose standard error is a socket that the test holds the other end of; killed on drop.
struct Program {
    child: Child,
}

impl Program {
    /// Starts it. Its log can be read from the other end.
    fn start(mut command: Command, stderr: UnixStream) -> Program {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(OwnedFd::from(stderr));
        Program { child: command.spawn().expect("the program starts") }
    }

    fn terminate(&self) {
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM).expect("it has not been waited for");
    }

    fn wait(&mut self) -> ExitStatus {
        wait_until("the program to end", || self.child.try_wait().expect("it is our child"))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A full socket, and the end to read it from.
fn full_socket() -> (UnixStream, UnixStream) {
    let (mut full, reader) = UnixStream::pair().expect("a pair of sockets");
    full.set_nonblocking(true).expect("a socket");
    // Filled byte by byte at the end, so that no short line fits.
    for piece in [&[b'.'; 4096][..], b".", b"\n"] {
        loop {
            match full.write(piece) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
    }
    full.set_nonblocking(false).expect("a socket");
    (full, reader)
}

/// A dispatcher `d0`, the only one.
fn lone_dispatcher(cluster: &Cluster) -> Command {
    let addresses: Vec<String> = (0..cluster.consumers()).map(|number| cluster.address(number).to_string()).collect();
    let mut command = cluster.command("oncecast-dispatcher").expect("the program is built");
    command.args(["--dispatcher-id", "d0", "--consumers", &addresses.join(",")]);
    command
}

fn lease(cluster: &Cluster) -> Option<Lease> {
    cluster.view().snapshot().expect("Redis answers").lease
}

fn wait_until_it_leads(cluster: &Cluster) -> Lease {
    wait_until("d0 to lead with all consumers", || {
        let snapshot = cluster.view().snapshot().expect("Redis answers");
        snapshot.lease.filter(|lease| lease.name() == "d0" && snapshot.consumers.len() == cluster.consumers())
    })
}

/// The value of a `key=value` pair without spaces in it.
fn value<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    line.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
}

#[test]
fn a_leader_with_a_blocked_log_works_and_stops() {
    let mut cluster = Cluster::start(options(0, 2, "", "")).expect("a private Redis and consumers start");
    let (stderr, _unread) = full_socket();
    let mut program = Program::start(lone_dispatcher(&cluster), stderr);
    let lease_before = wait_until_it_leads(&cluster);
    let load = Load::start(&cluster.redis_url(), "m", 2_000);
    // Twice as long as the lease lasts without renewal.
    load.wait_for_more(8_000);
    let sent = load.stop();
    let connection = &mut client_of(&mut cluster);
    wait_until_done(connection, sent.owed.len());
    assert_each_once(connection, &sent.owed);
    assert_eq!(lease(&cluster), Some(lease_before), "it led all the time");
    program.terminate();
    assert_eq!(program.wait().code(), Some(0), "it stops cleanly although its last lines can't be written");
    assert_eq!(lease(&cluster), None, "and releases the lease");
}

#[test]
fn lines_logged_while_blocked_appear_once_the_log_is_read() {
    let cluster = Cluster::start(options(0, 1, "", "")).expect("a private Redis and consumers start");
    let (stderr, unread) = full_socket();
    let program = Program::start(lone_dispatcher(&cluster), stderr);
    let lease = wait_until_it_leads(&cluster);
    let load = Load::start(&cluster.redis_url(), "m", 1_000);
    let (found, finds) = mpsc::channel();
    let reader = thread::spawn(move || {
        for line in BufReader::new(unread).lines().map_while(Result::ok) {
            // The bytes that filled the socket come before the first line.
            let line = line.trim_start_matches('.');
            if !line.is_empty() {
                let _ = found.send(line.to_owned());
            }
        }
    });
    let mut lines = Vec::new();
    while !lines.iter().any(|line: &String| line.contains("event=rate ")) {
        lines.push(finds.recv_timeout(DEADLINE).expect("the rate is logged every 3 s while there is traffic"));
    }
    load.stop();
    let elected = lines.iter().find(|line| line.contains("event=elected ")).expect("it was elected before");
    assert_eq!(value(elected, "epoch"), Some(lease.epoch.to_string().as_str()));
    assert!(lines[0].contains("event=started"), "in order: {lines:?}");
    let rate = lines.last().expect("it was just found");
    for key in ["taken_in_per_s", "processed_per_s", "in_flight", "ready"] {
        assert!(value(rate, key).is_some_and(|number| number.parse::<u64>().is_ok()), "{key}: {rate}");
    }
    drop(program);
    reader.join().expect("it does not panic");
}

#[test]
fn a_leader_logs_traffic_that_no_consumer_takes() {
    let cluster = bare_cluster();
    let nobody = format!("127.0.0.1:{}", ports::free_port().expect("a free port"));
    let dispatcher = crate::support::dispatcher(&cluster, "d0", &[nobody], "");
    let load = Load::start(&cluster.redis_url(), "m", 200);
    let line = dispatcher.wait_for_line("event=rate ", DEADLINE).expect("the rate is logged");
    assert!(value(&line, "taken_in_per_s").is_some_and(|rate| rate != "0"), "{line}");
    assert_eq!(value(&line, "processed_per_s"), Some("0"), "{line}");
    load.stop();
}

/// The whole log of a consumer without Redis, whose standard error is declared to be the journal.
fn consumer_log(journal_stream: impl FnOnce(&File) -> String) -> String {
    let (stderr, mut reader) = UnixStream::pair().expect("a pair of sockets");
    let output = File::from(OwnedFd::from(stderr.try_clone().expect("a socket")));
    let mut command = programs().command("oncecast-consumer").expect("the program is built");
    let [listen, redis] = [0; 2].map(|_| format!("127.0.0.1:{}", ports::free_port().expect("a free port")));
    command.args(["--listen", &listen, "--redis-url", &format!("redis://{redis}")]);
    command.env("JOURNAL_STREAM", journal_stream(&output));
    drop(output);
    let mut program = Program::start(command, stderr);
    let mut log = Vec::new();
    // Its line about Redis is a warning.
    let mut byte = [0];
    while !String::from_utf8_lossy(&log).contains("level=warn") {
        reader.set_read_timeout(Some(DEADLINE)).expect("a timeout above zero");
        reader.read_exact(&mut byte).expect("it warns");
        log.push(byte[0]);
    }
    program.terminate();
    reader.read_to_end(&mut log).expect("its end closes the socket");
    assert_eq!(program.wait().code(), Some(0));
    String::from_utf8(log).expect("text")
}

fn identity(output: &File, beyond: u64) -> String {
    let metadata = output.metadata().expect("an open file");
    format!("{}:{}", metadata.dev(), metadata.ino() + beyond)
}

#[test]
fn journal_lines_have_priorities_and_no_time() {
    let log = consumer_log(|output| identity(output, 0));
    for line in log.lines() {
        let begins = ["<4>level=warn instance=", "<6>level=info instance="].iter().any(|begin| line.starts_with(begin));
        assert!(begins && !line.contains("time="), "{line}");
    }
    assert!(log.contains("<6>") && log.contains("<4>") && log.contains("event=stopped"), "to the end: {log}");
}

#[test]
fn other_lines_have_a_time() {
    for journal_stream in [|output: &File| identity(output, 1), |_: &File| "nonsense".to_owned()] {
        let log = consumer_log(journal_stream);
        assert!(log.lines().all(|line| line.starts_with("time=20")), "{log}");
        assert!(log.contains("event=stopped"), "to the end: {log}");
    }
}

#[test]
fn the_reason_for_an_exit_has_the_priority_of_an_error() {
    let squatter = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = squatter.local_addr().expect("it is bound").to_string();
    // The first fails before it logs, the second after.
    let dispatcher = ["oncecast-dispatcher", "--consumers", "127.0.0.1:1", "--metrics-addr", &address];
    for words in [&["oncecast-consumer", "--listen", &address][..], &dispatcher] {
        let (stderr, mut reader) = UnixStream::pair().expect("a pair of sockets");
        let output = File::from(OwnedFd::from(stderr.try_clone().expect("a socket")));
        let mut command = programs().command(words[0]).expect("the program is built");
        command.args(&words[1..]).env("JOURNAL_STREAM", identity(&output, 0));
        drop(output);
        let mut program = Program::start(command, stderr);
        let mut log = String::new();
        reader.read_to_string(&mut log).expect("its end closes the socket");
        assert_eq!(program.wait().code(), Some(1), "{log}");
        let last = log.lines().last().expect("the reason is logged");
        let as_whom = if words == dispatcher { "<3>level=error instance=" } else { "<3>oncecast-consumer: " };
        assert!(last.starts_with(as_whom) && last.contains(&address), "{log}");
    }
}

#[test]
fn each_line_names_its_program_event_and_epoch() {
    let mut cluster = cluster(2, 2);
    let connection = &mut client_of(&mut cluster);
    wait_until_in_sync(connection, 2);
    let (first, before) = cluster.wait_for_leader(DEADLINE).expect("a dispatcher leads");
    cluster.kill_node(first).expect("it runs");
    let (second, after) = wait_for_another_leader(&mut cluster, &before);
    publish(connection, "m", 0..500);
    wait_until_done(connection, 500);
    let mut heir = cluster.release(second).expect("it runs");
    assert!(heir.stop(DEADLINE).expect("it ends").success());

    let epoch = after.epoch.to_string();
    let mut roles = Vec::new();
    for line in heir.stderr().all() {
        let of = |key| value(&line, key).unwrap_or_else(|| panic!("no {key}: {line}"));
        assert!(line.starts_with("time=20") && of("instance") == after.holder, "{line}");
        assert!(["error", "warn", "info"].contains(&of("level")) && !of("event").is_empty(), "{line}");
        assert_eq!(of("epoch"), if of("role") == "leader" { epoch.as_str() } else { "0" }, "{line}");
        // A standby may log nothing.
        if of("role") != "standby" && roles.last().is_none_or(|last| last != of("role")) {
            roles.push(of("role").to_owned());
        }
    }
    assert_eq!(roles, ["starting", "leader", "stopped"]);
    for consumer in [Node::Consumer(0), Node::Consumer(1)] {
        let rules = format!("role=consumer epoch={epoch} event=dispatcher-rules");
        let line = cluster.process(consumer).expect("it runs").wait_for_line(&rules, DEADLINE).expect("it is logged");
        assert_eq!(value(&line, "instance"), Some(consumer.to_string().as_str()));
    }
}

#[test]
#[ignore = "run by panics_are_logged_as_lines, as a process of its own"]
fn panics() {
    let _log = oncecast::process::log::init(log::LevelFilter::Info, "c0", "consumer").expect("it is the first");
    let worker = thread::Builder::new().name("worker".to_owned());
    let worker = worker.spawn(|| {
        for number in 0..100 {
            let _ = std::panic::catch_unwind(|| panic!("number {number}\nof 100"));
        }
    });
    worker.expect("a thread").join().expect("it catches its panics");
}

#[test]
fn panics_are_logged_as_lines() {
    let mut command = Command::new(std::env::current_exe().expect("this program has a file"));
    command.args(["--exact", "programs::logs::panics", "--ignored", "--nocapture"]);
    let output = command.env_remove("RUST_BACKTRACE").output().expect("it starts");
    assert!(output.status.success(), "{output:?}");
    let log = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("event=panic ")).collect();
    assert_eq!(lines.len(), 10, "a flood is cut short: {log}");
    for (number, line) in lines.into_iter().enumerate() {
        assert!(line.starts_with("time=20") && line.contains("level=error instance=c0 role=consumer"), "{line}");
        let problem = format!(":\\nnumber {number}\\nof 100\"");
        assert!(
            line.contains("thread=worker problem=\"panicked at tests/integration/programs/logs.rs:")
                && line.ends_with(&problem),
            "{line}"
        );
    }
}

#[test]
fn each_service_logs_its_start_once_its_metrics_are_served() {
    let nobody = format!("redis://127.0.0.1:{}", ports::free_port().expect("a free port"));
    for (name, more) in [
        ("oncecast-dispatcher", &["--consumers", "127.0.0.1:1"][..]),
        ("oncecast-consumer", &["--listen", "127.0.0.1:0"]),
        ("oncecast-publisher", &["--count", "1"]),
    ] {
        let metrics = format!("127.0.0.1:{}", ports::free_port().expect("a free port"));
        let mut command = programs().command(name).expect("the program is built");
        command.args(["--redis-url", &nobody, "--metrics-addr", &metrics]).args(more);
        let process = ChildProcess::spawn(name, command).expect("it starts");
        process.wait_for_line("started ", DEADLINE).expect("it logs its start");
        let lines = process.stderr().all();
        let place = |part: &str| lines.iter().position(|line| line.contains(part));
        let (served, started) = (place("event=metrics-listening"), place("started "));
        assert!(served.is_some() && served < started, "{lines:?}");
    }
}
